"""Decoding in processes that can be killed: what strangers upload must not hang, fill or crash the server."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, wait
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from vop.errors import UsageError, VideoError

if TYPE_CHECKING:
    import torch

_MEMORY_BYTES = 4 * 2**30  # frames of the largest size that is read, as many as H.264 refers to, fit into it
_LOOK_SECONDS = 1.0  # between looks at whether the pool is still there


class MediaWorker:
    """A pool of processes for jobs on files that may be hostile.

    Jobs of several threads run side by side, up to `max_workers` of them; others wait their turn. A job that takes
    too long is killed with its process, and a crash ends only the job: both are a VideoError to who asked, and another
    process takes the place. The processes start with the first job, or with `warm`; they end with `close`, for good,
    and with the process that started them, however that ends.

    Args:
        seconds: the longest a job may take, not counting how long it waits for its turn.
        memory_bytes: the most memory that one process may allocate (where the system keeps such a limit).
    """

    def __init__(self, *, max_workers: int = 2, seconds: float = 60.0, memory_bytes: int = _MEMORY_BYTES) -> None:
        if max_workers < 1:
            raise UsageError(f"max_workers is {max_workers}; at least 1 is needed")
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds}; a job needs more than 0")
        self.max_workers, self.seconds, self.memory_bytes = max_workers, seconds, memory_bytes
        self._pool: ProcessPool | None = None
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> MediaWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start the processes, without waiting: each takes seconds to import what decoding needs.

        Raises:
            BrokenExecutor: the worker is closed.
        """
        self._running_pool()

    def close(self) -> None:
        """End the processes; jobs that are running, and those that come later, fail."""
        with self._lock:
            pool, self._pool, self._closed = self._pool, None, True
        _end(pool)

    def decode(
        self,
        path: str | Path,
        *,
        num_frames: int,
        size: int,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> torch.Tensor:
        """The frames of a video, as `decode_frames` gives them, or of a picture, as `picture_frames` does.

        Returns:
            uint8 tensor (num_frames, 3, size, size).

        Raises:
            VideoError: the file is neither, or took too much time or memory.
            UsageError: an argument is out of range.
        """
        import torch

        span = {"start_seconds": start_seconds, "end_seconds": end_seconds}
        return torch.from_numpy(self.run(_decode, path, num_frames=num_frames, size=size, **span))

    def moment(self, path: str | Path, out: str | Path, *, start_seconds: float, end_seconds: float) -> None:
        """Write a moment of a video, as `write_moment` does."""
        self.run(_moment, path, out, start_seconds=start_seconds, end_seconds=end_seconds)

    def run(self, function: Callable[..., Any], path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """`function(path, …)` in one of the processes. What goes in and comes out is pickled.

        Raises:
            VideoError: it took too long or too much memory, or its process crashed.
            Exception: what the function raised.
        """
        try:
            return _result(*self._scheduled(_guarded, (function, path, *args), kwargs))
        except TimeoutError as error:
            raise VideoError(path, f"decoding took longer than {self.seconds:g} s and was stopped") from error
        except ProcessExpired as error:
            raise VideoError(path, f"decoding crashed (exit status {error.exitcode})") from error
        except BrokenExecutor as error:
            raise VideoError(path, "decoding was cut short") from error

    def _scheduled(self, *job: Any) -> tuple[Future, weakref.ref[ProcessPool]]:
        """What will have the job's result, and its pool: who waits must not keep a closed one's semaphores alive."""
        pool = self._running_pool()
        try:
            return pool.schedule(*job, timeout=self.seconds), weakref.ref(pool)
        except RuntimeError as error:  # it was closed, or broke, in between
            raise BrokenExecutor(str(error)) from error

    def _running_pool(self) -> ProcessPool:
        with self._lock:
            if self._closed:
                raise BrokenExecutor("the worker is closed")
            if self._pool is None or not self._pool.active:  # a pool breaks when a process ends that had no job
                _end(self._pool)
                self._pool = self._new_pool()
            return self._pool

    def _new_pool(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self.max_workers,
            initializer=_prepare,
            initargs=(self.memory_bytes,),
            context=multiprocessing.get_context("spawn"),  # a fork would copy the server's threads' locks
        )
        # Ctrl-C is for the server alone. A process inherits what the thread that starts it has blocked, so it is
        # deaf to it from its first instruction on; and so are those that the pool's own threads start later.
        resource_tracker.ensure_running()  # which the first process needs, and which unblocks as it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.schedule(os.getpid)  # starts them
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pool


def _is_active(pool: ProcessPool | None) -> bool:
    return pool is not None and pool.active


def _end(pool: ProcessPool | None) -> None:
    if pool is not None:
        pool.stop()
        pool.join()


def _result(future: Future, pool: weakref.ref[ProcessPool]) -> Any:
    """What the job gives. A job that reaches a pool just as it breaks, or that runs as it ends, is never answered."""
    while not wait([future], timeout=_LOOK_SECONDS).done:
        if not _is_active(pool()):
            raise BrokenExecutor("the pool of processes ended or broke")
    return future.result()


# In the processes


def _prepare(memory_bytes: int) -> None:
    """Before the first job: limits, an end with the server, and the imports that take long."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends FFmpeg's loops too, which Python's handler cannot
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, memory_bytes)
    import torch

    torch.set_num_threads(1)


def _limit(kind: int, amount: int) -> None:
    _, hard = resource.getrlimit(kind)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(kind, (amount, amount))


def _end_with_parent() -> None:
    wait_for_any([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _guarded(function: Callable[..., Any], path: str | Path, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(path, *args, **kwargs)
    except MemoryError as error:
        raise VideoError(path, "decoding it takes more memory than is allowed") from error


def _decode(
    path: str | Path, *, num_frames: int, size: int, start_seconds: float, end_seconds: float | None
) -> np.ndarray:
    from vop.video.decode import decode_frames
    from vop.video.picture import is_picture, picture_frames

    if is_picture(path):
        return picture_frames(path, num_frames=num_frames, size=size).numpy()
    frames = decode_frames(path, num_frames=num_frames, size=size, start_seconds=start_seconds, end_seconds=end_seconds)
    return frames.numpy()


def _moment(path: str | Path, out: str | Path, *, start_seconds: float, end_seconds: float) -> None:
    from vop.server.media import write_moment

    write_moment(path, out, start_seconds=start_seconds, end_seconds=end_seconds)
