"""`vop library check`: whether a library is as it was written, and what to do where it is not.

A disk, a cable or a copy changes a bit, and the database reads another number without a word. A check compares every
file and every row with its checksum, looks whether each video has all of its segments, and compares kept frames and the
videos' own files with what the library says of them. A repair puts back what there are copies of, writes a new table of
the videos that are sound, and leaves the others to the next indexing.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from vop.errors import UsageError, VopError
from vop.progress import Progress, silent
from vop.search import about as describing
from vop.search import failures, removed
from vop.search.about import About
from vop.search.checksums import FILE, Seal, damaged_rows, digest, newest_manifests, read_seal, with_checksums
from vop.search.gone import sort_missing
from vop.search.library import Known
from vop.search.nearest import tidy_up
from vop.search.place import DATABASE, alone_in
from vop.search.reading import is_as_it_was
from vop.search.rows import ADDED, CHECKSUM, field_of, metadata_columns, schema
from vop.utils.isolation import Crashed, Processes

if TYPE_CHECKING:
    from lancedb.db import DBConnection
    from lancedb.table import Table

_BATCH = 256  # rows that are read at a time
_NAMED = 20  # videos in one command
_UNKNOWN = "unknown videos"  # of segments of which even the path cannot be read


@dataclass(frozen=True)
class Damage:
    """A file of the library, by its path below it, or a video, by its own; and what is wrong with it."""

    path: str
    reason: str


@dataclass(kw_only=True)
class CheckReport:
    """What a check found.

    Attributes:
        files, segments, videos: looked at.
        damaged_files: of the library.
        damaged_videos: whose segments are not what was written.
        damaged_frames: how many segments' kept frames are damaged; they are made again when they are needed.
        without_checksum: segments that were written by an earlier version of vop.
        deleted, unavailable, changed: videos whose own files were deleted, cannot be reached, or are not as they were;
            `vop index` sees to them.
        repaired: whether the library is sound again, `damaged_videos` left out of it.
    """

    library: str
    files: int = 0
    segments: int = 0
    videos: int = 0
    damaged_files: list[Damage] = field(default_factory=list)
    damaged_videos: list[Damage] = field(default_factory=list)
    damaged_frames: int = 0
    without_checksum: int = 0
    deleted: list[str] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def sound(self) -> bool:
        return not (self.damaged_files or self.damaged_videos or self.damaged_frames)

    def index_again(self) -> list[str]:
        """Commands that bring the damaged videos back, of which the files are there."""
        paths = [damage.path for damage in self.damaged_videos if os.path.exists(damage.path)]
        library = shlex.quote(self.library)
        unknown = any(damage.path == _UNKNOWN for damage in self.damaged_videos)
        if unknown or len(paths) > _NAMED or not (paths or self.segments):
            return [f"vop index {library} FOLDER …, with all folders of its videos"]
        return [f"vop index {library} {shlex.join(paths)}"] if paths else []

    def to_dict(self) -> dict:
        return {**asdict(self), "sound": self.sound}


def check(
    folder: str | Path,
    *,
    repair: bool = False,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> CheckReport:
    """Compares a library with its checksums, and repairs it if that is wanted and needed.

    Args:
        waiting: called once if another process writes to the library, before waiting for it.

    Raises:
        UsageError: there is no library.
        VopError: `library.json` is damaged and there is no copy of it.
    """
    folder = Path(folder).expanduser().absolute()
    if not (folder / DATABASE).is_dir():
        raise UsageError(f"{folder}: there is no library; make one: vop index {folder} FOLDER_OF_VIDEOS --model mini")
    report = CheckReport(library=str(folder))
    with _held(folder, waiting, repair=repair):
        sealed = _check_files(folder, report, progress)
        about = _read_about(folder, sealed, report, repair=repair)
        with Processes() as processes:
            _check_rows(processes, about, report, progress)
            if about.keep_frames:
                _check_frames(folder, about, report, repair=repair)
            if repair and not report.sound:
                _repair(processes, folder, about, sealed, report)
    return report


@contextmanager
def _held(folder: Path, waiting: Callable[[], None], *, repair: bool) -> Iterator[None]:
    """Keeps others from writing; where nobody can write, a look needs no lock."""
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(folder, waiting=waiting, sealing=repair))
        except OSError as error:
            if repair or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        yield


# -- files


def _check_files(folder: Path, report: CheckReport, progress: Progress) -> Seal:
    """Files against `checksums.json`; those that are not in it are of a run that was killed, and only rows tell."""
    sealed = read_seal(folder)
    if sealed is None:
        if (folder / FILE).exists():
            report.damaged_files.append(Damage(FILE, "damaged; the files have nothing to be compared with"))
        return Seal()
    newest = newest_manifests(list(sealed.files))
    for number, (name, wanted) in enumerate(sealed.files.items(), start=1):
        progress("files", number, len(sealed.files))
        try:
            report.files += 1
            if digest(folder / name) != wanted:
                report.damaged_files.append(Damage(name, "its content has changed"))
        except FileNotFoundError:
            # Others may have gone with an old version, in a run that was killed; rows tell whether they are missed.
            if name in sealed.copies and not _has_gone_on(folder, name, newest):
                report.damaged_files.append(Damage(name, "it is missing"))
        except OSError as error:
            report.damaged_files.append(Damage(name, f"it cannot be read: {error.strerror}"))
    return sealed


def _has_gone_on(folder: Path, name: str, newest: list[str]) -> bool:
    """Whether the table that a file belongs to has gone on since, in a run that was killed before it could say so."""
    table = "/".join(name.split("/")[:2])
    known = {manifest.rpartition("/")[2] for manifest in newest if manifest.startswith(f"{table}/")}
    return any(path.name < min(known, default="") for path in (folder / table / "_versions").glob("*.manifest"))


def _read_about(folder: Path, sealed: Seal, report: CheckReport, *, repair: bool) -> About:
    """The library's description, from its copy where it is damaged."""
    path, copy = folder / describing.FILE, sealed.copy_of(describing.FILE)
    try:
        return describing.read(folder)
    except VopError as error:
        if copy is None:
            raise
        report.damaged_files.append(Damage(describing.FILE, str(error).partition(": ")[2]))
    about = describing.parse(copy, path)
    if repair:
        describing.write(about, folder)
    return about


