"""Searches of what is spoken and written, and the lines of a video."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import CLIPS


@pytest.fixture(scope="module")
def client(spoken):
    with TestClient(app_of(spoken)) as client:
        yield client


def test_words_only(client):
    (found,) = results(search(client, '"good morning"', view="spoken"))
    assert (found["name"], found["matched"], found["score"]) == ("red.mp4", ["heard"], 1.0)
    assert found["line"] == {
        "text": "Good morning, walrus",
        "start_seconds": 0.25,
        "end_seconds": 0.75,
        "source": "speech",
    }
    found = results(search(client, "the walruses", view="spoken", words="only"))
    assert {(one["name"], *one["matched"]) for one in found} == {("red.mp4", "heard"), ("grey.webm", "written")}
    assert results(search(client, "a lion", view="spoken", words="only")) == []


def test_all_moments_of_a_video(client):
    """Its lines are moments, too."""
    (red,) = results(search(client, '"good morning"', view="spoken"))
    path = f"/api/views/spoken/videos/{red['video']}/moments"
    (only,) = results(client.get(path, params={"q": "walrus", "words": "only"}))
    assert (only["line"], only["matched"], only["score"]) == (red["line"], ["heard"], 1.0)
    (quoted,) = results(client.get(path, params={"q": '"good morning"'}))
    assert quoted["line"] == red["line"]
    (both,) = results(client.get(path, params={"q": "good morning"}))
    assert (both["line"], both["matched"]) == (red["line"], ["seen", "heard"])
    (seen,) = results(client.get(path, params={"q": "good morning", "words": "none"}))
    assert (seen["line"], seen["matched"], seen["segment"]) == (None, ["seen"], both["segment"])
    assert results(client.get(path, params={"q": "a lion", "words": "only"})) == []
    assert detail(client.get(path, params={"q": "", "words": "only"}), 422)


def test_pictures_and_words(client):
    both = results(search(client, "good morning", view="spoken"))
    assert len(both) == len(CLIPS)
    assert (both[0]["name"], both[0]["matched"]) == ("red.mp4", ["seen", "heard"])
    plain = results(search(client, "good morning", view="spoken", words="none"))
    assert {one["line"] for one in plain} == {None}
    assert sorted(one["score"] for one in plain) == pytest.approx(sorted(one["score"] for one in both), abs=1e-5)
    assert detail(search(client, "x", view="spoken", words="all"), 422)
    assert detail(search(client, "", view="spoken", words="only"), 422)


def test_lines(client, spoken):
    (video,) = [record.video for path, record in spoken.videos().items() if path.endswith("grey.webm")]
    answer = client.get(f"/api/libraries/spoken/videos/{video}/lines").json()
    assert [line["text"] for line in answer["lines"]] == ["a walrus sleeps"]
    assert detail(client.get(f"/api/libraries/spoken/videos/{'0' * 32}/lines"), 404)
