"""A moment's pictures as they are in the file, without decoding: H.264 from a key frame on.

The key frame comes before the moment; players decode from there, and an edit list has them show nothing until the
moment begins.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

import av

from vop.server.media.reading import Moment, reading

_IDR = 5
_START_CODE = re.compile(b"\0\0\1")
_LONGEST_LEAD = 12  # seconds that a player has to decode unseen before a copied moment; x264 makes 10 at most
_MOST_REORDERED = 32  # packets between one and those that refer to it; H.264 keeps 16 pictures


def copied_pictures(moment: Moment, output: av.container.OutputContainer) -> Iterator[av.Packet]:
    """Packets of a new stream of `output`; none where no key frame is near enough, or nothing is shown."""
    with reading(moment) as (stream, _, packets):
        copied = output.add_stream_from_template(stream, opaque=True)
        start, end, lead = (round(time / stream.time_base) for time in (moment.start, moment.end, _LONGEST_LEAD))
        own = (packet for packet in packets if packet.stream_index == stream.index and packet.size)
        begins = partial(_is_idr, extradata=stream.codec_context.extradata or b"")
        own = _from_key_frame(_timed(_with_decoding_times(own, moment)), begins, start=start, lead=lead)
        for packet in _up_to(end, own):
            packet.pts -= start
            packet.dts -= start
            packet.stream = copied
            yield packet


def _with_decoding_times(packets: Iterator[av.Packet], moment: Moment) -> Iterator[av.Packet]:
    """Matroska does not store these times, and FFmpeg cannot tell them for the first packets that it reads."""
    early = []
    for packet in packets:
        if packet.dts is not None:
            step = max(packet.duration or round(1 / moment.rate / packet.time_base), 1)
            for place, before in enumerate(reversed(early), start=1):
                before.dts = packet.dts - place * step
            yield from chain(early, [packet], packets)
            return
        early.append(packet)


def _timed(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets as they are, as long as each has its times: an MP4 cannot hold others."""
    for packet in packets:
        if packet.pts is None or packet.dts is None:
            raise ValueError("a packet has no times")
        if packet.is_discard:
            raise ValueError("an edit list cuts a packet off, which would be shown")
        yield packet


def _is_idr(packet: av.Packet, *, extradata: bytes) -> bool:
    """Whether a decoder can begin with this packet and have whole pictures at once.

    Streams with intra refresh mark packets as key frames from which the picture only builds up.
    """
    return packet.is_keyframe and _IDR in _unit_types(bytes(packet), extradata)


def _unit_types(data: bytes, extradata: bytes) -> Iterator[int]:
    """The types of the NAL units in a packet (ITU-T H.264, table 7-1)."""
    if extradata[:1] != b"\1":  # units follow start codes
        return (data[found.end()] & 31 for found in _START_CODE.finditer(data) if found.end() < len(data))
    return _types_by_length(data, (extradata[4] & 3) + 1)


def _types_by_length(data: bytes, prefix: int) -> Iterator[int]:
    place = 0
    while place + prefix < len(data):
        yield data[place + prefix] & 31
        place += prefix + int.from_bytes(data[place : place + prefix], "big")


def _from_key_frame(
    packets: Iterator[av.Packet], begins: Callable[[av.Packet], bool], *, start: int, lead: int
) -> Iterator[av.Packet]:
    """The packets from the last key frame before `start` on; none if it is too far away, or nothing is shown then.

    Args:
        begins: whether decoding can begin with a packet.
    """
    held: list[av.Packet] = []
    following = None
    for packet in packets:
        if packet.dts > start:
            following = packet
            break
        if held and packet.dts > held[0].pts + lead:
            held.clear()
        is_key = begins(packet)
        if is_key and packet.pts <= start:
            held.clear()
        if held or is_key:
            held.append(packet)
    shown = max((packet for packet in held if packet.pts <= start), key=_shown_at, default=None)
    if shown is None or (following is None and shown.pts + (shown.duration or 1) <= start):
        return
    shown.pts = start  # it is on display when the moment begins
    yield from chain(held, [following] if following else [], packets)


def _up_to(end: int, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """The packets shown before `end`; later ones that they refer to are shown for no more than a tick each."""
    tail: deque[av.Packet] = deque()
    goes_on = False
    for packet in packets:
        goes_on = packet.dts >= end
        if goes_on:
            break
        tail.append(packet)
        if len(tail) > _MOST_REORDERED:
            yield tail.popleft()
    while tail and tail[-1].pts >= end:  # nothing before the end refers to these
        tail.pop()
    last = max((packet for packet in tail if packet.pts < end), key=_shown_at, default=None)
    if last:
        last.duration = end - last.pts if goes_on else min(last.duration, end - last.pts)
    for place, packet in enumerate(sorted((packet for packet in tail if packet.pts >= end), key=_shown_at)):
        packet.pts, packet.duration = end + place, 1
    yield from tail


def _shown_at(packet: av.Packet) -> int:
    return packet.pts
