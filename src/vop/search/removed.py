"""Videos that were removed from a library and can be restored: a table beside the table of segments.

It belongs to one table of segments, and is dropped with it when the library moves to another model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import pyarrow as pa

from vop.search.database import open_if_exists
from vop.search.failures import PARTIAL, Failure, failure
from vop.search.schema import conditions, delete_paths, explain_damage
from vop.search.vector_index import tidy_up
from vop.storage.address import Location

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

P = ParamSpec("P")
T = TypeVar("T")
KEPT_DAYS = 30
WHEN, DAMAGE = "removed_at", "damage"  # columns in addition to those of the segments
_VIDEOS = 200  # processed at a time, to limit memory


def name_for(table: str) -> str:
    """Return the name of the table of removed videos for a table of segments."""
    return f"removed_{table}"


def _explained(method: Callable[Concatenate[Removed, P], T]) -> Callable[Concatenate[Removed, P], T]:
    """Decorate a method to report errors of the database as damage of the library."""

    @wraps(method)
    def explained(removed: Removed, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with explain_damage(removed._library):
            return method(removed, *args, **kwargs)

    return explained


class Removed:
    """The rows of removed videos, and the times of their removal."""

    def __init__(self, database: DBConnection, table: Table, *, library: Location) -> None:
        """Open the table of removed videos that belongs to a table of segments."""
        self._database, self._table, self._library = database, table, library
        self._name = name_for(table.name)

    @_explained
    def keep(self, paths: Iterable[str], *, damage: Mapping[str, str]) -> None:
        """Copy the rows of videos to this table.

        The library still has them, so that a killed process loses nothing.

        Args:
            damage: reasons why videos are only in part in the library, by path.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = self._open()
        for condition in conditions("path", paths, most=_VIDEOS):
            rows = self._table.search().where(condition).to_arrow()
            rows = rows.append_column(WHEN, pa.array([now] * len(rows), pa.string()))
            listed = [damage.get(path) for path in rows.column("path").to_pylist()]
            rows = rows.append_column(DAMAGE, pa.array(listed, pa.string()))
            if kept is None:
                kept = self._database.create_table(self._name, schema=rows.schema, exist_ok=True)
            _add_missing(kept, rows.schema)
            merge = kept.merge_insert("segment").when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(condition).execute(rows)  # rows of earlier removals

    @_explained
    def videos(self) -> dict[str, str]:
        """Return the ids of the removed videos, by path."""
        kept = self._open()
        if kept is None:
            return {}
        firsts = kept.search().where("place = 0").select(["path", "video"]).to_arrow().to_pylist()
        return {row["path"]: row["video"] for row in firsts}

    def pop(self, paths: Iterable[str]) -> Iterator[tuple[pa.Table, list[Failure]]]:
        """Yield the rows of these videos, some at a time, and delete them once the caller asks for the next ones.

        Yields:
            rows with the columns of the segments, and failures for the damaged videos among them.
        """
        kept, names = self._open(), self._table.schema.names
        if kept is None:
            return
        for condition in conditions("path", paths, most=_VIDEOS):
            with explain_damage(self._library):
                rows = kept.search().where(condition).to_arrow()
            yield _with_columns(rows, self._table.schema).select(names), _damaged(rows)
            kept.delete(condition)

    @_explained
    def drop(self, paths: Iterable[str]) -> None:
        """Delete videos permanently."""
        kept = self._open()
        if kept is not None:
            delete_paths(kept, paths)
            tidy_up(kept)

    @_explained
    def segments(self) -> list[str]:
        """Return the ids of all removed segments."""
        kept = self._open()
        if kept is None:
            return []
        ids: list[str] = kept.search().select(["segment"]).to_arrow().column(0).to_pylist()
        return ids

    @_explained
    def drop_old(self) -> None:
        """Permanently delete the videos that were removed more than `KEPT_DAYS` days ago."""
        kept = self._open()
        if kept is None:
            return
        before = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
        old = f"{WHEN} < '{before.isoformat(timespec='seconds')}'"
        if not kept.count_rows(old):
            return
        if kept.count_rows(old) == kept.count_rows():
            self._database.drop_table(self._name)
            return
        kept.delete(old)
        tidy_up(kept)

    def _open(self) -> Table | None:
        """Open the table; None if nothing was removed."""
        return open_if_exists(self._database, self._library, self._name)


def _damaged(rows: pa.Table) -> list[Failure]:
    firsts = rows.select(["place", "path", "size", "mtime_ns", DAMAGE]).to_pylist()
    return [
        failure(row["path"], PARTIAL, row[DAMAGE], size=row["size"], mtime_ns=row["mtime_ns"])
        for row in firsts
        if row[DAMAGE] is not None and row["place"] == 0
    ]


def _add_missing(table: Table, schema: pa.Schema) -> None:
    """Add to a table the columns that only the segments' table has."""
    new = [schema.field(name) for name in schema.names if name not in table.schema.names]
    if new:
        table.add_columns(new)


def _with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that the rows lack, as nulls."""
    for field in schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows
