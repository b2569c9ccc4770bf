"""`vop index`: adds to a library what is new, redoes what has changed, follows what has moved.

A file that is known with the same size and time of change is left alone. Another one is hashed: known content only gets
its new path or time, a second copy is listed as one, and the rest is decoded and embedded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError, VideoError, VopError
from vop.progress import Progress, silent
from vop.search.about import FILE, About, Cutting
from vop.search.commits import Pending
from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, Failure, failure
from vop.search.library import Library
from vop.search.metadata import NOTHING, Metadata, read_metadata
from vop.search.models import check_same, describe, embed_by, open_model, open_models
from vop.search.pipeline import Finished, run
from vop.search.place import alone_in, check_place
from vop.search.reading import Copy, Decoded, KnownContent, Reader
from vop.search.rows import make_rows
from vop.search.state import IndexProgress, State, state_of
from vop.search.walk import FoundFile, Walk, absolute_path, find_videos

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
        removed: videos whose files are gone, taken out (`prune`); gone: such videos that are still there.
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
    removed: int = 0
    gone: int = 0
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
        workers: threads that decode; by default as many as there are cores.
        batch_size: segments that are embedded together.
        waiting: called once if another process writes to the library, before waiting for it.

    Raises:
        UsageError: a path, the model or a setting is not there or not what the library has.
        VopError: no space left, or a model that is another one than the library's. What was committed stays.
    """
    started = time.monotonic()
    folder = absolute_path(Path(folder).expanduser())
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError(f"batch_size is {batch_size} and workers {workers}; both are 1 or more")
    described = read_metadata(metadata) if metadata else NOTHING
    roots = [absolute_path(Path(path).expanduser()) for path in paths]
    check_place(folder)
    walk = find_videos(roots, skip=folder)
    with alone_in(folder, waiting=waiting):
        library, models = _open(folder, model, cutting, num_frames, keep_frames, precision)
        library.add_columns(described.columns)
        indexing = _Indexing(library, models, walk, described, progress)
        with state_of(folder) as state:
            indexing.work(state, workers=workers or len(os.sched_getaffinity(0)), batch_size=batch_size)
        indexing.settle_gone(roots, prune=prune)
        progress(_TIDYING, 0, 1)
        library.keep_up()
        progress(_TIDYING, 1, 1)
    indexing.report.seconds = time.monotonic() - started
    return indexing.report


def forget(folder: str | Path, paths: Sequence[str | Path], *, waiting: Callable[[], None] = lambda: None) -> int:
    """Takes out of a library every video at or below these paths, and says how many; their files are left alone.

    Raises:
        UsageError: there is no such library, or it has no video there.
    """
    roots = [absolute_path(Path(path).expanduser()) for path in paths]
    library = Library.open(folder)
    with alone_in(library.path, waiting=waiting):
        found = [path for path in library.known() if _is_below(path, roots)]
        if not found:
            raise UsageError(f"{library.path} has no video at or below {', '.join(map(str, roots))}")
        library.remove(found)
        library.keep_up()
    return len(found)


def _open(
    folder: Path,
    model: str | None,
    cutting: Cutting | None,
    num_frames: int | None,
    keep_frames: bool,
    precision: str,
) -> tuple[Library, list[TextVideoModel]]:
    if not (folder / FILE).exists():
        if model is None:
            raise UsageError(f"{folder}: a new library needs a model: --model RUN, a CLIP folder, a hub id, or mini")
        opened = open_model(model, num_frames=num_frames, precision=precision)
        described = describe(opened, name=model, column="embedding_1")
        about = About(
            table=f"segments_{described.fingerprint}",
            models=(described,),
            num_frames=opened.num_frames,
            image_size=opened.image_size,
            cutting=cutting or Cutting(),
            keep_frames=keep_frames,
        )
        return Library.create(folder, about), [opened]
    library = Library.open(folder)
    about = library.about
    _check_settings(about, cutting, num_frames, keep_frames, folder)
    models = open_models(about, folder=folder, precision=about.models[0].precision)
    if model is not None and model != about.models[0].name:
        other = open_model(model, num_frames=num_frames, precision=about.models[0].precision, beside=models)
        check_same(other, about.models[0], source=model, folder=folder)
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


class _Indexing:
    """One pass over the files that a walk has found."""

    def __init__(
        self,
        library: Library,
        models: Sequence[TextVideoModel],
        walk: Walk,
        metadata: Metadata,
        progress: Progress,
    ) -> None:
        self.library, self.models, self.walk, self.metadata = library, models, walk, metadata
        self.report = IndexReport(library=str(library.path), passed_over=dict(walk.passed_over))
        self.known = library.known()
        self._failed_before = {failed.path: failed for failed in library.failures()}
        self._reader = Reader(library, self.known, metadata)
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
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return self._is_known_copy(file)
        values = self.metadata.of(file.path)
        if any(known.metadata.get(name) != value for name, value in values.items()):
            self._pending.rewrite(known.video, file, values, before=str(file.path))
            self.report.described += 1
        self.report.unchanged += 1
        return True

    def _is_known_copy(self, file: FoundFile) -> bool:
        """Whether a file was found before to be a copy of one that is still there."""
        failed = self._failed_before.get(str(file.path))
        if failed is None or failed.kind != DUPLICATE or (failed.size, failed.mtime_ns) != (file.size, file.mtime_ns):
            return False
        original = failed.reason.removeprefix(_COPY_OF)
        if original not in self.known or not os.path.lexists(original):
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
        elif isinstance(result, Copy):
            self._fail(path, DUPLICATE, _COPY_OF + result.of, file)
        elif isinstance(result, VideoError):
            self._fail(path, UNREADABLE, result.reason, file)
        elif isinstance(result, VopError | MemoryError):  # no space left: everybody's
            raise result
        else:  # whatever a strange file has brought about ends that file only
            self._fail(path, UNREADABLE, f"{type(result).__name__}: {result}", file)
        if not isinstance(result, Decoded | KnownContent) and path in self.known and os.access(path, os.R_OK):
            self._pending.remove(path)  # what it held before is not there any more

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
        self._pending.add(rows, path, is_new=is_new and self._reader.is_new(decoded.file.video))
        self.report.added += is_new
        self.report.changed += not is_new
        self.report.segments += len(rows)
        self.report.hours += decoded.file.duration_seconds / 3600
        if decoded.damaged:
            self._fail(path, PARTIAL, f"{decoded.damaged} of {decoded.segments} segments are damaged", finished.job)

    def _fail(self, path: str, kind: str, reason: str, file: FoundFile | None = None) -> None:
        state = {} if file is None else {"size": file.size, "mtime_ns": file.mtime_ns}
        failed = failure(path, kind, reason, **state)
        self.report.failures.append(failed)
        self._pending.failures.append(failed)

    def settle_gone(self, roots: Sequence[Path], *, prune: bool) -> None:
        """Takes out, or counts, the videos below `roots` whose files are gone, and failures that are none any more."""
        now = self.library.known()
        gone = [path for path in now if _is_below(path, roots) and not os.path.lexists(path)]
        if prune:
            self.library.remove(gone)
            self.report.removed = len(gone)
        else:
            self.report.gone = len(gone)
        seen = {failed.path for failed in self.report.failures}
        stale = [path for path in self._failed_before if _is_below(path, roots) and path not in seen]
        self.library.put_failures([], no_longer=stale)


def _is_below(path: str, roots: Iterable[Path]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)