# -- rows


@dataclass(frozen=True)
class _Scan:
    """What the rows of a table say: damage by the video's path, and how many rows have what."""

    segments: int
    without_checksum: int
    damaged: dict[str, str]
    files: dict[str, Known]  # what the rows say of the videos' files
    failure: str | None = None  # why the table cannot be opened


def _check_rows(processes: Processes, about: About, report: CheckReport, progress: Progress) -> None:
    progress("segments", 0, 1)
    database = Path(report.library) / DATABASE
    try:
        scan = processes.call(_scan, database, about.table)
    except Crashed as error:
        scan = _Scan(0, 0, {}, {}, f"reading it crashed ({error.how})")
    progress("segments", 1, 1)
    if scan.failure is not None:
        report.damaged_files.append(Damage(f"{DATABASE}/{about.table}.lance", scan.failure))
    report.segments, report.without_checksum = scan.segments, scan.without_checksum
    report.videos = len(scan.files)
    report.damaged_videos = [Damage(path, reason) for path, reason in sorted(scan.damaged.items())]
    for name, look in ((failures.TABLE, _failures_failure), (removed.name_for(about.table), _removed_failure)):
        failure = _crash_told(processes, look, database, name)
        if failure is not None:
            report.damaged_files.append(Damage(f"{DATABASE}/{name}.lance", failure))
    report.deleted, report.unavailable = sort_missing(sorted(scan.files), scan.files)
    missing = {*report.deleted, *report.unavailable}
    report.changed = [path for path in sorted(scan.files.keys() - missing) if not is_as_it_was(scan.files[path])]


def _crash_told(processes: Processes, look: Callable[[Path, str], str | None], database: Path, name: str) -> str | None:
    try:
        return processes.call(look, database, name)
    except Crashed as error:
        return f"reading it crashed ({error.how})"


def _scan(database: Path, name: str) -> _Scan:
    """Reads every row; in a process of its own, since a damaged file can end it."""
    try:
        table = _connect(database).open_table(name)
        rows = table.count_rows()
    except Exception as error:
        return _Scan(0, 0, {}, {}, _said(error))
    table_scan = _TableScan()
    for start in range(0, rows, _BATCH):
        for first, count, part in _read(table, start, min(_BATCH, rows - start)):
            if part is None:
                table_scan.lose(_paths(table, first, count))
            else:
                try:
                    table_scan.add(_fitted(part, _complete(part.schema)))
                except (KeyError, ValueError, pa.ArrowException) as error:  # a manifest that names other columns
                    return _Scan(0, 0, {}, {}, _said(error))
    return table_scan.result(rows)


