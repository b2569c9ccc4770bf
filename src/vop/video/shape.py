"""Convert a decoded frame to a square for the backbone, and to a small uncropped picture.

Both are rotated, mirrored and stretched as players show the video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from av.sidedata.sidedata import SideData
from PIL import Image

from vop.video.clip import DISPLAY, check_aspect
from vop.video.resizing import BICUBIC, BILINEAR, SQUASH, WHOLE

if TYPE_CHECKING:
    import av

    from vop.video.colour import ColourConverter
    from vop.video.resizing import Resizing

_MOST_STRETCHED = 16  # a larger sample aspect ratio is a mistake in the file

_MOST_LONG = 4  # a whole frame's longer side relative to its shorter one; beyond, it is squashed

_FILTERS = {BICUBIC: Image.Resampling.BICUBIC, BILINEAR: Image.Resampling.BILINEAR}
_REACH = 2  # pixels of the larger grid on either side: of bicubic, the wider filter

Matrix = tuple[int, int, int, int]

# These decoders attach the name of a colour profile to a frame. After an access to `frame.side_data`, PyAV 18.1 frees
# it twice, and the process crashes in a later garbage collection.
_UNSAFE_SIDE_DATA = ("png", "apng")


class PixelConverter:
    """Converts a video's frames to squares and pictures.

    Args:
        stream: the video stream.
        colours: the colour converter of the same stream.
        resizing: how a frame becomes a square.
        picture_size: the longer side of the pictures, in pixels.
        aspect: "display" stretches frames before they are cropped as players do; "stored" takes stored pixels as
            square. Pictures are for people and are always stretched.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        colours: ColourConverter,
        *,
        resizing: Resizing,
        picture_size: int = 160,
        aspect: str = DISPLAY,
    ) -> None:
        check_aspect(aspect)
        self.resizing, self.picture_size = resizing, picture_size
        self._codec = stream.codec_context.name
        self._shown = sample_aspect(stream)
        self._aspect = self._shown if aspect == DISPLAY else 1.0
        self._colours = colours
        self._whole: tuple[int, int] | None = None  # width and height of whole frames

    def square(self, frame: av.VideoFrame) -> np.ndarray:
        """Return RGB pixels as in the backbone's preprocessing, before normalisation: uint8 array (3, size, size).

        If the resizing keeps frames whole: (3, h, w), where h or w is `size`. All have the shape of the first one.
        """
        rgb = self._colours.rgb(frame, shorter_side=self.resizing.size)
        matrix = display_matrix(frame, self._codec)
        aspect = 1 / self._aspect if turns_sideways(matrix) else self._aspect
        pixels = upright(rgb, matrix)
        if self.resizing.mode != WHOLE:
            return square(pixels, resizing=self.resizing, aspect=aspect)
        if self._whole is None:
            self._whole = whole_size(pixels.shape[1], pixels.shape[0], size=self.resizing.size, aspect=aspect)
        return _resized(pixels, self._whole, self.resizing)

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the uncropped frame, upright and in its display shape: uint8 array (height, width, 3)."""
        sides = frame.width * max(self._shown, 1), frame.height * max(1 / self._shown, 1)
        scale = self.picture_size / max(sides)
        width, height = (max(1, round(side * scale)) for side in sides)
        small = self._colours.rgb(frame, width=width, height=height)
        return np.ascontiguousarray(upright(small, display_matrix(frame, self._codec)))


def sample_aspect(stream: av.VideoStream) -> float:
    """Return a stored pixel's width divided by its height; 1 if the file does not give it."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / _MOST_STRETCHED <= ratio <= _MOST_STRETCHED else 1.0


@dataclass(frozen=True)
class LastingMatrix:
    """The display matrix of an earlier frame, attached to a frame to which it also applies.

    Each frame needs an object of its own: PyAV forgets the object when the first frame that has it is freed.
    """

    matrix: Matrix


def display_matrix(frame: av.VideoFrame, codec: str) -> Matrix | None:
    """Return (a, b, c, d) of the display matrix x' = ax + cy, y' = bx + dy; None if the frame has no matrix."""
    if codec in _UNSAFE_SIDE_DATA:
        return _turned(frame.rotation)
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return frame.opaque.matrix if isinstance(frame.opaque, LastingMatrix) else None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    return a, b, c, d


