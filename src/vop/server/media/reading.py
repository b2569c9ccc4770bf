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
from vop.video.decode import open_video, packets_of
from vop.video.playable import codec_name
from vop.video.timeline import DEFAULT_RATE, read_timeline

_OPENING = 100  # packets that tell how a file counts its time
_SEEKS = (0, 2, 12)  # seconds before the wanted start; MPEG-TS leads to any frame there, not to a key frame
_COPIED_PIXELS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Moment:
    """A stretch of a video, in seconds of the file's own clock.

    Attributes:
        first: when the video's first frame is shown.
        ordinal: frames have no presentation times, they come at those of decoding (see `Timeline`).
        counted: nor are there times of decoding, frames follow each other at a constant rate.
        copyable: an MP4 may hold the pictures as they are.
    """

    path: Path
    first: Fraction
    start: Fraction
    end: Fraction
    rate: Fraction
    ordinal: bool
    counted: bool
    copyable: bool

    def time_of(self, packet: av.Packet) -> Fraction | None:
        """When a packet's frame is shown, or decoded where that is all the file tells; None if it tells neither."""
        stamp = packet.dts if self.ordinal else packet.pts
        return None if stamp is None else stamp * packet.time_base


def find_moment(path: Path, start: Fraction, end: Fraction) -> Moment:
    """The stretch between two times in seconds from the video's first frame.

    Raises:
        VideoError: there is no such file, or no video in it.
    """
    with open_video(path) as (container, stream):
        opening = read_timeline(islice(packets_of(container, stream), _OPENING), stream)
        if opening is None:
            raise VideoError(path, "its video stream is empty")
        first = opening.stamps[0] * opening.time_base
        plain = codec_name(stream) == "h264" and stream.codec_context.pix_fmt in _COPIED_PIXELS
        return Moment(
            path=path,
            first=first,
            start=first + start,
            end=first + end,
            rate=Fraction(stream.guessed_rate or stream.average_rate or DEFAULT_RATE),
            ordinal=opening.ordinal,
            counted=opening.ordinal and opening.time_base != stream.time_base,
            copyable=plain and not opening.ordinal,
        )


@contextmanager
def reading(moment: Moment) -> Iterator[tuple[av.VideoStream, av.AudioStream | None, Iterator[av.Packet]]]:
    """The file's pictures, its sound, and the packets of both from a key frame at or before the moment on."""
    seeks = () if moment.counted or moment.start == moment.first else _SEEKS
    for back in (*seeks, None):
        with open_video(moment.path) as (container, stream):
            sound = next((s for s in container.streams.audio if s.codec_context is not None), None)
            packets = packets_of(container, *filter(None, [stream, sound]))
            if back is not None:
                packets = _after_seek(container, stream, packets, moment, moment.start - back)
            if packets is not None:
                yield stream, sound, packets
                return


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
