"""VoP: text-video co-operative prompt tuning (CVPR 2023, arXiv 2211.12764, section 3.2).

In layer i of the vision tower, for the tokens of a frame j (equation 4):

    [c_i, _, E_i] = V_i([c_{i-1}, P_{i-1}, E_{i-1}])

and likewise in the text tower, after [BOS]. Every layer has its own prompts `P_i`; its outputs at their positions are
discarded. In layer 1 the visual prompts are inserted before CLIP's `ln_pre`, and the text prompts before the positions
are added, so that they take positions 1..P. In a tower without [CLS] or [BOS], prompts come first.

Shapes: `b` videos or texts, `f` frames, `k` [CLS] tokens of a frame (1 or none), `n` tokens, `P` prompts, `d` a tower's
width, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vop.backbones.merging import Merger
from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP, VisionTower, pick
from vop.errors import UsageError
from vop.methods.base import WITHIN_FRAMES, Method
from vop.methods.prompts import LayerPrompts, which_layers
from vop.utils.checks import check_whole
from vop.utils.text import count


class VoP(Method):
    """Trains prompts in every layer of both towers. All frames share the visual prompts.

    Settings:
        text_prompts, visual_prompts: prompt tokens per layer (paper: 8).
        text_layers, visual_layers: the layers with prompts, from 1. None means all, an empty list none.
    """

    needs_layers = True
    token_merging = WITHIN_FRAMES

    def __init__(
        self,
        sizes: Sizes,
        *,
        text_prompts: int = 8,
        visual_prompts: int = 8,
        text_layers: Sequence[int] | None = None,
        visual_layers: Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(sizes, **settings)
        check_whole("text_prompts", text_prompts, at_least=0)
        check_whole("visual_prompts", visual_prompts, at_least=0)
        text_layers = which_layers(text_layers, depth=sizes.text.layers, setting="text_layers")
        self.visual_layers = which_layers(visual_layers, depth=sizes.vision.layers, setting="visual_layers")
        self.text_prompts = LayerPrompts(text_layers, text_prompts, sizes.text.width)
        self.shared_prompts = LayerPrompts(self.visual_layers, visual_prompts, sizes.vision.width)
        self.max_tokens = sizes.text.positions - (0 if self.text_prompts.get(1) is None else text_prompts)
        if self.max_tokens < 3:
            raise UsageError(
                f"text_prompts is {text_prompts}; of this backbone's {count('position', sizes.text.positions)} that "
                f"leaves {self.max_tokens} for a caption: use at most {sizes.text.positions - 3}"
            )

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        text = clip.text
        x, marks = text.embed(ids), text.sizes.marks
        first, rest = x[:, :marks], x[:, marks:]
        for number, layer in enumerate(text.layers, start=1):
            prompts = self.text_prompts.get(number)
            inserted = [] if prompts is None else [prompts.to(x.dtype).expand(len(x), -1, -1)]
            tokens = torch.cat([first, *inserted, rest], dim=1)
            attention = text.attention(ids, prompts=tokens.shape[1] - ids.shape[1])
            tokens = layer(text.add_positions(tokens) if number == 1 else tokens, **attention)
            first, rest = drop_prompts(tokens, before=marks, after=rest.shape[1])
        return text.head(pick(torch.cat([first, rest], dim=1), text.output_index(ids)))

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        x = clip.vision.embed(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])  # (b, f, k + n, d)
        k = clip.vision.sizes.summaries
        cls, patches = x[:, :, :k], x[:, :, k:]
        merger = clip.vision.merger(patches.shape[0] * patches.shape[1])
        for number in range(1, len(clip.vision.layers) + 1):
            cls, patches = self.vision_layer(clip.vision, number, cls, patches, merger)
        return clip.vision.output(torch.cat([cls, patches], dim=2))

    def vision_layer(
        self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor, merger: Merger | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply one layer within each frame. [CLS] (b, f, k, d) and patches (b, f, n, d) keep their shapes.

        A merger leaves fewer patches.
        """
        b, f, n, _ = patches.shape
        k = cls.shape[2]
        parts = [cls, patches]
        prompts = self.frame_prompts(vision, number, cls, patches)
        if prompts is not None:
            parts.insert(1, prompts.to(cls.dtype).expand(b, f, -1, -1))
        tokens = vision.run_layer(number, torch.cat(parts, dim=2).flatten(0, 1), summaries=k, merger=merger)
        cls, patches = drop_prompts(tokens, before=k, after=n if merger is None else merger.patches)
        return cls.unflatten(0, (b, f)), patches.unflatten(0, (b, f))

    def frame_prompts(self, vision: VisionTower, number: int, cls: Tensor, patches: Tensor) -> Tensor | None:
        """Return the prompts of layer `number`, broadcastable to (b, f, P, d), for the tokens at its input."""
        return self.shared_prompts.get(number)


def drop_prompts(tokens: Tensor, *, before: int, after: int) -> tuple[Tensor, Tensor]:
    """Split (b, before + P + after, d) into the tokens before and after the prompts. The last layer has none after."""
    prompts = tokens.shape[1] - before - after
    if prompts < 0:
        return tokens, tokens[:, before:]
    # `split` needs one backward pass, slices one each.
    first, _, rest = tokens.split([before, prompts, after], dim=1)
    return first, rest
