"""`vop library check`: find damage in a library, and repair it.

If a disk, a cable or a copy flips a bit, the database reads a wrong number without an error. A check compares every
file and row with its checksum, verifies that each video has all of its segments, and compares kept frames and video
files with the library's records. A repair restores files from their copies, writes a new table with the sound videos,
and leaves the others to the next indexing.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vop.errors import UsageError, VopError
from vop.search import failures, manifest, removed
from vop.search.checksums import FILE, Seal, digest, newest_manifests, read_seal
from vop.search.lease import check_held
from vop.search.manifest import DATABASE, Manifest
from vop.search.store import KEPT_TABLES, NEAR_TABLES
from vop.search.sync.lock import UnwritableLibrary, library_lock
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
    table_damage,
)
from vop.search.sync.scanner import is_unchanged, split_missing
from vop.search.words.table import WORDS_TABLES
from vop.storage import small_files
from vop.storage.address import Address, Location, absolute, is_address
from vop.storage.errors import DeniedObject
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
        files, segments, videos: numbers of what was checked; files only in a folder.
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
    place = absolute(folder)
    if not (place / DATABASE).is_dir() if isinstance(place, Path) else not manifest.exists(place):
        raise UsageError(f"{place}: no library exists here; create one: vop index {place} FOLDER_OF_VIDEOS")
    with _locked(place, waiting, repair=repair), Processes() as processes:
        checking = _Check(place, processes)
        checking.files(progress)
        checking.read_manifest(repair=repair)
        checking.rows(progress)
        checking.kept_frames(repair=repair)
        if repair and not checking.report.sound:
            checking.repair()
    return checking.report


def _has_newer_version(folder: Path, name: str, newest: list[str]) -> bool:
    """Whether a run wrote a newer version of the file's table and was killed before it updated the checksums."""
    table = "/".join(name.split("/")[:2])
    known = {path.rpartition("/")[2] for path in newest if path.startswith(f"{table}/")}
    return any(path.name < min(known, default="") for path in (folder / table / "_versions").glob("*.manifest"))


@contextmanager
def _locked(folder: Location, waiting: Callable[[], None], *, repair: bool) -> Iterator[None]:
    """Lock the library against other writers. A check that may only read needs no lock."""
    with ExitStack() as stack:
        try:
            stack.enter_context(library_lock(folder, waiting=waiting, sealing=repair))
        except (DeniedObject, UnwritableLibrary):
            if repair:
                raise
        yield


class _Check:
    """The steps of a check, which fill the report.

    Tables are read in separate processes: a damaged file can crash the process that reads it. Files in object storage
    are not compared with checksums: the storage does that. Their rows are.
    """

    def __init__(self, folder: Location, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self.report = CheckReport(library=str(folder))
        self.seal = Seal()
        self.manifest: Manifest

    def files(self, progress: Progress) -> None:
        """Compare files with `checksums.json`. Files of a killed run are not in it; their rows are checked later."""
        if not isinstance(self.folder, Path):
            return
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
                if name in seal.copies and not _has_newer_version(self.folder, name, newest):
                    damaged.append(Damage(name, "it is missing"))
            except OSError as error:
                damaged.append(Damage(name, f"it cannot be read: {error.strerror}"))

    def read_manifest(self, *, repair: bool) -> None:
        """Read the library's manifest, or its copy if it is damaged."""
        path, copy = small_files.child(self.folder, manifest.FILE), self.seal.copy_of(manifest.FILE)
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
            scan: TableScan = self.processes.call(scan_table, self.folder, table)
        except Crashed as error:
            scan = TableScan.failed(f"reading it crashed ({error.how})")
        progress("segments", 1, 1)
        if scan.failure is not None:
            report.damaged_files.append(Damage(f"{DATABASE}/{table}.lance", scan.failure))
        report.segments, report.without_checksum = scan.segments, scan.without_checksum
        report.videos = len(scan.records)
        report.damaged_videos = [Damage(path, reason) for path, reason in sorted(scan.damaged.items())]
        others = [(failures.TABLE, failures_damage), (removed.name_for(table), removed_damage)]
        for name, read in [*others, *((name, table_damage) for name in WORDS_TABLES)]:
            damage = self._damage_of(read, name)
            if damage is not None:
                report.damaged_files.append(Damage(f"{DATABASE}/{name}.lance", damage))
        report.deleted, report.unavailable = split_missing(sorted(scan.records), scan.records)
        missing = {*report.deleted, *report.unavailable}
        report.changed = [
            path for path, record in sorted(scan.records.items()) if path not in missing and not is_unchanged(record)
        ]

    def _damage_of(self, read: Callable[[Location, str], str | None], table: str) -> str | None:
        try:
            damage: str | None = self.processes.call(read, self.folder, table)
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
            UsageError: the library has segments that are not published yet; nothing was changed.
        """
        self._check_no_plans()
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
                call(copy_sound, self.folder, self.manifest, table, damaged)
            if table != self.manifest.table or is_bad(removed.name_for(self.manifest.table)):
                call(copy_removed, self.folder, removed.name_for(self.manifest.table), removed.name_for(table))
            check_held(self.folder)
            manifest.write(self.manifest.with_(table=table), self.folder)
            if is_bad(failures.TABLE):
                call(copy_failures, self.folder)
            kept = set(KEPT_TABLES)
            for tables in (NEAR_TABLES, WORDS_TABLES):  # one makes no sense without the other
                kept -= set(tables) if any(map(is_bad, tables)) else set()  # the next indexing makes them again
            call(drop_others, self.folder, {table, removed.name_for(table), *kept})
        except Crashed as error:
            raise VopError(
                f"{self.folder}: the repair crashed ({error.how}) and changed nothing; index into another folder"
            ) from None
        small_files.remove(small_files.child(self.folder, FILE))  # releasing the lock writes it again
        logger.info("repaired %r, %d videos were damaged", str(self.folder), len(report.damaged_videos))
        report.repaired = True

    def _restore_copies(self, bad: set[str]) -> set[str]:
        """Restore damaged files from their copies; return the files that are still damaged."""
        restored = self.seal.copies.keys() & bad - {manifest.FILE}
        for name in restored:
            content = self.seal.copy_of(name)
            if content is not None and isinstance(self.folder, Path):
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

    def _check_no_plans(self) -> None:
        """Check that workers have not written files into a table in object storage that are not published yet."""
        if isinstance(self.folder, Path):  # they write them elsewhere
            return
        for name in (manifest.SHARDS, manifest.REEMBEDDING):
            if small_files.folders_in(small_files.child(self.folder, name)):
                raise UsageError(
                    f"{self.folder}: shards of it are not published yet; first: vop library publish {self.folder}, or "
                    "with --discard"
                )

    def _check_no_other_table(self) -> None:
        folders = small_files.folders_in(small_files.child(self.folder, DATABASE))
        names = [place.name for place in folders if place.name.startswith("segments_")]
        tables = {name.removesuffix(".lance") for name in names if name.endswith(".lance")}
        if tables and self.manifest.table not in tables:
            raise VopError(
                f"{self.folder}: {manifest.FILE} names the table {self.manifest.table}, which does not exist, but "
                f"{', '.join(sorted(tables))} does: restore the {manifest.FILE} that belongs to it, from a backup"
            )
