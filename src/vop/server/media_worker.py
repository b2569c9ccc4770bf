"""Decode for the server in separate processes, so that uploaded files cannot hang, fill or crash it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vop.errors import UsageError
from vop.video.clip import Clip
from vop.video.isolated import DecodingProcesses
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    import torch

    from vop.export.frames import Source
    from vop.video.clip_export import SavedClip


class MediaWorker:
    """A few processes for jobs on files that may be malicious.

    Up to `max_workers` jobs of different threads run at the same time; further ones wait. A job that takes too long is
    killed with its process, and a crash ends only its own job. Both raise a VideoError in the caller, and a new process
    replaces the old one. The first job, or `warm`, starts the processes. `close` ends them permanently. They also end
    with the process that started them, even if it is killed.

    Args:
        seconds: maximum time of a job, not counting the time that it waits.
    """

    def __init__(self, *, max_workers: int = 2, seconds: float = 60.0) -> None:
        if max_workers < 1:
            raise UsageError(f"max_workers is {max_workers}; at least 1 is needed")
        if not seconds > 0:
            raise UsageError(f"seconds is {seconds}; it must be more than 0")
        self.max_workers = max_workers
        self._processes = DecodingProcesses(seconds=seconds)
        self._turns = threading.BoundedSemaphore(max_workers)

    def __enter__(self) -> MediaWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Start the processes, and wait until they have imported the decoder."""
        self._processes.warm(self.max_workers, _prepare)

    def close(self) -> None:
        """End the processes. Running and later jobs fail."""
        self._processes.close()

    def decode(
        self,
        path: str | Path,
        *,
        num_frames: int,
        resizing: Resizing,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> torch.Tensor:
        """Return the frames of a video (see `decode_frames`) or of a picture (see `picture_frames`).

        Returns:
            uint8 tensor (num_frames, 3, size, size).

        Raises:
            VideoError: the file is neither a video nor a picture, or took too much time or memory.
            UsageError: an argument is out of range.
        """
        import torch

        clip = Clip(start_seconds, end_seconds)
        return torch.from_numpy(self.run(_decode, path, num_frames=num_frames, resizing=resizing, clip=clip))

    def export_clip(
        self,
        path: str | Path,
        out: str | Path,
        *,
        start_seconds: float,
        end_seconds: float,
        duration_seconds: float | None = None,
    ) -> None:
        """Write a clip of a video, as `vop.video.clip_export.export_clip` does."""
        times = {"start_seconds": start_seconds, "end_seconds": end_seconds, "duration_seconds": duration_seconds}
        self.run(_export_clip, path, out, **times)

    def save_clip(
        self,
        path: str | Path,
        out: str | Path,
        *,
        start_seconds: float,
        end_seconds: float,
        duration_seconds: float | None = None,
        exact: bool = False,
    ) -> SavedClip:
        """Write a clip of a video to keep, as `vop.video.clip_export.save_clip` does."""
        times = {"start_seconds": start_seconds, "end_seconds": end_seconds, "duration_seconds": duration_seconds}
        saved: SavedClip = self.run(_save_clip, path, out, exact=exact, **times)
        return saved

    def stored_size(self, path: Path) -> tuple[int, int]:
        """Return the width and height of a video's pictures as they are stored."""
        size: tuple[int, int] = self.run(_stored_size, path)
        return size

    def read_source(self, file: Path, *, path: str, url: str, duration_seconds: float) -> Source:
        """Describe a video for editors, as `vop.export.frames.read_source` does."""
        source: Source = self.run(_read_source, file, name=path, url=url, duration_seconds=duration_seconds)
        return source

    def run(self, function: Callable[..., Any], path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Call `function(path, …)` in one of the processes.

        Raises:
            VideoError: the function took too much time or memory, or its process crashed.
            Exception: any other error that the function raised.
        """
        with self._turns:
            return self._processes.call(function, path, *args, **kwargs)


# Functions that run in the processes


def _prepare() -> None:
    import vop.video.clip_export
    import vop.video.frames
    import vop.video.picture  # noqa: F401


def _decode(path: str | Path, *, num_frames: int, resizing: Resizing, clip: Clip) -> NDArray[np.uint8]:
    from vop.video.frames import decode_frames
    from vop.video.picture import is_picture, picture_frames

    if is_picture(path):
        return picture_frames(path, num_frames=num_frames, resizing=resizing)
    start, end = clip.start_seconds, clip.end_seconds
    return decode_frames(path, num_frames=num_frames, resizing=resizing, start_seconds=start, end_seconds=end)


def _export_clip(path: str | Path, out: str | Path, **times: float) -> None:
    from vop.video.clip_export.export import export_clip

    export_clip(path, out, **times)


def _save_clip(path: str | Path, out: str | Path, *, exact: bool, **times: Any) -> SavedClip:
    from vop.video.clip_export.saving import save_clip

    return save_clip(path, out, exact=exact, **times)


def _stored_size(path: str | Path) -> tuple[int, int]:
    from vop.video.probe import stored_size

    return stored_size(Path(path))


def _read_source(file: str | Path, *, name: str, url: str, duration_seconds: float) -> Source:
    from vop.export.frames import read_source

    return read_source(Path(file), path=name, url=url, duration_seconds=duration_seconds)
