"""A video's frames: of one clip, or of many clips in one pass.

The windows of a long video overlap, and opening it anew for each of them reads all its packets each time. Therefore
`decode_clips` decodes every frame at most once, turns it into pixels at most once, and releases it when no clip needs
it any more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vop.errors import UsageError, VideoError
from vop.utils.text import count
from vop.video.clip import DISPLAY, Clip, check_request
from vop.video.decode import VideoDecoder
from vop.video.probe import VideoInfo, describe
from vop.video.resizing import BICUBIC, CROP, Resizing

if TYPE_CHECKING:
    import torch

    from vop.video.shape import PixelConverter
    from vop.video.timeline import Timeline

MAX_BAD_SHARE = 0.5  # of the wanted frames; beyond it neighbours no longer stand in for the damaged ones

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def read_frames(
    path: str | Path,
    num_frames: int = 12,
    size: int = 224,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    *,
    aspect: str = DISPLAY,
    resize: str = CROP,
    interpolation: str = BICUBIC,
    stream: int | None = None,
    threads: int = 1,
) -> torch.Tensor:
    """Return the frames shown in the middle of `num_frames` equal intervals of a video, or of a clip of it.

    Frames are chosen by presentation time. A shorter video repeats frames. If a wanted frame is damaged, the
    nearest intact one replaces it, unless more than half of the wanted ones are damaged.

    Args:
        size: height and width of the result.
        start_seconds, end_seconds: the clip, counted from the video's first frame; None: the end of the video.
        aspect: "display" gives pictures the shape in which players show them; "stored" takes pixels as squares
            whatever the file says, as most published pipelines do.
        resize: "crop" scales the shorter side to `size` and crops the centre, as CLIP does; "squash" scales both sides
            to `size`, as SigLIP does, and then `aspect` makes no difference.
        interpolation: "bicubic" or "bilinear", both antialiased.
        stream: a video stream by its number in the file; by default the one that FFmpeg's command takes.
        threads: the decoder's threads. One is fastest for usual clips; several files at once use the cores better.

    Returns:
        uint8 tensor (num_frames, 3, size, size), RGB.

    Raises:
        VideoError: the file has no video, or none of the frames can be decoded; it names the file and the reason.
        UsageError: an argument is out of range.
    """
    import torch

    frames = decode_frames(
        path,
        num_frames=num_frames,
        resizing=Resizing(size, resize, interpolation),
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        aspect=aspect,
        stream=stream,
        threads=threads,
    )
    return torch.from_numpy(frames)


def decode_frames(
    path: str | Path,
    *,
    num_frames: int,
    resizing: Resizing,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    aspect: str = DISPLAY,
    stream: int | None = None,
    threads: int = 1,
) -> Pixels:
    """What `read_frames` gives, as a uint8 array (num_frames, 3, size, size). Does not need PyTorch."""
    path, clip = Path(path), Clip(start_seconds, end_seconds)
    check_request(num_frames=num_frames, resizing=resizing, clip=clip)
    with VideoDecoder(path, stream=stream, threads=threads) as video:
        converter = video.converter(resizing=resizing, aspect=aspect)
        video.look_up(clip, num_frames)
        wanted = wanted_stamps(path, video.timeline, clip, num_frames=num_frames)
        found: list[int] = []
        frames = np.empty((num_frames, 3, resizing.size, resizing.size), np.uint8)
        for place, (stamp, frame) in enumerate(video.nearest(wanted)):
            repeated = bool(found) and found[-1] == stamp
            frames[place] = frames[place - 1] if repeated else converter.square(frame)
            found.append(stamp)
        _check_damage(path, video.timeline, clip, wanted, found)
    return frames


@dataclass(frozen=True, repr=False)
class ClipFrames:
    """Return the frames of a clip.

    Attributes:
        frames: uint8 array (num_frames, 3, size, size), what `decode_frames` gives for the clip.
        pictures: some of the frames, whole, upright and small: uint8 arrays (height, width, 3). Clips that overlap
            share them.
    """

    frames: Pixels
    pictures: list[Pixels]

    def __repr__(self) -> str:
        return f"ClipFrames({self.frames.shape}, {len(self.pictures)} pictures)"


def decode_clips(
    video: VideoDecoder,
    clips: Sequence[Clip],
    *,
    num_frames: int,
    resizing: Resizing,
    num_pictures: int = 4,
    picture_size: int = 160,
    aspect: str = DISPLAY,
) -> Iterator[ClipFrames | VideoError]:
    """Decode clips of a video, each as `decode_frames` would.

    Each clip is yielded as soon as its last frame is decoded; memory holds unfinished clips only. The replacement of a
    damaged frame may be nearer than that of `decode_frames`, because more frames are decoded.

    Args:
        clips: in ascending order of their starts; they may overlap.
        num_frames, resizing, aspect: as for `decode_frames`.
        num_pictures: how many frames of a clip are also returned uncropped, spread evenly; at most `num_frames`.
        picture_size: the longer side of these pictures.

    Yields:
        for each clip in turn its frames, or the VideoError that `decode_frames` would raise: the clip begins after the
        video's end, or more than half of its frames are damaged.

    Raises:
        VideoError: none of the frames can be decoded; it names the file and the reason.
        UsageError: an argument is out of range, or the clips are not in order.
    """
    _check_clips(clips, num_frames=num_frames, resizing=resizing, num_pictures=num_pictures, picture_size=picture_size)
    plans = [_plan(video.path, video.timeline, clip, num_frames) for clip in clips]
    pictured = _middles(num_frames, min(num_pictures, num_frames))
    converter = video.converter(resizing=resizing, picture_size=picture_size, aspect=aspect)
    return _Pass(video, plans, pictured, converter).run()


def read_clips(
    path: str | Path,
    choose: Callable[[VideoDecoder, float], Sequence[Clip]],
    *,
    num_frames: int,
    resizing: Resizing,
) -> Iterator[VideoInfo | ClipFrames | VideoError]:
    """Open a video, describe it, and decode the clips that `choose` picks.

    Args:
        choose: gets the open video and its duration in seconds, and returns clips in ascending order of their starts.
        num_frames, resizing: as for `decode_frames`.

    Yields:
        the video's description, before its packets are read; then what `decode_clips` yields.

    Raises:
        VideoError: the file cannot be read, or none of the frames can be decoded.
    """
    with VideoDecoder(path) as video:
        yield describe(video)
        clips = choose(video, video.timeline.duration_seconds)
        yield from decode_clips(video, clips, num_frames=num_frames, resizing=resizing)


def video_timeline(path: str | Path) -> Timeline:
    """Return the presentation times of a video's frames. Reads all packets, decodes nothing.

    Raises:
        VideoError: the file does not exist, or is not a video.
    """
    with VideoDecoder(path) as video:
        return video.timeline


def check_timeline(path: str | Path) -> None:
    """Raise a VideoError if a file has no video, or none whose frames have times."""
    video_timeline(path)


def wanted_stamps(path: Path, timeline: Timeline, clip: Clip, *, num_frames: int) -> list[int]:
    """Return the timestamps of the frames that `decode_frames` chooses from a clip.

    Raises:
        VideoError: the clip begins after the video's end.
    """
    start, duration = clip.start_seconds, timeline.duration_seconds
    if start and start >= duration:
        raise VideoError(path, f"it ends at {duration:.3f} s, before the wanted start, {start} s")
    return timeline.midpoints(num_frames, clip)


def _check_damage(path: Path, timeline: Timeline, clip: Clip, wanted: Sequence[int], found: Sequence[int]) -> None:
    """Raise a VideoError if more than half of the frames found are too far from the wanted ones to stand in."""
    duration = timeline.duration_seconds
    interval = (min(clip.end_seconds or duration, duration) - clip.start_seconds) / len(wanted)
    misses = [abs(stamp - target) * timeline.time_base for stamp, target in zip(found, wanted, strict=True)]
    bad = sum(miss > interval for miss in misses)
    if bad > MAX_BAD_SHARE * len(wanted):
        raise VideoError(path, f"{bad:,} of {count('wanted frame', len(wanted))} are damaged")


def _check_clips(
    clips: Sequence[Clip], *, num_frames: int, resizing: Resizing, num_pictures: int, picture_size: int
) -> None:
    check_request(num_frames=num_frames, resizing=resizing)
    if num_pictures < 0:
        raise UsageError(f"num_pictures is {num_pictures}; give 0 or more")
    if picture_size < 1:
        raise UsageError(f"picture_size is {picture_size}; at least 1 pixel is needed")
    before = 0.0
    for clip in clips:
        check_request(num_frames=num_frames, resizing=resizing, clip=clip)
        start = clip.start_seconds
        if start < before:
            raise UsageError(f"a clip starts at {start} s after one at {before} s; sort the clips by their starts")
        before = start


@dataclass(frozen=True)
class _Plan:
    """The frames to decode for a clip, or the reason why it has none."""

    clip: Clip
    wanted: list[int]
    refusal: VideoError | None = None


@dataclass
class _Converted:
    """The results of a frame."""

    stamp: int
    pixels: Pixels
    picture: Pixels | None = None


def _plan(path: Path, timeline: Timeline, clip: Clip, num_frames: int) -> _Plan:
    try:
        return _Plan(clip, wanted_stamps(path, timeline, clip, num_frames=num_frames))
    except VideoError as error:
        return _Plan(clip, [], refusal=error)


class _Pass:
    """One pass over a video that fills the plans in their order.

    `uses` counts the plans that still want a stamp; `converted` holds what was found, by the stamp that was wanted.
    """

    def __init__(self, video: VideoDecoder, plans: list[_Plan], pictured: list[int], converter: PixelConverter) -> None:
        self.video, self.plans, self.pictured, self.converter = video, plans, pictured, converter
        self.uses = Counter(stamp for plan in plans for stamp in set(plan.wanted))
        self.with_picture = {plan.wanted[place] for plan in plans if plan.wanted for place in pictured}
        self.converted: dict[int, _Converted] = {}

    def run(self) -> Iterator[ClipFrames | VideoError]:
        waiting = deque(self.plans)
        for stamp, converted in self._convert(sorted(self.uses)):
            self.converted[stamp] = converted
            while waiting and (not waiting[0].wanted or waiting[0].wanted[-1] <= stamp):
                yield self._fill(waiting.popleft())
        yield from map(self._fill, waiting)  # clips after the video's end

    def _convert(self, wanted: list[int]) -> Iterator[tuple[int, _Converted]]:
        """Each wanted stamp with its frame; one that stands in for several stamps is converted once."""
        converted = None
        for target, (stamp, frame) in zip(wanted, self.video.nearest(wanted), strict=True):
            if converted is None or converted.stamp != stamp:
                converted = _Converted(stamp, self.converter.square(frame))
            if target in self.with_picture and converted.picture is None:
                converted.picture = self.converter.picture(frame)
            yield target, converted

    def _fill(self, plan: _Plan) -> ClipFrames | VideoError:
        if plan.refusal is not None:
            return plan.refusal
        found = [self.converted[stamp] for stamp in plan.wanted]
        self._release(plan)
        stamps = [converted.stamp for converted in found]
        try:
            _check_damage(self.video.path, self.video.timeline, plan.clip, plan.wanted, stamps)
        except VideoError as error:
            return error
        pictures = [picture for place in self.pictured if (picture := found[place].picture) is not None]
        return ClipFrames(np.stack([converted.pixels for converted in found]), pictures)

    def _release(self, plan: _Plan) -> None:
        for stamp in set(plan.wanted):
            self.uses[stamp] -= 1
            if not self.uses[stamp]:
                del self.converted[stamp]


def _middles(length: int, parts: int) -> list[int]:
    """Return the middle positions of `parts` equal parts of a sequence."""
    return [(2 * part + 1) * length // (2 * parts) for part in range(parts)]
