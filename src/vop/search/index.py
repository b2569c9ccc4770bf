"""`vop index`: adds to a library what is new, redoes what has changed, follows what has moved.

A file that is known with the same size and time of change is left alone. Another one is hashed: known content only gets
its new path or time, a second copy is listed as one, and the rest is decoded and embedded.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError, VideoError, VopError
from vop.progress import Progress, silent
from vop.search.about import FILE, About, Cutting
from vop.search.commits import Pending
from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, Failure, failure
from vop.search.gone import is_below, sort_missing
from vop.search.library import Library
from vop.search.metadata import NOTHING, Metadata, read_metadata
from vop.search.models import describe, embed_by, open_model, open_models, place_of
from vop.search.pipeline import Finished, count_workers, run
from vop.search.place import alone_in, check_place
from vop.search.reading import Copy, Decoded, KnownContent, Reader, is_as_it_was
from vop.search.rows import make_rows
from vop.search.state import IndexProgress, State, state_of
from vop.search.walk import FoundFile, Walk, absolute_path, find_videos
from vop.utils.text import count
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    from vop.model import TextVideoModel


_TIDYING = "tidying up"  # minutes, where a large library needs a new index
_COPY_OF = "it has the content of "  # and then the path of the file that the library has


@dataclass(kw_only=True)
class IndexReport:
    """What an indexing did, in numbers of files.

    Attributes:
        added, changed, moved, unchanged: videos that are in the library now.
        described: videos that were there, and got other metadata.
        outdated: videos that an earlier version decoded, whose frames may differ; `redo` decodes them again.
        removed: videos whose files are gone, taken out (`prune`); gone: such videos that are still there.
        away: videos whose whole folder is empty, gone or does not answer, as that of a drive that is not mounted;
            `prune` leaves them alone.
        passed_over: files that are no videos, by kind.
        failures: files that are not, or not wholly, in the library.
        hours: of video, decoded now; segments: made now.
    """

    library: str
    added: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    described: int = 0
    outdated: int = 0
    removed: int = 0
    gone: int = 0
    away: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    segments: int = 0
    hours: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict:
        return asdict(self)


def index(
    folder: str | Path,
    paths: Sequence[str | Path],
    *,
    model: str | None = None,
    cutting: Cutting | None = None,
    num_frames: int | None = None,
    keep_frames: bool = False,
    metadata: Path | None = None,
    prune: bool = False,
    redo: bool = False,
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> IndexReport:
    """Brings a library up to date with the videos below `paths`; makes it if there is none.

    Args:
        folder: the library.
        model: a run, a folder, a hub id or mini; a new library needs it, an existing one has its own.
        cutting, num_frames, keep_frames, precision: of a new library; an existing one has its own.
        keep_frames: keeps the decoded frames, so that the library can move to another model without decoding.
        metadata: a CSV file; see `vop.search.metadata`.
        prune: takes videos out whose files below `paths` are gone.
        redo: decodes videos below `paths` again that an earlier version of the decoder read.
        workers: threads that decode; by default as many as there are cores.
        batch_size: segments that are embedded together.
        waiting: called once if another process writes to the library, before waiting for it.

    Raises:
        UsageError: a path, the model or a setting is not there or not what the library has.
        VopError: no space left, a model that is another one than the library's, or videos that an earlier version
            decoded, with which newer ones are not mixed. What was committed stays.
    """
    started = time.monotonic()
    folder = absolute_path(Path(folder).expanduser())
    threads = count_workers(workers, batch_size=batch_size)
    described = read_metadata(metadata) if metadata else NOTHING
    roots = frozenset(absolute_path(Path(path).expanduser()) for path in paths)
    check_place(folder)
    walk = find_videos(sorted(roots), skip=folder)
    new = None if (folder / FILE).exists() else _new_model(folder, model, num_frames, precision)
    with alone_in(folder, waiting=waiting):
        if new is not None and not (folder / FILE).exists():  # nobody else has made it in the meantime
            library, models = _create(folder, new, model, cutting, keep_frames), [new]
        else:
            library, models = _open(folder, model, cutting, num_frames, keep_frames)
        outdated = library.outdated()
        there = {path: seconds for path, seconds in outdated.items() if os.path.lexists(path)}
        if there and not redo:
            raise VopError(_say_outdated(folder, there, roots))
        library.add_columns(described.columns)
        with state_of(folder) as state, DecodingProcesses() as processes:
            indexing = _Indexing(library, models, walk, described, progress, processes, again=outdated.keys())
            indexing.work(state, workers=threads, batch_size=batch_size)
        indexing.settle_gone(roots, prune=prune)
        indexing.report.outdated = len(library.outdated())
        progress(_TIDYING, 0, 1)
        if indexing.report.changed or indexing.report.removed:
            library.drop_frames()
        library.keep_up()
        progress(_TIDYING, 1, 1)
    indexing.report.seconds = time.monotonic() - started
    return indexing.report


def forget(folder: str | Path, paths: Sequence[str | Path], *, waiting: Callable[[], None] = lambda: None) -> int:
    """Takes out of a library every video at or below these paths, and says how many; their files are left alone.

    Raises:
        UsageError: there is no such library, or it has no video there.
    """
    roots = frozenset(absolute_path(Path(path).expanduser()) for path in paths)
    library = Library.open(folder)
    with alone_in(library.path, waiting=waiting):
        found = [path for path in library.known() if is_below(path, roots)]
        if not found:
            raise UsageError(f"{library.path} has no video at or below {', '.join(map(str, roots))}")
        library.remove(found)
        library.drop_frames()
        library.keep_up()
    return len(found)


def _new_model(folder: Path, name: str | None, num_frames: int | None, precision: str) -> TextVideoModel:
    """The model of a new library."""
    if name is None:
        raise UsageError(f"{folder}: a new library needs a model: --model RUN, a CLIP folder, a hub id, or mini")
    model = open_model(name, num_frames=num_frames, precision=precision)
    model.check_independent()
    return model


def _create(folder: Path, model: TextVideoModel, name: str, cutting: Cutting | None, keep_frames: bool) -> Library:
    described = describe(model, name=name, column="embedding_1")
    about = About(
        table=f"segments_{described.fingerprint}",
        models=(described,),
        num_frames=model.num_frames,
        image_size=model.image_size,
        cutting=cutting or Cutting(),
        keep_frames=keep_frames,
    )
    return Library.create(folder, about)


def _open(
    folder: Path, name: str | None, cutting: Cutting | None, num_frames: int | None, keep_frames: bool
) -> tuple[Library, list[TextVideoModel]]:
    """An existing library and its models; `name` is where the first of them is now, if it has moved."""
    library = Library.open(folder)
    _check_settings(library.about, cutting, num_frames, keep_frames, folder)
    models = open_models(library.about, folder=folder, name=name)
    if name is not None:
        library.rename_model(place_of(name))
    return library, models


def _check_settings(
    about: About, cutting: Cutting | None, num_frames: int | None, keep_frames: bool, folder: Path
) -> None:
    """Refuses settings that are not the library's: its segments would not be comparable."""
    for what, wanted, has in (
        ("segments", cutting, about.cutting),
        ("num_frames", num_frames, about.num_frames),
        ("keep_frames", keep_frames or None, about.keep_frames),
    ):
        if wanted is not None and wanted != has:
            raise UsageError(f"{folder} has {what}: {has}; {wanted} needs a library of its own: choose another folder")


