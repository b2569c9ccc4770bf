"""Decoding in threads beside embedding: files go in, whole videos with their embeddings come out.

    files -> threads: decode, segment by segment -> a bounded queue -> batches across files -> embed -> whole videos

Each thread waits for a process of its own that decodes (`vop.video.isolated`): a file that crashes it ends only itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from vop.errors import UsageError, VideoError
from vop.search.segmenting import Piece
from vop.search.segments import Span
from vop.utils.threads import free_cores

Job = TypeVar("Job")
Result = TypeVar("Result")
_TICK_SECONDS = 0.5
_LATE_SECONDS = 2.0


@dataclass(frozen=True)
class Finished(Generic[Job, Result]):
    """A file that is done.

    Attributes:
        result: what its decoding returned, or the exception that ended it.
        embeddings: of each model float32 (segments, e); what came before an exception is in here too.
    """

    job: Job
    result: Result | Exception
    spans: list[Span]
    strips: list[bytes]
    embeddings: list[np.ndarray]


@dataclass
class _Open:
    """A file that is under way. All but its result belongs to the thread that embeds."""

    job: object
    spans: list[Span] = field(default_factory=list)
    strips: list[bytes] = field(default_factory=list)
    embeddings: list[list[np.ndarray]] = field(default_factory=list)  # of each segment, by model
    result: object = None
    ended: bool = False

    @property
    def done(self) -> bool:
        return self.ended and len(self.embeddings) == len(self.spans)

    def finish(self) -> Finished:
        by_model = [np.stack(vectors) for vectors in zip(*self.embeddings, strict=True)]
        return Finished(self.job, self.result, self.spans, self.strips, by_model)


Decode = Callable[[Job], Generator[Piece, None, Result]]
Embed = Callable[[Tensor], Sequence[Tensor]]  # (b, f, 3, h, w) to (b, e) for each model


def count_workers(workers: int | None, *, batch_size: int) -> int:
    """How many processes are to decode: by default one for each core that is free.

    Raises:
        UsageError: one of both is less than 1.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError(f"batch_size is {batch_size} and workers {workers}; both are 1 or more")
    return workers or free_cores()


def run(
    jobs: Iterable[Job],
    decode: Decode,
    embed: Embed,
    *,
    workers: int,
    batch_size: int,
    tick: Callable[[Job | None, float], None] = lambda job, share: None,
) -> Iterator[Finished]:
    """Finished files, in the order in which they are finished.

    A file is finished a few seconds after it is decoded, also while others go on.

    Args:
        decode: gives the segments of a file one by one, and returns what else is to be known of it. An exception ends
            its file only.
        workers: threads that decode.
        batch_size: segments that are embedded together.
        tick: called for every piece with its file and share, and with (None, 0) when nothing has come for a while.
    """
    batch = _Batch(embed)
    with closing(_decoded(jobs, decode, workers=workers, ahead=2 * batch_size)) as decoded:
        for file, piece in decoded:
            if file is None:
                tick(None, 0.0)
            elif piece is None:
                file.ended = True
                if isinstance(file.result, Exception) and not isinstance(file.result, VideoError):
                    yield from batch.embedded()  # it may end the job: what is decoded is not to be lost
                if file.done:
                    yield file.finish()
            else:
                batch.add(file, piece)
                tick(file.job, piece.share)
            # In a pause, what there is is embedded rather than left to wait for company.
            if file is None or len(batch) == batch_size or batch.is_late:
                yield from batch.embedded()
    yield from batch.embedded()


class _Batch:
    """Segments of any files that are embedded together."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._segments: list[tuple[_Open, np.ndarray]] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, file: _Open, piece: Piece) -> None:
        if not self._segments:
            self._since = time.monotonic()
        file.spans.append(piece.span)
        file.strips.append(piece.strip)
        self._segments.append((file, piece.frames))

    @property
    def is_late(self) -> bool:
        """Whether a file waits here that is decoded, while the batch is slow to fill."""
        if not self._segments or time.monotonic() - self._since < _LATE_SECONDS:
            return False
        return any(file.ended for file, _ in self._segments)

    def embedded(self) -> Iterator[Finished]:
        """Embeds what is here; gives the files that are finished with it."""
        if not self._segments:
            return
        segments, self._segments = self._segments, []
        by_model = [
            part.numpy() for part in self._embed(torch.from_numpy(np.stack([frames for _, frames in segments])))
        ]
        for (file, _), *vectors in zip(segments, *by_model, strict=True):
            file.embeddings.append(vectors)
        yield from (file.finish() for file in {id(file): file for file, _ in segments}.values() if file.done)


def _decoded(
    jobs: Iterable[Job], decode: Decode, *, workers: int, ahead: int
) -> Iterator[tuple[_Open | None, Piece | None]]:
    """Files with their pieces as they come, (file, None) when it has ended, (None, None) in a pause."""
    queue: Queue = Queue(maxsize=ahead)
    stop = threading.Event()
    remaining = _Shared(jobs)

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return queue.put(item, timeout=_TICK_SECONDS)
            except Full:
                continue
        raise _Stopped

    def work() -> None:
        try:
            for job in remaining:
                _decode_one(_Open(job), decode, put)
            put(_NO_MORE)
        except _Stopped:
            pass
        except BaseException as error:  # of the jobs themselves: it is everybody's
            with suppress(_Stopped):
                put(error)

    threads = [threading.Thread(target=work, name=f"decode-{number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        while workers:
            try:
                item = queue.get(timeout=_TICK_SECONDS)
            except Empty:
                item = (None, None)
            if item is _NO_MORE:
                workers -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:  # one that hashes a large file takes a while to see it, and does no harm
            thread.join(timeout=_TICK_SECONDS * 4)


def _decode_one(file: _Open, decode: Decode, put: Callable[[object], None]) -> None:
    pieces = decode(file.job)
    try:
        while True:
            put((file, next(pieces)))
    except StopIteration as end:
        file.result = end.value
    except _Stopped:
        raise
    except Exception as error:
        file.result = error
    finally:
        pieces.close()
    put((file, None))


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, items: Iterable[Job]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self) -> _Shared:
        return self

    def __next__(self) -> Job:
        with self._lock:
            return next(self._items)


class _Stopped(Exception):
    """The one who embeds has gone."""


_NO_MORE = object()
