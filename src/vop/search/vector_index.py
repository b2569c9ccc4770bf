"""Find the nearest segments: by an exact scan in memory in a small table, by LanceDB's index in a large one.

The index is IVF-RQ: rows are grouped around centroids and take half a byte per number (RaBitQ: Gao and Long, SIGMOD
2024). A search visits the partitions nearest to the query (in a table of up to 320,000 rows, all partitions), and then
reads the full vectors of its best rows, so that their order and scores are exact. An HNSW graph is not faster,
takes 19 times as long to build, and never finds the nearest rows of some queries.

A search with a condition is one of three: few rows that meet it are compared one by one; if many meet it, candidates
that do not are dropped; otherwise LanceDB leaves out the others while it compares, in all partitions.

Rows that are added after the index was built are scanned until `keep_up` adds a part to the index for them, with the
same centroids (LanceDB calls it a delta index). Every search visits every part, so an index of many parts is rebuilt
as one.

`bench/search.py` compares the index with the exact scan and FAISS; the limits below come from it.

Shapes: `n` rows, `e` width of the embeddings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from vop.search.results import SCORE, light_columns
from vop.search.schema import matrix

if TYPE_CHECKING:
    from lancedb import AsyncConnection
    from lancedb.query import AsyncVectorQuery
    from lancedb.table import AsyncTable, IndexStatistics, Table

EXACT_ROWS = 50_000  # up to this many, an exact scan takes no longer than a search of the index
MAX_PARTS = 8
TAIL_ROWS = 5000  # fewer unindexed rows are scanned (about 7 ms) rather than indexed
MOST_FRAGMENTS = 100  # files of the table; small commits write files with few rows

KIND: Final = "IVF_RQ"
DISTANCE: Final = "cosine"
BITS = 4  # for each number of a vector
_PARTITION_ROWS = 4000
# A search visits so many of so many partitions, and of fewer as many; of ten times as many, 5.6 times as many. Then
# recall@10 is 0.99 in one million and in ten million clustered vectors.
_VISITED, _GROWTH = (80, 250), 0.75
SPARE = 1.3  # candidates for each row that is expected to meet a condition
# If LanceDB must know of each row whether it meets a condition, comparing the codes takes several times as long. Up to
# this share of the rows, it is faster to compare more candidates, and to drop those that do not meet the condition.
_CANDIDATES_SHARE = 0.001
_COMPARED_SHARE = 0.002  # of the rows: if fewer meet a condition, reading their vectors is faster than the index
_MOST_COUNTED = 1000  # conditions
_REFINED = 50  # minimum number of full vectors to read: the best 50 by 4 bits contain the ten nearest
_MOST_REFINED = 50_000  # with this limit, a search of the index takes a quarter of the time of a scan


class Exact:
    """Vectors in memory; a search compares the query with each of them.

    Attributes:
        matrix: float32 (n, e), rows of unit length.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = np.ascontiguousarray(matrix, np.float32)

    def search(self, query: np.ndarray, limit: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and scores of the nearest `limit` rows, best first; ties in row order.

        Args:
            query: float32 (e,), of unit length.
            limit: 1 or more. Fewer rows are returned if there are no more.
            mask: bool (n,), the rows that may be found.
        """
        scores = self.matrix @ query
        if mask is None:
            nearest = best(scores, limit)
            return nearest, scores[nearest]
        allowed = np.flatnonzero(mask)
        nearest = allowed[best(scores[allowed], limit)]
        return nearest, scores[nearest]


def best(scores: np.ndarray, limit: int) -> np.ndarray:
    """Return positions of the `limit` highest scores, best first; ties in row order."""
    if limit >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, -limit)[-limit]
    kept = np.flatnonzero(scores >= least)
    return kept[np.argsort(-scores[kept], kind="stable")[:limit]]


class Snapshot:
    """One version of a table: the embeddings of one model and the light columns.

    Attributes:
        version: the table's version.
    """

    def __init__(self, table: Table, column: str) -> None:
        """Take a handle of the table of its own, which stays at this version."""
        self.version = table.version
        table.checkout(self.version)
        self._table = table
        light = light_columns(table.schema.names)
        rows = table.search().select([*light, column]).with_row_id(True).to_arrow()
        self._exact = Exact(matrix(rows.column(column)))
        self._row_ids = rows.column("_rowid").to_numpy()
        self._rows = rows.select(light)

    def mask(self, where: str | None) -> np.ndarray | None:
        """Return a mask (n,) of the rows that meet a condition; None for all."""
        if where is None:
            return None
        found = self._table.search().where(where).select(["place"]).with_row_id(True).to_arrow()
        return np.isin(self._row_ids, found.column("_rowid").to_numpy())

    def nearest(self, vector: np.ndarray, mask: np.ndarray | None, limit: int) -> pa.Table:
        """Return the nearest `limit` rows, best first."""
        positions, scores = self._exact.search(vector, limit, mask=mask)
        return self._rows.take(pa.array(positions)).append_column(SCORE, pa.array(scores, pa.float32()))


class Indexed:
    """A table that is searched by its index. A search finds all rows that were committed before it.

    It uses LanceDB's asynchronous interface: the synchronous one enters LanceDB's event loop five times in a search,
    which takes 2 ms more.
    """

    def __init__(self, database: str | Path, storage_options: dict[str, str], *, table: str) -> None:
        import lancedb
        from lancedb.background_loop import LOOP

        loop: Any = LOOP  # it has no types
        self.wait = loop.run
        self._name = table
        self._is_local = "://" not in str(database)
        self._counted: dict[str, tuple[int, int]] = {}  # condition -> number of rows, and of those that meet it
        self._connection: AsyncConnection = self.wait(
            lancedb.connect_async(
                database, read_consistency_interval=timedelta(0), storage_options=storage_options or None
            )
        )
        self.table: AsyncTable = self.wait(self._connection.open_table(table))

    def pinned(self) -> Indexed:
        """Return the table at its newest version, where it stays. Both share the index in memory."""

        async def opened() -> AsyncTable:
            table = await self._connection.open_table(self._name)
            await table.checkout(await table.version())
            return table

        copied = copy(self)
        copied.table = self.wait(opened())
        return copied

    def search(
        self, column: str, query: np.ndarray, *, limit: int, where: str | None = None, columns: Sequence[str]
    ) -> pa.Table:
        """Return the nearest `limit` rows, best first, with `columns` and `_score`, the exact cosine similarity.

        A condition applies before the search, so fewer than `limit` rows are returned only if no more meet it. Rows
        that are not in the index yet are found as well; without an index, the query is compared with every row.

        Args:
            query: float32 (e,).
            where: SQL condition that rows must meet.
        """
        found = self.wait(self._search(column, query, limit, where, [*columns, "_distance"]))
        scores = pa.array(1 - found.column("_distance").to_numpy(), pa.float32())
        return found.select(list(columns)).append_column(SCORE, scores)

    async def _search(
        self, column: str, query: np.ndarray, limit: int, where: str | None, columns: list[str]
    ) -> pa.Table:
        rows = max(1, await self.table.count_rows())
        limit = min(limit, rows)

        def nearest(count: int) -> AsyncVectorQuery:
            search = self.table.vector_search(query).column(column).distance_type("cosine").select(columns)
            return search.limit(count).refine_factor(refined_rows(count))

        if limit > _MOST_REFINED:
            search = nearest(limit).bypass_vector_index()
            return await (search if where is None else search.where(where)).to_arrow()
        if where is None:
            found = await nearest(limit).nprobes(visited_partitions(rows, rows)).to_arrow()
            return found if len(found) == limit else await nearest(limit).nprobes(rows).to_arrow()

        if self._is_local:  # in object storage, each vector may take a request
            matching = await self._count(where, rows)
            if matching <= _COMPARED_SHARE * rows:
                return await self._compared(column, query, limit, where, columns)
            candidates = ceil(SPARE * limit * rows / matching)
            if candidates <= _CANDIDATES_SHARE * rows:
                search = nearest(candidates).nprobes(visited_partitions(rows, matching))
                found = await search.where(where).postfilter().to_arrow()
                if len(found) >= limit:
                    return found.slice(0, limit)
        return await nearest(limit).nprobes(rows).where(where).to_arrow()

    async def _count(self, where: str, rows: int) -> int:
        """Return how many of the rows meet a condition. It is counted again if the number of rows has changed."""
        before, matching = self._counted.get(where, (0, 0))
        if before != rows:
            matching = await self.table.count_rows(where)
            if len(self._counted) >= _MOST_COUNTED:
                self._counted.clear()
            self._counted[where] = rows, matching
        return matching

    async def _compared(self, column: str, query: np.ndarray, limit: int, where: str, columns: list[str]) -> pa.Table:
        """Compare the query with every row that meets a condition."""
        matching = await self.table.query().where(where).select([]).with_row_id().to_arrow()
        stored = [name for name in columns if name != "_distance"]
        read = self.table.take_row_ids(matching.column("_rowid").to_pylist()).select([*{column, *stored}])
        rows = await read.to_arrow()
        scores = matrix(rows.column(column)) @ query
        places = best(scores, limit)
        return rows.select(stored).take(pa.array(places)).append_column("_distance", pa.array(1 - scores[places]))


def visited_partitions(rows: int, matching: int) -> int:
    """Return the number of partitions that a search visits for the nearest of the rows that match a condition.

    They contain as many matching rows as a search visits in a table that has only these.

    Args:
        rows: of the table.
        matching: of these, at least one.
    """
    visited, total = _VISITED
    growth = max(1, matching / _PARTITION_ROWS / total) ** _GROWTH
    return ceil(visited * growth * rows / matching)


def refined_rows(limit: int) -> int:
    """Return how many times `limit` rows a search compares at full precision."""
    return -(-_REFINED // limit)


def needs_index(rows: int, parts: int) -> bool:
    """Whether to build an index: a large table has none (0 parts), or one of too many parts."""
    return rows > EXACT_ROWS and not 1 <= parts <= MAX_PARTS


def is_outgrown(table: Table, column: str) -> bool:
    """Whether to build an index in segments: `needs_index` holds, or the index has less than half of the rows."""
    rows, index = table.count_rows(), _statistics(table, column)
    is_half = index is not None and 2 * index.num_unindexed_rows > rows > EXACT_ROWS
    return is_half or needs_index(rows, _parts(index))


def build_index(table: Table, column: str) -> None:
    """Build or rebuild the index of a column; readers use the old one until then."""
    from lancedb.index import IvfRq

    config = IvfRq(distance_type=DISTANCE, num_partitions=num_partitions(table.count_rows()), num_bits=BITS)
    table.create_index(column, config=config, name=index_name(column), replace=True)


def num_partitions(rows: int) -> int:
    """Return the number of partitions of a new index."""
    return max(1, rows // _PARTITION_ROWS)


def keep_up(table: Table, columns: Sequence[str], *, keep_uncommitted: bool = False) -> None:
    """Build or complete the indexes of these columns where needed, merge small files, and drop old versions.

    The caller holds the library's lock. Readers are not disturbed.

    Args:
        keep_uncommitted: see `tidy_up`.
    """
    rows = table.count_rows()
    for column in columns:
        if needs_index(rows, _parts(_statistics(table, column))):
            build_index(table, column)
    indexes = list(filter(None, (_statistics(table, column) for column in columns)))
    tail = max((index.num_unindexed_rows for index in indexes), default=0)
    is_small_tail = 0 < tail < TAIL_ROWS
    if not is_small_tail or _fragments(table) >= MOST_FRAGMENTS:
        tidy_up(table, keep_uncommitted=keep_uncommitted)


def tidy_up(table: Table, *, keep_uncommitted: bool = False) -> None:
    """Merge small files, and delete old versions and files that killed writers left behind.

    A reader of an old version fails and reads again (`vop.search.following`). Keeping no old versions keeps the
    library small.

    Args:
        keep_uncommitted: whether to keep files that no version has, for seven days: workers may have written them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "optimize", UserWarning)  # it warns of these readers
        # Versions of any age: merging makes two versions, and the first one still has the small files.
        table.optimize(cleanup_older_than=timedelta(0), delete_unverified=not keep_uncommitted)


def _fragments(table: Table) -> int:
    """Return the number of files that hold the table's rows."""
    statistics: Any = table.stats()  # it is a dictionary, although its annotation differs
    return int(statistics["fragment_stats"]["num_fragments"])


def index_name(column: str) -> str:
    """Return the name of a column's index."""
    return f"{column}_idx"


def _statistics(table: Table, column: str) -> IndexStatistics | None:
    return table.index_stats(index_name(column))


def _parts(index: IndexStatistics | None) -> int:
    return index.num_indices or 0 if index and index.index_type == KIND else 0
