"""Complete decoded frames, as FFmpeg's command does but its decoders do not.

- The container may crop the picture: the clean aperture of MP4 and QuickTime, the cropping of Matroska.
- A message in an H.264 or HEVC stream rotates or mirrors all frames from a key frame on, but the decoder attaches it
  only to the first of them.
"""

from __future__ import annotations

import re
import threading
from fractions import Fraction
from typing import NamedTuple

import av
from av.filter import Graph

from vop.video.shape import LastingMatrix, Matrix, display_matrix

_STREAM = re.compile(r"^ +Stream #0:(\d+)", re.MULTILINE)
_CROPPING = re.compile(r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$", re.MULTILINE)
_logging = threading.Lock()  # the level of the log is one for all threads

_ROTATING_CODECS = ("h264", "hevc", "vvc")


class FrameCompleter:
    """Completes the frames of a stream, in the order in which its decoder returns them."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._codec = stream.codec_context.name
        self._can_rotate = self._codec in _ROTATING_CODECS
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._crop = _container_crop(stream)
        self._graphs: dict[tuple[int, int, str], Graph] = {}
        self._matrix: Matrix | None = None
        self._has_begun = False

    @property
    def needs_first_frame(self) -> bool:
        """Return whether the video's first frame, which was not completed yet, may rotate all frames."""
        return self._can_rotate and not self._has_begun

    def complete(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame without the borders that the container hides, and with a display matrix if one applies."""
        self._has_begun = True
        cropped = self._cropped(frame)
        if self._can_rotate and cropped.key_frame:  # reading the side data of every frame would take 3 % of the time
            self._matrix = display_matrix(cropped, self._codec) or self._matrix
        if self._matrix is not None:
            cropped.opaque = LastingMatrix(self._matrix)
        return cropped

    def _cropped(self, frame: av.VideoFrame) -> av.VideoFrame:
        if self._crop is None:
            return frame
        left, right, top, bottom = self._crop
        if min(frame.width - left - right, frame.height - top - bottom) < 2:  # a mistake in the file
            return frame
        graph = self._graphs.setdefault((frame.width, frame.height, frame.format.name), Graph())
        if not graph.configured:
            self._configure(graph, frame)
        graph.vpush(frame)
        return graph.vpull()

    def _configure(self, graph: Graph, frame: av.VideoFrame) -> None:
        assert self._crop is not None
        left, right, top, bottom = self._crop
        graph.threads = 1
        graph.link_nodes(
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base),
            graph.add("crop", f"w=iw-{left + right}:h=ih-{top + bottom}:x={left}:y={top}"),
            graph.add("buffersink"),
        ).configure()


class _Crop(NamedTuple):
    """The pixels to cut off from each side of a stored frame."""

    left: int
    right: int
    top: int
    bottom: int


def _container_crop(stream: av.VideoStream) -> _Crop | None:
    """Return the cropping that the container asks for; None without one.

    PyAV has no access to it, but FFmpeg prints it in the description of a file.
    """
    with _logging:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            described: str = stream.container.dumps_format()  # type: ignore[attr-defined]  # not in PyAV's stubs
        finally:
            av.logging.set_level(level)
    _, *parts = _STREAM.split(described)
    streams = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
    found = _CROPPING.search(streams.get(stream.index, ""))
    return _Crop(*map(int, found.groups())) if found else None
