"""Decode files and embed them at the same time, into whole videos with their embeddings.

    files -> threads: decode, segment by segment -> batches across files -> embed -> whole videos

Each thread (`vop.video.ahead`) waits for its own decoding process (`vop.video.isolated`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vop.errors import UsageError, VideoError
from vop.search.segmentation import ClipTimes, DecodedSegment
from vop.utils.threads import free_cores
from vop.video.ahead import Done, iterate_ahead

Job = TypeVar("Job")
Result = TypeVar("Result")
_LATE_SECONDS = 2.0


@dataclass(frozen=True)
class Finished(Generic[Job, Result]):
    """A finished file.

    Attributes:
        result: the return value of `decode`, or the exception that ended it.
        embeddings: the results of `embed`, each (segments, …), also of the segments before an exception.
    """

    job: Job
    result: Result | Exception
    clips: list[ClipTimes]
    strips: list[bytes]
    embeddings: list[np.ndarray]


@dataclass
class _File(Generic[Job, Result]):
    """A file that is being decoded or embedded."""

    job: Job
    clips: list[ClipTimes] = field(default_factory=list)
    strips: list[bytes] = field(default_factory=list)
    embeddings: list[list[np.ndarray]] = field(default_factory=list)  # for each segment, the results of `embed`
    done: Done[Job, Result] | None = None

    @property
    def is_finished(self) -> bool:
        return self.done is not None and len(self.embeddings) == len(self.clips)

    def finish(self) -> Finished[Job, Result]:
        assert self.done is not None
        columns = [np.stack(vectors) for vectors in zip(*self.embeddings, strict=True)]
        return Finished(self.job, self.done.result, self.clips, self.strips, columns)


Embed = Callable[[Tensor], Sequence[np.ndarray]]  # frames (b, f, 3, h, w) to arrays (b, …), one for each column


def count_workers(workers: int | None, *, batch_size: int) -> int:
    """Return the number of decoding processes: by default one for each free core.

    Raises:
        UsageError: `workers` or `batch_size` is less than 1.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError(f"batch_size is {batch_size} and workers {workers}; both must be 1 or more")
    return workers or free_cores()


def run(
    jobs: Iterable[Job],
    decode: Callable[[Job], Generator[DecodedSegment, None, Result]],
    embed: Embed,
    *,
    workers: int,
    batch_size: int,
    tick: Callable[[Job | None, float], None] = lambda job, share: None,
) -> Generator[Finished[Job, Result], None, None]:
    """Yield finished files, in the order in which they finish.

    A file finishes a few seconds after it is decoded, also while other files are being decoded.

    Args:
        decode: yields the segments of a file, and returns its result. An exception ends this file only.
        workers: threads that decode.
        batch_size: segments that are embedded together.
        tick: called for every segment with its file and share, and with (None, 0) while nothing arrives.
    """
    batch: _Batch[Job, Result] = _Batch(embed)
    files: dict[int, _File[Job, Result]] = {}
    with closing(iterate_ahead(jobs, decode, workers=workers, ahead=2 * batch_size)) as decoded:
        for event in decoded:
            if event is None:
                tick(None, 0.0)
            elif isinstance(event, Done):
                file = files.pop(event.place, None) or _File(event.job)
                file.done = event
                if isinstance(event.result, Exception) and not isinstance(event.result, VideoError):
                    yield from batch.embedded()  # the error may end the job: keep what is decoded
                if file.is_finished:
                    yield file.finish()
            else:
                batch.add(files.setdefault(event.place, _File(event.job)), event.item)
                tick(event.job, event.item.share)
            # Do not let an incomplete batch wait in a pause.
            if event is None or len(batch) == batch_size or batch.is_late:
                yield from batch.embedded()
    yield from batch.embedded()


class _Batch(Generic[Job, Result]):
    """Segments of any files that are embedded together."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._segments: list[tuple[_File[Job, Result], np.ndarray]] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, file: _File[Job, Result], piece: DecodedSegment) -> None:
        if not self._segments:
            self._since = time.monotonic()
        file.clips.append(piece.clip)
        file.strips.append(piece.strip)
        self._segments.append((file, piece.frames))

    @property
    def is_late(self) -> bool:
        """Whether a decoded file has waited long for the batch to fill."""
        if not self._segments or time.monotonic() - self._since < _LATE_SECONDS:
            return False
        return any(file.done for file, _ in self._segments)

    def embedded(self) -> Iterator[Finished[Job, Result]]:
        """Embed the batch, and yield the files that are finished with it."""
        if not self._segments:
            return
        segments, self._segments = self._segments, []
        frames = torch.from_numpy(np.stack([frames for _, frames in segments]))
        for (file, _), *vectors in zip(segments, *self._embed(frames), strict=True):
            file.embeddings.append(vectors)
        yield from (file.finish() for file in {id(file): file for file, _ in segments}.values() if file.is_finished)
