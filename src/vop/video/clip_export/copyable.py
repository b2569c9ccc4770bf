"""Tell whether browsers show a file's pictures as this package does, so that an MP4 can have them without encoding."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, islice
from typing import TYPE_CHECKING

import av

from vop.video.colour import HDR_TRANSFERS
from vop.video.completing import FrameCompleter
from vop.video.probe import codec_name
from vop.video.shape import display_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.stream import Stream

_PIXELS = ("yuv420p", "yuvj420p")
_SAME_ASPECT = 0.01  # relative difference


def is_copyable(stream: av.VideoStream, packets: Iterable[av.Packet[Stream]]) -> bool:
    """Return whether the pictures are H.264 that browsers show as it is.

    Args:
        packets: the first ones of the stream, before any was decoded.
    """
    codec = stream.codec_context
    if codec_name(stream) != "h264" or codec.pix_fmt not in _PIXELS or codec.color_trc in HDR_TRANSFERS:
        return False
    return not (_is_disputed(stream) or _is_completed(stream, packets))


def _is_disputed(stream: av.VideoStream) -> bool:
    """Return whether container and pictures declare different pixel shapes. Players take the one or the other."""
    declared, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
    return bool(declared and coded and not same_aspect(declared, coded))


def same_aspect(one: float | Fraction, other: float | Fraction) -> bool:
    """Return whether two sample aspect ratios are the same. Matroska rounds the displayed size to pixels."""
    return abs(float(one) / float(other) - 1) < _SAME_ASPECT


def _is_completed(stream: av.VideoStream, packets: Iterable[av.Packet[Stream]]) -> bool:
    """Return whether the container crops the frames, or a message that only some of them have turns them."""
    frames = list(islice(_decoded(stream, packets), 2))
    turns = {display_matrix(frame, stream.codec_context.name) for frame in frames}
    whole = map(FrameCompleter(stream).complete, frames)
    return len(turns) > 1 or len({(frame.width, frame.height) for frame in chain(frames, whole)}) > 1


def _decoded(stream: av.VideoStream, packets: Iterable[av.Packet[Stream]]) -> Iterator[av.VideoFrame]:
    for packet in packets:
        try:
            yield from stream.codec_context.decode(packet)
        except av.FFmpegError:
            continue
