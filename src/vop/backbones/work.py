"""Estimate the work of a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.backbones.sizes import Sizes, TowerSizes

OUT_OF_REACH = 12  # layers of an encoder whose sizes do not say how many it has: those of a base model


def forward_work(sizes: Sizes, *, frames: int = 0, tokens: int = 0) -> int:
    """Return the multiply-adds with weights in a forward pass over images and text tokens, without prompts."""
    patches = frames * (sizes.vision.patches + sizes.vision.summaries)
    return patches * _count_weights(sizes.vision) + tokens * _count_weights(sizes.text)


def _count_weights(tower: TowerSizes) -> int:
    matrices = 3 if tower.gated else 2
    return (tower.layers or OUT_OF_REACH) * (4 * tower.width**2 + matrices * tower.width * tower.mlp_width)
