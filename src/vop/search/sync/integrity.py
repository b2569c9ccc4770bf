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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError, VopError
from vop.search import failures, removed
from vop.search import manifest as describing
from vop.search.checksums import FILE, Seal, digest, newest_manifests, read_seal
from vop.search.gone import sort_missing
from vop.search.lock import DATABASE, alone_in
from vop.search.manifest import Manifest
from vop.search.reading import is_as_it_was
from vop.search.sync.salvage import (
    UNKNOWN,
    Scan,
    carry_removed,
    copy_sound,
    drop_others,
    failures_failure,
    removed_failure,
    scan,
    write_failures_again,
)
from vop.utils.isolation import Crashed, Processes
from vop.utils.progress import Progress, silent

if TYPE_CHECKING:
    pass

_NAMED = 20  # videos in one command


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
        unknown = any(damage.path == UNKNOWN for damage in self.damaged_videos)
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


def _read_about(folder: Path, sealed: Seal, report: CheckReport, *, repair: bool) -> Manifest:
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


def _check_rows(processes: Processes, about: Manifest, report: CheckReport, progress: Progress) -> None:
    progress("segments", 0, 1)
    database = Path(report.library) / DATABASE
    try:
        found = processes.call(scan, database, about.table)
    except Crashed as error:
        found = Scan(0, 0, {}, {}, f"reading it crashed ({error.how})")
    progress("segments", 1, 1)
    if found.failure is not None:
        report.damaged_files.append(Damage(f"{DATABASE}/{about.table}.lance", found.failure))
    report.segments, report.without_checksum = found.segments, found.without_checksum
    report.videos = len(found.files)
    report.damaged_videos = [Damage(path, reason) for path, reason in sorted(found.damaged.items())]
    for name, look in ((failures.TABLE, failures_failure), (removed.name_for(about.table), removed_failure)):
        failure = _crash_told(processes, look, database, name)
        if failure is not None:
            report.damaged_files.append(Damage(f"{DATABASE}/{name}.lance", failure))
    report.deleted, report.unavailable = sort_missing(sorted(found.files), found.files)
    missing = {*report.deleted, *report.unavailable}
    report.changed = [path for path in sorted(found.files.keys() - missing) if not is_as_it_was(found.files[path])]


def _crash_told(processes: Processes, look: Callable[[Path, str], str | None], database: Path, name: str) -> str | None:
    try:
        return processes.call(look, database, name)
    except Crashed as error:
        return f"reading it crashed ({error.how})"


# -- kept frames


def _check_frames(folder: Path, about: Manifest, report: CheckReport, *, repair: bool) -> None:
    from vop.search.frames import SegmentFrames

    report.damaged_frames = SegmentFrames.of(about, folder).count_damaged(remove=repair)


# -- repair


def _repair(processes: Processes, folder: Path, about: Manifest, sealed: Seal, report: CheckReport) -> None:
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
            processes.call(copy_sound, database, about, table, {damage.path for damage in report.damaged_videos})
        if table != about.table or is_bad(taken_out):
            processes.call(carry_removed, database, taken_out, removed.name_for(table))
        describing.write(replace(about, table=table), folder)
        if is_bad(failures.TABLE):
            processes.call(write_failures_again, database)
        processes.call(drop_others, database, {table, removed.name_for(table), failures.TABLE})
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
