"""Browsing, tags and favourites, and searches by a segment or file together with sentences."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, found, results, scored, search
from server.library_data import CLIPS
from vop.search.queries import EXAMPLE_WEIGHT, weighted_sum

TOKEN = "0123456789abcdef"
DEMO = "/api/libraries/demo"


@pytest.fixture
def moment(library) -> tuple[str, str]:
    """A video of two segments and its second segment. Their tags are removed after the test."""
    (video,) = (video for video in library.browse().videos if video.path.endswith("blue & white.mp4"))
    yield video.video, f"{video.video}-2000-4000"
    library.change_marks(lambda marks: marks.without([video.video]))


class TestBrowse:
    def test_parts_have_every_video_once(self, client, library):
        names, start = [], ""
        while start is not None:
            part = client.get(f"{DEMO}/videos", params={"k": 2, "start": start}).json()
            assert part["total"] == len(CLIPS)
            names += [result["name"] for result in part["results"]]
            start = part["next"]
        assert names == [video.path.rpartition("/")[2] for video in library.browse().videos]
        assert len(names) == len(CLIPS)

    def test_a_video_has_the_fields_of_a_result(self, client, library, moment):
        _, segment = moment
        (result,) = results(client.get(f"{DEMO}/videos", params={"name": "blue*"}))
        assert (result["start_seconds"], result["end_seconds"], result["score"]) == (0, 4, 0)
        assert result["strip_url"] == f"{DEMO}/segments/{segment}/strip.jpg"
        assert (result["tags"], result["is_favourite"], result["place"]) == ([], False, None)
        assert client.get(result["media_url"]).status_code == 200

    def test_orders_filters_and_jumps(self, client):
        oldest = results(client.get(f"{DEMO}/videos", params={"order": "oldest"}))
        assert results(client.get(f"{DEMO}/videos", params={"folder": ""})) == oldest[::-1]
        assert results(client.get(f"{DEMO}/videos", params={"order": "oldest", "skip": 2, "k": 1})) == oldest[2:3]
        assert len(results(client.get(f"{DEMO}/videos", params={"folder": "old"}))) == 2

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"order": "match"}, "order is 'match'"),
            ({"k": 0}, "k is '0'"),
            ({"start": "x"}, "'x' is not the `next`"),
            ({"q": "a dog"}, "unknown parameter 'q'"),
            ({"near": "1,2"}, "near is '1,2'"),
            ({"favourites": "perhaps"}, "favourites is 'perhaps'"),
        ],
    )
    def test_invalid_parameters_are_refused(self, client, params, words):
        assert words in detail(client.get(f"{DEMO}/videos", params=params), 422)

    def test_folders(self, client, clips):
        folder = clips["red.mp4"].parent
        (root,) = client.get(f"{DEMO}/folders").json()["folders"]
        assert root == {"path": str(folder), "name": folder.name, "videos": 3, "total": 5, "has_folders": True}
        (old,) = client.get(f"{DEMO}/folders", params={"parent": root["path"]}).json()["folders"]
        assert (old["name"], old["total"], old["has_folders"]) == ("old", 2, False)
        assert "no videos below" in detail(client.get(f"{DEMO}/folders", params={"parent": "/none"}), 422)
        assert "'none'" in detail(client.get("/api/libraries/none/folders"), 404)


class TestMarks:
    def test_tags_and_favourites_of_a_moment_and_its_video(self, client, moment):
        video, segment = moment
        client.put(f"{DEMO}/marks/{video}/tags/sea")
        state = client.put(f"{DEMO}/marks/{segment}/tags/a/b é").json()
        assert state == {
            "tags": ["a/b é", "sea"],
            "is_favourite": False,
            "video_tags": ["sea"],
            "is_video_favourite": False,
        }
        assert client.put(f"{DEMO}/marks/{segment}/favourite").json()["is_favourite"]
        assert client.get(f"{DEMO}/marks/{segment}").json()["tags"] == ["a/b é", "sea"]
        assert client.get(f"{DEMO}/marks/{video}").json()["tags"] == ["sea"]
        tags = client.get(f"{DEMO}/tags").json()
        assert tags == {"tags": [{"tag": "a/b é", "count": 1}, {"tag": "sea", "count": 1}], "favourites": 1}
        (result,) = results(search(client, "x", tag=["SEA", "a/b é"], favourites="yes"))
        assert (result["segment"], result["tags"], result["is_favourite"]) == (segment, ["a/b é", "sea"], True)
        assert len(results(search(client, "x", favourites="", tag=""))) == len(CLIPS)
        client.delete(f"{DEMO}/marks/{segment}/tags/SEA")  # it is the video's
        client.delete(f"{DEMO}/marks/{segment}/tags/a/b%0Aé")  # line breaks are spaces in a tag
        assert client.delete(f"{DEMO}/marks/{segment}/favourite").json()["tags"] == ["sea"]
        marks = client.get(f"{DEMO}/marks").json()["marks"]
        assert [(mark["video"], mark["start_seconds"], mark["tags"]) for mark in marks] == [(video, None, ["sea"])]

    def test_a_moment_may_have_its_own_times(self, client, moment):
        video, _ = moment
        times = {"start_seconds": 1.25, "end_seconds": 2.5}
        assert client.put(f"{DEMO}/marks/{video}/favourite", params=times).json()["is_favourite"]
        (mark,) = client.get(f"{DEMO}/marks").json()["marks"]
        assert (mark["start_seconds"], mark["end_seconds"]) == (1.25, 2.5)
        assert "give times from 0 to 4 s" in detail(client.put(f"{DEMO}/marks/{video}/favourite?start_seconds=9"), 422)
        assert client.delete(f"{DEMO}/marks/{video}/favourite", params=times).json()["is_favourite"] is False

    def test_unknown_ids_and_invalid_tags_are_refused(self, client, moment):
        for id in ("0" * 32, "none", f"{'0' * 32}-0-1000"):
            detail(client.put(f"{DEMO}/marks/{id}/favourite"), 404)
        for tag in ("a;b", "%0A", ""):
            assert "cannot be a tag" in detail(client.put(f"{DEMO}/marks/{moment[0]}/tags/{tag}"), 422)
        assert client.get(f"{DEMO}/marks").json() == {"marks": []}

    def test_other_sites_and_clients_without_the_token_are_refused(self, library, moment):
        url = f"{DEMO}/marks/{moment[0]}/favourite"
        with TestClient(app_of(library, token=TOKEN)) as client:
            for method in ("PUT", "DELETE"):
                assert client.request(method, url).status_code == 401
                bearer = {"Authorization": f"Bearer {TOKEN}"}
                assert (
                    client.request(method, url, headers=bearer | {"Origin": "https://evil.example"}).status_code == 403
                )
                assert client.request(method, url, headers=bearer | {"Origin": "http://testserver"}).status_code == 200
        assert library.marks.all == ()

    def test_a_read_only_server_changes_nothing(self, library, moment):
        with TestClient(app_of(library, read_only=True)) as client:
            assert "read-only" in detail(client.put(f"{DEMO}/marks/{moment[0]}/tags/x"), 403)
            assert "read-only" in detail(client.delete(f"{DEMO}/marks/{moment[0]}/favourite"), 403)
            assert client.get(f"{DEMO}/tags").json() == {"tags": [], "favourites": 0}
            assert client.get("/api/state").json()["limits"]["read_only"] is True


class TestExamplesWithSentences:
    @pytest.mark.parametrize("weight", [None, -0.25])
    def test_a_segment_and_sentences(self, client, library, models, moment, weight):
        video, segment = moment
        example = library.segment(segment).embeddings[0]
        text = models[0].encode_text(["a red ball", "a park"]).numpy()
        used = EXAMPLE_WEIGHT if weight is None else weight
        wanted = library.search(weighted_sum(np.stack([*text, example]), [1, 0.5, used]), k=20, leave_out=video)
        params = {"q": ["a red ball", "a park"], "w": [1, 0.5]} | ({} if weight is None else {"weight": weight})
        assert found(client.get(f"/api/views/demo/like/{segment}", params=params)) == scored(wanted)
        assert found(client.get(f"/api/views/demo/like/{segment}")) != scored(wanted)

    def test_a_file_and_sentences(self, client, library, models, clips):
        from server.library_data import NUM_FRAMES
        from vop.search.queries import embed_frames
        from vop.video.frames import read_frames

        model = models[0]
        frames = read_frames(clips["red.mp4"], num_frames=NUM_FRAMES, size=model.image_size)
        vectors = np.stack([model.encode_text(["a park"]).numpy()[0], embed_frames(model, frames)])
        wanted = library.search(weighted_sum(vectors, [1, 2]), k=20)
        upload = {"file": ("red.mp4", clips["red.mp4"].read_bytes())}
        answer = client.post("/api/views/demo/search/file", files=upload, params={"q": "a park", "weight": 2})
        assert found(answer) == scored(wanted)

    def test_invalid_sentences_are_refused(self, client, moment):
        url = f"/api/views/demo/like/{moment[1]}"
        assert "empty sentence" in detail(client.get(url, params={"q": " "}), 422)
        assert "all weights" in detail(client.get(url, params={"q": "a", "w": 0, "weight": 0}), 422)
        assert detail(client.get(f"/api/views/demo/like/{'0' * 32}-0-1000", params={"q": "a"}), 404)

    def test_results_by_date(self, client, moment):
        for url in ("/api/views/demo/search?q=x", f"/api/views/demo/like/{moment[1]}?k=9"):
            best, newest = results(client.get(url)), results(client.get(f"{url}&order=newest"))
            assert sorted(newest, key=lambda one: one["date"], reverse=True) == newest
            assert {one["segment"] for one in newest} == {one["segment"] for one in best}