def _turned(degrees: int) -> Matrix | None:
    """Return the matrix of a counterclockwise rotation, rounded to right angles."""
    one = 1 << 16
    return {0: None, 1: (0, -one, one, 0), 2: (-one, 0, 0, -one), 3: (0, one, -one, 0)}[round(degrees / 90) % 4]


def turns_sideways(matrix: Matrix | None) -> bool:
    """Return whether the matrix swaps width and height."""
    if matrix is None:
        return False
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def display_size(width: int, height: int, *, aspect: float, matrix: Matrix | None) -> tuple[int, int]:
    """Return the displayed width and height of a picture. One side may be stretched; none is shrunk."""
    shown = round(width * max(aspect, 1)), round(height * max(1 / aspect, 1))
    return shown[::-1] if turns_sideways(matrix) else shown


def upright(pixels: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """Rotate and mirror pixels (h, w, 3) by the display matrix, rounded to right angles."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    across, down = a, d
    if turns_sideways(matrix):
        pixels = pixels.swapaxes(0, 1)
        across, down = c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def square(pixels: np.ndarray, *, resizing: Resizing, aspect: float = 1.0) -> np.ndarray:
    """Resize a picture to a square.

    Args:
        pixels: uint8 array (h, w, 3).
        aspect: a pixel's width divided by its height. It makes no difference to squashing.

    Returns:
        uint8 array (3, size, size).
    """
    size, interpolation = resizing.size, _FILTERS[resizing.interpolation]
    if resizing.mode == SQUASH:
        return _resized(pixels, (size, size), resizing)
    height, width = pixels.shape[:2]
    across, down = _scaled(width, height, size=size, aspect=aspect)
    columns, left, right = _middle(width, across, size)
    rows, top, bottom = _middle(height, down, size)
    picture = Image.fromarray(np.ascontiguousarray(pixels[rows, columns]))
    # Always the width first: Pillow would choose the order by the sizes, and values are clipped between the two steps.
    narrow = picture.resize((size, picture.height), interpolation, box=(left, 0, right, picture.height))
    scaled = narrow.resize((size, size), interpolation, box=(0, top, size, bottom))
    return _channels_first(scaled)


def whole_size(width: int, height: int, *, size: int, aspect: float = 1.0) -> tuple[int, int]:
    """Return width and height of a whole frame whose shorter side is `size` pixels. `aspect` as for `square`."""
    across, down = _scaled(width, height, size=size, aspect=aspect)
    return min(across, _MOST_LONG * size), min(down, _MOST_LONG * size)


def cropped(frame: np.ndarray, box: tuple[int, int, int, int], *, resizing: Resizing) -> np.ndarray:
    """Resize a part of a frame to a square.

    Args:
        frame: uint8 array (3, h, w).
        box: left, top, right, bottom in pixels.

    Returns:
        uint8 array (3, size, size).
    """
    left, top, right, bottom = box
    return _resized(frame.transpose(1, 2, 0)[top:bottom, left:right], (resizing.size, resizing.size), resizing)


def _scaled(width: int, height: int, *, size: int, aspect: float) -> tuple[int, int]:
    """Return width and height in display shape, scaled so that the shorter one is `size` pixels."""
    shown = (width * aspect, height) if aspect >= 1 else (width, height / aspect)
    short = min(shown)
    across, down = (max(int(side * size / short), size) for side in shown)
    return across, down


def _resized(pixels: np.ndarray, size: tuple[int, int], resizing: Resizing) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return _channels_first(picture.resize(size, _FILTERS[resizing.interpolation]))


def _channels_first(picture: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _middle(length: int, scaled: int, size: int) -> tuple[slice, float, float]:
    """Return the pixels of a side from which the middle `size` of its `scaled` pixels are computed.

    Returns:
        The slice of these pixels; begin and end of the middle part, relative to the slice.
    """
    scale = length / scaled
    begin = (scaled - size) // 2 * scale
    end = begin + size * scale
    reach = _REACH * max(scale, 1) + 1
    first = max(int(begin - reach), 0)
    return slice(first, min(int(end + reach) + 1, length)), begin - first, end - first
