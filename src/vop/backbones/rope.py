"""Rotary positions of image patches (Su et al. 2021, arXiv 2104.09864; for images EVA-02, arXiv 2303.11331).

A query or key at row y and column x of the grid is rotated, in pairs of channels, by the angles

    y * w_1, .., y * w_m, x * w_1, .., x * w_m        w_i = temperature ** -((i - 1) / m),  m = width of a head / 4

Shapes: `b` sequences, `h` heads, `n` tokens, `p` patches, `w` the width of a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vop.backbones.sizes import Rope

Angles = tuple[Tensor, Tensor]  # sines and cosines of the tokens' angles, each (n, w); see `patch_angles`


@lru_cache(maxsize=32)
@torch.inference_mode(False)
@torch.no_grad()
def patch_angles(
    rope: Rope, *, grid: int, head_width: int, before: int, frames: int, device: torch.device, dtype: torch.dtype
) -> Angles:
    """Return the angles of the patches of `frames` pictures of `grid` x `grid` patches, after `before` other tokens.

    The other tokens, [CLS] and prompts, have no position: their angle is 0. The sine of the first channel of a pair is
    negative, as it is multiplied with the second channel.
    """
    bands = rope.temperature ** -(torch.arange(head_width // 4, device=device).float() / (head_width // 4))
    steps = (torch.arange(grid, device=device).float() + rope.offset) / grid * rope.reference
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    axes = (columns, rows) if rope.columns_first else (rows, columns)
    angles = torch.cat([axis.reshape(-1, 1) * bands for axis in axes], dim=1)  # (p, w / 2)
    angles = F.pad(angles.repeat(frames, 1), (0, 0, before, 0))
    sines, cosines = angles.sin(), angles.cos()
    signed = torch.stack([-sines, sines], dim=-1).flatten(1)
    return signed.to(dtype), cosines.repeat_interleave(2, dim=1).to(dtype)


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turn tokens (.., n, w)."""
    sines, cosines = angles
    swapped = torch.stack([x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return torch.addcmul(x * cosines, swapped, sines)
