"""Find the rows nearest to a vector, in the fastest way for the size of the table.

A small table is kept in memory and scanned (`vector_index.Snapshot`). A large one is searched by its index
(`vector_index.Indexed`), or in memory if the caller asked for that (`vop.search.loaded`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vop.search import vector_index
from vop.search.database import database_of
from vop.search.loaded import LoadedTable, loads
from vop.search.results import NearestRows, light_columns
from vop.search.vector_index import Indexed, Snapshot
from vop.storage.address import Location

if TYPE_CHECKING:
    from lancedb.table import Table

_LOAD_PAUSE, _LOAD_SHARE = 5.0, 10.0  # seconds, and times the seconds of a loading, until the next one
log = logging.getLogger(__name__)


class Nearest:
    """Searches the newest version of the table of segments. Several threads can search."""

    def __init__(self, library: Location, *, open_table: Callable[[str], Table]) -> None:
        """Search the library at this path, once `use` has said which table; `open_table` opens one by its name."""
        self._library, self._open_table = library, open_table
        self._changing = threading.Lock()
        self._loading_bytes = 0
        self._loader: threading.Thread | None = None
        self._load_after: dict[str, float] = {}

    def use(self, table: Table) -> None:
        """Search this table from now on, and drop what is in memory of another one."""
        with self._changing:
            self._table = table
            self._snapshots: dict[str, Snapshot] = {}
            self._indexed: Indexed | None = None
            self._loaded: dict[str, LoadedTable] = {}

    def to(self, vector: np.ndarray, where: str | None, column: str) -> NearestRows:
        """Return what finds the rows nearest to a vector (e,) in a column of embeddings.

        Args:
            where: SQL condition that rows must meet.
        """
        loaded = self._loaded_table(column)
        if loaded is not None:
            return partial(loaded.nearest, vector, where)
        if self._table.count_rows() > vector_index.EXACT_ROWS:
            light = light_columns(self._table.schema.names)
            with self._changing:
                indexed = self._by_index()
            return lambda limit: indexed.search(column, vector, limit=limit, where=where, columns=light)
        snapshot = self._snapshot(column)
        return partial(snapshot.nearest, vector, snapshot.mask(where))

    def keep_in_memory(self, max_bytes: int, columns: Iterable[str]) -> None:
        """Search a large table in memory, with up to `max_bytes` for each of these columns."""
        self._loading_bytes = max_bytes
        for column in columns:
            self._loaded_table(column)

    def _by_index(self) -> Indexed:
        """Return the table for searches by its index. The caller holds the lock of changes."""
        self._indexed = self._indexed or Indexed(*database_of(self._library), table=self._table.name)
        return self._indexed

    def _loaded_table(self, column: str) -> LoadedTable | None:
        """Return the newest version of a large table in memory; None if it is not loaded."""
        if not self._loading_bytes:
            return None
        version = self._table.version
        kept = self._loaded.get(column)
        if kept is not None and kept.version == version:
            return kept
        rows = self._table.count_rows()
        if rows <= vector_index.EXACT_ROWS or not loads(rows, max_bytes=self._loading_bytes):
            return None
        with self._changing:
            if self._loader is None and time.monotonic() >= self._load_after.get(column, 0.0):
                self._loaded.pop(column, None)  # so that two versions are never in memory
                work = partial(self._load, self._by_index(), column, self._loaded)
                self._loader = threading.Thread(target=work, name="load-library", daemon=True)
                self._loader.start()
        return None

    def _load(self, indexed: Indexed, column: str, loaded: dict[str, LoadedTable]) -> None:
        """Load a table into `loaded`, which is no longer used if the library moves to another table."""
        began = time.monotonic()
        try:
            loaded[column] = LoadedTable(indexed, column, max_bytes=self._loading_bytes)
        except Exception as error:  # a writer may have deleted this version; the next search tries again
            log.info("%s cannot be loaded into memory: %s", self._library, error)
        seconds = time.monotonic() - began
        with self._changing:
            self._loader = None
            self._load_after[column] = time.monotonic() + max(_LOAD_PAUSE, _LOAD_SHARE * seconds)

    def _snapshot(self, column: str) -> Snapshot:
        """Return the newest version of the table, in memory."""
        with self._changing:
            kept = self._snapshots.get(column)
            if kept is None or kept.version != self._table.version:
                kept = Snapshot(self._open_table(self._table.name), column)
                self._snapshots[column] = kept
            return kept
