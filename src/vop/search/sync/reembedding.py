"""`vop library reembed`: re-embed a library with another model, or add another model's embeddings to its own.

The new table is written beside the old one. Searches use the old one until the new one is complete and replaces it.
Frames come from the library if it keeps them, else from the videos. An interrupted re-embedding resumes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig
from vop.errors import FileFailure, UsageError, VideoError, VopError
from vop.search.frames import SegmentFrames
from vop.search.manifest import LibraryModel, Manifest
from vop.search.models import columns_of, describe, embed_columns, open_model
from vop.search.pipeline import Finished, count_workers, run
from vop.search.results import VideoRecord
from vop.search.schema import EMBEDDING, check_rows, column_of, decoder_version, made_with, with_column
from vop.search.segmentation import ClipTimes, DecodedSegment, read_frames_of
from vop.search.store import Store
from vop.search.sync.calibrating import calibrate
from vop.search.sync.ingest import COMMIT_ROWS
from vop.search.sync.lock import library_lock
from vop.search.sync.scanner import is_unchanged
from vop.storage.address import Address, Location, absolute, location
from vop.storage.errors import ObjectError
from vop.storage.scratch import Scratch
from vop.utils.progress import Progress, silent
from vop.utils.text import first_few
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_NOT_THE_SAME = "its file was deleted or has changed; run `vop index` first"
_SHOWN = 5  # videos that an error names
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReembedReport:
    """The result of re-embedding a library.

    Attributes:
        videos, segments: numbers of videos and segments in the library afterwards.
        resumed: the number of videos that an earlier attempt embedded.
        dropped: videos that could not be embedded and were left out.
        models: names of the library's models afterwards, the first model first.
    """

    library: str
    videos: int
    segments: int
    resumed: int
    dropped: list[FileFailure]
    models: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop library reembed --json`."""
        return {
            "library": self.library,
            "videos": self.videos,
            "segments": self.segments,
            "resumed": self.resumed,
            "dropped": [[failure.path, failure.reason] for failure in self.dropped],
            "models": self.models,
        }


