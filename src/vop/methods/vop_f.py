"""VoP^F: function-specific video prompts, and its combinations (arXiv 2211.12764, section 3.3).

Layers 1..K_s attend within each frame. Layers K_s+1..K attend over all frames of the video at once, with prompts for
the whole video:

    [C_1..C_f, _, E_1, ..., E_f] = V_i([C_1..C_f, P_i, E_1, ..., E_f])        for i > K_s

Before layer K_s+1 a trainable embedding of the frame's position is added to every token of the frame. In a tower
without [CLS], C_j is there the frame's summary that the tower defines (`VisionTower.summarise`); it goes through the
upper layers, and is read out with the frame's other tokens.

Shapes: `b` videos, `f` frames, `n` patches, `P` prompts, `d` the vision tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.layers import free_parameter
from vop.backbones.merging import Merger
from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP, VisionTower
from vop.errors import UsageError
from vop.methods.prompts import PROMPT_STD, LayerPrompts, which_layers
from vop.methods.vop import VoP, drop_prompts
from vop.methods.vop_c import VoPC
from vop.methods.vop_p import VoPP
from vop.utils.checks import check_frames, check_whole


class VoPF(VoP):
    """VoP whose upper vision layers see the whole video.

    Settings:
        split_layer: K_s. None means two thirds of the layers (paper: 8 of 12). The number of layers gives plain VoP.
        visual_layers: layers with prompts: frame-level prompts up to K_s, video-level prompts above.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        split_layer: int | None = None,
        visual_prompts: int = 8,
        visual_layers: Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        depth, width = sizes.vision.layers, sizes.vision.width
        split_layer = round(depth * 2 / 3) if split_layer is None else split_layer
        check_whole("split_layer", split_layer, at_least=0)
        if split_layer > depth:
            raise UsageError(
                f"split_layer is {split_layer}; it must be from 0 to {depth}, the layers of the vision tower"
            )
        layers = which_layers(visual_layers, depth=depth, setting="visual_layers")
        frame_layers = [layer for layer in layers if layer <= split_layer]
        super().__init__(sizes, visual_prompts=visual_prompts, visual_layers=frame_layers, **settings)
        self.split_layer = split_layer
        self.video_prompts = LayerPrompts([layer for layer in layers if layer > split_layer], visual_prompts, width)
        joint = split_layer < depth
        self.frame_positions = free_parameter(self.num_frames, width, std=PROMPT_STD) if joint else None

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        positions = self.frame_positions  # (f, d)
        return [*super().frame_tables(), *([] if positions is None else [(positions, 0)])]

    def uncounted_parameters(self, clip: CLIP) -> int:
        return 0 if self.frame_positions is None else self.frame_positions.numel()

    def vision_layer(
        self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor, merger: Merger | None = None
    ) -> tuple[Tensor, Tensor]:
        if number <= self.split_layer:
            return super().vision_layer(vision, number, cls, patches, merger)
        b, f, n, d = patches.shape
        if number == self.split_layer + 1 and self.frame_positions is not None:
            check_frames(f, self.num_frames)
            positions = self.frame_positions.to(cls.dtype)[:, None]
            cls = vision.summarise(cls, patches).unsqueeze(2)
            cls, patches = cls + positions, patches + positions
            if merger is not None:
                merger.join(f)
        parts = [cls.squeeze(2), patches.reshape(b, f * n, d)]
        prompts = self.video_prompts.get(number)
        if prompts is not None:
            parts.insert(1, prompts.to(cls.dtype).expand(b, -1, -1))
        tokens = vision.run_layer(number, torch.cat(parts, dim=1), summaries=f, frames=f, merger=merger)
        cls, patches = drop_prompts(tokens, before=f, after=f * n if merger is None else merger.patches)
        return cls.unsqueeze(2), patches.unflatten(1, (f, patches.shape[1] // f))


class VoPFP(VoPF, VoPP):
    """VoP^F+P: position-specific prompts up to layer K_s, video-level prompts above."""


class VoPFC(VoPF, VoPC):
    """VoP^F+C: context-specific prompts up to layer K_s, video-level prompts above."""
