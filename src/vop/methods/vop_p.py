"""VoP^P: position-specific video prompts (arXiv 2211.12764, section 3.3).

Some visual prompts of a layer depend on the frame's position j in the video; the others are shared:

    P_i^j = [shared_i, table_i[j]]

Shapes: `b` videos, `f` frames, `S` specific prompts, `P` prompts, `d` the vision tower's width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.sizes import Sizes
from vop.backbones.towers import VisionTower
from vop.errors import UsageError
from vop.methods.prompts import LayerPrompts
from vop.methods.vop import VoP
from vop.utils.checks import check_frames, check_whole


class VoPP(VoP):
    """VoP with a table of prompts, one row per layer and frame position.

    Settings:
        specific_prompts: the number of visual prompts that depend on the position (paper: 4 of 8).
    """

    def __init__(self, sizes: Sizes, *, visual_prompts: int = 8, specific_prompts: int = 4, **settings: Any) -> None:
        check_specific(specific_prompts, visual_prompts)
        super().__init__(sizes, visual_prompts=visual_prompts - specific_prompts, **settings)
        self.position_prompts = LayerPrompts(self.visual_layers, self.num_frames, specific_prompts, sizes.vision.width)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        tokens = self.position_prompts.tokens  # (layers, f, S, d)
        return [*super().frame_tables(), *([] if tokens is None else [(tokens, 1)])]

    def frame_prompts(self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor) -> Tensor | None:
        shared = super().frame_prompts(vision, number, cls, patches)
        specific = self.position_prompts.get(number)  # (f, S, d)
        if specific is None:
            return shared
        check_frames(patches.shape[1], self.num_frames)
        return specific if shared is None else torch.cat([shared.expand(len(specific), -1, -1), specific], dim=1)


def check_specific(specific_prompts: int, visual_prompts: int) -> None:
    check_whole("specific_prompts", specific_prompts, at_least=1)
    check_whole("visual_prompts", visual_prompts, at_least=1)
    if specific_prompts > visual_prompts:
        raise UsageError(f"specific_prompts is {specific_prompts}; it must be at most visual_prompts, {visual_prompts}")
