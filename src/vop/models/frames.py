"""Frames that a caller gives to a model: checked, and resized for its backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vop.errors import UsageError

if TYPE_CHECKING:
    from vop.video.resizing import Resizing


def checked(frames: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return uint8 frames as (n, f, 3, height, width).

    Raises:
        UsageError: the dtype or the shape is not allowed.
    """
    frames = torch.as_tensor(frames)
    if frames.dtype != torch.uint8:
        raise UsageError(
            f"the dtype of frames is {str(frames.dtype).removeprefix('torch.')}; encode_frames takes uint8 values "
            "from 0 to 255 (for values in [0, 1]: (frames * 255).round() as uint8), and embed_frames takes "
            "normalised floats"
        )
    if frames.ndim != 5 or 3 not in (frames.shape[2], frames.shape[4]) or 0 in frames.shape[1:]:
        raise UsageError(
            f"the shape of frames is {tuple(frames.shape)}; encode_frames takes (n, f, height, width, 3) or "
            "(n, f, 3, height, width)"
        )
    return frames if frames.shape[2] == 3 else frames.permute(0, 1, 4, 2, 3)


def resized(frames: Tensor, resizing: Resizing) -> Tensor:
    """Resize uint8 frames (n, f, 3, h, w) to squares for the backbone, like `vop.read_frames`."""
    from vop.video.shape import square

    size = resizing.size
    if frames.shape[-2:] == (size, size):
        return frames
    pictures = frames.flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    squares = [torch.from_numpy(square(picture, resizing=resizing)) for picture in pictures]
    return torch.stack(squares).unflatten(0, frames.shape[:2])
