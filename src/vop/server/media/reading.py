"""Where a moment is in its video's file, and the file's packets from near there on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av

from vop.errors import VideoError
from vop.video.colour import HDR_TRANSFERS
from vop.video.probe import codec_name
from vop.video.source import open_video, packets_of
from vop.video.timeline import DEFAULT_RATE, Clock, may_jump, read_timeline

_OPENING = 100  # packets that tell how a file counts its time
# Seconds before the wanted start: MPEG-TS leads to any frame there, not to a key frame, and from the key frames of a
# stream with intra refresh the picture takes seconds to build up.
SEEKS = (0, 2, 12, 60)
_SAME_SECONDS = 0.5
_COPIED_PIXELS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Moment:
    """A stretch of a video, in seconds of the file's own clock.

    Attributes:
        first: when the video's first frame is shown.
        ordinal: frames have no presentation times, they come at those of decoding (see `Timeline`).
        counted: nor are there times of decoding, frames follow each other at a constant rate.
        jumps: the clock may restart or leap on the way (see `vop.video.timeline`), so that no seek leads anywhere.
        stands: whether the video's last picture stands until the end of the moment.
        copyable: an MP4 may hold the pictures as they are.
    """

    path: Path
    first: Fraction
    start: Fraction
    end: Fraction
    rate: Fraction
    ordinal: bool
    counted: bool
    jumps: bool
    stands: bool
    copyable: bool

    def time_of(self, packet: av.Packet) -> Fraction | None:
        """When a packet's frame is shown, or decoded where that is all the file tells; None if it tells neither."""
        stamp = packet.dts if self.ordinal else packet.pts
        return None if stamp is None else stamp * packet.time_base


def find_moment(path: Path, start: Fraction, end: Fraction, *, duration_seconds: float | None = None) -> Moment:
    """The stretch between two times in seconds from the video's first frame.

    Args:
        duration_seconds: of the whole video, if it is known. It tells whether its clock runs through, and how long its
            last picture stands.

    Raises:
        VideoError: there is no such file, or no video in it.
    """
    with open_video(path) as (container, stream):
        packets = list(islice(packets_of(container, stream), _OPENING))
        opening = read_timeline(packets, stream)
        if opening is None:
            raise VideoError(path, "its video stream is empty")
        first = opening.stamps[0] * opening.time_base
        counted = opening.ordinal and any(packet.dts is None for packet in packets if packet.size)
        if opening.ordinal and not counted:
            first = min(packet.dts for packet in packets if packet.size) * stream.time_base
        jumps = may_jump(container) and not _runs_through(stream, duration_seconds)
        plain = codec_name(stream) == "h264" and stream.codec_context.pix_fmt in _COPIED_PIXELS
        is_hdr = stream.codec_context.color_trc in HDR_TRANSFERS
        return Moment(
            path=path,
            first=first,
            start=first + start,
            end=first + (end if duration_seconds is None else min(end, Fraction(duration_seconds))),
            rate=Fraction(stream.guessed_rate or stream.average_rate or DEFAULT_RATE),
            ordinal=opening.ordinal,
            counted=counted,
            jumps=jumps,
            stands=duration_seconds is not None,
            copyable=plain and not (is_hdr or opening.ordinal or jumps),
        )


def _runs_through(stream: av.VideoStream, duration_seconds: float | None) -> bool:
    """Whether a file's last time stamp is as far from its first one as its video is long."""
    if duration_seconds is None or not stream.duration:
        return False
    return abs(float(stream.duration * stream.time_base) - duration_seconds) < _SAME_SECONDS


@contextmanager
def reading(
    moment: Moment, *, nearest: int = 0
) -> Iterator[tuple[av.VideoStream, av.AudioStream | None, Iterator[av.Packet]]]:
    """The file's pictures, its sound, and the packets of both from a key frame at or before the moment on.

    Args:
        nearest: which of `SEEKS` to try first.
    """
    seeks = () if moment.counted or moment.jumps or moment.start == moment.first else SEEKS[nearest:]
    for back in (*seeks, None):
        with open_video(moment.path) as (container, stream):
            sound = container.streams.best("audio")
            if sound is not None and sound.codec_context is None:
                sound = None
            packets = packets_of(container, *filter(None, [stream, sound]))
            if moment.jumps:
                packets = _from_last_key(_by_one_clock(packets, container), stream, moment)
            if back is not None:
                packets = _after_seek(container, stream, packets, moment, moment.start - back)
            if packets is not None:
                yield stream, sound, packets
                return


def _by_one_clock(packets: Iterator[av.Packet], container: av.container.InputContainer) -> Iterator[av.Packet]:
    clock = Clock(container)
    for packet in packets:
        clock.set(packet)
        yield packet


def _from_last_key(packets: Iterator[av.Packet], stream: av.VideoStream, moment: Moment) -> Iterator[av.Packet]:
    """The packets from the last key frame before the moment on; what lies before it need not be decoded."""
    held: list[av.Packet] = []
    for packet in packets:
        if packet.stream_index == stream.index:
            time = moment.time_of(packet)
            if packet.is_keyframe and time is not None and time <= moment.start:
                held.clear()
            elif packet.dts is not None and packet.dts * packet.time_base > moment.start:
                yield from chain(held, [packet], packets)
                return
        held.append(packet)
    yield from held


def _after_seek(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: Iterator[av.Packet],
    moment: Moment,
    target: Fraction,
) -> Iterator[av.Packet] | None:
    """The packets from the first key frame after a seek on; None if that is too late, or there is none."""
    try:
        container.seek(int(target / stream.time_base), stream=stream)
    except av.FFmpegError:
        return None
    head = []
    for packet in packets:
        if packet.stream_index != stream.index:
            head.append(packet)  # AVI files have their sound half a second early
            continue
        time = moment.time_of(packet)
        if time is None or time > moment.start:
            return None
        if packet.is_keyframe:
            return chain(head, [packet], packets)
    return None
