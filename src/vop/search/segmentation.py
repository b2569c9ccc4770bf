"""Cut a video into segments, windows of equal length or shots, and decode their frames.

This module runs in the decoding processes, so it imports neither PyTorch nor the database.
"""

from __future__ import annotations

import io
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from vop.errors import UsageError, VideoError
from vop.search.manifest import BY_SHOTS, SegmentationConfig
from vop.video.clip import Clip
from vop.video.decode import VideoDecoder
from vop.video.frames import ClipFrames, decode_clips, read_clips
from vop.video.probe import VideoInfo
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    import av

ClipTimes = tuple[float, float]  # start_seconds, end_seconds, counted from the video's first frame

WINDOW_SECONDS, OVERLAP_SECONDS = 10.0, 2.0
MAX_WINDOWS = 1_000_000  # of one video; beyond it the overlap is a mistake
SHORTEST_SHOT_SECONDS = 0.5
_WHOLE = 1.1  # windows; a video up to this length is one segment
_SLACK = 1e-6  # windows; keeps rounding from adding one
_DETECTION_SIZE = 256  # pixels of the longer side, at which shots are detected

STRIP_HEIGHT = 90  # pixels: a 16:9 picture of `decode_clips`, 160 pixels wide, fits as it is
_JPEG_QUALITY = 75
_MAX_CELL_RATIO = 3.0  # the pictures of a wider or narrower video are centered in cells of 3:1 or 1:3


@dataclass(frozen=True, repr=False)
class DecodedSegment:
    """A segment of a video.

    Attributes:
        clip: (start_seconds, end_seconds), from the video's first frame.
        frames: uint8 (num_frames, 3, size, size).
        strip: thumbnail strip, JPEG.
        share: the segment's share of the work on the file, from 0 to 1.
    """

    clip: ClipTimes
    frames: np.ndarray
    strip: bytes
    share: float


def read_segments(
    path: Path, segmentation: SegmentationConfig, *, num_frames: int, resizing: Resizing
) -> Generator[VideoInfo | DecodedSegment | None, None, int]:
    """Read a video and all of its segments.

    Yields:
        the description of the video first, then each segment, or None for a damaged one.

    Returns:
        the number of segments.

    Raises:
        VideoError: the video cannot be read, or all of its segments are damaged.
    """
    clips: list[ClipTimes] = []
    segments = damaged = 0

    def choose(video: VideoDecoder, duration_seconds: float) -> list[Clip]:
        clips.extend(map(in_milliseconds, _segment_clips(video, duration_seconds, segmentation)))
        return [Clip(*clip) for clip in clips]

    for found in read_clips(path, choose, num_frames=num_frames, resizing=resizing):
        if isinstance(found, VideoInfo):
            yield found
            continue
        clip = clips[segments]
        segments += 1
        if isinstance(found, ClipFrames):
            yield DecodedSegment(clip, found.frames, thumbnail_strip(found.pictures), 1 / len(clips))
        else:
            damaged += 1
            yield None
    if damaged == len(clips):
        raise VideoError(path, "in every segment, more than half of the frames to decode are damaged")
    return len(clips)


def read_frames_of(
    path: Path, clips: Sequence[ClipTimes], *, num_frames: int, resizing: Resizing
) -> Generator[np.ndarray, None, None]:
    """Decode the frames of some segments of a video again.

    Raises:
        VideoError: one of them cannot be decoded.
    """
    with VideoDecoder(path) as video:
        wanted = [Clip(*clip) for clip in clips]
        for found in decode_clips(video, wanted, num_frames=num_frames, resizing=resizing, num_pictures=0):
            if isinstance(found, VideoError):
                raise found
            yield found.frames


def _segment_clips(video: VideoDecoder, duration_seconds: float, segmentation: SegmentationConfig) -> list[ClipTimes]:
    window, overlap = segmentation.window_seconds, segmentation.overlap_seconds
    if segmentation.by == BY_SHOTS:
        return shots(video, window_seconds=window, overlap_seconds=overlap)
    try:
        return windows(duration_seconds, window_seconds=window, overlap_seconds=overlap)
    except UsageError as error:  # only a broken file has such a duration
        raise VideoError(video.path, str(error)) from None


def in_milliseconds(clip: ClipTimes) -> ClipTimes:
    """Round a clip to milliseconds, as in a segment's id, so that it lasts at least one millisecond."""
    start, end = (round(seconds, 3) for seconds in clip)
    return start, max(end, round(start + 0.001, 3))


def windows(
    duration_seconds: float, *, window_seconds: float = WINDOW_SECONDS, overlap_seconds: float = OVERLAP_SECONDS
) -> list[ClipTimes]:
    """Return the fewest windows of equal length that cover a video and overlap by at least `overlap_seconds`.

    They are evenly spaced; the first begins at 0, the last ends at `duration_seconds`. A video of up to 1.1 windows
    is one clip.

    Raises:
        UsageError: a value is out of range, or gives more than a million windows.
    """
    _check_lengths(duration_seconds, window_seconds, overlap_seconds)
    if duration_seconds <= _WHOLE * window_seconds:
        return [(0.0, duration_seconds)]
    beyond = duration_seconds - window_seconds
    exact_steps = beyond / (window_seconds - overlap_seconds) - _SLACK
    if exact_steps >= MAX_WINDOWS:
        raise UsageError(
            f"windows of {window_seconds} s that overlap by {overlap_seconds} s would cut {duration_seconds:.0f} s of "
            f"video into {exact_steps:.0f} segments; at most {MAX_WINDOWS} are allowed: reduce the overlap"
        )
    steps = math.ceil(exact_steps)
    starts = [beyond * step / steps for step in range(steps + 1)]
    return [*((start, start + window_seconds) for start in starts[:-1]), (beyond, duration_seconds)]


