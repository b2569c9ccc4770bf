"""A stream's packets by their places: from memory, or read again from the file where they are needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import av

from vop.video.source import open_video, packets_of

if TYPE_CHECKING:
    from vop.video.timeline import Timeline

_SEEK_BYTES = 4 * 2**20  # packets that lie closer are read and passed over rather than sought


class FromMemory:
    """Packets that were kept."""

    def __init__(self, packets: list[av.Packet], timeline: Timeline) -> None:
        self._packets = packets
        _stamp(packets, 0, timeline)

    def since(self, place: int) -> Iterator[av.Packet]:
        return islice(self._packets, place, None)


class FromFile:
    """Packets that are read again, where they are needed."""

    def __init__(
        self,
        path: Path,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        timeline: Timeline,
    ) -> None:
        self._path, self._container, self._stream, self._timeline = path, container, stream, timeline
        self._index = stream.index
        self._closing = ExitStack()
        self._next = len(timeline.packets.stamps)  # the place of the packet that is read next
        self._reading: Iterator[av.Packet] = iter(())

    def since(self, place: int) -> Iterator[av.Packet]:
        if self._is_far(place):
            self._seek(place)
        for packet in self._reading:
            self._next += 1
            if self._next > place:
                _stamp([packet], self._next - 1, self._timeline)
                yield packet

    def _is_far(self, place: int) -> bool:
        ends = self._timeline.packets.ends
        return place < self._next or (ends[place] - ends[self._next] > _SEEK_BYTES and self._can_seek())

    def _can_seek(self) -> bool:
        return not (self._timeline.ordinal or self._timeline.packets.corrected)

    def _seek(self, place: int) -> None:
        """Goes to a packet at or before this place."""
        packets = self._timeline.packets
        key = bisect_right(packets.keys, place) - 1
        for back in (0, 1) if self._can_seek() else ():
            if key - back > 0 and self._try(key - back):
                return
        self._closing.close()
        self._container, self._stream = self._closing.enter_context(open_video(self._path, stream=self._index))
        self._reading, self._next = self._own_packets(), 0

    def _try(self, key: int) -> bool:
        """Whether a seek led to a place from which the key frame's packet was found."""
        packets = self._timeline.packets
        place, stamp = packets.keys[key], packets.stamps[packets.keys[key]]
        later = {packets.stamps[other] for other in packets.keys[key + 1 : key + 9]}
        try:
            self._container.seek(packets.decoded[key], stream=self._stream)
        except av.FFmpegError:
            return False
        reading = self._own_packets()
        for packet in reading:
            if packet.is_keyframe and packet.pts == stamp:
                self._reading, self._next = chain([packet], reading), place
                return True
            if packet.is_keyframe and packet.pts in later:
                return False
        return False

    def _own_packets(self) -> Iterator[av.Packet]:
        return (packet for packet in packets_of(self._container, self._stream) if packet.size)


def _stamp(packets: Sequence[av.Packet], first: int, timeline: Timeline) -> None:
    """Gives packets their stamps in the timeline, which come back on their frames."""
    if timeline.packets.corrected and not timeline.ordinal:
        for packet, stamp in zip(packets, timeline.packets.stamps[first:], strict=False):
            packet.pts = stamp
            packet.dts = None
