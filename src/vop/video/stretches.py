"""Many stretches of one video, in one pass over its packets for times and one over the frames that they need.

The windows of a long video overlap, and opening it anew for each of them reads all its packets each time. Here every
frame is decoded at most once and turned into pixels at most once, and is let go when no stretch needs it any more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vop.errors import UsageError, VideoError
from vop.video.aspect import DISPLAY
from vop.video.decode import VideoDecoder, check_damage, check_request, wanted_stamps

if TYPE_CHECKING:
    from vop.video.pixels import PixelConverter
    from vop.video.timeline import Timeline

Span = tuple[float, float]


@dataclass(frozen=True, repr=False)
class Stretch:
    """A stretch of a video.

    Attributes:
        frames: uint8 array (num_frames, 3, size, size), what `decode_frames` gives for the stretch.
        pictures: some of the frames, whole, upright and small: uint8 arrays (height, width, 3). Stretches that
            overlap share them.
    """

    frames: np.ndarray
    pictures: list[np.ndarray]

    def __repr__(self) -> str:
        return f"Stretch({self.frames.shape}, {len(self.pictures)} pictures)"


def decode_stretches(
    video: VideoDecoder,
    spans: Sequence[Span],
    *,
    num_frames: int,
    size: int,
    num_pictures: int = 4,
    picture_size: int = 160,
    aspect: str = DISPLAY,
) -> Iterator[Stretch | VideoError]:
    """Decode stretches of a video, each as `decode_frames` would.

    Stretches come as soon as their last frame is decoded: memory holds those that are under way. Where frames are
    damaged, the intact one that stands in may be nearer than the one `decode_frames` finds, as more are decoded.

    Args:
        spans: (start_seconds, end_seconds) counted from the first frame, in ascending order of their starts; they
            may overlap.
        num_frames, size, aspect: as for `decode_frames`.
        num_pictures: how many of a stretch's frames are also given whole, spread evenly; at most `num_frames`.
        picture_size: the longer side of these pictures.

    Yields:
        for each span in turn a Stretch, or the VideoError that `decode_frames` would raise: it begins after the
        video's end, or more than half of its frames are damaged.

    Raises:
        VideoError: no frame can be had; it names the file and the reason.
        UsageError: an argument is out of range, or the spans are not in order.
    """
    _check(spans, num_frames=num_frames, size=size, num_pictures=num_pictures, picture_size=picture_size)
    plans = [_plan(video.path, video.timeline, span, num_frames) for span in spans]
    shown = _middles(num_frames, min(num_pictures, num_frames))
    converter = video.converter(size=size, picture_size=picture_size, aspect=aspect)
    return _Pass(video, plans, shown, converter).run()


@dataclass(frozen=True)
class _Plan:
    """The frames that a span wants, or the reason why it cannot have any."""

    span: Span
    wanted: list[int]
    refusal: VideoError | None = None


@dataclass
class _Shot:
    """What was made of a frame."""

    stamp: int
    pixels: np.ndarray
    picture: np.ndarray | None = None


def _plan(path: Path, timeline: Timeline, span: Span, num_frames: int) -> _Plan:
    try:
        return _Plan(span, wanted_stamps(path, timeline, span, num_frames=num_frames))
    except VideoError as error:
        return _Plan(span, [], refusal=error)


class _Pass:
    """One pass over a video, that fills the plans in their order.

    `uses` counts the plans that still want a stamp; `shots` holds what was found, by the stamp that was wanted.
    """

    def __init__(self, video: VideoDecoder, plans: list[_Plan], shown: list[int], converter: PixelConverter) -> None:
        self.video, self.plans, self.shown, self.converter = video, plans, shown, converter
        self.uses = Counter(stamp for plan in plans for stamp in set(plan.wanted))
        self.pictured = {plan.wanted[place] for plan in plans if plan.wanted for place in shown}
        self.shots: dict[int, _Shot] = {}

    def run(self) -> Iterator[Stretch | VideoError]:
        waiting = deque(self.plans)
        for stamp, shot in self._shots(sorted(self.uses)):
            self.shots[stamp] = shot
            while waiting and (not waiting[0].wanted or waiting[0].wanted[-1] <= stamp):
                yield self._fill(waiting.popleft())
        yield from map(self._fill, waiting)  # spans after the video's end

    def _shots(self, wanted: list[int]) -> Iterator[tuple[int, _Shot]]:
        """Each wanted stamp with its shot; one that stands in for several stamps is made once."""
        shot = None
        for target, (stamp, frame) in zip(wanted, self.video.nearest(wanted), strict=True):
            if shot is None or shot.stamp != stamp:
                shot = _Shot(stamp, self.converter.square(frame))
            if target in self.pictured and shot.picture is None:
                shot.picture = self.converter.picture(frame)
            yield target, shot

    def _fill(self, plan: _Plan) -> Stretch | VideoError:
        if plan.refusal is not None:
            return plan.refusal
        found = [self.shots[stamp] for stamp in plan.wanted]
        self._let_go(plan)
        try:
            check_damage(self.video.path, self.video.timeline, plan.span, plan.wanted, [shot.stamp for shot in found])
        except VideoError as error:
            return error
        return Stretch(np.stack([shot.pixels for shot in found]), [found[place].picture for place in self.shown])

    def _let_go(self, plan: _Plan) -> None:
        for stamp in set(plan.wanted):
            self.uses[stamp] -= 1
            if not self.uses[stamp]:
                del self.shots[stamp]


def _middles(count: int, parts: int) -> list[int]:
    """The places in the middle of `parts` equal parts of a sequence."""
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def _check(spans: Sequence[Span], *, num_frames: int, size: int, num_pictures: int, picture_size: int) -> None:
    check_request(num_frames=num_frames, size=size)
    if num_pictures < 0:
        raise UsageError(f"num_pictures is {num_pictures}; give 0 or more")
    if picture_size < 1:
        raise UsageError(f"picture_size is {picture_size}; at least 1 pixel is needed")
    before = 0.0
    for start, end in spans:
        check_request(num_frames=num_frames, size=size, start_seconds=start, end_seconds=end)
        if start < before:
            raise UsageError(f"a span starts at {start} s after one at {before} s; sort the spans by their starts")
        before = start
