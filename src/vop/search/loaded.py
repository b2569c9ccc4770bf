"""A large table in memory: LanceDB's index finds candidates, and the rest of a search needs no file.

A search of LanceDB spends most of its time on reading: half a millisecond for each column of its results, more than a
millisecond for the vectors that it compares exactly, and tens of milliseconds for the rows that meet a condition. Here
the vectors and the columns of moments are in memory. Rows are found in three ways:

- Without a condition, the index finds candidates by its short codes. Queries that arrive during a search of the index
  share the next one.
- With a condition that few rows meet, each of these is compared with the query.
- With a condition that many rows meet, the index finds so many candidates that enough of them meet it.

All scores are exact. If the vectors do not fit in the budget, they stay in the table: LanceDB compares them, and only
its own search can answer a query with a condition that a small share of many rows meets.

Shapes: `n` rows in the order of their ids, `v` videos, `e` width of the embeddings.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vop.search import vector_index
from vop.search.filters import METADATA
from vop.search.results import LIGHT, SCORE
from vop.search.schema import matrix

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

    from vop.search.vector_index import Indexed

_ROW_BYTES = 200  # of a row without its vector: its ids, and its part of the columns of a video
_NUMBER = "_number"  # column of a video's number, from 0
_VIDEO_DIGITS = 32  # of a segment's id, which begins with its video's
# Rows in one batch. LanceDB's own batches of 1,000 rows take ten times as long to filter.
_LIGHT_ROWS, _VECTOR_ROWS, _FILTER_ROWS = 50_000, 8_000, 2**20
# Rows to compare, at least this many and this share of all rows: it takes as long as a search of all partitions.
_COMPARED, _COMPARED_SHARE = 40_000, 0.04
_COMPARED_IN_TABLE = 200  # a row of the table takes 20 µs to read
_BLOCK = 1024  # rows, so that a copy of them stays in the processor's cache
_MOST_CANDIDATES = 40_000  # of the index
_MOST_TOGETHER = 16  # queries in one search of the index
_KEPT_CONDITIONS = 32

T = TypeVar("T")
R = TypeVar("R")


class LoadedTable:
    """One version of a table, in memory.

    Args:
        column: the embeddings to search.
        max_bytes: the most memory to use; see `fits`.

    Attributes:
        version: the table's version.
    """

    def __init__(self, indexed: Indexed, column: str, *, max_bytes: int) -> None:
        self._indexed, self._wait, self._column = indexed.pinned(), indexed.wait, column
        self._table = self._indexed.table
        self.version: int = self._wait(self._table.version())
        names = self._wait(self._table.schema()).names
        self._light = LIGHT + [name for name in names if name.startswith(METADATA)]
        self._ids, self._segments, columns = self._read_light()
        self._read_videos(columns)
        width = self._wait(self._table.schema()).field(column).type.list_size
        self._vectors = self._read_vectors(width) if fits(len(self), width, max_bytes=max_bytes) else None
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._together = Together(self._candidates_of, most=_MOST_TOGETHER)

    def __len__(self) -> int:
        return len(self._ids)

    # -- reading

    def _read_light(self) -> tuple[np.ndarray, pa.Array, pa.Table]:
        """Return the rows' ids, their segments and their other light columns, all in the order of the ids."""

        async def read() -> list[pa.RecordBatch]:
            query = self._table.query().select([*self._light, "name"]).with_row_id()
            return [batch async for batch in await query.to_batches(max_batch_length=_LIGHT_ROWS)]

        rows = pa.Table.from_batches(self._wait(read()))
        ids = rows.column("_rowid").to_numpy()
        if (ids[1:] < ids[:-1]).any():
            order = np.argsort(ids)
            ids, rows = ids[order], rows.take(pa.array(order))
        segments = rows.column("segment").cast(pa.large_string()).combine_chunks()
        return ids, segments, rows.drop_columns(["segment", "_rowid"])

    def _read_videos(self, columns: pa.Table) -> None:
        """Keep the columns of each video once, in a table in memory that conditions are asked of."""
        videos = pc.utf8_slice_codeunits(self._segments, 0, _VIDEO_DIGITS).dictionary_encode()
        self._video = videos.indices.to_numpy().astype(np.int32)  # (n,)
        first = np.zeros(len(videos.dictionary), np.int64)
        first[self._video[::-1]] = np.arange(len(self._video))[::-1]
        self._rows_of_video = np.bincount(self._video, minlength=len(first))
        self._videos = columns.take(pa.array(first)).combine_chunks()
        numbers = pa.array(np.arange(len(first)))
        numbered = self._videos.append_column("video", videos.dictionary).append_column(_NUMBER, numbers)
        self._videos = self._videos.drop_columns(["name"])

        import lancedb

        async def made() -> AsyncTable:
            connection = await lancedb.connect_async("memory://")
            return await connection.create_table("videos", numbered)

        self._conditions: AsyncTable = self._wait(made())

    def _read_vectors(self, width: int) -> np.ndarray:
        vectors = np.empty((len(self), width), np.float32)

        async def read() -> None:
            query = self._table.query().select([self._column]).with_row_id()
            async for batch in await query.to_batches(max_batch_length=_VECTOR_ROWS):
                places = np.searchsorted(self._ids, batch.column("_rowid").to_numpy())
                vectors[places] = matrix(pa.chunked_array([batch.column(self._column)]))

        self._wait(read())
        return vectors

    # -- searching

    def nearest(self, query: np.ndarray, where: str | None, limit: int) -> pa.Table:
        """Return the nearest `limit` rows, best first, with the light columns and their exact scores.

        Args:
            query: float32 (e,), of unit length.
            where: SQL condition that videos must meet.
        """
        found = self._nearest(query, limit, None if where is None else self._mask(where))
        if found is None:
            return self._indexed.search(self._column, query, limit=limit, where=where, columns=self._light)
        positions, scores = found
        videos = self._videos.take(pa.array(self._video[positions]))
        segments = self._segments.take(pa.array(positions))
        return videos.append_column("segment", segments).append_column(SCORE, pa.array(scores, pa.float32()))

    def _nearest(
        self, query: np.ndarray, limit: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return positions and exact scores of the nearest `limit` rows, best first; fewer only if no more exist.

        None means that vectors are needed that are not in memory.

        Args:
            allowed: bool (v,), the videos that may be found.
        """
        matching = len(self) if allowed is None else int(self._rows_of_video[allowed].sum())
        limit = min(limit, matching)
        if not limit:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if matching == len(self):
            allowed = None
        wanted = limit
        if allowed is not None:
            wanted = min(len(self), int(vector_index.SPARE * limit * len(self) / matching) + 1)
        compared = _COMPARED_IN_TABLE
        if self._vectors is not None:
            compared = max(_COMPARED, int(_COMPARED_SHARE * len(self)))
        if matching > compared and wanted <= _MOST_CANDIDATES:
            visited = vector_index.visited_partitions(len(self), matching)
            is_exact = allowed is None and self._vectors is None  # LanceDB compares the vectors
            found = self._by_index(Candidates(query, wanted, visited, is_exact=is_exact), limit, allowed)
            if found is not None:
                return found
        if matching > compared and self._vectors is None:
            return None
        positions = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed[self._video])
        return _best(positions, self._scores(positions, query), limit)

    def _by_index(
        self, asked: Candidates, limit: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the nearest rows among the candidates; None if too few of them are allowed."""
        positions, distances = self._together(asked)
        if len(positions) < asked.limit:  # these partitions have too few rows
            positions, distances = self._together(replace(asked, visited=len(self)))
        if asked.is_exact:
            return _best(positions, 1 - distances, limit)
        if allowed is not None:
            positions = positions[allowed[self._video[positions]]]
            if self._vectors is None:  # they are sorted by their estimated distances
                positions = positions[: max(_COMPARED_IN_TABLE, 2 * limit)]
        return None if len(positions) < limit else _best(positions, self._scores(positions, asked.query), limit)

    def _mask(self, where: str) -> np.ndarray:
        """Return a mask (v,) of the videos that meet a condition."""
        with self._lock:
            if where in self._masks:
                self._masks.move_to_end(where)
                return self._masks[where]

        async def read() -> list[pa.RecordBatch]:
            query = self._conditions.query().where(where).select([_NUMBER])
            return [batch async for batch in await query.to_batches(max_batch_length=_FILTER_ROWS)]

        mask = np.zeros(len(self._videos), bool)
        for batch in self._wait(read()):
            mask[batch.column(_NUMBER).to_numpy()] = True
        with self._lock:
            self._masks[where] = mask
            if len(self._masks) > _KEPT_CONDITIONS:
                self._masks.popitem(last=False)
        return mask

    def _scores(self, positions: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Return the cosine similarities of these rows with a query."""
        if self._vectors is None:
            return self._scores_of_stored(positions, query)
        scores = np.empty(len(positions), np.float32)
        rows = np.empty((min(_BLOCK, len(positions)), self._vectors.shape[1]), np.float32)
        for start in range(0, len(positions), _BLOCK):
            part = positions[start : start + _BLOCK]
            copied = np.take(self._vectors, part, axis=0, out=rows[: len(part)], mode="clip")
            np.einsum("ne,e->n", copied, query, out=scores[start : start + len(part)])  # in this thread alone
        return scores

    def _scores_of_stored(self, positions: np.ndarray, query: np.ndarray) -> np.ndarray:
        async def read() -> pa.Table:
            ids = self._ids[positions].tolist()
            return await self._table.take_row_ids(ids).select([self._column]).with_row_id().to_arrow()

        rows = self._wait(read())
        order = np.searchsorted(self._ids, rows.column("_rowid").to_numpy())
        scores = dict(zip(order.tolist(), matrix(rows.column(self._column)) @ query, strict=True))
        return np.array([scores[position] for position in positions.tolist()], np.float32)

    def _candidates_of(self, asked: Sequence[Candidates]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return positions and distances of the candidates of each query, nearest first."""
        kinds: dict[tuple[int, int, bool], list[int]] = {}
        for place, one in enumerate(asked):
            kinds.setdefault((one.limit, one.visited, one.is_exact), []).append(place)
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for places in kinds.values():
            rows = self._wait(self._search([asked[place].query for place in places], asked[places[0]]))
            positions = np.searchsorted(self._ids, rows.column("_rowid").to_numpy())
            distances = rows.column("_distance").to_numpy()
            queries = rows.column("query_index").to_numpy() if len(places) > 1 else np.zeros(len(rows), np.int32)
            for number, place in enumerate(places):
                own = np.flatnonzero(queries == number)
                own = own[np.argsort(distances[own], kind="stable")]
                found[place] = positions[own], distances[own]
        return [found[place] for place in range(len(asked))]

    async def _search(self, queries: list[np.ndarray], kind: Candidates) -> pa.Table:
        query = queries if len(queries) > 1 else queries[0]
        search = self._table.query().nearest_to(query).column(self._column).distance_type("cosine")
        search = search.limit(kind.limit).select(["_distance"]).with_row_id()
        if kind.is_exact:
            search = search.refine_factor(vector_index.refined_rows(kind.limit))
        return await search.nprobes(kind.visited).to_arrow()


@dataclass(frozen=True)
class Candidates:
    """A search of the index for the nearest `limit` rows.

    Attributes:
        visited: number of partitions to search; all if there are fewer.
        is_exact: whether LanceDB compares the vectors. Otherwise distances are estimates by the codes of the index.
    """

    query: np.ndarray
    limit: int
    visited: int
    is_exact: bool = False


def _best(positions: np.ndarray, scores: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    best = vector_index.best(scores, limit)
    return positions[best], scores[best]


def loads(rows: int, *, max_bytes: int) -> bool:
    """Whether this many rows fit in memory without their vectors."""
    return rows * _ROW_BYTES <= max_bytes


def fits(rows: int, width: int, *, max_bytes: int) -> bool:
    """Whether this many rows with vectors of this width fit in memory."""
    return rows * (_ROW_BYTES + 4 * width) <= max_bytes


class Together(Generic[T, R]):
    """Computes a result for each of the items that several threads ask for, with one call for all that wait."""

    def __init__(self, compute: Callable[[Sequence[T]], Sequence[R]], *, most: int) -> None:
        self._compute, self._most = compute, most
        self._waiting: list[tuple[T, Future[R]]] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def __call__(self, item: T) -> R:
        future: Future[R] = Future()
        with self._lock:
            self._waiting.append((item, future))
        while not future.done():
            with self._turn:
                if not future.done():
                    self._work()
        return future.result()

    def _work(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        try:
            results = self._compute([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
