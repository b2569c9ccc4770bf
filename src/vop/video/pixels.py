"""From a decoded frame to what is kept of it: the square that CLIP sees, and a small whole picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vop.video.aspect import DISPLAY, check_aspect
from vop.video.shape import display_matrix, sample_aspect, square, turns_sideways, upright

if TYPE_CHECKING:
    import av

    from vop.video.colour import ColourConverter


class PixelConverter:
    """Makes squares and pictures of a video's frames; keeps what FFmpeg sets up for each kind of conversion.

    Args:
        stream: the frames' own.
        colours: of the same.
        size: height and width of the squares.
        picture_size: the longer side of the pictures.
        aspect: "display" gives squares the shape in which players show a picture, "stored" that of its stored pixels.
            Pictures are for people, and are as displayed always.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        colours: ColourConverter,
        *,
        size: int,
        picture_size: int = 160,
        aspect: str = DISPLAY,
    ) -> None:
        check_aspect(aspect)
        self.size, self.picture_size = size, picture_size
        self._codec = stream.codec_context.name
        self._shown = sample_aspect(stream)
        self._aspect = self._shown if aspect == DISPLAY else 1.0
        self._colours = colours

    def square(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB pixels as CLIP's preprocessing gives them, before normalisation.

        Returns:
            uint8 array (3, size, size).
        """
        rgb = self._colours.rgb(frame, shorter_side=self.size)
        matrix = display_matrix(frame, self._codec)
        aspect = 1 / self._aspect if turns_sideways(matrix) else self._aspect
        return square(upright(rgb, matrix), size=self.size, aspect=aspect)

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """The whole frame, upright and in its display shape: uint8 array (height, width, 3)."""
        sides = frame.width * max(self._shown, 1), frame.height * max(1 / self._shown, 1)
        scale = self.picture_size / max(sides)
        width, height = (max(1, round(side * scale)) for side in sides)
        small = self._colours.rgb(frame, width=width, height=height)
        return np.ascontiguousarray(upright(small, display_matrix(frame, self._codec)))
