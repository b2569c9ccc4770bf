"""Low-rank updates that stand beside the attention's input projection (LoRA: Hu et al., ICLR 2022, arXiv 2106.09685).

    [q, k, v] = W x + b   becomes   W x + b + B A x,    A (r, d), B (3d, r) and 0 at the start

The method `lora` puts such updates into the backbone, with the library `peft`. These here belong to a method.

Shapes: `d` the tower's width, `r` the rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.layers import free_parameter
from vop.backbones.sizes import TowerSizes
from vop.backbones.towers import Block, TextTower, VisionTower


class LowRank(nn.Module):
    """The map B A, from (..., d) to (..., 3d)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = free_parameter(rank, width, std=0)
        if not self.down.is_meta:
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.up = free_parameter(3 * width, rank, std=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


class LowRanks(nn.ModuleList):
    """A low-rank update for each layer of a tower."""

    def __init__(self, tower: TowerSizes, rank: int) -> None:
        super().__init__(LowRank(tower.width, rank) for _ in range(tower.layers))

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[LowRank]: ...

    def blocks(self, tower: TextTower | VisionTower) -> list[Block]:
        """Return the layers of a tower with their updates."""
        return [partial(layer, beside_in_proj=update) for layer, update in zip(tower.layers, self, strict=True)]
