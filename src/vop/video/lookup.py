"""A few moments of a long MP4 file, looked up by its index: the rest of the file is not read.

The index lists all packets, and FFmpeg seeks by it exactly. It tells when packets are decoded, not when their frames
are shown; but the frame that is on display at a time is among the packets from the key frame before it to the first
one that is decoded later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
from av.stream import Discard

from vop.video.source import packets_of
from vop.video.timeline import Timeline, TimelineReader, is_mp4

if TYPE_CHECKING:
    from vop.video.decode import Span

FEW_PACKETS = 2000  # reading so many through takes no longer than looking a dozen moments up
_MOST_BYTES = 64 * 2**20  # of packets: more are better not kept
_FAR_SECONDS = 10  # between decoding and showing: only the whole of a timeline mends such stamps


class Unsure(Exception):
    """A part of the file does not tell: all of it has to be read."""


def look_up(
    container: av.container.InputContainer, stream: av.VideoStream, span: Span, num_frames: int
) -> tuple[Timeline, list[av.Packet]]:
    """A timeline of the frames around the middles of `num_frames` equal intervals, and their packets.

    It is as long as that of all packets, and has the same frames on display at these moments.

    Raises:
        Unsure: where that is not certain.
    """
    if not is_mp4(container) or len(stream.index_entries) < FEW_PACKETS:
        raise Unsure
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    try:
        return _Lookup(container, stream).run(span, num_frames)
    except av.FFmpegError as error:
        raise Unsure from error


class _Lookup:
    """Packets by their positions in the file."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self._container, self._stream = container, stream
        self._found: dict[int, av.Packet] = {}
        self._bytes = 0

    def run(self, span: Span, num_frames: int) -> tuple[Timeline, list[av.Packet]]:
        entries = self._stream.index_entries
        self._read_first(entries[0].timestamp)
        self._read_last(entries[-1].timestamp)
        start_seconds, end_seconds = span
        ends, _ = self._so_far()
        for middle in ends.middles(num_frames, start_seconds=start_seconds, end_seconds=end_seconds):
            self._read_around(int(middle))
        return self._so_far()

    def _read_first(self, decoded: int) -> None:
        """Up to where no frame can come that is shown before the first one."""
        first = None
        for packet in self._packets(decoded):
            if first is not None and packet.dts > first:
                return
            first = packet.pts if first is None else min(first, packet.pts)

    def _read_last(self, decoded: int) -> None:
        *_, last = None, *self._packets(decoded)
        if last is None or (last.dts < decoded and self._stream.index_entries[-1].size):
            raise Unsure  # the file is shorter than its index promises

    def _read_around(self, stamp: int) -> None:
        for number, packet in enumerate(self._packets(stamp)):
            if number == 0 and (not packet.is_keyframe or packet.pts > stamp):
                raise Unsure
            if packet.dts > stamp:
                return

    def _packets(self, stamp: int) -> Iterator[av.Packet]:
        """Packets from the key frame before a time on, each kept."""
        self._container.seek(stamp, stream=self._stream)
        for packet in packets_of(self._container, self._stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.dts is None or packet.is_discard:
                raise Unsure  # of an edit list, the whole has to be seen
            if abs(packet.pts - packet.dts) * packet.time_base > _FAR_SECONDS:
                raise Unsure
            if packet.pos not in self._found:
                self._found[packet.pos] = packet
                self._bytes += packet.size
            elif self._found[packet.pos].dts != packet.dts:  # shown twice
                raise Unsure
            if self._bytes > _MOST_BYTES:
                raise Unsure
            yield packet

    def _so_far(self) -> tuple[Timeline, list[av.Packet]]:
        packets = sorted(self._found.values(), key=lambda packet: (packet.dts, packet.pos))
        reader = TimelineReader(self._stream)
        for packet in packets:
            reader.take(packet)
        reader.take_index(self._container)
        timeline = reader.timeline()
        if timeline is None or timeline.ordinal or timeline.packets.corrected:
            raise Unsure
        return timeline, packets
