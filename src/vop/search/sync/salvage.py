"""Read tables that may be damaged, for a check, and save their sound rows, for a repair.

Everything here runs in a separate process, since a damaged file can crash the process that reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vop.search import failures, removed
from vop.search.database import connect, open_if_exists
from vop.search.manifest import Manifest, exists
from vop.search.results import VideoRecord
from vop.search.schema import ADDED, CHECKSUM, damaged_rows, field_of, metadata_columns, schema, with_checksums
from vop.search.vector_index import tidy_up
from vop.storage.address import Address, Location
from vop.storage.errors import StorageError

if TYPE_CHECKING:
    from lancedb.db import DBConnection
    from lancedb.table import Table

UNKNOWN = "unknown videos"  # for segments whose path cannot be read
_BATCH = 256  # rows that are read at a time
_STORAGE_FAILED = re.compile(
    r"Generic (S3|GCS|MicrosoftAzure|N/A) error|Generic \{ store|PermissionDenied|Unauthenticated|error sending request"
)


@dataclass(frozen=True)
class TableScan:
    """The result of reading a table.

    Attributes:
        segments: number of rows.
        without_checksum: number of rows that an earlier version of vop wrote.
        damaged: the reasons why videos are damaged, by path.
        records: the videos of the rows, by path.
        failure: the reason why the table cannot be read at all.
    """

    segments: int
    without_checksum: int
    damaged: dict[str, str]
    records: dict[str, VideoRecord]
    failure: str | None = None

    @classmethod
    def failed(cls, reason: str) -> TableScan:
        return cls(0, 0, {}, {}, reason)


def scan_table(library: Location, name: str) -> TableScan:
    """Read every row of a table of segments."""
    try:
        table = _connect(library).open_table(name)
        rows = table.count_rows()
    except Exception as error:
        return TableScan.failed(_reason(error, library))
    videos = _Videos()
    for start in range(0, rows, _BATCH):
        for first, count, part in _read(library, table, start, min(_BATCH, rows - start)):
            if part is None:
                videos.lose(_paths(table, first, count))
                continue
            try:
                videos.add(_with_schema(part, _complete(part.schema)))
            except (KeyError, ValueError, pa.ArrowException) as error:  # a manifest that names other columns
                return TableScan.failed(_reason(error, library))
    return videos.result(rows)


class _Videos:
    """The videos of rows that were read."""

    def __init__(self) -> None:
        self._damaged: dict[str, str] = {}
        self._records: dict[str, VideoRecord] = {}
        self._places: dict[tuple[str, str], list[int]] = {}  # by path and content
        self._counts: dict[tuple[str, str], int | None] = {}
        self._without_checksum = 0

    def lose(self, paths: set[str]) -> None:
        self._damaged |= dict.fromkeys(paths, "some of its segments cannot be read")

    def add(self, rows: pa.Table) -> None:
        self._without_checksum += rows.column(CHECKSUM).null_count
        names = ["path", "video", "size", "mtime_ns", "place", "num_segments", "volume"]
        for row, is_bad in zip(rows.select(names).to_pylist(), damaged_rows(rows), strict=True):
            path, key = row["path"], (row["path"], row["video"])
            fields = {name: row[name] for name in ("video", "path", "size", "mtime_ns", "volume")}
            self._records[path] = VideoRecord(**fields, metadata={})
            self._places.setdefault(key, []).append(row["place"])
            self._counts[key] = row["num_segments"]
            if is_bad:
                self._damaged[path] = "some of its segments differ from what was written"

    def result(self, segments: int) -> TableScan:
        contents = Counter(path for path, _ in self._places)
        for (path, video), places in self._places.items():
            count = self._counts[path, video] or len(places)
            if contents[path] > 1 or sorted(places) != list(range(count)):
                self._damaged.setdefault(path, "some of its segments are missing or duplicated")
        return TableScan(segments, self._without_checksum, self._damaged, self._records)


def _read(library: Location, table: Table, start: int, count: int) -> Iterator[tuple[int, int, pa.Table | None]]:
    """Yield rows as (first, count, rows), in parts as large as possible; rows that cannot be read are None."""
    try:
        yield start, count, table.search().offset(start).limit(count).to_arrow()
        return
    except Exception as error:  # the database raises its own exceptions, such as a panic
        _check_storage(error, library)
        if count == 1:
            yield start, count, None
            return
    half = count // 2
    yield from _read(library, table, start, half)
    yield from _read(library, table, start + half, count - half)


def _paths(table: Table, start: int, count: int) -> set[str]:
    """Return the paths of rows that cannot be read completely."""
    try:
        found = table.search().select(["path"]).offset(start).limit(count).to_arrow()
        return set(found.column("path").to_pylist())
    except Exception:
        return {UNKNOWN}


def failures_damage(library: Location, name: str) -> str | None:
    """Return the reason why the list of failures cannot be read; None if it can."""
    try:
        failures.read(_connect(library).open_table(name))
    except Exception as error:
        return _reason(error, library)
    return None


def removed_damage(library: Location, name: str) -> str | None:
    """Return the damage of the removed videos; None if they are sound or there are none."""
    try:
        connection = _connect(library)
        table = open_if_exists(connection, library, name)
        if table is None:
            return None
        rows = table.search().to_arrow()
        bad = damaged_rows(rows.drop_columns([removed.WHEN, removed.DAMAGE])).sum()
    except Exception as error:
        return _reason(error, library)
    return f"{bad} removed segments differ from what was written" if bad else None


def _connect(library: Location) -> DBConnection:
    return connect(library, cache=False)


def _drop(connection: DBConnection, name: str) -> None:
    if name in connection.list_tables().tables:
        connection.drop_table(name)


def _reason(error: Exception, library: Location) -> str:
    """Return why a table cannot be read.

    Raises:
        StorageError: the object storage has failed, which is not damage.
    """
    _check_storage(error, library)
    if isinstance(library, Address):  # the error may contain what the server has answered, and that a key
        return "it cannot be read (an object is missing or damaged)"
    return f"it cannot be read ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"


def _check_storage(error: Exception, library: Location) -> None:
    """Raise a StorageError if object storage has failed to answer, rather than that an object is missing or damaged."""
    if not isinstance(library, Address):
        return
    text = str(error)
    is_missing = "not found" in text.lower()
    if (_STORAGE_FAILED.search(text) and not is_missing) or not exists(library):
        raise StorageError(
            f"{library}: its database cannot be read ({type(error).__name__}), so the check is incomplete and nothing "
            "was changed; check the credentials, the permissions and the network"
        ) from None


def copy_sound(library: Location, manifest: Manifest, target: str, damaged: set[str]) -> None:
    """Write the rows of all undamaged videos to a new table."""
    connection = _connect(library)
    _drop(connection, target)
    try:
        table = connection.open_table(manifest.table)
        rows = table.count_rows()
    except Exception as error:
        _check_storage(error, library)
        connection.create_table(target, schema=schema(manifest.models))
        return
    new = connection.create_table(target, schema=schema(manifest.models, metadata_columns(table.schema)))

    def sound() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, _BATCH):
            for _, _, part in _read(library, table, start, min(_BATCH, rows - start)):
                if part is not None:
                    kept = part.filter(pc.invert(pc.is_in(part.column("path"), pa.array(sorted(damaged), pa.string()))))
                    yield from with_checksums(_with_schema(kept, new.schema)).to_batches()

    new.add(pa.RecordBatchReader.from_batches(new.schema, sound()))  # in one commit
    tidy_up(new)


def _complete(own: pa.Schema) -> pa.Schema:
    """Add to a table's schema the columns that older libraries lack."""
    return pa.unify_schemas([own, pa.schema([field_of(name) for name in ADDED])])


