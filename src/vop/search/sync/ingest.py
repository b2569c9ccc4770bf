"""Index the files of a scan.

    scanner -> reader (decodes) -> pipeline (embeds) -> Writer -> store

A file with the size and modification time that the library knows is skipped. Any other file is hashed: if the library
knows the content, only its path or time is updated; a second copy is listed as a duplicate; everything else is decoded
and embedded.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from vop.errors import VideoError
from vop.search.failures import COPY_OF, DUPLICATE, PARTIAL, UNREADABLE, Failure, failure
from vop.search.filters import METADATA
from vop.search.folders import drop_below
from vop.search.models import columns_of, embed_columns
from vop.search.pipeline import Finished, run
from vop.search.results import VideoRecord
from vop.search.schema import check_rows, date_text, make_rows, with_column
from vop.search.state import IndexProgress, Tally, state_file
from vop.search.store import Store
from vop.search.sync import hard_links
from vop.search.sync.metadata import Metadata
from vop.search.sync.reader import Copy, DecodedVideo, KnownContent, Outcome, Reader
from vop.search.sync.report import IndexReport
from vop.search.sync.scanner import (
    Scan,
    is_below,
    is_unchanged,
    missing_folders,
    missing_videos,
    split_missing,
)
from vop.storage import objects
from vop.storage.address import Location, location
from vop.storage.errors import StorageError
from vop.storage.scratch import Scratch
from vop.utils.progress import Progress
from vop.utils.uninterrupted import uninterrupted
from vop.video.dates import RecordingDate, date_after_change
from vop.video.find import LISTED, FoundFile, volume_of
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

COMMIT_ROWS, COMMIT_SECONDS = 1000, 5.0
TIDY_COMMITS = 100  # commits between two compactions: every commit writes a new file
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a library has of some files.

    Attributes:
        records: its videos, by path.
        outdated: the paths of videos that an earlier version of the decoder read.
        failures: the files that failed before, by path.
    """

    records: Mapping[str, VideoRecord]
    outdated: Set[str]
    failures: Mapping[str, Failure]

    @classmethod
    def of(cls, library: Store, files: Sequence[FoundFile] | None = None) -> Known:
        """Return what a library has of these files and of others of their sizes, which may have the same content.

        Args:
            files: None stands for everything that the library has.
        """
        paths = None if files is None else [str(file.path) for file in files]
        sizes = None if files is None else {file.size for file in files}
        return cls(
            records=library.videos(paths=paths, sizes=sizes),
            outdated=library.outdated(paths=paths).keys(),
            failures={failed.path: failed for failed in library.failures(paths=paths)},
        )


