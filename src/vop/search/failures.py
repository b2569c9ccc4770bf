"""The files that are not, or only in part, in a library: a table beside the table of segments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa

from vop.errors import FileFailure
from vop.search.schema import conditions, delete_paths

if TYPE_CHECKING:
    from lancedb.table import Table

TABLE = "failures"
UNREADABLE: Final = "unreadable"
PARTIAL: Final = "partial"
DUPLICATE: Final = "duplicate"
COPY_OF = "it has the content of "  # the reason of a duplicate, followed by the path of the original
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "kind": pa.string(),
        "reason": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "seen_at": pa.string(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Failure(FileFailure):
    """A file that is not, or only in part, in the library.

    Attributes:
        kind: "unreadable", "partial" (some of its segments are damaged) or "duplicate" (of a file in the library).
        size, mtime_ns: size and modification time of the file; 0 if unknown.
        seen_at: time of the failure, ISO 8601.
    """

    size: int
    mtime_ns: int
    seen_at: str

    def to_dict(self) -> dict[str, str | int]:
        """Return the values of the table's columns."""
        return {name: getattr(self, name) for name in SCHEMA.names}


def failure(
    path: str | Path,
    kind: Literal["unreadable", "partial", "duplicate"],
    reason: str,
    *,
    size: int = 0,
    mtime_ns: int = 0,
) -> Failure:
    """Create a failure that is seen at the time of the call. Bytes of the path that are not UTF-8 become escapes."""
    seen_at = datetime.now(UTC).isoformat(timespec="seconds")
    stored = os.fsencode(path).decode("utf-8", "backslashreplace")
    return Failure(path=stored, kind=kind, reason=reason, size=size, mtime_ns=mtime_ns, seen_at=seen_at)


def read(table: Table, *, paths: Iterable[str] | None = None) -> list[Failure]:
    """Return failures, sorted by path: all of them, or those of the files at some paths."""
    wanted = [None] if paths is None else conditions("path", paths)
    queries = (table.search() if condition is None else table.search().where(condition) for condition in wanted)
    rows = [row for query in queries for row in query.select(SCHEMA.names).to_arrow().to_pylist()]
    return sorted((Failure(**row) for row in rows), key=lambda failed: failed.path)


def write(table: Table, failed: Sequence[Failure], *, remove: Iterable[str] = ()) -> None:
    """Add failures to the list, replacing earlier ones of the same files, and remove the files in `remove` from it."""
    if failed:
        by_path = {one.path: one.to_dict() for one in failed}
        rows = pa.Table.from_pylist(list(by_path.values()), schema=SCHEMA)
        # In one commit: a kill loses neither the old entries nor the new ones.
        table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(rows)
    delete_paths(table, set(remove) - {one.path for one in failed})
