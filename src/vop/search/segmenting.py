"""A video file to its segments, decoded, in a process of its own: nothing here brings PyTorch or a database."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vop.errors import UsageError, VideoError
from vop.search.manifest import BY_SHOTS, SegmentationConfig
from vop.search.segments import Span, in_milliseconds, shots, windows
from vop.search.thumbnails import film_strip_jpeg
from vop.video.clip import Clip
from vop.video.decode import VideoDecoder
from vop.video.frames import ClipFrames, decode_clips
from vop.video.probe import VideoInfo, describe


@dataclass(frozen=True, repr=False)
class Piece:
    """A decoded segment.

    Attributes:
        frames: uint8 (num_frames, 3, size, size).
        strip: film strip, JPEG.
        share: of the file's work that ends with it, from 0 to 1.
    """

    span: Span
    frames: np.ndarray
    strip: bytes
    share: float


def read_segments(
    path: Path, cutting: SegmentationConfig, *, num_frames: int, size: int
) -> Generator[VideoInfo | Piece | None, None, int]:
    """What a video is, then each of its segments, None for one that is damaged; returns how many there are.

    Raises:
        VideoError: it cannot be read, or all of its segments are damaged.
    """
    with VideoDecoder(path) as video:
        info = describe(video)
        yield info
        spans = [in_milliseconds(span) for span in _cut(video, cutting)]
        damaged = 0
        clips = [Clip(*span) for span in spans]
        for span, clip in zip(spans, decode_clips(video, clips, num_frames=num_frames, size=size), strict=True):
            if isinstance(clip, ClipFrames):
                yield Piece(span, clip.frames, film_strip_jpeg(clip.pictures), 1 / len(spans))
            else:
                damaged += 1
                yield None
    if damaged == len(spans):
        raise VideoError(path, "more than half of the wanted frames of every segment are damaged")
    return len(spans)


def read_frames_of(path: Path, spans: Sequence[Span], *, num_frames: int, size: int) -> Iterator[np.ndarray]:
    """The frames of each of these segments again.

    Raises:
        VideoError: one of them cannot be had.
    """
    with VideoDecoder(path) as video:
        clips = [Clip(*span) for span in spans]
        for clip in decode_clips(video, clips, num_frames=num_frames, size=size, num_pictures=0):
            if isinstance(clip, VideoError):
                raise clip
            yield clip.frames


def _cut(video: VideoDecoder, cutting: SegmentationConfig) -> list[Span]:
    lengths = {"window_seconds": cutting.window_seconds, "overlap_seconds": cutting.overlap_seconds}
    if cutting.by == BY_SHOTS:
        return shots(video, **lengths)
    try:
        return windows(video.timeline.duration_seconds, **lengths)
    except UsageError as error:  # of a duration that only a broken file has
        raise VideoError(video.path, str(error)) from None