def _check_lengths(duration_seconds: float, window_seconds: float, overlap_seconds: float) -> None:
    if not 0 < duration_seconds < math.inf:
        raise UsageError(f"duration_seconds is {duration_seconds}; it must be more than 0")
    if not 0 < window_seconds < math.inf:
        raise UsageError(f"window_seconds is {window_seconds}; it must be more than 0")
    if not 0 <= overlap_seconds < window_seconds:
        raise UsageError(
            f"overlap_seconds is {overlap_seconds}; it must be 0 or more and less than the window, {window_seconds}"
        )


# -- shots


def shots(
    video: VideoDecoder,
    *,
    window_seconds: float = WINDOW_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> list[ClipTimes]:
    """Return the shots of a video, in order and without gaps; one longer than 1.1 windows is cut into windows.

    A shot shorter than half a second is merged with the next one, or, at the end, with the one before. All frames are
    decoded.

    Raises:
        VideoError: no frame can be decoded; it names the file and the reason.
        UsageError: a value is out of range, or PySceneDetect is not installed.
    """
    _check_lengths(1.0, window_seconds, overlap_seconds)
    cuts = _detect_cuts(video)
    return [
        (begin + start, begin + end)
        for begin, finish in _long_enough(cuts, video.timeline.duration_seconds)
        for start, end in windows(finish - begin, window_seconds=window_seconds, overlap_seconds=overlap_seconds)
    ]


def _detect_cuts(video: VideoDecoder) -> list[float]:
    """Return the times at which new shots begin, in seconds from the first frame."""
    try:
        from scenedetect import common, detectors  # type: ignore[import-untyped]  # it has no types
    except ImportError as error:
        raise UsageError(
            f"cutting by shots needs PySceneDetect, which cannot be imported ({error}): pip install 'vop[shots]'"
        ) from error
    # Of PySceneDetect's detectors for hard cuts the best in its own benchmark (F1 of 91.6 on BBC and 73.9 on AutoShot,
    # ContentDetector 86.7 and 69.3): it compares a change with those around it, so that fast motion is no cut.
    detector = detectors.AdaptiveDetector(min_scene_len=0)
    stamps: list[int] = []
    cut_stamps: list[int] = []
    for stamp, pixels in _small_frames(video):
        position = common.FrameTimecode(len(stamps), fps=1.0)  # a plain number, as frames need not be evenly spaced
        stamps.append(stamp)
        cut_stamps += [stamps[cut.frame_num] for cut in detector.process_frame(position, pixels)]
    timeline = video.timeline
    return [float((stamp - timeline.stamps[0]) * timeline.time_base) for stamp in cut_stamps]


def _small_frames(video: VideoDecoder) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the stamp of every frame and its pixels, BGR, scaled down to one size."""
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    size: tuple[int, int] | None = None
    for stamp, frame in video.shown():
        size = size or _detection_size(frame)
        options: dict[str, Any] = {"interpolation": "FAST_BILINEAR", "threads": 1}
        small = reformatter.reformat(frame, width=size[0], height=size[1], format="bgr24", **options)
        yield stamp, small.to_ndarray()


def _detection_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return the width and height at which shots are detected."""
    scale = min(1.0, _DETECTION_SIZE / max(frame.width, frame.height))
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _long_enough(cuts: list[float], duration: float) -> list[ClipTimes]:
    """Return the clips between cuts, without the cuts that would make a clip too short."""
    kept = [0.0]
    for cut in cuts:
        if cut - kept[-1] >= SHORTEST_SHOT_SECONDS and duration - cut >= SHORTEST_SHOT_SECONDS:
            kept.append(cut)
    return list(pairwise([*kept, duration]))


# -- thumbnails


def thumbnail_strip(pictures: Sequence[np.ndarray], *, height: int = STRIP_HEIGHT) -> bytes:
    """Return a JPEG of pictures side by side, without gaps, in cells of equal size.

    Cells have the shape of the first picture. A picture of another shape is centered on black.

    Args:
        pictures: uint8 arrays (h, w, 3), at least one.
        height: height of the strip in pixels.

    Raises:
        UsageError: there is no picture, a picture has another type or shape, or the height is less than 1.
    """
    _check_pictures(pictures, height)
    ratio = pictures[0].shape[1] / pictures[0].shape[0]
    width = max(1, round(height * min(_MAX_CELL_RATIO, max(1 / _MAX_CELL_RATIO, ratio))))
    strip = Image.new("RGB", (width * len(pictures), height))
    for place, pixels in enumerate(pictures):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        strip.paste(ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS), (place * width, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _check_pictures(pictures: Sequence[np.ndarray], height: int) -> None:
    if not len(pictures):
        raise UsageError("pictures is empty; a thumbnail strip needs at least one")
    for pixels in pictures:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise UsageError(f"a picture is {pixels.dtype} of shape {pixels.shape}; give uint8 height x width x 3")
    if height < 1:
        raise UsageError(f"height is {height}; at least 1 pixel is needed")
