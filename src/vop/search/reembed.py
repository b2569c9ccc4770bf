"""`vop library reembed`: moves a library to another model, or gives it another one beside those that it has.

The new table is written beside the old one, which is searched until the new one is complete and takes its place.
Frames come from the library's own, where it keeps them, or else from the videos. Stopped, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from vop.errors import UsageError, VideoError, VopError
from vop.search.checksums import check_rows
from vop.search.frames import SegmentFrames
from vop.search.lock import alone_in
from vop.search.manifest import LibraryModel, Manifest
from vop.search.models import describe, embed_by, open_model
from vop.search.pipeline import Finished, count_workers, run
from vop.search.reading import is_as_it_was
from vop.search.results import VideoRecord
from vop.search.schema import EMBEDDING, decoder_version, made_with, vectors, with_column
from vop.search.segmenting import Piece, read_frames_of
from vop.search.store import Store
from vop.search.writer import COMMIT_ROWS
from vop.utils.progress import Progress, silent
from vop.utils.text import on_one_line
from vop.video.isolated import DecodingProcesses

_SHOWN = 5  # videos that an error names


@dataclass(frozen=True, kw_only=True)
class ReembedReport:
    """What a move did.

    Attributes:
        videos, segments: in the library now.
        resumed: videos that an earlier attempt had done.
        dropped: path and reason of videos that could not be embedded and were left out.
        models: names of the library's models now, the first one first.
    """

    library: str
    videos: int
    segments: int
    resumed: int
    dropped: list[tuple[str, str]]
    models: list[str]

    def to_dict(self) -> dict:
        return asdict(self)


def reembed(
    folder: str | Path,
    model: str,
    *,
    keep: bool = False,
    num_frames: int | None = None,
    drop_unreadable: bool = False,
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> ReembedReport:
    """Embeds every segment of a library by another model.

    Args:
        keep: keeps the embeddings of the library's models beside the new ones; all then take the same frames.
        num_frames: another number than the model's own; for a plain CLIP the library's is the default.
        drop_unreadable: leaves out videos that can no longer be read, rather than to leave the library as it is.

    Raises:
        UsageError: no such library or model, the library has the model, or `keep` with other frames.
        VopError: videos cannot be read; the library is as it was, and what was done is kept for the next attempt.
    """
    folder = Path(folder).expanduser().absolute()
    threads = count_workers(workers, batch_size=batch_size)
    with alone_in(Store.open(folder).path, waiting=waiting), ExitStack() as closing_later:
        library = Store.open(folder)
        library.add_columns(())
        new = _open(library.manifest, model, num_frames, precision)
        described = describe(new, name=model, column=_free_column(library))
        staged = library.staging(_moved(library, described, new, keep=keep))
        processes = closing_later.enter_context(DecodingProcesses())
        moving = _Moving(library, staged, processes)
        todo = moving.remaining()
        resumed = len(library.videos()) - len(todo)
        embed = partial(embed_by, [new])
        try:
            for number, finished in enumerate(
                run(todo, moving.decode, embed, workers=threads, batch_size=batch_size), start=1
            ):
                moving.take(finished)
                progress("videos", number, len(todo))
        finally:  # also of a move that is interrupted
            moving.commit()
        if moving.failed and not drop_unreadable:
            raise VopError(_complaint(folder, moving.failed))
        staged.keep_up()
        staged.publish()
        staged.drop_frames()
    counts = staged.status()
    return ReembedReport(
        library=str(folder),
        videos=counts.videos,
        segments=counts.segments,
        resumed=resumed,
        dropped=moving.failed,
        models=[model.name for model in staged.models],
    )


def _open(about: Manifest, name: str, num_frames: int | None, precision: str):
    model = open_model(name, num_frames=num_frames, precision=precision)
    if num_frames is None and model.method_name == "zero-shot":  # which has nothing that belongs to a frame's position
        model.resize_frames(about.num_frames)
    return model


def _free_column(library: Store) -> str:
    taken = {int(model.column.removeprefix(EMBEDDING)) for model in library.models}
    return f"{EMBEDDING}{next(n for n in range(1, len(taken) + 2) if n not in taken)}"


def _moved(library: Store, described: LibraryModel, model, *, keep: bool) -> Manifest:
    """The description of the library as it is to be."""
    about = library.manifest
    if any(described.fingerprint == old.fingerprint for old in about.models):
        raise UsageError(f"{library.path} has this model already: {described.name} ({described.fingerprint})")
    frames, had = (model.num_frames, model.image_size), (about.num_frames, about.image_size)
    if keep and frames != had:
        raise UsageError(
            f"models of one library take the same frames: its own take {had[0]} of {had[1]} pixels, {described.name} "
            f"takes {frames[0]} of {frames[1]}: try --num-frames {had[0]}, or leave out --keep"
        )
    models = (described, *(about.models if keep else ()))
    return about.with_(
        table="segments_" + "_".join(model.fingerprint for model in models),
        models=models,
        num_frames=frames[0],
        image_size=frames[1],
    )


class _Moving:
    """Copies videos from one table to another, with new embeddings."""

    def __init__(self, library: Store, staged: Store, processes: DecodingProcesses) -> None:
        self._library, self._staged, self._processes = library, staged, processes
        self._frames = SegmentFrames.of(staged.manifest, staged.path)
        self._rows: list[pa.Table] = []
        self.failed: list[tuple[str, str]] = []

    def remaining(self) -> list[VideoRecord]:
        """The videos that an earlier attempt has not copied as they are now."""
        had, done = self._library.videos(), self._staged.videos()
        self._staged.remove(path for path, known in done.items() if had.get(path) != known)
        return [known for path, known in had.items() if done.get(path) != known]

    def decode(self, video: VideoRecord) -> Generator[Piece, None, pa.Table]:
        """The segments of a video again; returns its rows."""
        rows = check_rows(self._library.rows_of([video.video]), self._library.path)
        kept = rows.select(["segment", "start_seconds", "end_seconds", "strip"]).to_pylist()
        spans = [(row["start_seconds"], row["end_seconds"]) for row in kept]
        segments = [row["segment"] for row in kept]
        for row, span, frames in zip(kept, spans, self._frames_of(video, segments, spans), strict=True):
            yield Piece(span, frames, row["strip"], 1 / len(kept))
        return rows

    def _frames_of(self, video: VideoRecord, segments: Sequence[str], spans: Sequence) -> Iterator:
        """The library's own frames, or if one of them is missing or damaged, those of the video again."""
        if self._frames and all(map(self._frames.has, segments)):
            yield from map(self._frames.read, segments)
            return
        if not is_as_it_was(video):
            raise VideoError(video.path, "its file is gone or has changed; `vop index` first")
        about = self._staged.manifest
        sizes = {"num_frames": about.num_frames, "size": about.image_size}
        decoded = self._processes.iterate(read_frames_of, video.path, spans, **sizes)
        for segment, frames in zip(segments, decoded, strict=True):
            if self._frames:
                self._frames.write(segment, frames)
            yield frames

    def take(self, finished: Finished) -> None:
        result = finished.result
        if isinstance(result, VideoError):
            self.failed.append((finished.job.path, result.reason))
        elif isinstance(result, Exception):
            raise result
        else:
            self._rows.append(self._converted(result, finished.embeddings[0]))
            if sum(map(len, self._rows)) >= COMMIT_ROWS:
                self.commit()

    def _converted(self, rows: pa.Table, embeddings) -> pa.Table:
        new = self._staged.models[0].column
        if new in rows.schema.names:
            rows = rows.drop_columns([new])
        rows = rows.append_column(new, vectors(embeddings)).select(self._staged.table.schema.names)
        rows = with_column(rows, "made_at", datetime.now(UTC).isoformat(timespec="seconds"))
        # How the video was cut, its duration and its date are still those that an earlier decoder read.
        version = decoder_version(rows.column("made_with")[0].as_py())
        return with_column(rows, "made_with", made_with(self._staged.models, version))

    def commit(self) -> None:
        if self._rows:
            self._staged.put(pa.concat_tables(self._rows))
            self._rows.clear()


def _complaint(folder: Path, failed: Sequence[tuple[str, str]]) -> str:
    lines = [on_one_line(f"  {path}: {reason}") for path, reason in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  and {len(failed) - _SHOWN:,} more")
    remedy = "--drop-unreadable goes on without them"
    head = f"{folder} is as it was: {len(failed):,} of its videos cannot be embedded; {remedy}:"
    return "\n".join([head, *lines])
