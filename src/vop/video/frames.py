"""Read a video's frames, from one clip or from many clips in one pass.

The segments of a long video overlap, and opening the file for each of them would read all its packets each time.
Therefore `decode_clips` decodes and converts every frame at most once, and releases it after the last clip that needs
it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vop.errors import UsageError, VideoError
from vop.utils.checks import plain
from vop.utils.text import count
from vop.video.clip import DISPLAY, Clip, check_request
from vop.video.decode import VideoDecoder
from vop.video.probe import VideoInfo, describe
from vop.video.resizing import BICUBIC, CROP, Resizing

if TYPE_CHECKING:
    import torch

    from vop.video.shape import PixelConverter
    from vop.video.timeline import Timeline

MAX_BAD_SHARE = 0.5  # of the wanted frames that may be damaged and replaced by neighbours

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
    """Return the frames shown in the middle of `num_frames` equal intervals of a video or clip.

    Frames are chosen by presentation time. A video with fewer frames repeats some. If a wanted frame is damaged, the
    nearest intact one replaces it, unless more than half of the wanted frames are damaged.

    Args:
        size: height and width of the result, in pixels.
        start_seconds, end_seconds: the clip, counted from the video's first frame. None means the end of the video.
        aspect: "display" stretches frames as players do; "stored" takes stored pixels as square, like most published
            pipelines.
        resize: "crop" scales the shorter side to `size` and crops the centre, like CLIP; "squash" scales both sides to
            `size`, like SigLIP, and `aspect` makes no difference; "whole" scales the shorter side to `size` and keeps
            the frame's shape.
        interpolation: "bicubic" or "bilinear", both antialiased.
        stream: the number of a video stream in the file; by default the one that FFmpeg's command takes.
        threads: the decoder's threads. For usual clips one is fastest. To use more cores, read several files at once.

    Returns:
        uint8 tensor (num_frames, 3, size, size), RGB; (num_frames, 3, h, w) for whole frames.

    Raises:
        VideoError: the file has no video, or none of the frames can be decoded. The error names the file and the
            reason.
        UsageError: an argument is out of range.
    """
    import torch

    frames = decode_frames(
        path,
        num_frames=plain(num_frames),
        resizing=Resizing(plain(size), resize, interpolation),
        start_seconds=plain(start_seconds),
        end_seconds=plain(end_seconds),
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
    """Read frames like `read_frames`, but without PyTorch, to a uint8 array (num_frames, 3, size, size)."""
    path, clip = Path(path), Clip(start_seconds, end_seconds)
    check_request(num_frames=num_frames, resizing=resizing, clip=clip)
    with VideoDecoder(path, stream=stream, threads=threads) as video:
        converter = video.converter(resizing=resizing, aspect=aspect)
        video.look_up(clip, num_frames)
        wanted = wanted_stamps(path, video.timeline, clip, num_frames=num_frames)
        found: list[int] = []
        frames: list[Pixels] = []
        for stamp, frame in video.nearest(wanted):
            repeated = bool(found) and found[-1] == stamp
            frames.append(frames[-1] if repeated else converter.square(frame))
            found.append(stamp)
        _check_damage(path, video.timeline, clip, wanted, found)
    return np.stack(frames)


@dataclass(frozen=True, repr=False)
class ClipFrames:
    """The frames of a clip.

    Attributes:
        frames: uint8 array (num_frames, 3, size, size), as `decode_frames` returns it for the clip.
        pictures: some of the frames, uncropped, upright and small: uint8 arrays (height, width, 3). Clips that overlap
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
    """Decode several clips of a video, with the same result for each as from `decode_frames`.

    Each clip is yielded as soon as its last frame is decoded, so only unfinished clips take memory. A damaged frame may
    be replaced by a nearer one than in `decode_frames`, because more frames are decoded.

    Args:
        clips: clips in ascending order of their starts. They may overlap.
        num_frames, resizing, aspect: as for `decode_frames`.
        num_pictures: number of frames of a clip to return uncropped as well, evenly spread; at most `num_frames`.
        picture_size: the longer side of these pictures, in pixels.

    Yields:
        The frames of each clip, or the VideoError that `decode_frames` would raise: the clip begins after the video's
        end, or more than half of its frames are damaged.

    Raises:
        VideoError: none of the frames can be decoded. The error names the file and the reason.
        UsageError: an argument is out of range, or the clips are not in order.
    """
    _check_clips(clips, num_frames=num_frames, resizing=resizing, num_pictures=num_pictures, picture_size=picture_size)
    plans = [_plan(video.path, video.timeline, clip, num_frames) for clip in clips]
    pictured = middles(num_frames, min(num_pictures, num_frames))
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
        choose: takes the open video and its duration in seconds, and returns clips in ascending order of their starts.
        num_frames, resizing: as for `decode_frames`.

    Yields:
        The video's description, then the results of `decode_clips`.

    Raises:
        VideoError: the file cannot be read, or none of the frames can be decoded.
    """
    with VideoDecoder(path) as video:
        yield describe(video)
        clips = choose(video, video.timeline.duration_seconds)
        yield from decode_clips(video, clips, num_frames=num_frames, resizing=resizing)


def video_timeline(path: str | Path) -> Timeline:
    """Return the presentation times of a video's frames. Reads all packets without decoding them.

    Raises:
        VideoError: the file does not exist, or is not a video.
    """
    with VideoDecoder(path) as video:
        return video.timeline


def check_timeline(path: str | Path) -> None:
    """Raise a VideoError if a file has no video, or its frames have no times."""
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
    """Raise a VideoError if more than half of the found frames are too far from the wanted ones to replace them."""
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
        raise UsageError(f"num_pictures is {num_pictures}; it must be 0 or more")
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
    """The timestamps of the frames to decode for a clip, or the error if it has none."""

    clip: Clip
    wanted: list[int]
    refusal: VideoError | None = None


@dataclass
class _Converted:
    """A frame converted to pixels."""

    stamp: int
    pixels: Pixels
    picture: Pixels | None = None


def _plan(path: Path, timeline: Timeline, clip: Clip, num_frames: int) -> _Plan:
    try:
        return _Plan(clip, wanted_stamps(path, timeline, clip, num_frames=num_frames))
    except VideoError as error:
        return _Plan(clip, [], refusal=error)


class _Pass:
    """One pass over a video, which decodes the frames of all plans in order.

    Attributes:
        uses: the number of unfinished plans that want a timestamp.
        converted: the frames found so far, by wanted timestamp.
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
        """Yield each wanted timestamp with its frame. A frame that serves several timestamps is converted once."""
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


def middles(length: int, parts: int) -> list[int]:
    """Return the middle positions of `parts` equal parts of a sequence."""
    return [(2 * part + 1) * length // (2 * parts) for part in range(parts)]
