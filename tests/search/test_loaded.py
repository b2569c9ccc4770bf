"""Searches of a large library in memory, compared with NumPy."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from search.libraries import SIZE, a_file, a_manifest, a_model, content_of, rows_of, unit_vectors
from vop.errors import UsageError
from vop.search import loaded, vector_index
from vop.search.filters import Filters
from vop.search.loaded import Candidates, LoadedTable, Together, fits, loads
from vop.search.store import Store
from vop.search.vector_index import Indexed

VIDEOS, SEGMENTS = 60, 4
PATHS = [f"/v/{number % 3}/{number:02d}.mp4" for number in range(VIDEOS)]
VECTORS = unit_vectors(VIDEOS * SEGMENTS, seed=3).reshape(VIDEOS, SEGMENTS, SIZE)
ALL, LIGHT_ONLY = 2**30, loaded._ROW_BYTES * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An indexed library of several files, with rows that are not in the index and deleted ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "EXACT_ROWS", VIDEOS)
        library = Store.create(tmp_path_factory.mktemp("loaded") / "library", a_manifest(a_model()))
        library.add_columns(["stars"])
        files = [a_file(path, metadata={"stars": str(n % 5)}) for n, path in enumerate(PATHS)]
        gone = a_file("/v/gone.mp4", metadata={})
        rows = [*map(partial(rows_of, library), files, VECTORS)]
        library.put(pa.concat_tables([rows_of(library, gone, VECTORS[0]), *rows[:50]]))
        library.keep_up()
        library.put(pa.concat_tables(rows[50:]))
        library.remove(["/v/gone.mp4"])
    return library.path


@pytest.fixture(params=["compared", "index", "index and table"])
def library(folder, request, monkeypatch):
    """The library in memory: all rows are compared, or the index is used, with vectors in memory or in the table."""
    monkeypatch.setattr(vector_index, "EXACT_ROWS", VIDEOS)
    if request.param != "compared":
        monkeypatch.setattr(loaded, "_COMPARED", 20)
        monkeypatch.setattr(loaded, "_COMPARED_IN_TABLE", 20)
    return in_memory(folder, LIGHT_ONLY if request.param == "index and table" else ALL)


def in_memory(folder, max_bytes: int) -> Store:
    library = Store.open(folder)
    library.keep_in_memory(max_bytes)
    wait(library)
    return library


def wait(library: Store) -> None:
    while loader := library._nearest._loader:
        loader.join()


def the_table(library: Store) -> LoadedTable:
    (found,) = library._nearest._loaded.values()
    return found


def naive(query: np.ndarray, wanted=lambda number: True) -> list[tuple[str, int]]:
    """Return the path and place of each video's best segment, best first."""
    scores = VECTORS @ query
    numbers = sorted(filter(wanted, range(VIDEOS)), key=lambda number: -scores[number].max())
    return [(PATHS[number], int(scores[number].argmax())) for number in numbers]


def found_by(library: Store, query: np.ndarray, k: int, **options) -> list[tuple[str, int]]:
    moments = library.search(query, k=k, **options)
    scores = [float(VECTORS[PATHS.index(moment.path)][round(moment.start_seconds / 10)] @ query) for moment in moments]
    assert [moment.score for moment in moments] == pytest.approx(scores, abs=1e-6)
    return [(moment.path, round(moment.start_seconds / 10)) for moment in moments]


FILTERS = {
    "none": (None, lambda number: True),
    "many": (Filters(where=["stars>=1"]), lambda number: number % 5 >= 1),
    "a third": (Filters(folder="/v/1"), lambda number: number % 3 == 1),
    "few": (Filters(name="07*"), lambda number: number == 7),
    "no videos": (Filters(name="7.avi"), lambda number: False),
}


