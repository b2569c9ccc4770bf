"""Make the timestamps of all streams of a file run on where its clock jumps or restarts.

Formats made for broadcast (such as MPEG-TS) allow the clock to jump at any packet, for all streams at once; FFmpeg's
command and players then continue without a gap. `Clock` does so packet by packet. In other formats, only the whole file
tells a restart from frames out of order: its timeline knows the restarts of the pictures, and sound follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from vop.video.timeline import PADDING, Timeline

if TYPE_CHECKING:
    import av
    from av.stream import Stream

_MICROSECONDS = 10**6
_TS_DISCONT = 0x200  # FFmpeg's AVFMT_TS_DISCONT, among the flags of a format
_LEAP = 10 * _MICROSECONDS  # FFmpeg's -dts_delta_threshold
_BACK = _MICROSECONDS // 10  # if the clock goes back by more, it has restarted
_LATE = _MICROSECONDS  # streams of a recording are at most this far apart in the file


def may_jump(container: av.container.InputContainer) -> bool:
    """Return whether a file's format allows its clock to jump."""
    return bool(container.format.flags & _TS_DISCONT)


class _Late(NamedTuple):
    """Late packets of a stream: their offset, and when the last of them is decoded, in microseconds."""

    offset: int
    until: int


class Clock:
    """Removes jumps of the clock from the timestamps of a file, packet by packet, in the order of the file.

    The clock jumps for all streams at once, but not at the same packet: where two recordings are joined, late packets
    of the first one are found among those of the second. They are recognized by the time at which they are due.

    Attributes:
        corrected: whether the clock has jumped.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self.corrected = False
        self._may_jump = may_jump(container)
        self._offset = 0  # microseconds
        self._late: dict[int, _Late] = {}  # by stream: what it may still have from before the last jump
        self._decoded: dict[int, int] = {}  # by stream: when the last packet is decoded, in microseconds
        self._next: dict[int, int] = {}  # and when the next one is due

    def set(self, packet: av.Packet[Stream]) -> None:
        """Correct the timestamps of the next packet in place."""
        if not self._may_jump:
            return
        unit, offset = packet.time_base * _MICROSECONDS, self._offset
        if packet.dts is not None and packet.stream.type in ("audio", "video"):  # subtitles pause, which is not a jump
            in_file = round(packet.dts * unit)
            offset = self._offset_at(packet.stream, in_file)
            self._decoded[packet.stream_index] = in_file + offset
            self._next[packet.stream_index] = in_file + offset + self._duration(packet, unit)
        if offset:
            _move(packet, Fraction(offset, _MICROSECONDS))

    def _offset_at(self, stream: Stream, in_file: int) -> int:
        """Return the offset of the stream's next packet, which is decoded at `in_file` by the file's clock."""
        late = self._late.get(stream.index)
        if late is None:
            self._leave(stream, self._jump(stream, in_file + self._offset))
        elif self._decoded[stream.index] - _BACK <= in_file + late.offset <= late.until:
            return late.offset
        else:
            del self._late[stream.index]
            self._follow(stream, in_file + self._offset)
        return self._offset

    def _follow(self, stream: Stream, decoded: int) -> None:
        """Let a stream continue after a jump that another stream made first.

        The streams of a recording end at slightly different times. Pictures continue without a gap unless the sound
        lasts much longer, and sounds may overlap.
        """
        distance = decoded - self._next[stream.index]
        if stream.type == "video" and distance <= PADDING * _MICROSECONDS:
            self._offset -= distance
            for other in self._next.keys() - self._late.keys() - {stream.index}:  # they do not jump by this distance
                self._decoded[other] -= distance
                self._next[other] -= distance
        elif abs(distance) > _LEAP:
            self._leave(stream, self._jump(stream, decoded))

    def _jump(self, stream: Stream, decoded: int) -> int:
        """Return the clock's jump at this packet, in microseconds; 0 if it did not jump."""
        latest = max(self._decoded.values(), default=decoded)  # of any stream: one may pause while others continue
        due = self._next.get(stream.index)
        if due is None:  # a stream's first packet is compared with the other streams
            jump = decoded - latest
            return jump if abs(jump) > _LEAP else 0
        has_jumped = decoded > max(due, latest) + _LEAP or decoded + _BACK < self._decoded[stream.index]
        return decoded - due if has_jumped else 0

    def _leave(self, stream: Stream, jump: int) -> None:
        """Correct a jump that this stream makes first, and expect late packets of the other streams.

        A stream that is far behind has none: its first packets already were those of the new clock.
        """
        if not jump:
            return
        self.corrected = True
        due = self._next.get(stream.index, max(self._decoded.values()))
        farthest = max(abs(jump) // 2, _LATE)
        for other, expected in self._next.items():
            if other != stream.index and expected > due - farthest:
                self._late.setdefault(other, _Late(self._offset, max(due, expected) + _LATE))
        self._offset -= jump

    def _duration(self, packet: av.Packet[Stream], unit: Fraction) -> int:
        if packet.duration:
            return round(packet.duration * unit)
        rate = getattr(packet.stream, "average_rate", None)
        return round(_MICROSECONDS / rate) if rate else 0


def follow_timeline(
    packets: Iterable[av.Packet[Stream]], stream: av.VideoStream, timeline: Timeline
) -> Iterator[av.Packet[Stream]]:
    """Yield all packets of a file whose clock restarts with the timestamps of its timeline.

    Sound moves with the key frame before it. Packets that restart before the pictures do wait for them.
    """
    place, shift = 0, Fraction(0)  # in seconds
    ends: dict[int, Fraction] = {}  # by stream of sound
    waiting: list[av.Packet[Stream]] = []
    for packet in packets:
        is_picture = packet.stream_index == stream.index and bool(packet.size)
        if is_picture:
            stamp, place = timeline.packets.stamps[place], place + 1
            if packet.is_keyframe and packet.pts is not None:
                shift = (stamp - packet.pts) * packet.time_base
            _move(packet, shift)
            packet.pts = stamp
        elif packet.pts is not None:
            begins = packet.pts * packet.time_base + shift
            if begins + Fraction(_BACK, _MICROSECONDS) < ends.get(packet.stream_index, begins):
                waiting.append(packet)
                continue
            _move(packet, shift)
            ends[packet.stream_index] = begins
        if is_picture and packet.is_keyframe:
            for late in waiting:
                _move(late, shift)
            yield from waiting
            waiting.clear()
        yield packet
    yield from waiting


def _move(packet: av.Packet[Stream], shift: Fraction) -> None:
    ticks = round(shift / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts + ticks
    packet.pts = None if packet.pts is None else packet.pts + ticks