class _TableScan:
    """What has been seen of a table's rows."""

    def __init__(self) -> None:
        self._damaged: dict[str, str] = {}
        self._files: dict[str, Known] = {}
        self._places: dict[tuple[str, str], list[int]] = {}  # by path and content
        self._counts: dict[tuple[str, str], int | None] = {}
        self._without_checksum = 0

    def lose(self, paths: set[str]) -> None:
        self._damaged |= dict.fromkeys(paths, "segments of it cannot be read")

    def add(self, rows: pa.Table) -> None:
        self._without_checksum += rows.column(CHECKSUM).null_count
        names = ["path", "video", "size", "mtime_ns", "place", "num_segments", "volume"]
        for row, is_bad in zip(rows.select(names).to_pylist(), damaged_rows(rows), strict=True):
            path, key = row["path"], (row["path"], row["video"])
            own = {name: row[name] for name in ("video", "path", "size", "mtime_ns", "volume")}
            self._files[path] = Known(**own, metadata={})
            self._places.setdefault(key, []).append(row["place"])
            self._counts[key] = row["num_segments"]
            if is_bad:
                self._damaged[path] = "segments of it are not what was written"

    def result(self, segments: int) -> _Scan:
        contents = Counter(path for path, _ in self._places)
        for (path, video), places in self._places.items():
            count = self._counts[path, video] or len(places)
            if contents[path] > 1 or sorted(places) != list(range(count)):
                self._damaged.setdefault(path, "it does not have each of its segments once")
        return _Scan(segments, self._without_checksum, self._damaged, self._files)


def _read(table: Table, start: int, count: int) -> Iterator[tuple[int, int, pa.Table | None]]:
    """Rows, in as large parts as can be read; None for those that cannot."""
    try:
        yield start, count, table.search().offset(start).limit(count).to_arrow()
        return
    except Exception:  # of the database's own kinds, a panic among them
        if count == 1:
            yield start, count, None
            return
    half = count // 2
    yield from _read(table, start, half)
    yield from _read(table, start + half, count - half)


def _paths(table: Table, start: int, count: int) -> set[str]:
    """The videos of rows that cannot be read as a whole."""
    try:
        found = table.search().select(["path"]).offset(start).limit(count).to_arrow()
        return set(found.column("path").to_pylist())
    except Exception:
        return {_UNKNOWN}


def _failures_failure(database: Path, name: str) -> str | None:
    """Why the list of failures cannot be read; None if it can."""
    try:
        failures.read(_connect(database).open_table(name))
    except Exception as error:
        return _said(error)
    return None


def _removed_failure(database: Path, name: str) -> str | None:
    """What is wrong with what was taken out; None if it is sound, or there is none."""
    connection = _connect(database)
    if name not in connection.list_tables().tables:
        return None
    try:
        rows = connection.open_table(name).search().to_arrow()
        bad = damaged_rows(rows.drop_columns([removed.WHEN, removed.DAMAGE])).sum()
    except Exception as error:
        return _said(error)
    return f"{bad} segments that were taken out are not what was written" if bad else None


def _connect(database: Path) -> DBConnection:
    import lancedb

    return lancedb.connect(database)


def _said(error: Exception) -> str:
    return f"it cannot be read ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"


# -- kept frames


def _check_frames(folder: Path, about: About, report: CheckReport, *, repair: bool) -> None:
    from vop.search.frames import SegmentFrames

    report.damaged_frames = SegmentFrames.of(about, folder).count_damaged(remove=repair)


# -- repair


