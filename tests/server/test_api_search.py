"""Searches by sentences and by a segment."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from server.api_steps import app_of, detail, found, results, scored, search
from server.library_data import CLIPS
from vop.search import vector_index
from vop.search.confidence import WEAK_BELOW
from vop.search.near_copies import SAME, NearCopies, Pair
from vop.search.queries import Sentence, embed_sentences
from vop.search.store import Store
from vop.search.sync.calibrating import calibrate


@pytest.fixture
def calibrated(library, tmp_path):
    """A client of a calibrated copy of the library."""
    copy = Store.open(shutil.copytree(library.path, tmp_path / "demo"))
    calibrate(copy)
    with TestClient(app_of(copy)) as client:
        yield client


def test_sentences_have_a_confidence(calibrated):
    found = results(search(calibrated, "a red ball"))
    shares = [result["confidence"] for result in found]
    assert shares == sorted(shares, reverse=True)
    assert [result["is_weak"] for result in found] == [share < WEAK_BELOW for share in shares]
    assert shares[0] > shares[-1]
    best = [result for result in found if result["confidence"] >= shares[0]]
    assert results(search(calibrated, "a red ball", min_confidence=shares[0])) == best
    address = f"/api/views/demo/videos/{found[0]['video']}/moments"
    assert results(calibrated.get(address, params={"q": "a red ball"}))[0]["confidence"] == shares[0]
    like = results(calibrated.get(f"/api/views/demo/like/{found[0]['segment']}"))
    assert {(result["confidence"], result["is_weak"]) for result in like} == {(None, False)}


def test_min_confidence_says_that_the_library_is_not_calibrated(client):
    response = search(client, "a red ball", min_confidence=1)
    assert len(results(response)) == len(CLIPS)
    assert ["`vop index`" in note for note in response.json()["notes"]] == [True]


class TestSearch:
    def test_a_sentence_gives_the_results_of_the_library(self, client, library, models):
        for number, view in enumerate(["demo", "demo.2"]):
            vector = embed_sentences(models[number], [Sentence("a red ball")])
            wanted = library.search(vector, k=20, model=number)
            assert found(search(client, "a red ball", view=view)) == scored(wanted)
        assert len(wanted) == len(CLIPS)

    def test_a_result_has_every_field(self, client, clips):
        response = search(client, "a red ball").json()
        assert set(response) == {"results", "seconds", "notes"}
        assert response["notes"] == []
        by_name = {result["name"]: result for result in response["results"]}
        red = by_name["red.mp4"]
        assert red["path"] == str(clips["red.mp4"])
        assert (red["start_seconds"], red["end_seconds"], red["duration_seconds"]) == (0, 1, 1)
        assert red["date"] == "2024-05-01T10:00:00+00:00"
        assert red["columns"] == {"author": "bob", "stars": "5"}
        assert red["media_url"] == f"/api/libraries/demo/videos/{red['video']}"
        yellow = by_name["yellow.avi"]
        start, end = yellow["start_seconds"], yellow["end_seconds"]
        assert yellow["media_url"].endswith(f"{yellow['video']}/moment.mp4?start_seconds={start}&end_seconds={end}")
        assert yellow["media_start_seconds"] == 0
        blue = by_name["blue & white.mp4"]
        assert blue["media_start_seconds"] == blue["start_seconds"]

    @pytest.mark.parametrize(("memory_bytes", "kept"), [(None, True), (0, False)])
    def test_a_large_library_is_searched_in_memory(self, library, models, monkeypatch, memory_bytes, kept):
        expected = scored(library.search(embed_sentences(models[0], [Sentence("a red ball")]), k=20))
        monkeypatch.setattr(vector_index, "EXACT_ROWS", 2)
        app = app_of(library, memory_bytes=memory_bytes)
        (served,) = app.state.services.libraries.by_name.values()
        while loader := served.library._nearest._loader:
            loader.join()
        with TestClient(app) as client:
            assert found(search(client, "a red ball")) == expected
        assert bool(served.library._nearest._loaded) is kept

    def test_weights_are_applied(self, client, library, models):
        wanted = library.search(embed_sentences(models[0], [Sentence("a dog", 1), Sentence("a park", -0.5)]), k=20)
        assert found(search(client, "a dog", "a park", w=[1, -0.5])) == scored(wanted)
        assert scored(wanted) != scored(
            library.search(embed_sentences(models[0], [Sentence("a dog"), Sentence("a park")]), k=20)
        )

    def test_k_and_filters_are_applied(self, client):
        assert len(results(search(client, "a dog", k=2))) == 2
        assert {result["name"] for result in results(search(client, "x", folder="old"))} == {"yellow.avi", "grey.webm"}
        assert {result["name"] for result in results(search(client, "x", where=["author=bob", "stars>=4"]))} == {
            "red.mp4"
        }
        assert len(results(search(client, "x", min_seconds=2))) == 2

    def test_empty_parameters_are_ignored(self, client):
        empty = dict.fromkeys(["folder", "name", "min_seconds", "max_seconds", "after", "before", "where"], "")
        assert found(search(client, "a dog", **empty)) == found(search(client, "a dog"))

    @pytest.mark.parametrize("text", ["🐶🎾", "ein Hund läuft", "犬", "a" * 5000, "'; DROP TABLE segments; --", "\x00"])
    def test_any_text_has_results(self, client, text):
        assert len(results(search(client, text))) == len(CLIPS)

    def test_a_truncated_sentence_gives_a_note(self, client):
        response = search(client, "w " * 10_000)
        assert len(results(response)) == len(CLIPS)
        assert "only the first 32 tokens of “w w w" in response.json()["notes"][0]

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"q": []}, "the query is empty"),
            ({"q": ["  "]}, "empty sentence, '  '"),
            ({"q": ["a"], "k": 0}, "k is '0': input should be greater than or equal to 1"),
            ({"q": ["a"], "k": 10**9}, "k is '1000000000': input should be less than or equal to 1000"),
            ({"q": ["a"], "min_confidence": 1.5}, "min_confidence is '1.5'"),
            ({"q": ["a"], "k": "many"}, "k is 'many'"),
            ({"q": ["a", "b"], "w": [1]}, "w has 1 weight, but q has 2 sentences"),
            ({"q": ["a"], "w": ["nan"]}, "w.0 is 'nan'"),
            ({"q": ["a"], "w": ["1e300"]}, "w.0 is '1e300'"),
            ({"q": ["a"], "w": [0]}, "all weights of the query are 0"),
            ({"q": ["a"] * 33}, "at most 32"),
            ({"q": ["a"], "min_second": 3}, "'min_second'"),
            ({"q": ["a"], "min_seconds": -1}, "min_seconds is -1.0"),
            ({"q": ["a"], "max_seconds": "inf"}, "max_seconds is inf"),
            ({"q": ["a"], "after": "yesterday"}, "after is 'yesterday'"),
            ({"q": ["a"], "where": "author"}, "the condition 'author'"),
            ({"q": ["a"], "where": "autor=bob"}, "did you mean author"),
        ],
    )
    def test_invalid_requests_name_the_value(self, client, params, words):
        sentence = detail(client.get("/api/views/demo/search", params=params), 422)
        assert words in sentence
        assert len(sentence) < 300

    @pytest.mark.parametrize("weight", [1e-320, -1e-9])
    def test_tiny_weights_count_as_zero(self, client, weight):
        assert "all weights of the query are 0" in detail(search(client, "a", w=[weight]), 422)

    def test_unknown_views_get_404(self, client):
        assert detail(search(client, "a", view="dem"), 404).startswith("unknown view 'dem': did you mean demo")
        assert "'demo.3'" in detail(search(client, "a", view="demo.3"), 404)


def test_other_sentences_do_not_change_an_embedding(client):
    """A sentence has the same results alone and with another one."""
    alone = results(search(client, "a cat"))
    together = results(search(client, "a cat", "something much longer, with many more words in it", w=[1, 0]))
    assert [one["segment"] for one in alone] == [one["segment"] for one in together]
    np.testing.assert_allclose([one["score"] for one in alone], [one["score"] for one in together], atol=1e-5)


class TestLike:
    def test_results_omit_the_video_itself(self, client, library):
        segment = search(client, "a dog").json()["results"][0]["segment"]
        of = library.segment(segment)
        for number, view in enumerate(["demo", "demo.2"]):
            wanted = library.search(of.embeddings[number], k=3, model=number, leave_out=of.video)
            assert found(client.get(f"/api/views/{view}/like/{segment}", params={"k": 3})) == scored(wanted)
            assert of.video not in {moment.video for moment in wanted}

    @pytest.mark.parametrize("segment", ["0" * 32 + "-0-1000", "x", "' OR 1=1", "%2e%2e%2f"])
    def test_unknown_segments_get_404(self, client, segment):
        assert detail(client.get(f"/api/views/demo/like/{segment}"), 404)


def test_near_duplicates_stand_behind_the_best_one(client, library, monkeypatch):
    everything = results(search(client, "a red ball", k=5))
    first, second, *others = everything
    near = NearCopies.of([Pair(second["video"], first["video"], SAME, 0.0)])
    monkeypatch.setattr(Store, "near_copies", lambda self: near)
    collapsed = results(search(client, "a red ball", k=4))
    assert [one["copies"] for one in collapsed] == [[second["path"]], [], [], []]
    assert [one["path"] for one in collapsed] == [one["path"] for one in (first, *others)]
    assert results(search(client, "a red ball", k=5, copies=True)) == everything
    like = client.get(f"/api/views/demo/like/{others[0]['segment']}").json()["results"]
    assert sum(len(one["copies"]) for one in like) == 1


class TestMoments:
    """All moments of one video, and several in a search."""

    def test_several_moments_of_a_video(self, client, library, models):
        vector = embed_sentences(models[0], [Sentence("a red ball")])
        assert found(search(client, "a red ball", per_video=5)) == scored(library.search(vector, k=20, per_video=5))

    def test_by_sentences_and_by_a_segment(self, client, library, models):
        best = results(search(client, "a red ball", name="blue"))[0]
        vector = embed_sentences(models[0], [Sentence("a red ball")])
        address = f"/api/views/demo/videos/{best['video']}/moments"
        response = client.get(address, params={"q": "a red ball"})
        wanted = library.moments(vector, best["video"])
        assert found(response) == scored(wanted.moments)
        assert [one["score"] for one in response.json()["segments"]] == pytest.approx(
            [segment.score for segment in wanted.segments], abs=1e-5
        )
        assert response.json()["floor"] == pytest.approx(wanted.floor, abs=1e-5)
        like = client.get(address, params={"like": best["segment"]})
        assert found(like) == scored(
            library.moments(library.segment(best["segment"]).embeddings[0], best["video"]).moments
        )

    @pytest.mark.parametrize(
        ("params", "words", "status"),
        [
            ({"q": ["a"], "like": "x"}, "give only one", 422),
            ({}, "the query is empty", 422),
            ({"like": "x"}, "'x' is not the id of a segment", 404),
            ({"q": ["a"], "k": 3}, "'k'", 422),
        ],
    )
    def test_invalid_requests(self, client, params, words, status):
        video = results(search(client, "a red ball"))[0]["video"]
        assert words in detail(client.get(f"/api/views/demo/videos/{video}/moments", params=params), status)

    def test_unknown_videos_get_404(self, client):
        assert detail(client.get(f"/api/views/demo/videos/{'0' * 32}/moments", params={"q": "a"}), 404)
