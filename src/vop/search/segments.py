"""How a video is cut into segments: windows of equal length, or its shots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.video.decode import VideoDecoder

if TYPE_CHECKING:
    import av
    import numpy as np

Span = tuple[float, float]  # start_seconds, end_seconds, counted from the video's first frame

WINDOW_SECONDS, OVERLAP_SECONDS = 10.0, 2.0
MAX_WINDOWS = 1_000_000  # of one video; beyond it the overlap is a mistake
SHORTEST_SHOT_SECONDS = 0.5

_WHOLE = 1.1  # windows; what is not longer stays in one piece
_SLACK = 1e-6  # windows; keeps rounding from adding one
_LONGER_SIDE = 256  # pixels, at which shots are told apart


def windows(
    duration_seconds: float, *, window_seconds: float = WINDOW_SECONDS, overlap_seconds: float = OVERLAP_SECONDS
) -> list[Span]:
    """Windows of equal length that cover a video, as few as overlap by `overlap_seconds` or more.

    They are evenly spaced; the first begins at 0, the last ends at `duration_seconds`. A video of up to 1.1 windows
    is one span.

    Raises:
        UsageError: a value is out of range, or gives more than a million windows.
    """
    _check(duration_seconds, window_seconds, overlap_seconds)
    if duration_seconds <= _WHOLE * window_seconds:
        return [(0.0, duration_seconds)]
    beyond = duration_seconds - window_seconds
    steps = beyond / (window_seconds - overlap_seconds) - _SLACK
    if steps >= MAX_WINDOWS:
        raise UsageError(
            f"windows of {window_seconds} s that overlap by {overlap_seconds} s would cut {duration_seconds:.0f} s of "
            f"video into {steps:.0f} segments; at most {MAX_WINDOWS} are made: overlap them less"
        )
    steps = math.ceil(steps)
    starts = [beyond * step / steps for step in range(steps + 1)]
    return [*((start, start + window_seconds) for start in starts[:-1]), (beyond, duration_seconds)]


def shots(
    video: VideoDecoder,
    *,
    window_seconds: float = WINDOW_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> list[Span]:
    """The shots of a video, in order and without gaps; one longer than 1.1 windows is cut into windows.

    A shot shorter than half a second goes with the one after it, the last with the one before it. All frames are
    decoded.

    Raises:
        VideoError: no frame can be had; it names the file and the reason.
        UsageError: a value is out of range, or PySceneDetect is not installed.
    """
    _check(1.0, window_seconds, overlap_seconds)
    cuts = _cuts(video)
    return [
        (begin + start, begin + end)
        for begin, finish in _long_enough(cuts, video.timeline.duration_seconds)
        for start, end in windows(finish - begin, window_seconds=window_seconds, overlap_seconds=overlap_seconds)
    ]


def in_milliseconds(span: Span) -> Span:
    """A stretch as a segment's id has it: start and end in seconds, to the millisecond, one apart at least."""
    start, end = (round(seconds, 3) for seconds in span)
    return start, max(end, round(start + 0.001, 3))


def _check(duration_seconds: float, window_seconds: float, overlap_seconds: float) -> None:
    if not 0 < duration_seconds < math.inf:
        raise UsageError(f"duration_seconds is {duration_seconds}; a video lasts longer than 0 s")
    if not 0 < window_seconds < math.inf:
        raise UsageError(f"window_seconds is {window_seconds}; a window lasts longer than 0 s")
    if not 0 <= overlap_seconds < window_seconds:
        raise UsageError(
            f"overlap_seconds is {overlap_seconds}; it is 0 or more and less than the window, {window_seconds}"
        )


def _cuts(video: VideoDecoder) -> list[float]:
    """When new shots begin, in seconds from the first frame."""
    common, detectors = _scenedetect()
    # Of PySceneDetect's detectors for hard cuts the best in its own benchmark (F1 of 91.6 on BBC and 73.9 on AutoShot,
    # ContentDetector 86.7 and 69.3): it compares a change with those around it, so that fast motion is no cut.
    detector = detectors.AdaptiveDetector(min_scene_len=0)
    stamps: list[int] = []
    found: list[int] = []
    for stamp, pixels in _small_frames(video):
        position = common.FrameTimecode(len(stamps), fps=1.0)  # a plain number, as frames need not be evenly spaced
        stamps.append(stamp)
        found += [stamps[cut.frame_num] for cut in detector.process_frame(position, pixels)]
    timeline = video.timeline
    return [float((stamp - timeline.stamps[0]) * timeline.time_base) for stamp in found]


def _scenedetect():
    try:
        from scenedetect import common, detectors
    except ImportError as error:
        raise UsageError(
            f"cutting by shots needs PySceneDetect, which cannot be imported ({error}): pip install 'vop[shots]'"
        ) from error
    return common, detectors


def _small_frames(video: VideoDecoder) -> Iterator[tuple[int, np.ndarray]]:
    """Every frame's stamp and its pixels, BGR, small, all of the first one's size."""
    from av.video.reformatter import VideoReformatter

    reformatter, shape = VideoReformatter(), None
    for stamp, frame in video.shown():
        shape = shape or _small(frame)
        small = reformatter.reformat(frame, **shape, format="bgr24", interpolation="FAST_BILINEAR", threads=1)
        yield stamp, small.to_ndarray()


def _small(frame: av.VideoFrame) -> dict[str, int]:
    scale = min(1.0, _LONGER_SIDE / max(frame.width, frame.height))
    return {"width": max(1, round(frame.width * scale)), "height": max(1, round(frame.height * scale))}


def _long_enough(cuts: list[float], duration: float) -> list[Span]:
    """The spans between cuts, without those cuts that would leave a span too short."""
    kept = [0.0]
    for cut in cuts:
        if cut - kept[-1] >= SHORTEST_SHOT_SECONDS and duration - cut >= SHORTEST_SHOT_SECONDS:
            kept.append(cut)
    return list(pairwise([*kept, duration]))