def reembed(
    folder: str | Path | Address,
    model: str,
    *,
    keep: bool = False,
    num_frames: int | None = None,
    embedding: EmbeddingConfig = AS_USUAL,
    drop_unreadable: bool = False,
    precision: str = "auto",
    compile: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> ReembedReport:
    """Embed every segment of a library with another model.

    Args:
        model: a run, a folder, a hub id or mini.
        keep: whether to keep the embeddings of the library's models beside the new ones; all models then take the same
            frames.
        num_frames: frames per segment; by default the model's own number, or the library's for a plain CLIP.
        embedding: how the new model embeds segments and queries.
        drop_unreadable: whether to leave out unreadable videos. Otherwise they are an error, and the library stays as
            it is.
        compile: whether to compile the layers of the new model, as for `vop.load`.
        workers: decoding threads; by default one per core.
        batch_size: segments per forward pass.
        waiting: called once if another process writes to the library, before waiting for it.

    Raises:
        UsageError: the library or the model does not exist, the library already has the model, or `keep` is set and the
            models take different frames.
        VopError: videos cannot be read. The library is unchanged, and the next attempt resumes.
    """
    workers = count_workers(workers, batch_size=batch_size)
    with staging(
        folder,
        model,
        keep=keep,
        num_frames=num_frames,
        embedding=embedding,
        precision=precision,
        compile=compile,
        waiting=waiting,
    ) as (library, staged, new):
        todo = remaining(library, staged)
        resumed = len(library.videos()) - len(todo)
        with Move(library, staged, new, write=staged.put) as move:
            move.run(
                todo,
                workers=workers,
                batch_size=batch_size,
                progress=lambda number: progress("videos", number, len(todo)),
            )
        return complete(library, staged, new, move.failed, resumed=resumed, drop_unreadable=drop_unreadable)


class StagingSettings(TypedDict, total=False):
    """Keyword arguments of `reembed` that do not say how the work is done."""

    keep: bool
    num_frames: int | None
    embedding: EmbeddingConfig
    precision: str
    waiting: Callable[[], None]


@contextmanager
def staging(
    folder: str | Path | Address, model: str, *, compile: bool = False, **settings: Unpack[StagingSettings]
) -> Iterator[tuple[Store, Store, TextVideoModel]]:
    """Lock a library, and yield it with the library that it becomes, which readers do not see yet, and the new model.

    Args:
        settings: see `reembed`.

    Raises:
        UsageError: see `reembed`.
    """
    folder = absolute(folder)
    with library_lock(Store.open(folder).path, waiting=settings.get("waiting", lambda: None)):
        library = Store.open(folder)
        library.add_columns(())
        new = _open_model(
            library.manifest,
            model,
            settings.get("num_frames"),
            settings.get("precision", "auto"),
            settings.get("embedding", AS_USUAL),
            compile,
        )
        described = describe(new, name=model, column=_free_column(library), refine=library.manifest.refine)
        manifest = _new_manifest(library, described, new, keep=settings.get("keep", False))
        yield library, library.staging(manifest), new


def remaining(library: Store, staged: Store) -> list[VideoRecord]:
    """Return the videos whose current rows were not copied by an earlier attempt."""
    records, done = library.videos(), staged.videos()
    staged.remove(path for path, record in done.items() if records.get(path) != record)
    return [record for path, record in records.items() if done.get(path) != record]


def complete(
    library: Store,
    staged: Store,
    model: TextVideoModel | None,
    failed: list[FileFailure],
    *,
    resumed: int,
    drop_unreadable: bool,
) -> ReembedReport:
    """Replace a library by the staged one, which has the new `model`; None if it is not open.

    Raises:
        VopError: videos have failed, and are not to be left out. The library is unchanged.
    """
    if failed and not drop_unreadable:
        raise VopError(_failed_message(library.path, failed))
    staged.keep_up()
    staged.publish()
    calibrate(staged, () if model is None else [model])
    staged.drop_frames()
    status = staged.status()
    return ReembedReport(
        library=str(library.path),
        videos=status.videos,
        segments=status.segments,
        resumed=resumed,
        dropped=failed,
        models=[model.name for model in staged.models],
    )


def _open_model(
    manifest: Manifest, name: str, num_frames: int | None, precision: str, embedding: EmbeddingConfig, compile: bool
) -> TextVideoModel:
    model = open_model(name, num_frames=num_frames, precision=precision, embedding=embedding, compile=compile)
    if num_frames is None and model.method_name == "zero-shot":  # it has no weights for frame positions
        model.resize_frames(manifest.num_frames)
    return model


def _free_column(library: Store) -> str:
    taken = {int(model.column.removeprefix(EMBEDDING)) for model in library.models}
    return f"{EMBEDDING}{next(n for n in range(1, len(taken) + 2) if n not in taken)}"


def _new_manifest(library: Store, described: LibraryModel, model: TextVideoModel, *, keep: bool) -> Manifest:
    """Return the manifest of the re-embedded library."""
    had = library.manifest
    others = [old for old in had.models if old.fingerprint != described.fingerprint]
    if len(others) < len(had.models) and (keep or not others):
        raise UsageError(f"{library.path} has this model already: {described.name} ({described.fingerprint})")
    if keep and (model.num_frames, model.resizing) != (had.num_frames, had.resizing):
        raise UsageError(
            "all models of a library must take the same frames: "
            f"its own take {had.num_frames} of {had.image_size} pixels ({had.resizing}), "
            f"{described.name} takes {model.num_frames} of {model.image_size} ({model.resizing}): "
            f"try --num-frames {had.num_frames}, or leave out --keep"
        )
    models = (described, *(had.models if keep else ()))
    return had.with_(
        table="segments_" + "_".join(model.fingerprint for model in models),
        models=models,
        num_frames=model.num_frames,
        image_size=model.image_size,
        resize=model.resizing.mode,
        interpolation=model.resizing.interpolation,
    )


def moved(had: Manifest, planned: Manifest) -> Manifest:
    """Return the manifest of a library that is moved to the models of a plan, with its other settings as they are now.

    Raises:
        VopError: the library has other models than when it was planned.
    """
    kept = planned.models[1:]
    if kept and [model.fingerprint for model in kept] != [model.fingerprint for model in had.models]:
        raise VopError(
            f"the library has other models ({', '.join(model.name for model in had.models)}) than when its "
            "re-embedding was planned; vop library publish --discard deletes the plan"
        )
    return had.with_(
        table=planned.table,
        models=(planned.models[0], *(had.models if kept else ())),
        num_frames=planned.num_frames,
        image_size=planned.image_size,
        resize=planned.resize,
        interpolation=planned.interpolation,
    )


class Move:
    """Copies videos from one table to another, with new embeddings. A context manager.

    Args:
        model: the first model of `staged`.
        write: takes rows of whole videos.

    Attributes:
        failed: videos that could not be read.
        seconds: the duration of the videos that were copied.
    """

    def __init__(
        self, library: Store, staged: Store, model: TextVideoModel, *, write: Callable[[pa.Table], object]
    ) -> None:
        self._library, self._staged, self._model, self._write = library, staged, model, write
        self._processes, self._scratch = DecodingProcesses(), Scratch()
        self._frames = SegmentFrames.of(staged.manifest, staged.path)
        self._rows: list[pa.Table] = []
        self.failed: list[FileFailure] = []
        self.seconds = 0.0

    def __enter__(self) -> Move:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()
        self._scratch.close()

    def run(
        self, todo: Sequence[VideoRecord], *, workers: int, batch_size: int, progress: Callable[[int], None]
    ) -> None:
        """Copy videos. If interrupted, write the finished ones.

        Args:
            progress: called with the number of videos that are done, after each.
        """
        finished_videos = run(
            todo,
            self.read,
            partial(embed_columns, [self._model], self._staged.models[:1]),
            workers=workers,
            batch_size=batch_size,
        )
        try:
            for number, finished in enumerate(finished_videos, start=1):
                self.take(finished)
                progress(number)
        finally:  # also after an interruption
            self.commit()

    def read(self, video: VideoRecord) -> Generator[DecodedSegment, None, pa.Table]:
        """Yield the segments of a video with their frames; return its rows."""
        rows = check_rows(self._library.rows_of([video.video]), self._library.path)
        kept = rows.select(["segment", "start_seconds", "end_seconds", "strip"]).to_pylist()
        clips = [(row["start_seconds"], row["end_seconds"]) for row in kept]
        decoded = self._frames_of(video, [row["segment"] for row in kept], clips)
        for row, clip, frames in zip(kept, clips, decoded, strict=True):
            yield DecodedSegment(clip, frames, row["strip"], 1 / len(kept))
        return rows

    def _frames_of(
        self, video: VideoRecord, segments: Sequence[str], clips: Sequence[ClipTimes]
    ) -> Iterator[np.ndarray]:
        """Yield the kept frames of segments; from the first missing or damaged ones on, decode the video."""
        done = 0
        while self._frames and done < len(segments) and (kept := self._frames.read(segments[done])) is not None:
            yield kept
            done += 1
        if done == len(segments):
            return
        with self._file_of(video) as path:
            manifest = self._staged.manifest
            decoded = self._processes.iterate(
                read_frames_of, path, clips[done:], num_frames=manifest.num_frames, resizing=manifest.resizing
            )
            for segment, frames in zip(segments[done:], decoded, strict=True):
                if self._frames:
                    self._frames.write(segment, frames)
                yield frames

    @contextmanager
    def _file_of(self, video: VideoRecord) -> Iterator[Path]:
        """Yield a video's file, or a copy of its object, with the content that the library knows."""
        place = location(video.path)
        if isinstance(place, Path):
            if not is_unchanged(video):
                raise VideoError(video.path, _NOT_THE_SAME)
            yield place
            return
        try:
            with self._scratch.copy(place) as (path, info):
                if (info.size, info.version) != (video.size, video.mtime_ns):
                    raise VideoError(video.path, _NOT_THE_SAME)
                yield path
        except ObjectError as error:
            raise VideoError(video.path, error.reason) from None

    def take(self, finished: Finished[VideoRecord, pa.Table]) -> None:
        """Add the new rows of a video to the next commit."""
        result = finished.result
        if isinstance(result, VideoError):
            logger.info("%r cannot be embedded: %s", finished.job.path, result.reason)
            self.failed.append(FileFailure(path=finished.job.path, reason=result.reason))
        elif isinstance(result, Exception):
            raise result
        else:
            self._rows.append(self._with_embeddings(result, finished.embeddings))
            self.seconds += result.column("duration_seconds")[0].as_py()
            if sum(map(len, self._rows)) >= COMMIT_ROWS:
                self.commit()

    def _with_embeddings(self, rows: pa.Table, embeddings: Sequence[np.ndarray]) -> pa.Table:
        for name, own in zip(columns_of(self._staged.models[:1]), embeddings, strict=True):
            if name in rows.schema.names:
                rows = rows.drop_columns([name])
            rows = rows.append_column(name, column_of(own))
        rows = rows.select(self._staged.table.schema.names)
        rows = with_column(rows, "made_at", datetime.now(UTC).isoformat(timespec="seconds"))
        # Segmentation, duration and date still come from the earlier decoder.
        version = decoder_version(rows.column("made_with")[0].as_py())
        return with_column(rows, "made_with", made_with(self._staged.models, version))

    def commit(self) -> None:
        if self._rows:
            self._write(pa.concat_tables(self._rows))
            self._rows.clear()


def _failed_message(folder: Location, failed: Sequence[FileFailure]) -> str:
    head = (
        f"{folder} is unchanged: {len(failed):,} of its videos cannot be embedded; --drop-unreadable leaves them out:"
    )
    return "\n".join([head, *first_few([f"{failure.path}: {failure.reason}" for failure in failed], most=_SHOWN)])
