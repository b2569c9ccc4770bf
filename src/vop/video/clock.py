"""Time stamps as FFmpeg's command reads them: recordings that were joined, clocks that restart or leap.

Formats made for broadcast (MPEG-TS and its like) allow a clock to jump at any packet, for all streams at once. FFmpeg's
command then goes on as if nothing had happened, and so do players. Other formats mean what they say: after a gap of an
hour the picture has stood for an hour. In none of them does a clock run backwards, and a single stamp far from its
neighbours is a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING

from av.format import Flags

if TYPE_CHECKING:
    import av

_MICROSECONDS = 10**6
_LEAP = 10 * _MICROSECONDS  # FFmpeg's -dts_delta_threshold
_BACK = _MICROSECONDS // 10  # a clock that goes back by more has restarted

_NEAR = 4  # packets on either side that a stamp is compared with
_REORDERED = 20  # packets; frames are reordered by less
_STRAY_SECONDS = 1  # a stamp farther away from all of them than this, and than any reordering reaches, is a stray
_STRAY_GAPS = 20


def may_jump(container: av.container.InputContainer) -> bool:
    """Whether a file's format allows its clock to jump."""
    return bool(container.format.flags & Flags.ts_discont.value)


class Clock:
    """Takes discontinuities out of the time stamps of a file, packet by packet, in the order of the file.

    Attributes:
        corrected: whether there were any.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self.corrected = False
        self._may_jump = may_jump(container)
        self._offset = 0  # microseconds
        self._decoded: dict[int, int] = {}  # by stream: when the last packet was decoded, microseconds
        self._next: dict[int, int] = {}  # and when the next one is due
        self._last: int | None = None  # of any stream

    def set(self, packet: av.Packet) -> None:
        """Corrects the stamps of the next packet in place."""
        if not self._may_jump or packet.dts is None:
            return
        unit = packet.time_base * _MICROSECONDS
        decoded = round(packet.dts * unit) + self._offset
        jump = self._jump(packet.stream_index, decoded)
        if jump:
            self.corrected = True
            self._offset -= jump
            decoded -= jump
        if self._offset:
            ticks = round(self._offset / unit)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        self._last = self._decoded[packet.stream_index] = decoded
        self._next[packet.stream_index] = decoded + self._duration(packet, unit)

    def _jump(self, stream: int, decoded: int) -> int:
        """By how much the clock has jumped with this packet; 0 where it has not."""
        due = self._next.get(stream)
        if due is None:  # a stream's first packet is compared with the other streams
            jump = 0 if self._last is None else decoded - self._last
            return jump if abs(jump) > _LEAP else 0
        jump = decoded - due
        return jump if abs(jump) > _LEAP or decoded + _BACK < self._decoded[stream] else 0

    def _duration(self, packet: av.Packet, unit: Fraction) -> int:
        if packet.duration:
            return round(packet.duration * unit)
        rate = getattr(packet.stream, "average_rate", None)
        return round(_MICROSECONDS / rate) if rate else 0


def without_strays(stamps: Sequence[int], time_base: Fraction) -> list[int]:
    """Stamps in the order of decoding, single ones that are far from all around them put where a frame is missing."""
    stamps = list(stamps)
    far = _far(stamps, time_base)
    suspects = [place for place, (one, other) in enumerate(pairwise(stamps)) if abs(other - one) > far]
    for place in sorted({place + step for place in suspects for step in (0, 1)}):
        before, after = stamps[max(place - _NEAR, 0) : place], stamps[place + 1 : place + 1 + _NEAR]
        following = stamps[place + 1 : place + 1 + _REORDERED]
        late = max(following, default=stamps[place]) < stamps[place] and _is_late(stamps[place], before, after, far)
        if not (late or _is_early(stamps[place], before, after, far)):
            continue
        first, last = min(before + after), max(before + following)
        others = sorted(stamp for stamp in stamps[:place] + stamps[place + 1 :] if first <= stamp <= last)
        missing = _missing(others)
        if missing is None and late and len(following) < _REORDERED:
            continue  # the last frame, after a pause: others that are shown before it are decoded after it
        stamps[place] = others[0] - _usual_gap(others) if missing is None else missing
    return stamps


def without_restarts(stamps: Sequence[int], time_base: Fraction) -> list[int]:
    """Stamps in the order of decoding, going on where a clock was set back.

    After a pause, too, frames follow that are shown before it; but soon there are others that are not.
    """
    far, gap = _far(stamps, time_base), _usual_gap(stamps)
    latest, offset, corrected = None, 0, []
    for place, stamp in enumerate(stamps):
        if latest is not None and stamp + offset < latest - far:
            following = stamps[place : place + _REORDERED]
            if len(following) == _REORDERED and max(following) + offset < latest - far:
                offset = latest + gap - stamp
        corrected.append(stamp + offset)
        latest = corrected[-1] if latest is None else max(latest, corrected[-1])
    return corrected


def _far(stamps: Sequence[int], time_base: Fraction) -> int:
    """Farther than this no reordering of frames reaches."""
    return max(round(_STRAY_SECONDS / time_base), _STRAY_GAPS * _usual_gap(stamps))


def _is_late(stamp: int, before: Sequence[int], after: Sequence[int], far: int) -> bool:
    """Whether time goes on after this stamp from before it; at the end it may be the last frame's, decoded early."""
    return len(after) == _NEAR and stamp > max(*after, *before) + far


def _is_early(stamp: int, before: Sequence[int], after: Sequence[int], far: int) -> bool:
    return bool(before) and bool(after) and stamp < min(*before, *after) - far


def _missing(ordered: Sequence[int]) -> int | None:
    """Where among stamps that should be evenly spaced one is missing; None if none is. A longer gap is a pause."""
    usual = _usual_gap(ordered)
    gaps = [(other - one, one) for one, other in pairwise(ordered) if 1.5 * usual < other - one < 3 * usual]
    gap, since = max(gaps, default=(0, 0))
    return since + gap // 2 if gap else None


def _usual_gap(stamps: Sequence[int]) -> int:
    gaps = [other - one for one, other in pairwise(sorted(stamps)) if other != one]
    return median_low(gaps) if gaps else 1
