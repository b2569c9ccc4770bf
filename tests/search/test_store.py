"""Reading and searching a library."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from search.libraries import SIZE, STEP, a_file, a_manifest, a_model, content_of, make_library, rows_of, unit_vectors
from vop.errors import UsageError
from vop.search import vector_index as nearest
from vop.search.filters import Filters
from vop.search.results import IndexedVideo
from vop.search.schema import segment_id
from vop.search.store import Store

VIDEOS, SEGMENTS, MANY = 30, 4, 10**9
PATHS = [f"/v/{number % 3}/{number:02d}.mp4" for number in range(VIDEOS)]
VECTORS = unit_vectors(VIDEOS * SEGMENTS, seed=3).reshape(VIDEOS, SEGMENTS, SIZE)
OTHERS = unit_vectors(VIDEOS * SEGMENTS, seed=4).reshape(VIDEOS, SEGMENTS, SIZE)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library with two models. Every second video has an author."""
    folder = tmp_path_factory.mktemp("reading") / "films"
    library = Store.create(folder, a_manifest(a_model(), a_model(1)))
    library.add_columns(["author"])
    for some in (range(20), range(20, VIDEOS)):
        files = [(a_file(PATHS[n], metadata={"author": f"author {n}"} if n % 2 else {}), n) for n in some]
        library.put(pa.concat_tables(rows_of(library, file, VECTORS[n], OTHERS[n]) for file, n in files))
    return library


def naive(vectors: np.ndarray, query: np.ndarray, wanted) -> list[tuple[str, int, float]]:
    """Return path, place and score of each video's best segment, best first."""
    best = []
    for path, own in zip(PATHS, vectors, strict=True):
        if wanted(path):
            scores = [float(sum(vector * query)) for vector in own]
            best.append((path, int(np.argmax(scores)), max(scores)))
    return sorted(best, key=lambda item: -item[2])


KS = pytest.mark.parametrize("k", [1, 7, VIDEOS, VIDEOS + 1, MANY])
FILTERS = pytest.mark.parametrize("folder", [None, "/v/1", "/w"])


def check(library, k: int, folder: str | None, model: int) -> None:
    for query in unit_vectors(5, seed=k % 1000):
        found = library.search(query, k=k, filters=Filters(folder=folder), model=model)
        expected = naive([VECTORS, OTHERS][model], query, lambda path: path.startswith(folder or ""))[:k]
        assert [(moment.path, moment.start_seconds) for moment in found] == [(p, n * STEP) for p, n, _ in expected]
        assert [moment.score for moment in found] == pytest.approx([score for *_, score in expected], abs=1e-6)


@KS
@FILTERS
@pytest.mark.parametrize("model", [0, 1])
def test_searches_in_memory_equal_numpy(library, k, folder, model):
    check(library, k, folder, model)


@KS
@FILTERS
def test_searches_on_disk_equal_numpy(library, monkeypatch, k, folder):
    monkeypatch.setattr(nearest, "EXACT_ROWS", VIDEOS)
    monkeypatch.setattr(library._nearest, "_snapshot", lambda _: pytest.fail("the vectors were read into memory"))
    check(library, k, folder, 1)


@FILTERS
def test_searches_with_an_index_equal_numpy(tmp_path, monkeypatch, folder):
    monkeypatch.setattr(nearest, "EXACT_ROWS", VIDEOS)
    library = Store.create(tmp_path / "library", a_manifest(a_model(), a_model(1)))
    files = [a_file(path) for path in PATHS]
    library.put(pa.concat_tables(map(partial(rows_of, library), files, VECTORS, OTHERS)))
    library.keep_up()
    indexed = [column for index in library.table.list_indices() for column in index.columns]
    assert sorted(indexed) == ["date", "duration_seconds", "embedding_0", "embedding_1", "segment", "video"]
    for k in (1, 7, MANY):
        check(library, k, folder, 0)
        check(library, k, folder, 1)


def test_a_moment_has_every_value(library):
    (moment,) = library.search(VECTORS[7, 2], k=1)
    video = content_of(PATHS[7])
    assert (moment.video, moment.segment) == (video, segment_id(video, (20.0, 30.0)))
    assert (moment.start_seconds, moment.end_seconds, moment.duration_seconds) == (20.0, 30.0, 30.0)
    assert (moment.date, moment.plays_in_browsers) == ("2024-07-01T12:00:00+00:00", True)
    assert (moment.score, moment.columns) == (pytest.approx(1), {"author": "author 7"})


def test_a_video_can_be_left_out(library):
    segment = library.segment(segment_id(content_of(PATHS[4]), (10.0, 20.0)))
    found = library.search(segment.embeddings[0], k=MANY, leave_out=segment.video)
    expected = naive(VECTORS, VECTORS[4, 1], lambda path: path != PATHS[4])
    assert [moment.path for moment in found] == [path for path, *_ in expected]
    filtered = library.search(segment.embeddings[0], k=MANY, leave_out=segment.video, filters=Filters(name="04"))
    assert filtered == []


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(library, k):
    with pytest.raises(UsageError, match=f"k is {k}"):
        library.search(VECTORS[0, 0], k=k)


def test_an_empty_library_has_no_results(tmp_path):
    library = make_library(tmp_path / "empty", [])
    assert library.search(VECTORS[0, 0]) == []
    assert library.search(VECTORS[0, 0], filters=Filters(name="x")) == []
    assert (library.videos(), library.failures(), library.columns) == ({}, [], [])
    counts = {"segments": 0, "videos": 0, "hours": 0, "outdated": 0, "columns": [], "index": None}
    failed = {"failures": 0, "unreadable": 0, "partial": 0, "duplicates": 0}
    assert library.status().to_dict() == counts | failed


def test_a_segment_is_found_by_its_id(library):
    segment = library.segment(segment_id(content_of(PATHS[9]), (30.0, 40.0)))
    assert (segment.path, segment.start_seconds, segment.end_seconds) == (PATHS[9], 30.0, 40.0)
    assert segment.strip == b"strip 3"
    np.testing.assert_array_equal(segment.embeddings, [VECTORS[9, 3], OTHERS[9, 3]])


def test_a_video_is_found_by_its_id(library):
    assert library.video(content_of(PATHS[9])) == IndexedVideo(
        path=PATHS[9], size=1000, mtime_ns=5, duration_seconds=30.0, plays_in_browsers=True
    )


def test_status_and_records_of_videos(library):
    status = library.status()
    assert (status.segments, status.videos, status.columns) == (VIDEOS * SEGMENTS, VIDEOS, ["author"])
    assert status.hours == pytest.approx(VIDEOS * 30 / 3600, abs=1e-3)
    known = library.videos()
    assert sorted(known) == sorted(PATHS)
    assert known[PATHS[3]].video == content_of(PATHS[3])
    assert (known[PATHS[3]].size, known[PATHS[3]].mtime_ns) == (1000, 5)
    assert [known[path].metadata for path in PATHS[2:4]] == [{"author": None}, {"author": "author 3"}]
    rows = library.rows_of([content_of(PATHS[5]), content_of(PATHS[8])], columns=["path", "place"]).to_pylist()
    assert sorted((row["path"], row["place"]) for row in rows) == [(PATHS[n], p) for n in (5, 8) for p in range(4)]
    assert [row["place"] for row in rows] == [0, 1, 2, 3] * 2
