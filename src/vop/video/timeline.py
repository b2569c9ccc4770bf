"""When a video's frames are shown: read from its packets, without decoding.

Headers lie: durations and frame counts are missing (WebM from a browser, GIF) or wrong (broken downloads), and frame
rates vary. The packets' timestamps are what a player goes by, and reading them costs a few percent of decoding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import av

DEFAULT_RATE = 25  # frames per second where neither packets nor header tell one, as FFmpeg assumes


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a video's frames.

    Attributes:
        stamps: one for each frame, ascending, in units of `time_base`. Frame k is on display from `stamps[k]` on.
        end: when the last frame leaves the display, same units.
        time_base: seconds per unit.
        ordinal: the file has no presentation times (old AVI, a bare H.264 stream): the k-th frame that the decoder
            puts out is the one shown at `stamps[k]`.
        keys: (presentation, decoding) stamp of each frame at which decoding can begin; empty if `ordinal`.
    """

    stamps: tuple[int, ...]
    end: int
    time_base: Fraction
    ordinal: bool
    keys: tuple[tuple[int, int], ...]

    def __repr__(self) -> str:
        return f"Timeline({len(self.stamps)} frames, {self.duration_seconds:.3f} s)"

    @property
    def duration_seconds(self) -> float:
        """From the first frame's appearance to the last one's end."""
        return float((self.end - self.stamps[0]) * self.time_base)

    def midpoints(self, num_frames: int, *, start_seconds: float = 0.0, end_seconds: float | None = None) -> list[int]:
        """The stamps of the frames on display in the middle of `num_frames` equal intervals.

        `start_seconds` and `end_seconds` count from the first frame and bound the stretch that is divided; an end
        after the video's own is the video's own. Fewer frames than intervals repeat.
        """
        first = Fraction(self.stamps[0])
        start = first + Fraction(start_seconds) / self.time_base
        end = Fraction(self.end)
        if end_seconds is not None:
            end = min(end, first + Fraction(end_seconds) / self.time_base)
        middles = (start + (end - start) * Fraction(2 * k + 1, 2 * num_frames) for k in range(num_frames))
        return [self.stamps[max(bisect_right(self.stamps, middle) - 1, 0)] for middle in middles]

    def key_before(self, stamp: int) -> int | None:
        """Where to seek to decode the frame at `stamp`; None: begin at the beginning."""
        index = bisect_right(self.keys, stamp, key=lambda key: key[0])
        return self.keys[index - 1][1] if index > 1 else None


class _Times(NamedTuple):
    pts: int | None
    dts: int | None
    duration: int
    is_key: bool


def read_timeline(packets: Iterable[av.Packet], stream: av.VideoStream) -> Timeline | None:
    """The timeline of a stream's packets, from a pass that only reads them; None where there are none."""
    # An edit list marks the frames that it cuts off: they are decoded, for others to refer to, but never shown.
    # A packet is not kept: all of them together hold the whole file.
    shown = [
        _Times(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe)
        for packet in packets
        if packet.size and not packet.is_discard
    ]
    if not shown:
        return None
    ordinal = _lacks_presentation_times(shown, stream)
    stamps, time_base = _stamps(shown, stream, ordinal=ordinal)
    last = max(range(len(stamps)), key=stamps.__getitem__)
    duration = shown[last].duration if time_base == stream.time_base else 1
    keys = [(p.pts, p.pts if p.dts is None else p.dts) for p in shown if p.is_key and not ordinal]
    stamps = sorted(stamps)
    end = stamps[-1] + (duration or _usual_gap(stamps))
    return Timeline(tuple(stamps), end, time_base, ordinal, tuple(sorted(keys)))


def _lacks_presentation_times(packets: list[_Times], stream: av.VideoStream) -> bool:
    """Whether times are absent, or, in a stream with reordered frames, those of decoding (H.264 in AVI)."""
    if any(packet.pts is None for packet in packets):
        return True
    in_order = all(early.pts < late.pts for early, late in pairwise(packets))
    return in_order and bool(stream.codec_context.has_b_frames)


def _stamps(packets: list[_Times], stream: av.VideoStream, *, ordinal: bool) -> tuple[list[int], Fraction]:
    if not ordinal:
        return [packet.pts for packet in packets], stream.time_base
    if all(packet.dts is not None for packet in packets):
        return [packet.dts for packet in packets], stream.time_base
    rate = stream.guessed_rate or stream.average_rate or DEFAULT_RATE
    return list(range(len(packets))), 1 / Fraction(rate)


def _usual_gap(stamps: list[int]) -> int:
    gaps = [late - early for early, late in pairwise(stamps) if late > early]
    return median_low(gaps) if gaps else 1
