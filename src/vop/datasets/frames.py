"""Frames of videos, decoded from the files or read from a cache on disk with bit-identical results."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save, save_file

from vop.datasets.types import Video
from vop.errors import VideoError
from vop.utils.files import atomic_write
from vop.video.clip import DECODER_VERSION, DISPLAY, check_frames
from vop.video.frames import decode_frames
from vop.video.isolated import DecodingProcesses
from vop.video.resizing import WHOLE, Resizing

if TYPE_CHECKING:
    import torch

_ABANDONED_SECONDS = 3600.0


class FrameSource(Protocol):
    """Loads a video's frames, uint8 (frames, 3, height, width), or raises VideoError."""

    def load(self, video: Video, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class FrameStore:
    """Loads the frames of videos, each with the same settings.

    With `cache`, a folder, each video is decoded only once. The cache has one safetensors file per video, of about
    `num_frames * 3 * size * size` bytes. Its name depends on the path, size and modification time of the video file.
    A cache file is checked when it is read, and replaced if it is damaged.

    Attributes:
        resizing, aspect: as for `decode_frames`.
        processes: the processes that decode the videos; None decodes in this process. See `isolated`.
    """

    num_frames: int
    resizing: Resizing
    cache: Path | None = None
    aspect: str = DISPLAY
    processes: DecodingProcesses | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_frames(self.num_frames, self.resizing)

    @contextmanager
    def isolated(self) -> Iterator[FrameStore]:
        """Return this store with decoding in separate processes. A file that crashes one counts as unreadable.

        Files in the cache that killed processes left unfinished are deleted.
        """
        if self.cache is not None:
            _remove_abandoned(Path(self.cache))
        with DecodingProcesses() as processes:
            yield replace(self, processes=processes)

    def load(self, video: Video) -> torch.Tensor:
        """Return the frames of a video, a uint8 tensor (num_frames, 3, size, size), or (num_frames, 3, h, w) if whole.

        Raises:
            VideoError: no frame of the file can be decoded.
        """
        import torch

        return torch.from_numpy(self.load_array(video))

    def load_array(self, video: Video) -> NDArray[np.uint8]:
        """Like `load`, but return a uint8 NumPy array."""
        if self.cache is None:
            return self._decode(video)
        cached = self.cache_path(video)
        frames = self._read(cached)
        if frames is None:
            frames = self._decode(video)
            write_frames(cached, frames)
        return frames

    def cache_path(self, video: Video) -> Path:
        """Return the path of this video's cache file. The file may not exist."""
        if self.cache is None:
            raise ValueError("this FrameStore has no cache")
        try:
            path = video.path.resolve()
            state = path.stat()
        except OSError as error:
            raise VideoError(video.path, "the file does not exist") from error
        settings = self.num_frames, self.resizing.size, DECODER_VERSION
        identity: list[object] = [str(path), state.st_size, state.st_mtime_ns, *settings]
        if self.aspect != DISPLAY:
            identity.append(self.aspect)
        if different := self.resizing.differences():
            identity.append(different)
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return Path(self.cache) / key[:2] / f"{key[2:40]}.safetensors"

    def is_cached(self, video: Video) -> bool:
        """Whether the cache has an undamaged copy of this video's frames."""
        return self.cache is not None and self._read(self.cache_path(video)) is not None

    def _decode(self, video: Video) -> NDArray[np.uint8]:
        decode = partial(decode_frames, num_frames=self.num_frames, resizing=self.resizing, aspect=self.aspect)
        return decode(video.path) if self.processes is None else self.processes.call(decode, video.path)

    def _read(self, path: Path) -> NDArray[np.uint8] | None:
        sides = (None, None) if self.resizing.mode == WHOLE else (self.resizing.size, self.resizing.size)
        return read_frames(path, shape=(self.num_frames, 3, *sides))


def _remove_abandoned(cache: Path) -> None:
    """Delete unfinished files, unless they are so new that another process may be writing them."""
    newest = time.time() - _ABANDONED_SECONDS
    for file in cache.glob("*/.tmp-*"):
        with suppress(OSError):  # deleted or finished meanwhile
            if file.stat().st_mtime < newest:
                file.unlink()


def read_frames(path: Path, *, shape: tuple[int | None, ...]) -> NDArray[np.uint8] | None:
    """Return the frames in a cache file, or None if the file is missing or damaged. None in `shape` is any number."""
    try:
        with safe_open(path, framework="np") as file:
            frames = file.get_tensor("frames")
            checksum = (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError):
        return None
    return frames if _are_sound(frames, checksum, shape) else None


def _are_sound(frames: NDArray[np.uint8], checksum: str | None, shape: tuple[int | None, ...]) -> bool:
    fits = frames.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, frames.shape, strict=True))
    return frames.dtype == np.uint8 and fits and checksum == _checksum(frames)


def write_frames(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write a cache file atomically.

    Raises:
        VopError: the disk is full.
    """
    frames = np.ascontiguousarray(frames)  # otherwise safetensors silently writes the bytes in the wrong order
    with atomic_write(path, durable=False) as temporary:
        save_file({"frames": frames}, temporary, metadata={"crc32": _checksum(frames)})


def frames_of(content: bytes, *, shape: tuple[int | None, ...]) -> NDArray[np.uint8] | None:
    """Return the frames in the content of a cache file, or None if it is damaged; see `read_frames`."""
    try:
        frames = load(content)["frames"]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        checksum = header["__metadata__"]["crc32"]
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
    return frames if _are_sound(frames, checksum, shape) else None


def file_of(frames: NDArray[np.uint8]) -> bytes:
    """Return the content of a cache file."""
    frames = np.ascontiguousarray(frames)
    return save({"frames": frames}, metadata={"crc32": _checksum(frames)})


def _checksum(frames: NDArray[np.uint8]) -> str:
    return f"{zlib.crc32(frames.data):08x}"
