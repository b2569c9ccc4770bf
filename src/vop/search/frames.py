"""The decoded frames of a library's segments, kept so that it can be re-embedded without its videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vop.datasets.frames import file_of, frames_of, read_frames, write_frames
from vop.search.manifest import Manifest
from vop.storage.address import Location
from vop.storage.small_files import child, files_below, read_bytes, remove_files, write_bytes
from vop.video.clip import DECODER_VERSION
from vop.video.resizing import Resizing

FRAMES = "frames"
_SUFFIX = ".safetensors"


class SegmentFrames:
    """Frames on disk or in object storage, one file per segment: `num_frames * 3 * size * size` bytes.

    Segments are named by the content of their video, so that its file may move. Frames are checked when read.
    """

    def __init__(self, folder: Location, *, num_frames: int, resizing: Resizing) -> None:
        size = resizing.size
        how = "-".join([str(DECODER_VERSION), *resizing.differences().values()])
        self._all = folder
        self._folder = child(folder, f"{num_frames}x{size}-{how}")
        self._shape = (num_frames, 3, size, size)

    @classmethod
    def of(cls, manifest: Manifest, folder: Location) -> SegmentFrames | None:
        """Return the frames of a library; None if it keeps none."""
        if not manifest.keep_frames:
            return None
        return cls(child(folder, FRAMES), num_frames=manifest.num_frames, resizing=manifest.resizing)

    def read(self, segment: str) -> np.ndarray | None:
        """Return the frames of a segment, by its id; None if they are missing or damaged."""
        return self._read(self._place(segment))

    def count_damaged(self, *, remove: bool) -> int:
        """Count the damaged files, and delete them if `remove` is set."""
        damaged = [place for place in files_below(self._folder, suffix=_SUFFIX) if self._read(place) is None]
        if remove:
            remove_files(damaged)
        return len(damaged)

    def write(self, segment: str, frames: np.ndarray) -> None:
        place = self._place(segment)
        if isinstance(place, Path):
            write_frames(place, frames)
        else:
            write_bytes(place, file_of(frames))

    def keep_only(self, segments: Iterable[str]) -> None:
        """Delete the frames of all other segments, and frames of other sizes or another resizing."""
        kept = {self._place(segment) for segment in segments}
        remove_files([place for place in files_below(self._all, suffix=_SUFFIX) if place not in kept])

    def _read(self, place: Location) -> np.ndarray | None:
        if isinstance(place, Path):
            return read_frames(place, shape=self._shape)
        try:
            return frames_of(read_bytes(place), shape=self._shape)
        except FileNotFoundError:
            return None

    def _place(self, segment: str) -> Location:
        return child(child(self._folder, segment[:2]), f"{segment}{_SUFFIX}")