@pytest.mark.parametrize("k", [1, 7, VIDEOS, VIDEOS + 1])
@pytest.mark.parametrize("condition", FILTERS)
def test_searches_equal_numpy(library, condition, k):
    filters, wanted = FILTERS[condition]
    for query in unit_vectors(5, seed=k):
        assert found_by(library, query, k, filters=filters) == naive(query, wanted)[:k]


@pytest.mark.parametrize("k", [1, VIDEOS])
def test_a_video_is_left_out(library, k):
    expected = naive(VECTORS[4, 1], lambda number: number != 4)
    assert found_by(library, VECTORS[4, 1], k, leave_out=content_of(PATHS[4])) == expected[:k]
    assert found_by(library, VECTORS[4, 1], 1, leave_out="0" * 32) == [(PATHS[4], 1)]


def test_columns_come_from_memory(library, monkeypatch):
    expected = library.search(VECTORS[7, 2], k=3)
    monkeypatch.setattr(Indexed, "search", lambda *_, **__: pytest.fail("the columns were read"))
    moments = library.search(VECTORS[7, 2], k=3)
    assert moments == expected
    assert (moments[0].columns, moments[0].date) == ({"stars": "2"}, "2024-07-01T12:00:00+00:00")


def test_a_changed_library_is_searched_on_disk_and_loaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 5)
    monkeypatch.setattr("vop.search.nearest._LOAD_PAUSE", 0.0)
    monkeypatch.setattr("vop.search.nearest._LOAD_SHARE", 0.0)
    writer = Store.create(tmp_path / "library", a_manifest(a_model()))
    writer.put(pa.concat_tables(rows_of(writer, a_file(PATHS[n]), VECTORS[n]) for n in (0, 1)))
    library = in_memory(writer.path, ALL)
    before = the_table(library)
    writer.put(rows_of(writer, a_file(PATHS[9]), VECTORS[9]))
    assert library.search(VECTORS[9, 0], k=1)[0].path == PATHS[9]
    wait(library)
    assert library.search(VECTORS[9, 0], k=1)[0].path == PATHS[9]
    assert the_table(library).version > before.version
    assert (len(before), len(the_table(library))) == (8, 12)


def test_a_shared_search_of_the_index_equals_single_ones(library):
    table = the_table(library)
    asked = [Candidates(query, limit, 80) for query in unit_vectors(3, seed=9) for limit in (5, 9)]
    asked.append(Candidates(unit_vectors(1, seed=8)[0], 5, 80, is_exact=True))
    for one, (positions, distances) in zip(asked, table._candidates_of(asked), strict=True):
        ((expected, same),) = table._candidates_of([one])
        assert positions.tolist() == expected.tolist()
        np.testing.assert_allclose(distances, same, atol=1e-6)
        assert len(positions) == one.limit


def test_queries_that_wait_share_a_call():
    started, go_on, calls = threading.Event(), threading.Event(), []

    def compute(items):
        calls.append(list(items))
        started.set()
        go_on.wait(10)
        if 3 in items:
            raise UsageError("3")
        return [10 * item for item in items]

    together, results = Together(compute, most=4), {}

    def ask(item):
        try:
            results[item] = together(item)
        except UsageError as error:
            results[item] = str(error)

    threads = [threading.Thread(target=ask, args=(0,))]
    threads[0].start()
    started.wait(10)
    for item in (1, 2, 3, 4, 5):
        threads.append(threading.Thread(target=ask, args=(item,)))
        threads[-1].start()
        while len(together._waiting) < item:
            pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert calls == [[0], [1, 2, 3, 4], [5]]
    assert results == {0: 0, 1: "3", 2: "3", 3: "3", 4: "3", 5: 50}


def test_what_fits():
    assert fits(1000, 512, max_bytes=1000 * (4 * 512 + loaded._ROW_BYTES))
    assert not fits(1000, 512, max_bytes=1000 * 4 * 512)
    assert loads(1000, max_bytes=1000 * loaded._ROW_BYTES)
    assert not loads(1001, max_bytes=1000 * loaded._ROW_BYTES)
