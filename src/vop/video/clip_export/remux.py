"""Copy a clip's H.264 pictures without decoding them, from a key frame on.

The key frame comes before the clip. Players decode from there, and an edit list makes them show nothing until the clip
begins.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter

import av

from vop.video.clip_export.output import copied_stream
from vop.video.clip_export.source import ClipSource, Packet, opened_at, time_base_of

_IDR = 5
_START_CODE = re.compile(b"\0\0\1")
_MAX_LEAD_SECONDS = 12  # from the key frame to the clip, which players decode unseen; x264 needs at most 10
_MAX_REORDERED = 32  # packets between a picture and those that refer to it; H.264 keeps 16 pictures
_shown_at = attrgetter("pts")


@dataclass
class _Timed:
    """A packet with its times, which MP4 requires, in units of its stream's time base."""

    packet: Packet
    pts: int
    dts: int
    duration: int

    def written_to(self, stream: av.VideoStream, *, start: int) -> Packet:
        """Return the packet as part of a new stream whose time begins at `start`."""
        self.packet.pts, self.packet.dts = self.pts - start, self.dts - start
        self.packet.duration, self.packet.stream = self.duration, stream
        return self.packet


def copied_pictures(clip: ClipSource, output: av.container.OutputContainer) -> Iterator[Packet]:
    """Yield packets for a new stream of `output`; none if no key frame is near enough, or nothing is shown."""
    with opened_at(clip) as (stream, _, packets):
        copied = copied_stream(stream, output)
        start, end, lead = (round(time / time_base_of(stream)) for time in (clip.start, clip.end, _MAX_LEAD_SECONDS))
        pictures = (packet for packet in packets if packet.stream_index == stream.index and packet.size)
        begins = partial(_is_idr, extradata=stream.codec_context.extradata or b"")
        timed = _timed(with_decoding_times(pictures, clip))
        for packet in _up_to(end, _from_key_frame(timed, begins, start=start, lead=lead)):
            yield packet.written_to(copied, start=start)


def with_decoding_times(packets: Iterator[Packet], clip: ClipSource) -> Iterator[Packet]:
    """Add missing decoding times. Matroska does not store them, and FFmpeg cannot compute the first ones."""
    early: list[Packet] = []
    for packet in packets:
        if packet.dts is not None:
            step = max(packet.duration or round(1 / clip.rate / packet.time_base), 1)
            for place, before in enumerate(reversed(early), start=1):
                before.dts = packet.dts - place * step
            yield from chain(early, [packet], packets)
            return
        early.append(packet)


def _timed(packets: Iterator[Packet]) -> Iterator[_Timed]:
    for packet in packets:
        if packet.pts is None or packet.dts is None:
            raise ValueError("a packet has no times")
        if packet.is_discard:
            raise ValueError("an edit list cuts off a packet that would be shown here")
        yield _Timed(packet, packet.pts, packet.dts, packet.duration or 0)


def _is_idr(packet: Packet, *, extradata: bytes) -> bool:
    """Return whether decoding can begin with this packet, so that the first picture is already complete.

    Streams with intra refresh mark other packets as key frames, too. From those, the picture builds up gradually.
    """
    return packet.is_keyframe and _IDR in _unit_types(bytes(packet), extradata)


def _unit_types(data: bytes, extradata: bytes) -> Iterator[int]:
    """Yield the types of the NAL units in a packet (ITU-T H.264, table 7-1)."""
    if extradata[:1] != b"\1":  # units follow start codes
        return (data[found.end()] & 31 for found in _START_CODE.finditer(data) if found.end() < len(data))
    return _types_by_length(data, (extradata[4] & 3) + 1)


def _types_by_length(data: bytes, prefix: int) -> Iterator[int]:
    place = 0
    while place + prefix < len(data):
        yield data[place + prefix] & 31
        place += prefix + int.from_bytes(data[place : place + prefix], "big")


def _from_key_frame(
    packets: Iterator[_Timed], begins: Callable[[Packet], bool], *, start: int, lead: int
) -> Iterator[_Timed]:
    """Yield the packets from the last key frame before `start` on; none if it is too far away or nothing is shown.

    Args:
        begins: tells whether decoding can begin with a packet.
    """
    held: list[_Timed] = []
    following = None
    for packet in packets:
        if packet.dts > start:
            following = packet
            break
        if held and packet.dts > held[0].pts + lead:
            held.clear()
        is_key = begins(packet.packet)
        if is_key and packet.pts <= start:
            held.clear()
        if held or is_key:
            held.append(packet)
    shown = max((packet for packet in held if packet.pts <= start), key=_shown_at, default=None)
    if shown is None or (following is None and shown.pts + (shown.duration or 1) <= start):
        return
    shown.pts = start  # it is on display when the clip begins
    yield from chain(held, [following] if following else [], packets)


def _up_to(end: int, packets: Iterable[_Timed]) -> Iterator[_Timed]:
    """Yield the packets shown before `end`, and later packets that they refer to, each shown for one tick."""
    tail: deque[_Timed] = deque()
    continues = False
    for packet in packets:
        continues = packet.dts >= end
        if continues:
            break
        tail.append(packet)
        if len(tail) > _MAX_REORDERED:
            yield tail.popleft()
    while tail and tail[-1].pts >= end:  # no packet before the end refers to these
        tail.pop()
    last = max((packet for packet in tail if packet.pts < end), key=_shown_at, default=None)
    if last:
        last.duration = end - last.pts if continues else min(last.duration, end - last.pts)
    for place, packet in enumerate(sorted((packet for packet in tail if packet.pts >= end), key=_shown_at)):
        packet.pts, packet.duration = end + place, 1
    yield from tail
