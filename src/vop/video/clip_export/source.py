"""Find a clip in its video file, and read the file's packets from near its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import av
from av.stream import Stream

from vop.errors import VideoError
from vop.video.clip_export.copyable import is_copyable
from vop.video.clock import Clock, follow_timeline, may_jump
from vop.video.decode import VideoDecoder
from vop.video.source import open_video, packets_of
from vop.video.timeline import DEFAULT_RATE, Timeline, read_timeline

Packet: TypeAlias = "av.Packet[Stream]"  # at run time the class takes no parameter

_FIRST_PACKETS = 100  # enough to detect which timestamps a file has
# Seconds before the wanted start. In MPEG-TS, a seek may end at a frame that is not a key frame; and in a stream with
# intra refresh, the picture takes seconds to build up after a key frame.
SEEKS = (0, 2, 12, 60)
_SAME_SECONDS = 0.5
_INEXACT_SECONDS = Fraction(1, 10)  # of the duration in a header


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """A clip and its video file. Times are seconds of the file's own clock.

    Attributes:
        first: when the video's first frame is shown.
        rate: frames per second.
        ordinal: frames have no presentation times, only decoding times (see `Timeline`).
        counted: packets have no times at all; frames follow each other at `rate`.
        clock_jumps: the clock may restart or jump (see `vop.video.clock`), so the file cannot be searched by time.
        timeline: the video's, if its clock restarts in a format that does not allow this: recordings were joined.
        holds_last_frame: the last frame stays on display until the end of the clip.
        copyable: an MP4 for browsers can have the pictures without encoding them again.
    """

    path: Path
    first: Fraction
    start: Fraction
    end: Fraction
    rate: Fraction
    ordinal: bool
    counted: bool
    clock_jumps: bool
    timeline: Timeline | None
    holds_last_frame: bool
    copyable: bool

    def time_of(self, packet: Packet) -> Fraction | None:
        """Return a packet's presentation time, else its decoding time; None if it has neither."""
        stamp = packet.dts if self.ordinal else packet.pts
        return None if stamp is None else stamp * packet.time_base


def find_clip(path: Path, start: Fraction, end: Fraction, *, duration_seconds: float | None = None) -> ClipSource:
    """Return the clip between two times, in seconds from the video's first frame.

    Args:
        duration_seconds: the duration of the whole video, if known. It tells whether the file's clock jumps, and how
            long the last frame is shown.

    Raises:
        VideoError: the file does not exist, or contains no video.
    """
    with open_video(path) as (container, stream):
        packets: list[Packet] = list(islice(packets_of(container, stream), _FIRST_PACKETS))
        opening = read_timeline(packets, stream)
        if opening is None:
            raise VideoError(path, "its video stream is empty")
        first = opening.stamps[0] * opening.time_base
        decoded = [packet.dts for packet in packets if packet.size]
        counted = opening.ordinal and None in decoded
        if opening.ordinal and not counted:
            first = min(stamp for stamp in decoded if stamp is not None) * time_base_of(stream)
        end = first + (end if duration_seconds is None else min(end, Fraction(duration_seconds)))
        timeline = _restarted(path) if not opening.ordinal and _ends_early(container, end) else None
        clock_jumps = timeline is not None or (may_jump(container) and not _runs_through(stream, duration_seconds))
        return ClipSource(
            path=path,
            first=first,
            start=first + start,
            end=end,
            rate=Fraction(stream.guessed_rate or stream.average_rate or DEFAULT_RATE),
            ordinal=opening.ordinal,
            counted=counted,
            clock_jumps=clock_jumps,
            timeline=timeline,
            holds_last_frame=duration_seconds is not None,
            copyable=not (opening.ordinal or clock_jumps) and is_copyable(stream, packets),
        )


def time_base_of(timed: Stream | av.frame.Frame) -> Fraction:
    """Return the seconds per unit of a stream's or frame's timestamps. FFmpeg always sets it."""
    if timed.time_base is None:
        raise ValueError("the stream has no time base")
    return timed.time_base


def _runs_through(stream: av.VideoStream, duration_seconds: float | None) -> bool:
    """Return whether a file's last timestamp minus its first equals the duration of its video."""
    if duration_seconds is None or not stream.duration:
        return False
    return abs(float(stream.duration * time_base_of(stream)) - duration_seconds) < _SAME_SECONDS


def _ends_early(container: av.container.InputContainer, end: Fraction) -> bool:
    """Return whether a Matroska file ends before a time, according to its header: that of the first of two recordings.

    Live recordings have no duration in their headers.
    """
    if "matroska" not in container.format.name.split(","):
        return False
    return container.duration is None or Fraction(container.duration, av.time_base) < end - _INEXACT_SECONDS


def _restarted(path: Path) -> Timeline | None:
    """Return the timeline of a file if its timestamps restart."""
    with VideoDecoder(path) as video:
        return video.timeline if video.timeline.packets.corrected else None


@contextmanager
def opened_at(
    clip: ClipSource, *, first_seek: int = 0
) -> Iterator[tuple[av.VideoStream, av.AudioStream | None, Iterator[Packet]]]:
    """Open the file's video stream, its audio stream, and their packets from a key frame at or before the clip on.

    Args:
        first_seek: index of the entry of `SEEKS` to try first.
    """
    seeks = () if clip.counted or clip.clock_jumps or clip.start == clip.first else SEEKS[first_seek:]
    for back in (*seeks, None):
        with open_video(clip.path) as (container, stream):
            audio = _audio_stream(container)
            packets: Iterator[Packet] | None = packets_of(container, *filter(None, [stream, audio]))
            if packets is not None and clip.clock_jumps:
                if clip.timeline is None:
                    packets = _by_one_clock(packets, container)
                else:
                    packets = follow_timeline(packets, stream, clip.timeline)
                packets = _from_last_key(packets, stream, clip)
            if packets is not None and back is not None:
                packets = _after_seek(container, stream, packets, clip, clip.start - back)
            if packets is not None:
                yield stream, audio, packets
                return


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """Return the main audio stream; None if the file has no audio, or FFmpeg no decoder for it."""
    best = container.streams.best("audio")
    return best if isinstance(best, av.AudioStream) and best.codec_context is not None else None


def _by_one_clock(packets: Iterator[Packet], container: av.container.InputContainer) -> Iterator[Packet]:
    clock = Clock(container)
    for packet in packets:
        clock.set(packet)
        yield packet


def _from_last_key(packets: Iterator[Packet], stream: av.VideoStream, clip: ClipSource) -> Iterator[Packet]:
    """Yield the packets from the last key frame before the clip on; earlier ones need not be decoded."""
    held: list[Packet] = []
    for packet in packets:
        if packet.stream_index == stream.index:
            time = clip.time_of(packet)
            if packet.is_keyframe and time is not None and time <= clip.start:
                held.clear()
            elif packet.dts is not None and packet.dts * packet.time_base > clip.start:
                yield from chain(held, [packet], packets)
                return
        held.append(packet)
    yield from held


def _after_seek(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: Iterator[Packet],
    clip: ClipSource,
    target: Fraction,
) -> Iterator[Packet] | None:
    """Return the packets from the first key frame after a seek on; None if it is too late or missing."""
    try:
        container.seek(int(target / time_base_of(stream)), stream=stream)
    except av.FFmpegError:
        return None
    head: list[Packet] = []
    for packet in packets:
        if packet.stream_index != stream.index:
            head.append(packet)  # in AVI files audio comes half a second early
            continue
        time = clip.time_of(packet)
        if time is None or time > clip.start:
            return None
        if packet.is_keyframe:
            return chain(head, [packet], packets)
    return None
