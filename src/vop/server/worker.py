"""Decoding for the server: what strangers upload must not hang, fill or crash it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vop.errors import UsageError
from vop.video.isolated import DecodingProcesses

if TYPE_CHECKING:
    import torch


class MediaWorker:
    """A few processes for jobs on files that may be hostile.

    Jobs of several threads run side by side, up to `max_workers` of them; others wait their turn. A job that takes
    too long is killed with its process, and a crash ends only the job: both are a VideoError to who asked, and another
    process takes the place. The processes start with the first job, or with `warm`; they end with `close`, for good,
    and with the process that started them, however that ends.

    Args:
        seconds: the longest a job may take, not counting how long it waits for its turn.
    """

    def __init__(self, *, max_workers: int = 2, seconds: float = 60.0) -> None:
        if max_workers < 1:
            raise UsageError(f"max_workers is {max_workers}; at least 1 is needed")
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds}; a job needs more than 0")
        self.max_workers = max_workers
        self._processes = DecodingProcesses(seconds=seconds)
        self._turns = threading.BoundedSemaphore(max_workers)

    def __enter__(self) -> MediaWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start the processes, and wait until they have imported what decoding needs."""
        self._processes.warm(self.max_workers, _prepare)

    def close(self) -> None:
        """End the processes; jobs that are running, and those that come later, fail."""
        self._processes.close()

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

    def moment(self, path: str | Path, out: str | Path, **span: float) -> None:
        """Write a moment of a video, as `write_moment` does."""
        self.run(_moment, path, out, **span)

    def run(self, function: Callable[..., Any], path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """`function(path, …)` in one of the processes.

        Raises:
            VideoError: it took too long or too much memory, or its process crashed.
            Exception: what the function raised.
        """
        with self._turns:
            return self._processes.call(function, path, *args, **kwargs)


# In the processes


def _prepare() -> None:
    import vop.server.media
    import vop.video.frames
    import vop.video.picture  # noqa: F401


def _decode(
    path: str | Path, *, num_frames: int, size: int, start_seconds: float, end_seconds: float | None
) -> np.ndarray:
    from vop.video.frames import decode_frames
    from vop.video.picture import is_picture, picture_frames

    if is_picture(path):
        return picture_frames(path, num_frames=num_frames, size=size)
    return decode_frames(path, num_frames=num_frames, size=size, start_seconds=start_seconds, end_seconds=end_seconds)


def _moment(path: str | Path, out: str | Path, **span: float) -> None:
    from vop.server.media import write_moment

    write_moment(path, out, **span)
