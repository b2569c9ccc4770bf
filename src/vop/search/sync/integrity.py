"""`vop library check`: find damage in a library, and repair it.

If a disk, a cable or a copy flips a bit, the database reads a wrong number without an error. A check compares every
file and row with its checksum, verifies that each video has all of its segments, and compares kept frames and video
files with the library's records. A repair restores files from their copies, writes a new table with the sound videos,
and leaves the others to the next indexing.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vop.errors import UsageError, VopError
from vop.search import failures, manifest, near_copies, removed
from vop.search.checksums import FILE, Seal, digest, newest_manifests, read_seal
from vop.search.manifest import DATABASE, Manifest
from vop.search.store import KEPT_TABLES
from vop.search.sync.lock import library_lock
from vop.search.sync.salvage import (
    UNKNOWN,
    TableScan,
    copy_failures,
    copy_removed,
    copy_sound,
    drop_others,
    failures_damage,
    removed_damage,
    scan_table,
)
from vop.search.sync.scanner import is_unchanged, split_missing
from vop.storage.address import Address, is_address, local_path
from vop.utils.isolation import Crashed, Processes
from vop.utils.progress import Progress, silent

_NAMED = 20  # videos in one command
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """A damaged file of the library (path below its folder) or video (path of its file), and the reason."""

    path: str
    reason: str


@dataclass(kw_only=True)
class CheckReport:
    """The result of a check.

    Attributes:
        files, segments, videos: numbers of what was checked.
        damaged_files: damaged files of the library.
        damaged_videos: videos with segments that differ from what was written.
        damaged_frames: the number of segments with damaged kept frames; these are decoded again when needed.
        without_checksum: segments that were written by an earlier version of vop.
        deleted, unavailable, changed: videos whose files were deleted, are unavailable, or have changed; `vop index`
            updates them.
        repaired: whether the library is sound again, without `damaged_videos`.
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
        """Return commands that index the damaged videos again, if their files exist."""
        paths = [
            damage.path for damage in self.damaged_videos if is_address(damage.path) or os.path.exists(damage.path)
        ]
        library = shlex.quote(self.library)
        unknown = any(damage.path == UNKNOWN for damage in self.damaged_videos)
        if unknown or len(paths) > _NAMED or not (paths or self.segments):
            return [f"vop index {library} FOLDER …, with all folders of its videos"]
        return [f"vop index {library} {shlex.join(paths)}"] if paths else []

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop library check --json`."""
        return {**asdict(self), "sound": self.sound}


def check(
    folder: str | Path | Address,
    *,
    repair: bool = False,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> CheckReport:
    """Compare a library with its checksums.

    Args:
        repair: whether to repair the library if it is damaged.
        waiting: called once if another process writes to the library, before waiting for it.

    Raises:
        UsageError: the library does not exist.
        VopError: `library.json` is damaged and has no copy.
    """
    folder = local_path(folder, what="a library to check").expanduser().absolute()
    if not (folder / DATABASE).is_dir():
        raise UsageError(f"{folder}: no library exists here; create one: vop index {folder} FOLDER_OF_VIDEOS")
    with _locked(folder, waiting, repair=repair), Processes() as processes:
        checking = _Check(folder, processes)
        checking.files(progress)
        checking.read_manifest(repair=repair)
        checking.rows(progress)
        checking.kept_frames(repair=repair)
        if repair and not checking.report.sound:
            checking.repair()
    return checking.report


@contextmanager
def _locked(folder: Path, waiting: Callable[[], None], *, repair: bool) -> Iterator[None]:
    """Lock the library against other writers. On a read-only disk, a check needs no lock."""
    with ExitStack() as stack:
        try:
            stack.enter_context(library_lock(folder, waiting=waiting, sealing=repair))
        except OSError as error:
            if repair or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        yield


class _Check:
    """The steps of a check, which fill the report.

    Tables are read in separate processes: a damaged file can crash the process that reads it.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.database, self.processes = folder, folder / DATABASE, processes
        self.report = CheckReport(library=str(folder))
        self.seal = Seal()
        self.manifest: Manifest

    def files(self, progress: Progress) -> None:
        """Compare files with `checksums.json`. Files of a killed run are not in it; their rows are checked later."""
        damaged = self.report.damaged_files
        seal = read_seal(self.folder)
        if seal is None:
            if (self.folder / FILE).exists():
                damaged.append(Damage(FILE, "damaged; the files cannot be compared with their checksums"))
            return
        self.seal = seal
        newest = newest_manifests(list(seal.files))
        for number, (name, wanted) in enumerate(seal.files.items(), start=1):
            progress("files", number, len(seal.files))
            try:
                self.report.files += 1
                if digest(self.folder / name) != wanted:
                    damaged.append(Damage(name, "its content has changed"))
            except FileNotFoundError:
                # A killed run may have deleted other files with an old version. If one is needed, reading rows fails.
                if name in seal.copies and not self._has_newer_version(name, newest):
                    damaged.append(Damage(name, "it is missing"))
            except OSError as error:
                damaged.append(Damage(name, f"it cannot be read: {error.strerror}"))

    def _has_newer_version(self, name: str, newest: list[str]) -> bool:
        """Whether a run wrote a newer version of the file's table and was killed before it updated the checksums."""
        table = "/".join(name.split("/")[:2])
        known = {path.rpartition("/")[2] for path in newest if path.startswith(f"{table}/")}
        return any(
            path.name < min(known, default="") for path in (self.folder / table / "_versions").glob("*.manifest")
        )

    def read_manifest(self, *, repair: bool) -> None:
        """Read the library's manifest, or its copy if it is damaged."""
        path, copy = self.folder / manifest.FILE, self.seal.copy_of(manifest.FILE)
        try:
            self.manifest = manifest.read(self.folder)
        except VopError as error:
            if copy is None:
                raise
            self.report.damaged_files.append(Damage(manifest.FILE, str(error).partition(": ")[2]))
            self.manifest = manifest.parse(copy, path)
            if repair:
                manifest.write(self.manifest, self.folder)

    def rows(self, progress: Progress = silent) -> None:
        """Compare rows with their checksums, and video files with the rows."""
        report, table = self.report, self.manifest.table
        progress("segments", 0, 1)
        try:
            scan: TableScan = self.processes.call(scan_table, self.database, table)
        except Crashed as error:
            scan = TableScan.failed(f"reading it crashed ({error.how})")
        progress("segments", 1, 1)
        if scan.failure is not None:
            report.damaged_files.append(Damage(f"{DATABASE}/{table}.lance", scan.failure))
        report.segments, report.without_checksum = scan.segments, scan.without_checksum
        report.videos = len(scan.records)
        report.damaged_videos = [Damage(path, reason) for path, reason in sorted(scan.damaged.items())]
        for name, read in ((failures.TABLE, failures_damage), (removed.name_for(table), removed_damage)):
            damage = self._damage_of(read, name)
            if damage is not None:
                report.damaged_files.append(Damage(f"{DATABASE}/{name}.lance", damage))
        report.deleted, report.unavailable = split_missing(sorted(scan.records), scan.records)
        missing = {*report.deleted, *report.unavailable}
        report.changed = [
            path for path, record in sorted(scan.records.items()) if path not in missing and not is_unchanged(record)
        ]

    def _damage_of(self, read: Callable[[Path, str], str | None], table: str) -> str | None:
        try:
            damage: str | None = self.processes.call(read, self.database, table)
        except Crashed as error:
            return f"reading it crashed ({error.how})"
        return damage

    def kept_frames(self, *, repair: bool) -> None:
        from vop.search.frames import SegmentFrames  # imports PyTorch

        frames = SegmentFrames.of(self.manifest, self.folder)
        if frames:
            self.report.damaged_frames = frames.count_damaged(remove=repair)

    def repair(self) -> None:
        """Restore files from their copies, and rewrite tables without damaged rows.

        Raises:
            VopError: the manifest's table does not exist, but another one does; nothing was changed.
        """
        report, table = self.report, self.manifest.table
        bad = self._restore_copies({damage.path for damage in report.damaged_files})

        def is_bad(name: str) -> bool:
            return any(path.startswith(f"{DATABASE}/{name}.lance") for path in bad)

        call = self.processes.call
        try:
            if report.damaged_videos or is_bad(table):
                self._check_no_other_table()
                table = f"{table}_again"
                damaged = {damage.path for damage in report.damaged_videos}
                call(copy_sound, self.database, self.manifest, table, damaged)
            if table != self.manifest.table or is_bad(removed.name_for(self.manifest.table)):
                call(copy_removed, self.database, removed.name_for(self.manifest.table), removed.name_for(table))
            manifest.write(self.manifest.with_(table=table), self.folder)
            near_tables = {near_copies.FINGERPRINTS, near_copies.TABLE}
            near_damage = near_tables if any(map(is_bad, near_tables)) else set()  # the next indexing makes both again
            if is_bad(failures.TABLE):
                call(copy_failures, self.database)
            call(drop_others, self.database, {table, removed.name_for(table), *KEPT_TABLES} - near_damage)
        except Crashed as error:
            raise VopError(
                f"{self.folder}: the repair crashed ({error.how}) and changed nothing; index into another folder"
            ) from None
        (self.folder / FILE).unlink(missing_ok=True)  # releasing the lock writes it again
        logger.info("repaired %r, %d videos were damaged", str(self.folder), len(report.damaged_videos))
        report.repaired = True

    def _restore_copies(self, bad: set[str]) -> set[str]:
        """Restore damaged files from their copies; return the files that are still damaged."""
        restored = self.seal.copies.keys() & bad - {manifest.FILE}
        for name in restored:
            content = self.seal.copy_of(name)
            if content is not None:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(content)
        if not restored:
            return bad
        found, self.report.damaged_files = self.report.damaged_files, []
        self.rows()  # rows may be readable with the restored files
        whole_tables = {path for path in bad if path.endswith(".lance") and path.count("/") == 1}
        bad = bad - restored - whole_tables | {damage.path for damage in self.report.damaged_files}
        self.report.damaged_files = found
        return bad

    def _check_no_other_table(self) -> None:
        tables = {path.stem for path in self.database.glob("segments_*.lance")}
        if tables and self.manifest.table not in tables:
            raise VopError(
                f"{self.folder}: {manifest.FILE} names the table {self.manifest.table}, which does not exist, but "
                f"{', '.join(sorted(tables))} does: restore the {manifest.FILE} that belongs to it, from a backup"
            )
