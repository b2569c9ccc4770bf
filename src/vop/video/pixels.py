"""From a decoded frame to the square that CLIP sees: upright, shorter side to size, centre crop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    import av

# Only the centre square survives the crop. In a frame longer than this many squares, what is farther away
# is cut off first: a 1 x 1000 frame scaled whole to a shorter side of 224 would take 150 MB.
_LONGEST_ASPECT = 8


def frame_pixels(frame: av.VideoFrame, *, size: int, reformatter: VideoReformatter | None = None) -> torch.Tensor:
    """RGB pixels of one frame as CLIP's preprocessing gives them, before normalisation.

    Rotation and mirroring recorded in the file are applied; non-square pixels are not corrected, as in the
    benchmarks' published pipelines. Untagged colours are taken for BT.601 in limited range, FFmpeg's default.

    Args:
        reformatter: one for all frames of a video saves setting up the conversion for each.

    Returns:
        uint8 tensor (3, size, size).
    """
    # By default FFmpeg starts threads for every conversion, which takes a hundred times longer than the work.
    rgb = (reformatter or VideoReformatter()).reformat(frame, format="rgb24", threads=1)
    pixels = upright(rgb.to_ndarray(), display_matrix(frame))
    return square(torch.from_numpy(np.ascontiguousarray(pixels)), size=size)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """The four numbers (a, b, c, d) of the file's display matrix: x' = ax + cy, y' = bx + dy; None without one."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype=np.int32).tolist()
    return a, b, c, d


def upright(pixels: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Turn and mirror pixels (h, w, 3) as the display matrix says; a slanted angle goes to the nearest right one."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.swapaxes(0, 1)
        across, down = c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def square(pixels: torch.Tensor, *, size: int) -> torch.Tensor:
    """Scale the shorter side to `size` (bicubic, antialiased), then crop the centre.

    Args:
        pixels: uint8 tensor (h, w, 3).

    Returns:
        uint8 tensor (3, size, size).
    """
    short = min(pixels.shape[:2])
    pixels = _centre(pixels, _LONGEST_ASPECT * short)
    height, width = (side * size // short for side in pixels.shape[:2])
    pixels = pixels.permute(2, 0, 1)[None]
    if (height, width) != tuple(pixels.shape[2:]):
        pixels = interpolate(pixels, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return _centre(pixels[0].permute(1, 2, 0), size).permute(2, 0, 1).contiguous()


def _centre(pixels: torch.Tensor, longest: int) -> torch.Tensor:
    """(h, w, 3) -> the middle of it, at most `longest` each way."""
    height, width = pixels.shape[:2]
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    return pixels[top : top + longest, left : left + longest]
