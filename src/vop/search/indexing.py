"""One pass of `vop index` over the files that a walk has found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import VideoError
from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, Failure, failure
from vop.search.gone import is_below, missing_folders, sort_missing
from vop.search.leftovers import Leftovers, leftovers
from vop.search.metadata import Metadata
from vop.search.models import embed_by
from vop.search.pipeline import Finished, run
from vop.search.reading import Copy, Decoded, KnownContent, Reader, is_as_it_was
from vop.search.report import IndexReport
from vop.search.results import VideoRecord
from vop.search.scanner import FoundFile, Walk
from vop.search.schema import make_rows
from vop.search.state import IndexProgress, state_of
from vop.search.store import Store
from vop.search.volumes import volume_of
from vop.search.writer import Pending
from vop.utils.progress import Progress
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_COPY_OF = "it has the content of "  # and then the path of the file that the library has


class Indexing:
    """Brings a library up to date with a walk.

    Attributes:
        report: what has been done so far.
    """

    def __init__(
        self,
        library: Store,
        models: Sequence[TextVideoModel],
        walk: Walk,
        metadata: Metadata,
        progress: Progress,
    ) -> None:
        self.library, self.models, self.walk, self.metadata = library, models, walk, metadata
        self.report = IndexReport(
            library=str(library.path),
            passed_over=dict(walk.passed_over),
            missing={str(path): reason for path, reason in walk.missing},
        )
        self.known = library.videos()
        self._again = library.outdated().keys()
        self._show = progress
        self._failed_before = {failed.path: failed for failed in library.failures()}
        self._failed: set[str] = set()  # paths, in this pass
        self._unreadable: dict[str, str] = {}  # reasons by path, in this pass
        self._copies: dict[str, set[Path]] = defaultdict(set)  # by the path of the original
        for failed in self._failed_before.values():
            if failed.kind == DUPLICATE:
                self._copies[failed.reason.removeprefix(_COPY_OF)].add(Path(failed.path))
        self._new_copies: list[tuple[FoundFile, str]] = []
        self._pending = Pending(library)

    # -- the files

    def work(self, *, workers: int, batch_size: int) -> None:
        """Decodes and embeds what is new or has changed. Interrupted, it commits what is finished."""
        for path, reason in self.walk.unreadable:
            self._fail(str(path), UNREADABLE, reason)
        wanted = [file for file in self.walk.files if not self._is_done(file)]
        with state_of(self.library.path) as state, DecodingProcesses() as processes:
            self._reader = Reader(self.library, self.known, self.metadata, processes, files=wanted, again=self._again)
            self._progress = IndexProgress(self._show, hours=lambda: self._reader.seconds / 3600)
            self._progress.start(wanted, state)
            finished_files = run(
                _in_order(wanted, workers=workers),
                self._reader.decode,
                partial(embed_by, self.models),
                workers=workers,
                batch_size=batch_size,
                tick=self._tick,
            )
            try:
                for finished in finished_files:
                    self._take(finished)
                    self._progress.file(finished.job)
                    self._pending.commit_if_due()
                self._settle_copies()
            except BaseException:
                processes.close()  # first of all, so that nobody waits for a long film
                raise
            finally:
                self._pending.commit()
                finished_files.close()
        self._describe_originals()

    def _tick(self, file: FoundFile | None, share: float) -> None:
        self._progress.piece(file, share)
        self._pending.commit_if_due()

    def _is_done(self, file: FoundFile) -> bool:
        """Whether there is nothing to do for a file; if only its metadata is other, that is seen to."""
        path = str(file.path)
        known = self.known.get(path)
        if known is not None and path in self._again:
            return False
        if known is None or not _is_same_state(known, file):
            return self._is_known_copy(file)
        values = self._metadata_of(path)
        is_other = any(known.metadata.get(name) != value for name, value in values.items())
        is_older = known.volume is None and volume_of(file.path.parent) is not None  # it gets what older rows lack
        if is_other or is_older:
            self._pending.rewrite(known.video, file, values, before=path)
            self._pending.commit_if_due()
            self.report.described += is_other
        self.report.unchanged += 1
        self._keep_partial(path, file)
        return True

    def _is_known_copy(self, file: FoundFile) -> bool:
        if not is_known_copy(file, self._failed_before, self.known):
            return False
        self._failed.add(str(file.path))
        return True

    def _take(self, finished: Finished) -> None:
        file, result = finished.job, finished.result
        path = str(file.path)
        if isinstance(result, Decoded):
            self._add(finished, result)
        elif isinstance(result, KnownContent):
            self._follow(file, result)
        elif isinstance(result, Copy) and _is_same_file(result.of, path):
            self.report.unchanged += 1  # one file, by another of its names
        elif isinstance(result, Copy):
            self._new_copies.append((file, result.of))
            self._remove_changed(file)
        elif isinstance(result, VideoError):
            self._unreadable[path] = result.reason
            self._fail(path, UNREADABLE, result.reason, file)
            self._remove_changed(file)
        else:  # of the program or of the whole system, such as a full disk
            raise result

    def _follow(self, file: FoundFile, found: KnownContent) -> None:
        """Known content, whose file is at another path or was touched."""
        self._pending.rewrite(found.video, file, self._reader.metadata_of(file), before=found.before)
        moved = found.before != str(file.path)
        self.report.moved += moved
        self.report.unchanged += not moved
        self._keep_partial(found.before, file)

    def _keep_partial(self, before: str, file: FoundFile) -> None:
        """Goes on listing a video of which the library has a part only, known at the path `before` so far."""
        failed = self._failed_before.get(before)
        if failed is not None and failed.kind == PARTIAL:
            self._fail(str(file.path), PARTIAL, failed.reason, file)

    def _remove_changed(self, file: FoundFile) -> None:
        """Takes out what a file held before, if the file can be read and is another one by its size or time."""
        known = self.known.get(str(file.path))
        if known is not None and os.access(file.path, os.R_OK) and not _is_same_state(known, file):
            self._pending.remove(known.path)

    def _add(self, finished: Finished, decoded: Decoded) -> None:
        library, path = self.library, str(finished.job.path)
        embeddings = dict(zip((model.column for model in library.models), finished.embeddings, strict=True))
        rows = make_rows(
            decoded.file,
            finished.spans,
            finished.strips,
            embeddings,
            wanted=library.table.schema,
            models=library.models,
        )
        is_new = path not in self.known
        before = self._reader.path_of(decoded.file.video)
        # Of the same content under another path, every row goes, also where it is cut otherwise now.
        known = [known for known in (None if is_new else path, before) if known is not None]
        self._pending.add(rows, replacing=[path, *known] if known else [])
        self.report.added += is_new
        self.report.changed += not is_new
        self.report.segments += len(rows)
        self.report.hours += decoded.file.duration_seconds / 3600
        if decoded.damaged:
            self._fail(path, PARTIAL, f"{decoded.damaged} of {decoded.segments} segments are damaged", finished.job)

    def _fail(self, path: str, kind: str, reason: str, file: FoundFile | None = None) -> None:
        state = {} if file is None else {"size": file.size, "mtime_ns": file.mtime_ns}
        failed = failure(path, kind, reason, **state)
        self._failed.add(failed.path)
        before = self._failed_before.get(failed.path)
        if before is None or replace(before, seen_at=failed.seen_at) != failed:  # else it is listed already
            self._pending.failures.append(failed)

    # -- copies

    def _settle_copies(self) -> None:
        """Lists copies, now that it is known what came of their originals."""
        originals = {str(file.path): original for file, original in self._new_copies}
        self._new_copies = [(file, _end_of(originals, original)) for file, original in self._new_copies]
        for file, original in self._new_copies:
            reason = self._unreadable.get(original)
            if reason is None:
                self._fail(str(file.path), DUPLICATE, _COPY_OF + original, file)
                self._copies[original].add(file.path)
            else:
                self._fail(str(file.path), UNREADABLE, f"{_COPY_OF}{original}: {reason}", file)

    def _metadata_of(self, path: str) -> dict[str, str]:
        """What the table says of a video: by its own path or name first, then by those of its copies."""
        values: dict[str, str] = {}
        for name in (Path(path), *sorted(self._copies.get(path, ()))):
            values |= {column: value for column, value in self.metadata.of(name).items() if not values.get(column)}
        return values

    def _describe_originals(self) -> None:
        """Gives videos whose copies were found in this pass what the table says of the copies."""
        known = self.library.videos() if self.metadata.columns and self._new_copies else {}
        for path in {original for _, original in self._new_copies}:
            video, values = known.get(path), self._metadata_of(path)
            if video is None or all(video.metadata.get(name) == value for name, value in values.items()):
                continue
            file = FoundFile(Path(path), video.size, video.mtime_ns)
            self._pending.rewrite(video.video, file, values, before=path)
            self.report.described += path in self.known
        self._pending.commit()

    # -- what is left in the library

    def settle(self, roots: Set[Path], *, prune: bool, yes: bool) -> None:
        """Takes out, or counts, the videos below `roots` that the walk has not found, and completes the report."""
        known = self.library.videos()
        left = leftovers(known, self.walk, roots)
        going = left.prunable if prune and (yes or not left.needs_yes) else []
        if going:
            self.library.set_aside(going)
        self._report_leftovers(left, pruned=bool(going), prune=prune)
        staying = {*left.prunable, *left.unavailable} - set(going)
        self._drop_stale_failures(roots, staying, known)
        failures = self.library.failures()
        self.report.failures = failures
        self.report.unreadable = sum(failed.kind == UNREADABLE for failed in failures)
        self.report.partial = sum(failed.kind == PARTIAL for failed in failures)
        self.report.duplicates = sum(failed.kind == DUPLICATE for failed in failures)
        there = [*known, *(str(file.path) for file in self.walk.files), *(failed.path for failed in failures)]
        self.report.unmatched = self.metadata.unmatched(there)
        self.report.outdated = len(self.library.outdated())

    def _report_leftovers(self, left: Leftovers, *, pruned: bool, prune: bool) -> None:
        report = self.report
        if pruned:
            report.removed = len(left.prunable)
        else:
            report.gone, report.excluded = len(left.deleted), len(left.excluded)
            report.unconfirmed = left.prunable if prune else []
        report.away = len(left.unavailable)
        report.unavailable = [str(folder) for folder in missing_folders(left.unavailable)]

    def _drop_stale_failures(self, roots: Set[Path], staying: Set[str], known: Mapping[str, VideoRecord]) -> None:
        """Takes off the list what does not fail any more; of what cannot be looked at now, nobody knows."""
        unseen = [path for path in self._failed_before if path not in self._failed and path not in staying]
        below = [path for path in unseen if is_below(path, roots)]
        _, unavailable = sort_missing(below, known)
        stale = {*below} - {*unavailable}
        stale |= {path for path in unseen if self._failed_before[path].kind == PARTIAL and path not in known}
        if stale:
            self.library.put_failures([], no_longer=stale)


def is_known_copy(file: FoundFile, failed: Mapping[str, Failure], known: Mapping[str, VideoRecord]) -> bool:
    """Whether a file was found before to be a copy of one that is still there.

    Args:
        failed: what the library has listed, by path.
        known: its videos, by path.
    """
    before = failed.get(str(file.path))
    if before is None or before.kind != DUPLICATE or not _is_same_state(before, file):
        return False
    original = known.get(before.reason.removeprefix(_COPY_OF))
    return original is not None and is_as_it_was(original)


def _is_same_state(before: VideoRecord | Failure, file: FoundFile) -> bool:
    """Whether a file has the size and time of change that it had."""
    return (before.size, before.mtime_ns) == (file.size, file.mtime_ns)


def _in_order(files: Sequence[FoundFile], *, workers: int) -> list[FoundFile]:
    """Small files first, so that they can be searched soon.

    The largest one comes before all others where it holds up none of them, as it would end last.
    """
    by_size = sorted(files, key=lambda file: file.size)
    return [*by_size[-1:], *by_size[:-1]] if workers > 1 else by_size


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _end_of(originals: Mapping[str, str], path: str) -> str:
    """The original of a file that is a copy of a copy."""
    while path in originals:
        path = originals[path]
    return path
