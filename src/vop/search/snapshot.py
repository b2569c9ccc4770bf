"""A small library's table in memory, for an exact scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vop.search.results import SCORE
from vop.search.schema import LIGHT, METADATA, matrix
from vop.search.vector_index import Exact

if TYPE_CHECKING:
    from lancedb.table import Table


class Snapshot:
    """One version of a table: the embeddings of one model and the light columns.

    Attributes:
        version: of the table.
    """

    def __init__(self, table: Table, column: str) -> None:
        """Takes a handle of its own, which stays at this version."""
        self.version = table.version
        table.checkout(self.version)
        self._table = table
        light = LIGHT + [name for name in table.schema.names if name.startswith(METADATA)]
        rows = table.search().select([*light, column]).with_row_id(True).to_arrow()
        self._exact = Exact(matrix(rows.column(column)))
        self._row_ids = rows.column("_rowid").to_numpy()
        self._rows = rows.select(light)

    def mask(self, where: str | None) -> np.ndarray | None:
        """Which rows (n,) a condition holds for; None for all."""
        if where is None:
            return None
        found = self._table.search().where(where).select(["place"]).with_row_id(True).to_arrow()
        return np.isin(self._row_ids, found.column("_rowid").to_numpy())

    def nearest(self, vector: np.ndarray, mask: np.ndarray | None, limit: int) -> pa.Table:
        """The nearest `limit` rows, best first."""
        positions, scores = self._exact.search(vector, limit, mask=mask)
        return self._rows.take(pa.array(positions)).append_column(SCORE, pa.array(scores, pa.float32()))