def _repair(processes: Processes, folder: Path, about: About, sealed: Seal, report: CheckReport) -> None:
    """Raises a VopError, before anything is changed, if the table is not there but another one is."""
    database, table, taken_out = folder / DATABASE, about.table, removed.name_for(about.table)
    bad = {damage.path for damage in report.damaged_files}
    restored = sealed.copies.keys() & bad - {describing.FILE}
    for name in restored:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sealed.copy_of(name))
    if restored:
        known = report.damaged_files
        report.damaged_files = []
        _check_rows(processes, about, report, silent)  # what is back may have brought rows back
        bad = bad - restored - _tables(bad) | {damage.path for damage in report.damaged_files}
        report.damaged_files = known

    def is_bad(name: str) -> bool:
        return any(path.startswith(f"{DATABASE}/{name}.lance") for path in bad)

    try:
        if report.damaged_videos or is_bad(table):
            _check_alone(database, table)
            table = f"{table}_again"
            processes.call(_copy_sound, database, about, table, {damage.path for damage in report.damaged_videos})
        if table != about.table or is_bad(taken_out):
            processes.call(_carry_removed, database, taken_out, removed.name_for(table))
        describing.write(replace(about, table=table), folder)
        if is_bad(failures.TABLE):
            processes.call(_write_failures_again, database)
        processes.call(_drop_others, database, {table, removed.name_for(table), failures.TABLE})
    except Crashed as error:
        raise VopError(
            f"{folder}: the repair crashed ({error.how}); the library is as it was: index into another folder"
        ) from None
    (folder / FILE).unlink(missing_ok=True)  # made anew when the library is let go
    report.repaired = True


def _tables(paths: set[str]) -> set[str]:
    """Those that are whole tables."""
    return {path for path in paths if path.endswith(".lance") and path.count("/") == 1}


def _check_alone(database: Path, table: str) -> None:
    there = {path.stem for path in database.glob("segments_*.lance")}
    if there and table not in there:
        raise VopError(
            f"{database.parent}: {describing.FILE} names the table {table}, which is not there; "
            f"{', '.join(sorted(there))} is: put the {describing.FILE} back that belongs to it"
        )


def _copy_sound(database: Path, about: About, target: str, damaged: set[str]) -> None:
    """Writes the rows of all videos but the damaged ones into a new table."""
    connection = _connect(database)
    connection.drop_table(target, ignore_missing=True)
    try:
        table = connection.open_table(about.table)
        rows = table.count_rows()
    except Exception:
        connection.create_table(target, schema=schema(about.models))
        return
    new = connection.create_table(target, schema=schema(about.models, metadata_columns(table.schema)))
    for start in range(0, rows, _BATCH):
        for _, _, part in _read(table, start, min(_BATCH, rows - start)):
            if part is None:
                continue
            kept = part.filter(pc.invert(pc.is_in(part.column("path"), pa.array(sorted(damaged), pa.string()))))
            if len(kept):
                new.add(with_checksums(_fitted(kept, new.schema)))
    tidy_up(new)


def _complete(own: pa.Schema) -> pa.Schema:
    """A table's schema with the columns that older libraries lack."""
    return pa.unify_schemas([own, pa.schema([field_of(name) for name in ADDED])])


def _fitted(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Rows with the columns that an older library lacks, empty."""
    for name in {*wanted.names} - {*rows.schema.names}:
        rows = rows.append_column(field_of(name), pa.nulls(len(rows), field_of(name).type))
    return rows.select(wanted.names)


def _carry_removed(database: Path, before: str, name: str) -> None:
    """What can be put back, as far as it is sound, for a table of segments that may have another name now."""
    connection = _connect(database)
    try:
        old = connection.open_table(before)
        parts = [part for _, _, part in _read(old, 0, old.count_rows()) if part is not None]
    except Exception:  # nothing was taken out, or nothing can be read
        parts = []
    if not parts:
        connection.drop_table(before, ignore_missing=True)
        return
    rows = pa.concat_tables(parts)
    bad = rows.filter(pa.array(damaged_rows(rows.drop_columns([removed.WHEN, removed.DAMAGE])))).column("path")
    rows = rows.filter(pc.invert(pc.is_in(rows.column("path"), bad.combine_chunks())))
    tidy_up(connection.create_table(name, data=rows, mode="overwrite"))


def _drop_others(database: Path, kept: set[str]) -> None:
    """Drops damaged tables, and those that a repair or a move has left that was killed."""
    connection = _connect(database)
    for name in set(connection.list_tables().tables) - kept:
        connection.drop_table(name)


def _write_failures_again(database: Path) -> None:
    connection = _connect(database)
    try:
        kept = failures.read(connection.open_table(failures.TABLE))
    except Exception:
        kept = []  # the next indexing finds them again
    connection.drop_table(failures.TABLE, ignore_missing=True)
    failures.write(connection.create_table(failures.TABLE, schema=failures.SCHEMA), kept)
