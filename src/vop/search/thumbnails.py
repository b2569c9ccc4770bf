"""The film strip of a segment: a few of its frames side by side, as a small JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from vop.errors import UsageError

STRIP_HEIGHT = 90  # pixels: a 16:9 picture of `decode_clips`, 160 pixels wide, fits as it is
_QUALITY = 75
_MOST_STRETCHED = 3.0  # a very wide or narrow video has cells of 3:1 or 1:3 with its pictures in their middle


def film_strip_jpeg(pictures: Sequence[np.ndarray], *, height: int = STRIP_HEIGHT) -> bytes:
    """Pictures side by side in cells of the same size, without gaps: the k-th begins at k / n of the width.

    Cells have the shape of the first picture. One of another shape stands whole in the middle of its cell, on black.

    Args:
        pictures: uint8 arrays (h, w, 3), at least one.
        height: of the strip in pixels.

    Raises:
        UsageError: there is no picture, one of another type or shape, or no height.
    """
    _check(pictures, height)
    width = _cell_width(pictures[0], height)
    strip = Image.new("RGB", (width * len(pictures), height))
    for place, pixels in enumerate(pictures):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        strip.paste(ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS), (place * width, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _cell_width(picture: np.ndarray, height: int) -> int:
    ratio = picture.shape[1] / picture.shape[0]
    return max(1, round(height * min(_MOST_STRETCHED, max(1 / _MOST_STRETCHED, ratio))))


def _check(pictures: Sequence[np.ndarray], height: int) -> None:
    if not len(pictures):
        raise UsageError(f"there are {len(pictures)} pictures; a film strip needs at least one")
    for pixels in pictures:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise UsageError(f"a picture is {pixels.dtype} of shape {pixels.shape}; give uint8 height x width x 3")
    if height < 1:
        raise UsageError(f"height is {height}; at least 1 pixel is needed")