def _say_outdated(folder: Path, outdated: Mapping[str, float], roots: Set[Path]) -> str:
    """What keeps an indexing from going on, and what to do about it."""
    hours = sum(outdated.values()) / 3600
    redo = shlex.join(["vop", "index", str(folder), *map(str, sorted(roots)), "--redo"])
    were = "was" if len(outdated) == 1 else "were"
    return (
        f"{folder}: {len(outdated):,} of its videos ({hours:.1f} h) {were} decoded by an earlier version of vop, "
        "which read HDR, non-square pixels, transparency, joined recordings and several video tracks otherwise. New "
        f"ones are not mixed with them. Decode them again: {redo}; searching works meanwhile"
    )


class _Indexing:
    """One pass over the files that a walk has found."""

    def __init__(
        self,
        library: Library,
        models: Sequence[TextVideoModel],
        walk: Walk,
        metadata: Metadata,
        progress: Progress,
        processes: DecodingProcesses,
        *,
        again: Set[str],
    ) -> None:
        self._again = again
        self.library, self.models, self.walk, self.metadata = library, models, walk, metadata
        self.report = IndexReport(library=str(library.path), passed_over=dict(walk.passed_over))
        self.known = library.known()
        self._failed_before = {failed.path: failed for failed in library.failures()}
        self._reader = Reader(library, self.known, metadata, processes, again=again)
        self._pending = Pending(library)
        self._progress = IndexProgress(progress, hours=lambda: self._reader.seconds / 3600)

    def work(self, state: State, *, workers: int, batch_size: int) -> None:
        for path, reason in self.walk.unreadable:
            self._fail(str(path), UNREADABLE, reason)
        wanted = [file for file in self.walk.files if not self._is_done(file)]
        self._progress.start(wanted, state)
        embed = partial(embed_by, self.models)
        try:
            for finished in run(
                wanted, self._reader.decode, embed, workers=workers, batch_size=batch_size, tick=self._progress.piece
            ):
                self._take(finished)
                self._progress.file(finished.job)
                self._pending.commit_if_due()
        finally:  # also of a job that is interrupted: what is finished is kept
            self._pending.commit()

    def _is_done(self, file: FoundFile) -> bool:
        """Whether there is nothing to do for a file; if only its metadata is other, that is seen to."""
        known = self.known.get(str(file.path))
        if known is not None and known.path in self._again:
            return False
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return self._is_known_copy(file)
        values = self.metadata.of(file.path)
        if any(known.metadata.get(name) != value for name, value in values.items()):
            self._pending.rewrite(known.video, file, values, before=str(file.path))
            self._pending.commit_if_due()
            self.report.described += 1
        self.report.unchanged += 1
        before = self._failed_before.get(str(file.path))
        if before is not None and before.kind == PARTIAL:
            self.report.failures.append(before)
        return True

    def _is_known_copy(self, file: FoundFile) -> bool:
        """Whether a file was found before to be a copy of one that is still there."""
        failed = self._failed_before.get(str(file.path))
        if failed is None or failed.kind != DUPLICATE or (failed.size, failed.mtime_ns) != (file.size, file.mtime_ns):
            return False
        original = self.known.get(failed.reason.removeprefix(_COPY_OF))
        if original is None or not is_as_it_was(original):
            return False
        self.report.failures.append(failed)
        return True

    def _take(self, finished: Finished) -> None:
        file, result = finished.job, finished.result
        path = str(file.path)
        if isinstance(result, Decoded):
            self._add(finished, result)
        elif isinstance(result, KnownContent):
            self._pending.rewrite(result.video, file, self._reader.metadata_of(file), before=result.before)
            moved = result.before != path
            self.report.moved += moved
            self.report.unchanged += not moved
        elif isinstance(result, Copy) and _is_same_file(result.of, path):
            self.report.unchanged += 1  # one file, by another of its names
            return
        elif isinstance(result, Copy):
            self._fail(path, DUPLICATE, _COPY_OF + result.of, file)
        elif isinstance(result, VideoError):
            self._fail(path, UNREADABLE, result.reason, file)
        elif isinstance(result, VopError | MemoryError):  # no space left: everybody's
            raise result
        else:  # whatever a strange file has brought about ends that file only
            self._fail(path, UNREADABLE, f"{type(result).__name__}: {result}", file)
        if not isinstance(result, Decoded | KnownContent) and self._has_changed(file):
            self._pending.remove(path)  # what it held before is not there any more

    def _has_changed(self, file: FoundFile) -> bool:
        """Whether a file that the library knows can be read, and is another one by its size or time."""
        known = self.known.get(str(file.path))
        if known is None or not os.access(file.path, os.R_OK):
            return False
        return (known.size, known.mtime_ns) != (file.size, file.mtime_ns)

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
            damaged = f"{decoded.damaged:,} of {count('segment', decoded.segments)} are damaged"
            self._fail(path, PARTIAL, damaged, finished.job)

    def _fail(self, path: str, kind: str, reason: str, file: FoundFile | None = None) -> None:
        state = {} if file is None else {"size": file.size, "mtime_ns": file.mtime_ns}
        failed = failure(path, kind, reason, **state)
        before = self._failed_before.get(failed.path)
        if before is not None and replace(before, seen_at=failed.seen_at) == failed:
            failed = before  # which is listed already
        else:
            self._pending.failures.append(failed)
        self.report.failures.append(failed)

    def settle_gone(self, roots: Set[Path], *, prune: bool) -> None:
        """Takes out, or counts, the videos below `roots` whose files are gone, and failures that are none any more."""
        unsure = {path for path, _ in self.walk.unreadable}
        below = [path for path in self.library.known() if is_below(path, roots)]
        gone, away = sort_missing([path for path in below if not is_below(path, unsure)])
        self.report.away = len(away)
        if prune:
            self.library.remove(gone)
            self.report.removed = len(gone)
        else:
            self.report.gone = len(gone)
        seen = {failed.path for failed in self.report.failures}
        stale = [path for path in self._failed_before if is_below(path, roots) and path not in seen]
        if stale:
            self.library.put_failures([], no_longer=stale)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