class RowWriter(Protocol):
    """Takes the changes that an indexing makes to a library; see `Writer`."""

    failures: list[Failure]

    def add(self, rows: pa.Table, *, replacing: Iterable[str]) -> None: ...

    def update(self, video: str, file: FoundFile, values: Mapping[str, str], *, before: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def commit_if_due(self) -> None: ...

    def commit(self) -> None: ...


class Ingest:
    """Indexes the files of a scan.

    Args:
        metadata: values to store; None keeps the library's metadata.
        known: what the library has of the files; by default everything that it has.
        writer: takes the changes; by default it commits them to the library.

    Attributes:
        report: the report of the work so far.
        failed: the paths of files that are not, or only in part, in the library, as far as this work knows.
        new_copies: the copies that were found, with the paths of their originals.
        was_stopped: whether `stopped` ended the work before all files were read.
    """

    def __init__(
        self,
        library: Store,
        models: Sequence[TextVideoModel],
        scanned: Scan,
        metadata: Metadata | None,
        progress: Progress,
        *,
        known: Known | None = None,
        writer: RowWriter | None = None,
    ) -> None:
        known = known or Known.of(library)
        self.library, self.models, self.scanned, self.metadata = library, models, scanned, metadata
        self.report = IndexReport(
            library=str(library.path), passed_over=dict(scanned.found.skipped), missing=scanned.missing
        )
        self.records = known.records
        self._redo = known.outdated
        self._progress = progress
        self._failed_before = known.failures
        self.failed: set[str] = set()
        self._unreadable: dict[str, str] = {}  # reasons by path, in this run
        self._copies: dict[str, set[Location]] = defaultdict(set)  # by the path of the original
        for failed in self._failed_before.values():
            if failed.kind == DUPLICATE:
                self._copies[failed.reason.removeprefix(COPY_OF)].add(location(failed.path))
        self.new_copies: list[tuple[FoundFile, str]] = []
        self.was_stopped = False
        self._writer: RowWriter = writer or Writer(library)

    def run(
        self,
        *,
        workers: int,
        batch_size: int,
        processes: DecodingProcesses | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Decode and embed new and changed files. If interrupted, commit the finished ones.

        Args:
            processes: where files are decoded; by default processes of its own.
            stopped: returns whether to begin no further files; see `was_stopped`.
        """
        todo = self.new_files()
        with state_file(self.library.path) as state:
            self.read(
                todo,
                workers=workers,
                batch_size=batch_size,
                processes=processes,
                track=lambda hours: IndexProgress(todo, self._progress, state.write, hours),
                stopped=stopped,
            )
        self.describe_originals()

    def new_files(self) -> list[FoundFile]:
        """Return the files to read, each by one name, and update the metadata of the others."""
        for path, reason in self.scanned.found.unreadable:
            self._fail(str(path), UNREADABLE, reason)
        found = self.scanned.found
        others = hard_links.other_names(
            found.files, is_known=partial(is_known, failed=self._failed_before, records=self.records)
        )
        if others:
            self.report.passed_over[LISTED] = self.report.passed_over.get(LISTED, 0) + len(others)
        for file in (*others, *found.other_names):
            self._remove_changed(file)  # the video that had this name before
        left_out = set(others)
        return [file for file in found.files if file not in left_out and not self._is_up_to_date(file)]

    def commit(self) -> None:
        """Write all changes so far."""
        self._writer.commit()

    def read(
        self,
        todo: Sequence[FoundFile],
        *,
        workers: int,
        batch_size: int,
        track: Callable[[Callable[[], float]], Tally],
        processes: DecodingProcesses | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Decode and embed files. If interrupted, commit the finished ones.

        Args:
            stopped: returns whether to begin no further files; see `was_stopped`.
            processes: the processes that decode, which stay open unless the work fails; by default new ones.
            track: returns what counts the progress, from a function that returns the hours of video decoded so far.
        """
        own = DecodingProcesses() if processes is None else nullcontext(processes)
        with Scratch() as scratch, own as processes:
            reader = Reader(self.library, self.records, processes, scratch, files=todo, redo=self._redo)
            progress = track(lambda: reader.seconds / 3600)

            def tick(file: FoundFile | None, share: float) -> None:
                progress.part_done(file, share)
                self._writer.commit_if_due()

            finished_files = run(
                self._until(stopped, _in_order(todo, workers=workers)),
                reader.read_video,
                partial(embed_columns, self.models, self.library.models),
                workers=workers,
                batch_size=batch_size,
                tick=tick,
            )
            try:
                for finished in finished_files:
                    self._take(finished, reader)
                    progress.file_done(finished.job)
                    self._writer.commit_if_due()
                self._list_copies()
            except BaseException:
                processes.close()  # first, so that nothing waits for a long video
                raise
            finally:
                self._writer.commit()
                finished_files.close()

    def _until(self, stopped: Callable[[], bool] | None, files: Iterable[FoundFile]) -> Iterator[FoundFile]:
        for file in files:
            self.was_stopped = stopped is not None and stopped()
            if self.was_stopped:
                return
            yield file

    def _is_up_to_date(self, file: FoundFile) -> bool:
        """Whether a file need not be read. If only its metadata has changed, update that."""
        path = str(file.path)
        record = self.records.get(path)
        if record is not None and path in self._redo:
            return False
        if record is None or not is_same_state(record, file):
            if not is_known_copy(file, self._failed_before, self.records):
                return False
            self._remove_changed(file)  # what was restored here is not in the file
            self.failed.add(path)
            return True
        values = self._metadata_with_copies(path)
        has_changed = any(record.metadata.get(name) != value for name, value in values.items())
        is_older = record.volume is None and file.volume is not None  # rows of an older library lack the volume
        if has_changed or is_older:
            self._writer.update(record.video, file, values, before=path)
            self._writer.commit_if_due()
            self.report.described += has_changed
        self.report.unchanged += 1
        self._keep_partial(path, file)
        return True

    def _take(self, finished: Finished[FoundFile, Outcome], reader: Reader) -> None:
        """Handle the result of reading a file."""
        file, result = finished.job, finished.result
        path = str(file.path)
        match result:
            case DecodedVideo():
                self._add(finished, result, before=reader.path_of(result.file.video))
            case KnownContent():  # the file has moved, or only its modification time has changed
                self._writer.update(result.video, file, self._metadata_of(file, result.before), before=result.before)
                moved = result.before != path
                self.report.moved += moved
                self.report.unchanged += not moved
                self._keep_partial(result.before, file)
            case Copy() if _is_same_file(result.of, path):
                self.report.unchanged += 1  # another name of the same file
            case Copy():
                self.new_copies.append((file, result.of))
                self._remove_changed(file)
            case VideoError():
                logger.info("%r cannot be read: %s", path, result.reason)
                self._unreadable[path] = result.reason
                self._fail(path, UNREADABLE, result.reason, file)
                self._remove_changed(file)
            case _:  # an error of the program or of the whole system, such as a full disk
                raise result

    def _add(self, finished: Finished[FoundFile, Outcome], decoded: DecodedVideo, *, before: str | None) -> None:
        """Add a decoded video; `before` is the path where the library had the same content."""
        library, path = self.library, str(finished.job.path)
        rows = make_rows(
            replace(decoded.file, metadata=self._metadata_of(finished.job, before or path)),
            finished.clips,
            finished.strips,
            dict(zip(columns_of(library.models), finished.embeddings, strict=True)),
            wanted=library.table.schema,
            models=library.models,
        )
        is_new = path not in self.records
        # Replace all rows of the same content under another path, even if its segments were different.
        known = [known for known in (None if is_new else path, before) if known is not None]
        self._writer.add(rows, replacing=[path, *known] if known else [])
        self.report.added += is_new
        self.report.changed += not is_new
        self.report.segments += len(rows)
        self.report.hours += decoded.file.duration_seconds / 3600
        if decoded.damaged:
            self._fail(path, PARTIAL, f"{decoded.damaged} of {decoded.segments} segments are damaged", finished.job)

    def _remove_changed(self, file: FoundFile) -> None:
        """Remove the video of a readable file whose size or modification time has changed."""
        record = self.records.get(str(file.path))
        if record is not None and _can_be_read(file.path) and not is_same_state(record, file):
            self._writer.remove(record.path)

    def _fail(
        self,
        path: str,
        kind: Literal["unreadable", "partial", "duplicate"],
        reason: str,
        file: FoundFile | None = None,
    ) -> None:
        """List a file as a failure, unless it is listed already."""
        size, mtime_ns = (0, 0) if file is None else (file.size, file.mtime_ns)
        failed = failure(path, kind, reason, size=size, mtime_ns=mtime_ns)
        self.failed.add(failed.path)
        before = self._failed_before.get(failed.path)
        if before is None or replace(before, seen_at=failed.seen_at) != failed:
            self._writer.failures.append(failed)

    def _keep_partial(self, before: str, file: FoundFile) -> None:
        """Keep a video in the list of failures if it was partial at the path `before`."""
        failed = self._failed_before.get(before)
        if failed is not None and failed.kind == PARTIAL:
            self._fail(str(file.path), PARTIAL, failed.reason, file)

    # -- copies and metadata

    def add_copies(self, copies: Iterable[tuple[FoundFile, str]]) -> None:
        """Take over copies that another process has found, with the paths of their originals."""
        for file, original in copies:
            self.new_copies.append((file, original))
            self._copies[original].add(file.path)

    def _list_copies(self) -> None:
        """List copies, once all originals have been read."""
        originals = {str(file.path): original for file, original in self.new_copies}
        self.new_copies = [(file, _last_original(originals, original)) for file, original in self.new_copies]
        for file, original in self.new_copies:
            reason = self._unreadable.get(original)
            if reason is None:
                self._fail(str(file.path), DUPLICATE, COPY_OF + original, file)
                self._copies[original].add(file.path)
            else:
                self._fail(str(file.path), UNREADABLE, f"{COPY_OF}{original}: {reason}", file)

    def _metadata_of(self, file: FoundFile, before: str) -> dict[str, str]:
        """Return the metadata of a file: the library's values for the path `before`, overridden by the metadata file's.

        Another video may have been at the file's own path.
        """
        record = self.records.get(before)
        had = {} if record is None else {name: value for name, value in record.metadata.items() if value is not None}
        return had | dict(self.metadata.of(file.path) if self.metadata else {})

    def _metadata_with_copies(self, path: str) -> dict[str, str]:
        """Return the metadata file's values of a video: for its own path or name first, then for its copies."""
        values: dict[str, str] = {}
        if self.metadata is not None:
            for name in (
                location(path),
                *sorted(self._copies.get(path, ()), key=lambda place: str(place).split(os.sep)),
            ):
                values |= {column: value for column, value in self.metadata.of(name).items() if not values.get(column)}
        return values

    def describe_originals(self) -> None:
        """Give videos the metadata of the copies that were found in this run."""
        records = self.library.videos() if self.metadata and self.new_copies else {}
        for path in {original for _, original in self.new_copies}:
            record, values = records.get(path), self._metadata_with_copies(path)
            if record is None or all(record.metadata.get(name) == value for name, value in values.items()):
                continue
            place = location(path)
            volume = volume_of(place.parent) if isinstance(place, Path) else None
            file = FoundFile(place, record.size, record.mtime_ns, volume=volume)
            self._writer.update(record.video, file, values, before=path)
            self.report.described += path in self.records
        self._writer.commit()

    # -- videos that were not found

    def finish(self, *, prune: bool, yes: bool) -> None:
        """Remove or count the videos below the roots that the scan has not found, and complete the report."""
        records, report = self.library.videos(), self.report
        missing = missing_videos(records, self.scanned)
        pruned = missing.prunable if prune and (yes or not missing.needs_confirmation) else []
        if pruned:
            logger.info("removing %d videos from %r", len(pruned), str(self.library.path))
            self.library.move_to_removed(pruned)
            drop_below(self.library.path, frozenset(map(location, pruned)))  # single files that it remembers
            report.removed = len(pruned)
        else:
            report.deleted, report.excluded = len(missing.deleted), len(missing.excluded)
            report.unconfirmed = missing.prunable if prune else []
        report.unavailable = len(missing.unavailable)
        report.unavailable_folders = [str(folder) for folder in missing_folders(missing.unavailable)]
        self._drop_stale_failures({*missing.prunable, *missing.unavailable} - set(pruned), records)
        report.failures = self.library.failures()
        paths = [*records, *(str(file.path) for file in self.scanned.files), *(one.path for one in report.failures)]
        report.unmatched = self.metadata.unmatched(paths) if self.metadata else []
        report.outdated = len(self.library.outdated())

    def _drop_stale_failures(self, staying: Set[str], records: Mapping[str, VideoRecord]) -> None:
        """Remove files that do not fail any more from the list; unavailable files stay."""
        unseen = [path for path in self._failed_before if path not in self.failed and path not in staying]
        below = [path for path in unseen if is_below(path, self.scanned.roots)]
        _, unavailable = split_missing(below, records)
        stale = {*below} - {*unavailable}
        stale |= {path for path in unseen if self._failed_before[path].kind == PARTIAL and path not in records}
        if stale:
            self.library.put_failures([], remove=stale)


class Writer:
    """Collects changes of whole videos, and commits them together.

    Attributes:
        failures: files to list with the next commit.
    """

    def __init__(self, library: Store) -> None:
        self._library = library
        self._last, self._commits = time.monotonic(), 0
        self._committed: dict[str, str] = {}  # by path, the videos that were added or moved there
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.Table] = []
        self._updates: dict[str, Update] = {}
        self._replacing: set[str] = set()
        self._removed: list[str] = []
        self.failures: list[Failure] = []

    def add(self, rows: pa.Table, *, replacing: Iterable[str]) -> None:
        """Add a video, and remove the library's videos at these paths."""
        self._rows.append(rows)
        self._replace(replacing, by=rows.column("video")[0].as_py())

    def update(self, video: str, file: FoundFile, values: Mapping[str, str], *, before: str) -> None:
        """Update a video's path, size, time and these values of its metadata; its segments stay."""
        self._updates[video] = Update(video, file, values)
        self._replace((before, str(file.path)), by=video)

    def _replace(self, paths: Iterable[str], *, by: str) -> None:
        """Replace the rows at these paths, unless another video than `by` has come there: it must stay."""
        self._replacing.update(path for path in paths if self._committed.get(path, by) == by)

    def remove(self, path: str) -> None:
        """Remove a video whose file has changed."""
        self._removed.append(path)

    def commit_if_due(self) -> None:
        waiting = sum(map(len, self._rows)) + len(self._updates)
        if waiting >= COMMIT_ROWS or time.monotonic() - self._last >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write all changes. An interruption waits until this is done, so that no change is written twice."""
        with uninterrupted():
            self._write()
        if self._commits >= TIDY_COMMITS:
            self._library.keep_up()
            self._commits = 0

    def _write(self) -> None:
        if self.failures:
            # Failures come first: if the process is killed in between, the files are read again. In the other order, a
            # partial video would count as complete.
            self._library.put_failures(self.failures)
        rows = [*self._rows, *updated_rows(self._library, self._updates.values())]
        if rows:
            self._library.put(pa.concat_tables(rows), replacing=self._replacing)
            self._committed |= {own.column("path")[0].as_py(): own.column("video")[0].as_py() for own in rows}
            self._commits += 1
        removed = self._removed
        self._clear()
        self._library.remove(removed)
        self._last = time.monotonic()


@dataclass(frozen=True)
class Update:
    """A video whose segments stay: its new file, and values of its metadata."""

    video: str
    file: FoundFile
    metadata: Mapping[str, str]


def updated_rows(library: Store, updates: Iterable[Update]) -> Iterator[pa.Table]:
    """Yield the rows of each updated video. Videos that the library does not have are left out."""
    by_video = {update.video: update for update in updates}
    if not by_video:
        return
    rows = check_rows(library.rows_of(by_video), library.path)  # sorted by video
    videos = rows.column("video").to_pylist()
    for video, places in groupby(range(len(videos)), key=videos.__getitem__):
        first, *others = places
        own = rows.slice(first, 1 + len(others))
        file = by_video[video].file
        values = {
            "path": str(file.path),
            "name": file.path.name,
            "size": file.size,
            "mtime_ns": file.mtime_ns,
            "volume": file.volume,
            "num_segments": len(own),
            **_new_date(own, file),
            **{METADATA + name: value for name, value in by_video[video].metadata.items()},
        }
        for name, value in values.items():
            own = with_column(own, name, value)
        yield own


def _new_date(rows: pa.Table, file: FoundFile) -> dict[str, str]:
    before, source = rows.column("date")[0].as_py(), rows.column("date_source")[0].as_py()
    if not source:  # of an older library
        return {}
    mtime_ns = file.mtime_ns if isinstance(file.path, Path) else None  # an object has a number that stands for its ETag
    date = date_after_change(RecordingDate(datetime.fromisoformat(before), source), file.path.name, mtime_ns)
    return {"date": date_text(date.at), "date_source": date.source}


def is_known(file: FoundFile, failed: Mapping[str, Failure], records: Mapping[str, VideoRecord]) -> bool:
    """Whether the library has a file in its present state, or knows that it is a copy; see `is_known_copy`."""
    record = records.get(str(file.path))
    return (record is not None and is_same_state(record, file)) or is_known_copy(file, failed, records)


def is_known_copy(file: FoundFile, failed: Mapping[str, Failure], records: Mapping[str, VideoRecord]) -> bool:
    """Whether a file was found before to be a copy of a file that still exists.

    Args:
        failed: the library's failures, by path.
        records: its videos, by path.
    """
    before = failed.get(str(file.path))
    if before is None or before.kind != DUPLICATE or not is_same_state(before, file):
        return False
    original = records.get(before.reason.removeprefix(COPY_OF))
    return original is not None and is_unchanged(original)


def is_same_state(before: VideoRecord | Failure, file: FoundFile) -> bool:
    """Whether a file has the size and modification time that it had before."""
    return (before.size, before.mtime_ns) == (file.size, file.mtime_ns)


def _in_order(files: Sequence[FoundFile], *, workers: int) -> list[FoundFile]:
    """Sort files by size, so that small ones can be searched soon.

    With several workers, the largest file comes first: it takes longest, and the other workers read the small ones.
    """
    by_size = sorted(files, key=lambda file: file.size)
    return [*by_size[-1:], *by_size[:-1]] if workers > 1 else by_size


def _can_be_read(place: Location) -> bool:
    """Whether a file or an object exists and may be read; False if an object's server does not tell."""
    if isinstance(place, Path):
        return os.access(place, os.R_OK)
    try:
        return objects.exists(place)
    except StorageError:
        return False


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _last_original(originals: Mapping[str, str], path: str) -> str:
    """Follow copies of copies to the original."""
    while path in originals:
        path = originals[path]
    return path
