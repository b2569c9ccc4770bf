"""Copy a clip to keep, without encoding, from a key frame on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av

from vop.errors import VideoError
from vop.video.clip_export.audio import copied_audio
from vop.video.clip_export.first_picture import FirstPicture, KeyFrameDecoder, completer_of, first_picture
from vop.video.clip_export.output import SHORT, copied_stream, new_output
from vop.video.clip_export.remux import with_decoding_times
from vop.video.clip_export.source import SEEKS, ClipSource, Packet, opened_at, time_base_of

_MAX_LEAD_SECONDS = 60  # a copy that begins earlier than this is of no use


def copy_clip(clip: ClipSource, temporary: Path, container: str) -> Fraction | None:
    """Write the clip without encoding, and return the time at which it begins; None if it cannot be copied."""
    if clip.ordinal or clip.clock_jumps:  # the times of its packets are not those of its frames
        return None
    try:
        for first_seek in range(len(SEEKS)):
            with opened_at(clip, first_seek=first_seek) as (stream, _, packets):
                starts = _Starts(clip, stream)
                pictures = (packet for packet in packets if packet.stream_index == stream.index and packet.size)
                chosen = _from_key_frame(with_decoding_times(pictures, clip), clip, starts)
                key = next(chosen, None)
                if key is not None:
                    with new_output(temporary, container, source=clip.path) as output:
                        begins = _write(clip, stream, key, chosen, output)
                    return begins if _begins_with(temporary, starts.picture) else None
                if not starts.refused:
                    return None
    except (av.FFmpegError, ValueError, TypeError, VideoError):  # times or formats that the container cannot hold
        return None
    return None


def _write(
    clip: ClipSource,
    stream: av.VideoStream,
    key: Packet,
    later: Iterator[Packet],
    output: av.container.OutputContainer,
) -> Fraction:
    """Write the clip's packets, and return the time at which it begins."""
    begins = _time(key, key.pts)
    copied = copied_stream(stream, output)
    start = round(begins / time_base_of(stream))
    audio = _copied_audio(replace(clip, start=begins), output)
    for packet in chain(audio, _rebased(chain([key], later), copied, start)):
        output.mux(packet)
    return begins


def _begins_with(copy: Path, picture: FirstPicture | None) -> bool:
    found = first_picture(copy)
    return found is not None and picture is not None and found.looks_like(picture)


class _Starts:
    """Tells from which key frames a copy can begin.

    Attributes:
        refused: whether some key frame is incomplete.
        picture: that of the last key frame from which a copy can begin.
    """

    def __init__(self, clip: ClipSource, stream: av.VideoStream) -> None:
        self.refused = False
        self.picture: FirstPicture | None = None
        self._decoder = KeyFrameDecoder(stream, completer_of(clip.path, stream))

    def allow(self, key: Packet, following: Packet | None) -> bool:
        picture = self._decoder.picture(key, following)
        self.picture, self.refused = picture or self.picture, self.refused or picture is None
        return picture is not None


def _from_key_frame(packets: Iterator[Packet], clip: ClipSource, starts: _Starts) -> Iterator[Packet]:
    """Yield packets from the last key frame at or before the clip on, up to its end.

    Yields nothing if there is no such key frame, if it is too far away, or if nothing is shown in the clip.
    """
    held: list[Packet] = []
    following: list[Packet] = []
    limit = clip.start + SHORT
    for packet, after in _with_next(packets):
        if _time(packet, packet.dts) > limit:
            following = [packet, *([after] if after else [])]
            break
        if _may_start(packet, clip, is_first=not (held or starts.refused)) and starts.allow(packet, after):
            held = [packet]
        elif held:
            held.append(packet)
    if not held or (not following and clip.start >= max(_ends(packet, clip) for packet in held)):
        return
    begins = _time(held[0], held[0].pts)
    # Pictures that follow the key frame but are shown before it refer to earlier ones.
    whole = (packet for packet in chain(held, following, packets) if _time(packet, packet.pts) >= begins)
    yield from _up_to(clip.end - SHORT, whole)


def _with_next(packets: Iterator[Packet]) -> Iterator[tuple[Packet, Packet | None]]:
    packet = next(packets, None)
    while packet is not None:
        after = next(packets, None)
        yield packet, after
        packet = after


def _may_start(packet: Packet, clip: ClipSource, *, is_first: bool) -> bool:
    """Return whether this is a key frame near the clip. The first one of a file may come after the clip's start."""
    if not packet.is_keyframe:
        return False
    shown = _time(packet, packet.pts)
    return shown >= clip.start - _MAX_LEAD_SECONDS and (is_first or shown <= clip.start + SHORT)


def _up_to(end: Fraction, packets: Iterator[Packet]) -> Iterator[Packet]:
    """Yield the packets shown before `end`, later ones that they refer to, and those in between."""
    waiting: list[Packet] = []
    latest = end
    for packet in packets:
        shown = _time(packet, packet.pts)
        if shown < latest:
            for earlier in waiting:
                latest = max(latest, _time(earlier, earlier.pts))
            yield from waiting
            waiting.clear()
            yield packet
        elif _time(packet, packet.dts) >= latest:
            return
        else:
            waiting.append(packet)


def _ends(packet: Packet, clip: ClipSource) -> Fraction:
    lasts = packet.duration * packet.time_base if packet.duration else 1 / clip.rate
    return _time(packet, packet.pts) + lasts


def _time(packet: Packet, stamp: int | None) -> Fraction:
    if stamp is None:
        raise ValueError("a packet has no times")
    return stamp * packet.time_base


def _rebased(packets: Iterable[Packet], stream: av.VideoStream, start: int) -> Iterator[Packet]:
    """Yield packets as part of a new stream whose time begins at `start`."""
    for packet in packets:
        if packet.is_discard:  # somebody has cut it off with an edit list, which the copy does not have
            raise ValueError("a packet that is not shown would be shown")
        if packet.pts is not None and packet.dts is not None:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, stream
            yield packet


def _copied_audio(clip: ClipSource, output: av.container.OutputContainer) -> list[Packet]:
    """Return the main audio from the clip's start on. The muxer must know its stream before the first packet."""
    with opened_at(clip) as (_, stream, packets):
        if stream is None:
            return []
        own = (packet for packet in packets if packet.stream_index == stream.index)
        return list(copied_audio(stream, own, clip, output))
