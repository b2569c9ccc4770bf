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

Angles = tuple[Tensor, Tensor]  # sines and cosines of the last tokens' angles, each (p, w)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
@torch.no_grad()
def patch_angles(rope: Rope, *, grid: int, head_width: int, frames: int = 1, device: torch.device) -> Angles:
    """Return the angles of the patches of `frames` pictures of `grid` x `grid` patches, in float32."""
    bands = rope.temperature ** -(torch.arange(head_width // 4, device=device).float() / (head_width // 4))
    steps = (torch.arange(grid, device=device).float() + rope.offset) / grid * rope.reference
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    axes = (columns, rows) if rope.columns_first else (rows, columns)
    angles = torch.cat([axis.reshape(-1, 1) * bands for axis in axes], dim=1)  # (p, w / 2)
    angles = angles.repeat_interleave(2, dim=1).repeat(frames, 1)
    return angles.sin(), angles.cos()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turn the last p of the tokens (.., n, w). The tokens before them, [CLS] and prompts, have no position."""
    before = x.shape[-2] - len(angles[0])
    sines, cosines = (table.to(x.dtype) for table in angles)
    sines, cosines = F.pad(sines, (0, 0, before, 0)), F.pad(cosines, (0, 0, before, 0), value=1)  # the angle 0
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return torch.addcmul(x * cosines, turned, sines)