def _with_schema(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Add to rows, as nulls, the columns that an older library lacks."""
    for name in {*wanted.names} - {*rows.schema.names}:
        rows = rows.append_column(field_of(name), pa.nulls(len(rows), field_of(name).type))
    return rows.select(wanted.names)


def copy_removed(library: Location, before: str, name: str) -> None:
    """Copy the sound rows of the removed videos to the table `name`."""
    connection = _connect(library)
    try:
        old = connection.open_table(before)
        parts = [part for _, _, part in _read(library, old, 0, old.count_rows()) if part is not None]
    except Exception as error:  # nothing was removed, or nothing can be read
        _check_storage(error, library)
        parts = []
    if not parts:
        _drop(connection, before)
        return
    rows = pa.concat_tables(parts)
    bad = rows.filter(pa.array(damaged_rows(rows.drop_columns([removed.WHEN, removed.DAMAGE])))).column("path")
    rows = rows.filter(pc.invert(pc.is_in(rows.column("path"), bad.combine_chunks())))
    tidy_up(connection.create_table(name, data=rows, mode="overwrite"))


def table_damage(library: Location, table: str) -> str | None:
    """Return why a table of `KEPT_TABLES` cannot be read; None if it can, or does not exist."""
    try:
        connection = _connect(library)
        opened = open_if_exists(connection, library, table)
        if opened is not None:
            opened.search().to_arrow()
    except Exception as error:
        return _reason(error, library)
    return None


def drop_others(library: Location, kept: set[str]) -> None:
    """Drop damaged tables, and the tables that a killed repair or re-embedding left behind."""
    connection = _connect(library)
    for name in set(connection.list_tables().tables) - kept:
        connection.drop_table(name)


def copy_failures(library: Location) -> None:
    """Rewrite the list of failures, as far as it can be read."""
    connection = _connect(library)
    try:
        kept = failures.read(connection.open_table(failures.TABLE))
    except Exception as error:
        _check_storage(error, library)
        kept = []  # the next indexing lists them again
    _drop(connection, failures.TABLE)
    failures.write(connection.create_table(failures.TABLE, schema=failures.SCHEMA), kept)
