"""The picture with which a copy begins: what the file shows, and what the copy shows.

Decoding a key frame by itself tells whether a copy can begin there. Comparing its picture with that of the finished
copy tells whether the copy has kept all that belongs to it: size, cropping, the shape of pixels, rotation,
transparency, colours, and the codec's variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vop.video.clip_export.copyable import same_aspect
from vop.video.clip_export.source import Packet
from vop.video.colour import ColourConverter, alpha_decoder
from vop.video.completing import FrameCompleter
from vop.video.shape import display_matrix, sample_aspect
from vop.video.source import open_video, packets_of

_SMALL = 64  # width and height of the pictures that are compared
_ONE = 1 << 16  # in a display matrix


@dataclass(frozen=True)
class FirstPicture:
    """A key frame as it is shown.

    Attributes:
        stored: width, height and pixel format, without what the container crops.
        aspect: a stored pixel's width divided by its height.
        matrix: the display matrix, rounded.
        pixels: RGB, scaled to a small square.
    """

    stored: tuple[int, int, str]
    aspect: float
    matrix: tuple[int, ...]
    pixels: NDArray[np.uint8]

    def looks_like(self, other: FirstPicture) -> bool:
        return (
            (self.stored, self.matrix) == (other.stored, other.matrix)
            and same_aspect(self.aspect, other.aspect)
            and np.array_equal(self.pixels, other.pixels)
        )


class KeyFrameDecoder:
    """Decodes key frames, each by itself.

    Args:
        stream: the video stream before its first frame was decoded.
        completer: completes its frames.
    """

    def __init__(self, stream: av.VideoStream, completer: FrameCompleter) -> None:
        self._aspect, self._completer = sample_aspect(stream), completer
        self._decoder = alpha_decoder(stream) or stream.codec_context
        self._colours = ColourConverter(self._decoder)

    def picture(self, key: Packet, following: Packet | None) -> FirstPicture | None:
        """Return the picture of a key frame; None if it is incomplete.

        Streams with intra refresh mark packets as key frames from which the picture builds up in the course of
        seconds. The decoder returns nothing before it is complete.

        Args:
            following: the next packet. In interlaced streams it may have the other half of the lines.
        """
        frame = self._decoded(key) or (self._decoded(key, following) if following else None)
        return None if frame is None else self._seen(self._completer.complete(frame))

    def _seen(self, frame: av.VideoFrame) -> FirstPicture:
        matrix = display_matrix(frame, self._decoder.name) or (_ONE, 0, 0, _ONE)
        return FirstPicture(
            stored=(frame.width, frame.height, frame.format.name),
            aspect=self._aspect,
            matrix=tuple(round(value / _ONE) for value in matrix),
            pixels=self._colours.rgb(frame, width=_SMALL, height=_SMALL),
        )

    def _decoded(self, *packets: Packet) -> av.VideoFrame | None:
        """Return the frame of the first of these packets."""
        try:
            frames = [frame for packet in (*packets, None) for frame in self._decoder.decode(packet)]
        except av.FFmpegError:
            return None
        finally:
            self._decoder.flush_buffers()
        return next((frame for frame in frames if frame.pts == packets[0].pts and not frame.is_corrupt), None)


def first_picture(path: Path) -> FirstPicture | None:
    """Return the picture of a file's first packet; None if it is incomplete."""
    with open_video(path) as (container, stream):
        own = (packet for packet in packets_of(container, stream) if packet.size)
        key = next(own, None)
        return None if key is None else KeyFrameDecoder(stream, FrameCompleter(stream)).picture(key, next(own, None))


def completer_of(path: Path, stream: av.VideoStream) -> FrameCompleter:
    """Return a completer for frames from anywhere in a file. A message with its first frame may rotate all of them."""
    completer = FrameCompleter(stream)
    if completer.needs_first_frame:
        with open_video(path) as (container, again):
            first = _first_frame(container, again)
        if first is not None:
            completer.complete(first)
    return completer


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream) -> av.VideoFrame | None:
    for packet in packets_of(container, stream):
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            continue
        if frames:
            return frames[0]
    return None
