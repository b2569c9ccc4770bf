"""The exact scan and the vector index, compared with a sort of all scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lancedb.index import HnswSq

from vop.search import vector_index as nearest
from vop.search.vector_index import Exact, Indexed, build_index, keep_up, needs_index, visited_partitions

WIDTH, ROWS = 32, 3000


def naive(matrix: np.ndarray, query: np.ndarray, limit: int, allowed=None) -> list[int]:
    """Return the best positions, by score and then by position."""
    scores = matrix @ query
    positions = [place for place in range(len(matrix)) if allowed is None or allowed[place]]
    return sorted(positions, key=lambda place: (-scores[place], place))[:limit]


def clustered(rows: int, *, seed: int) -> np.ndarray:
    """Return unit vectors (rows, WIDTH) around 40 centres, which are the same for every seed."""
    centres = np.random.default_rng(7).standard_normal((40, WIDTH))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, 40, rows)] + 0.6 * random.standard_normal((rows, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(vectors: np.ndarray, first: int = 0) -> pa.Table:
    numbers = np.arange(first, first + len(vectors))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({"number": numbers, "tenth": numbers % 10, "embedding_0": column})


def numbers(found: pa.Table) -> list[int]:
    return found.column("number").to_pylist()


def search(table, query: np.ndarray, limit: int, where: str | None = None) -> pa.Table:
    return indexed(table).search("embedding_0", query, limit=limit, where=where, columns=["number"])


def indexed(table) -> Indexed:
    folder = Path(table.uri)
    return Indexed(str(folder.parent), {}, table=folder.stem)


def index_of(table):
    return table.index_stats("embedding_0_idx")


VECTORS, QUERIES = clustered(ROWS, seed=0), clustered(50, seed=1)


@pytest.fixture
def plain(tmp_path):
    """A table without an index."""
    return lancedb.connect(tmp_path / "database").create_table("segments", rows_of(VECTORS))


@pytest.fixture(scope="module")
def partitioned(tmp_path_factory) -> Path:
    """A database with an index of 100 partitions, which no test changes."""
    folder = tmp_path_factory.mktemp("partitioned") / "database"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_PARTITION_ROWS", ROWS // 100)
        build_index(lancedb.connect(folder).create_table("segments", rows_of(VECTORS)), "embedding_0")
    return folder


@pytest.fixture(params=[(100, 250), (40, 250), (15, 25)], ids=["all partitions", "some", "more than of fewer"])
def table(partitioned, tmp_path, request, monkeypatch):
    """A table with an index. A search visits so many of so many partitions."""
    monkeypatch.setattr(nearest, "_PARTITION_ROWS", ROWS // 100)
    monkeypatch.setattr(nearest, "_VISITED", request.param)
    return lancedb.connect(shutil.copytree(partitioned, tmp_path / "partitioned")).open_table("segments")


class TestExact:
    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_equals_a_sort(self, data):
        """Small whole numbers, so that many scores tie and are exact."""
        rows, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
        numbers = st.lists(st.integers(-2, 2), min_size=width, max_size=width)
        matrix = np.array(data.draw(st.lists(numbers, min_size=rows, max_size=rows)), np.float32)
        query = np.array(data.draw(numbers), np.float32)
        mask = data.draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array))
        limit = data.draw(st.integers(1, 40))
        positions, scores = Exact(matrix).search(query, limit, mask)
        assert positions.tolist() == naive(matrix, query, limit, mask)
        assert scores.tolist() == (matrix @ query)[positions].tolist()

    def test_no_rows_give_no_results(self):
        positions, scores = Exact(np.empty((0, 4), np.float32)).search(np.ones(4, np.float32), 3)
        assert len(positions) == len(scores) == 0

    def test_an_empty_mask_gives_no_results(self):
        positions, _ = Exact(VECTORS).search(QUERIES[0], 3, np.zeros(ROWS, bool))
        assert len(positions) == 0


class TestSearchIndex:
    def test_finds_the_nearest(self, table):
        found = [set(numbers(search(table, query, 10))) for query in QUERIES]
        right = [len(these & set(naive(VECTORS, query, 10))) for these, query in zip(found, QUERIES, strict=True)]
        assert sum(right) / (10 * len(QUERIES)) >= 0.95

    @pytest.mark.parametrize("limit", [1, 3, 60])
    def test_scores_are_exact_and_sorted(self, table, limit):
        for query in QUERIES[:5]:
            found = search(table, query, limit)
            assert found.column_names == ["number", "_score"]
            scores = found.column("_score").to_numpy()
            assert len(scores) == limit
            np.testing.assert_allclose(scores, (VECTORS @ query)[numbers(found)], atol=1e-5)
            assert (np.diff(scores) <= 0).all()

    def test_distinguishes_vectors_with_equal_codes(self, plain):
        """The index cannot, so the search compares full vectors."""
        close = VECTORS[0] + 1e-3 * np.random.default_rng(3).standard_normal((40, WIDTH)).astype(np.float32)
        close /= np.linalg.norm(close, axis=1, keepdims=True)
        plain.add(rows_of(close, first=ROWS))
        build_index(plain, "embedding_0")
        assert [numbers(search(plain, vector, 1)) for vector in close] == [[ROWS + place] for place in range(40)]

    def test_returns_the_requested_columns(self, table):
        found = indexed(table).search("embedding_0", QUERIES[0], limit=2, columns=["tenth", "number"])
        assert found.column_names == ["tenth", "number", "_score"]

    def test_the_limit_may_exceed_the_rows(self, table):
        assert sorted(numbers(search(table, QUERIES[0], ROWS + 5))) == list(range(ROWS))

    def test_large_limits_scan_all_rows(self, table, monkeypatch):
        monkeypatch.setattr(nearest, "_MOST_REFINED", 99)
        assert numbers(search(table, QUERIES[0], 100)) == naive(VECTORS, QUERIES[0], 100)

    def test_finds_added_rows(self, table):
        opened = indexed(table)
        new = clustered(20, seed=2)
        table.add(rows_of(new, first=ROWS))
        for place, query in enumerate(new):
            found = opened.search("embedding_0", query, limit=1, columns=["number"])
            assert numbers(found) == [ROWS + place]
            assert found.column("_score")[0].as_py() == pytest.approx(1, abs=1e-5)

    def test_omits_deleted_rows(self, table):
        first = naive(VECTORS, QUERIES[0], 5)
        table.delete(f"number IN ({', '.join(map(str, first))})")
        assert not set(first) & set(numbers(search(table, QUERIES[0], 20)))
        assert len(search(table, QUERIES[0], ROWS)) == ROWS - 5

    @pytest.mark.parametrize("where", ["tenth = 3", "number < 40", "number < 3", "number < 0"])
    def test_applies_a_condition(self, table, where):
        table.add(rows_of(clustered(20, seed=2), first=ROWS))
        matching = table.count_rows(where)
        for query in QUERIES[:10]:
            allowed = numbers(table.search().where(where).select(["number"]).to_arrow())
            found = numbers(search(table, query, 10, where))
            assert len(found) == len(set(found)) == min(10, matching)
            assert set(found) <= set(allowed)

    def test_finds_the_nearest_with_a_condition(self, table):
        allowed = np.arange(ROWS) % 10 == 3
        right = [
            len(set(numbers(search(table, query, 10, "tenth = 3"))) & set(naive(VECTORS, query, 10, allowed)))
            for query in QUERIES
        ]
        assert sum(right) / (10 * len(QUERIES)) >= 0.95

    @pytest.mark.parametrize(
        ("candidates", "compared"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)], ids=["index", "rows", "candidates"]
    )
    @pytest.mark.parametrize(
        "where", ["tenth > 0", "tenth < 5", "tenth = 3", "number < 40", "number < 3", "number < 0"]
    )
    def test_every_way_of_meeting_a_condition_finds_the_nearest(self, table, monkeypatch, where, candidates, compared):
        monkeypatch.setattr(nearest, "_CANDIDATES_SHARE", candidates)
        monkeypatch.setattr(nearest, "_COMPARED_SHARE", compared)
        met = set(numbers(table.search().where(where).select(["number"]).to_arrow()))
        allowed = np.isin(np.arange(ROWS), list(met))
        right = 0
        for query in QUERIES[:20]:
            found = search(table, query, 10, where)
            scores = found.column("_score").to_numpy()
            assert set(numbers(found)) <= met
            assert len(found) == min(10, len(met))
            np.testing.assert_allclose(scores, (VECTORS @ query)[numbers(found)], atol=1e-5)
            assert (np.diff(scores) <= 0).all()
            right += len(set(numbers(found)) & set(naive(VECTORS, query, 10, allowed)))
        assert right >= 0.95 * 20 * min(10, len(met))

    def test_scans_a_table_without_an_index(self, plain):
        assert numbers(search(plain, QUERIES[0], 10)) == naive(VECTORS, QUERIES[0], 10)

    def test_an_empty_table_has_no_results(self, tmp_path):
        empty = lancedb.connect(tmp_path / "empty").create_table("segments", schema=rows_of(VECTORS[:1]).schema)
        assert search(empty, QUERIES[0], 3).num_rows == 0


@pytest.mark.parametrize(
    ("rows", "parts", "needed"),
    [
        (0, 0, False),
        (nearest.EXACT_ROWS, 0, False),
        (nearest.EXACT_ROWS + 1, 0, True),
        (nearest.EXACT_ROWS + 1, 1, False),
        (10**7, nearest.MAX_PARTS, False),
        (10**7, nearest.MAX_PARTS + 1, True),
        (nearest.EXACT_ROWS, nearest.MAX_PARTS + 1, False),
    ],
)
def test_needs_index(rows, parts, needed):
    assert needs_index(rows, parts) is needed


@pytest.mark.parametrize(
    ("rows", "matching", "visited"),
    [
        (60_000, 60_000, 80),  # more than there are
        (10**6, 10**6, 80),
        (10**7, 10**7, 450),
        (10**7, 10**6, 800),  # a tenth of their rows match, which are as many as those of 80 partitions
        (10**7, 1, 8 * 10**8),
    ],
)
def test_visited_partitions(rows, matching, visited):
    assert visited_partitions(rows, matching) == visited


class TestKeepUp:
    def test_a_small_table_gets_no_index(self, plain):
        keep_up(plain, ["embedding_0"])
        assert index_of(plain) is None

    def test_a_large_table_gets_an_index(self, plain, monkeypatch):
        monkeypatch.setattr(nearest, "EXACT_ROWS", ROWS - 1)
        keep_up(plain, ["embedding_0"])
        assert (index_of(plain).index_type, index_of(plain).num_indexed_rows) == ("IVF_RQ", ROWS)

    def test_another_kind_of_index_is_replaced(self, plain, monkeypatch):
        monkeypatch.setattr(nearest, "EXACT_ROWS", ROWS - 1)
        plain.create_index("embedding_0", config=HnswSq(distance_type="cosine"), name="embedding_0_idx")
        keep_up(plain, ["embedding_0"])
        assert (index_of(plain).index_type, index_of(plain).num_indexed_rows) == ("IVF_RQ", ROWS)

    @pytest.mark.parametrize("table", [(100, 0.4)], indirect=True)
    def test_many_new_rows_become_an_index_part(self, table, monkeypatch):
        monkeypatch.setattr(nearest, "TAIL_ROWS", 100)
        monkeypatch.setattr(nearest, "EXACT_ROWS", ROWS - 1)
        table.add(rows_of(clustered(99, seed=2), first=ROWS))
        keep_up(table, ["embedding_0"])
        assert index_of(table).num_unindexed_rows == 99
        table.add(rows_of(clustered(1, seed=3), first=ROWS + 99))
        keep_up(table, ["embedding_0"])
        assert index_of(table).num_unindexed_rows == 0
        assert numbers(search(table, clustered(1, seed=3)[0], 1)) == [ROWS + 99]

    @pytest.mark.parametrize("table", [(100, 0.4)], indirect=True)
    def test_many_index_parts_are_merged(self, table, monkeypatch):
        monkeypatch.setattr(nearest, "TAIL_ROWS", 1)
        monkeypatch.setattr(nearest, "EXACT_ROWS", ROWS - 1)
        monkeypatch.setattr(nearest, "MAX_PARTS", 2)
        parts = []
        for round in range(8):
            table.add(rows_of(clustered(10, seed=2 + round), first=ROWS + 10 * round))
            keep_up(table, ["embedding_0"])
            parts.append(index_of(table).num_indices)
        assert max(parts) == 3
        assert parts[parts.index(3) + 1] == 1
        assert index_of(table).num_indexed_rows == ROWS + 80

    def test_many_files_are_merged(self, plain):
        for number in range(5):
            plain.add(rows_of(clustered(10, seed=2 + number), first=ROWS + 10 * number))
        keep_up(plain, ["embedding_0"])
        assert plain.stats()["fragment_stats"]["num_fragments"] == 1
        assert plain.count_rows() == ROWS + 50

    @pytest.mark.parametrize("table", [(100, 0.4)], indirect=True)
    def test_rows_of_merged_files_are_found(self, table, monkeypatch):
        monkeypatch.setattr(nearest, "MOST_FRAGMENTS", 2)
        new = clustered(20, seed=2)
        for place, vector in enumerate(new):
            table.add(rows_of(vector[None], first=ROWS + place))
        table.delete("tenth = 3")
        keep_up(table, ["embedding_0"])
        assert table.stats()["fragment_stats"]["num_fragments"] <= 2
        matrix = np.concatenate([VECTORS, new])
        allowed = np.arange(ROWS + 20) % 10 != 3
        for query in new:
            assert numbers(search(table, query, 1)) == naive(matrix, query, 1, allowed)

    def test_old_versions_are_deleted(self, plain, tmp_path):
        for number in range(8):
            plain.add(rows_of(clustered(10, seed=2 + number), first=ROWS + 10 * number))
        keep_up(plain, ["embedding_0"])
        files = tmp_path / "database" / "segments.lance"
        assert len(list((files / "_versions").glob("*.manifest"))) == 1
        assert len(list((files / "data").iterdir())) == 1
        assert sorted(numbers(search(plain, QUERIES[0], ROWS + 80))) == list(range(ROWS + 80))

    def test_an_empty_table_stays_empty(self, tmp_path):
        empty = lancedb.connect(tmp_path / "empty").create_table("segments", schema=rows_of(VECTORS[:1]).schema)
        keep_up(empty, ["embedding_0"])
        assert empty.count_rows() == 0
