"""The decoded frames of a library's segments, kept so that it can be re-embedded without its videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vop.datasets.frames import read_frames, write_frames
from vop.search.manifest import Manifest
from vop.video.clip import DECODER_VERSION
from vop.video.resizing import Resizing

FRAMES = "frames"


class SegmentFrames:
    """Frames on disk, one file per segment: `num_frames * 3 * size * size` bytes.

    Segments are named by the content of their video, so that its file may move. Frames are checked when read.
    """

    def __init__(self, folder: Path, *, num_frames: int, resizing: Resizing) -> None:
        size = resizing.size
        how = "-".join([str(DECODER_VERSION), *resizing.differences().values()])
        self._folder = folder / f"{num_frames}x{size}-{how}"
        self._shape = (num_frames, 3, size, size)

    @classmethod
    def of(cls, manifest: Manifest, folder: Path) -> SegmentFrames | None:
        """Return the frames of a library; None if it keeps none."""
        if not manifest.keep_frames:
            return None
        return cls(folder / FRAMES, num_frames=manifest.num_frames, resizing=manifest.resizing)

    def read(self, segment: str) -> np.ndarray | None:
        """Return the frames of a segment, by its id; None if they are missing or damaged."""
        return read_frames(self._path(segment), shape=self._shape)

    def has(self, segment: str) -> bool:
        """Whether the frames of a segment are kept and undamaged."""
        return self.read(segment) is not None

    def count_damaged(self, *, remove: bool) -> int:
        """Count the damaged files, and delete them if `remove` is set."""
        damaged = [path for path in self._folder.rglob("*.safetensors") if read_frames(path, shape=self._shape) is None]
        if remove:
            for path in damaged:
                path.unlink()
        return len(damaged)

    def write(self, segment: str, frames: np.ndarray) -> None:
        write_frames(self._path(segment), frames)

    def keep_only(self, segments: Iterable[str]) -> None:
        """Delete the frames of all other segments, and frames of other sizes or another resizing."""
        kept = {self._path(segment) for segment in segments}
        for path in self._folder.parent.rglob("*.safetensors"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _path(self, segment: str) -> Path:
        return self._folder / segment[:2] / f"{segment}.safetensors"
