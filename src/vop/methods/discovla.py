"""DiscoVLA's towers: features of single frames and of the video are fused (Shen et al., CVPR 2025, arXiv 2506.08887,
section 3: IVFusion). Released code: LunarShen/DsicoVLA.

Both towers have low-rank updates beside the attention's input projection (`low_rank.py`). In the last H layers of the
vision tower, the [CLS] token c^j of frame j attends twice with the same query, to the tokens of its own frame and to
those of all frames. A bottleneck F adapts the first result:

    a^j = attention(c^j; frame j)        v^j = attention(c^j; frames 1 .. f)        F(a) = W_up gelu(W_down a + b) + b'
    c^j = c^j + v^j + F(a^j)

Patches attend within their frame as before. `W_up` and `b'` start at 0. The video's embedding is the usual mean over
frames. In a tower without [CLS], c^j is the frame's summary that the tower defines (`VisionTower.summarise`) before the
first of these layers; it goes through them, and is read out with the frame's other tokens.

The rest of DiscoVLA is training with pseudo captions of the frames, which another model writes: a second loss between
frames and these captions, a distillation from it, and the same fusion for the captions of a video in the last two
layers of the text tower, which a query never passes. It is not here.

Shapes: `b` videos, `f` frames, `n` patches, `d` the vision tower's width, `r` the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vop.backbones.layers import Linear, quick_gelu
from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.methods.base import Method
from vop.methods.low_rank import LowRanks
from vop.utils.checks import check_whole


class DiscoVLA(Method):
    """Low-rank updates, and [CLS] tokens that see their frame and the whole video.

    Settings:
        rank: the rank of the updates, and the width of the bottlenecks.
        fusion_layers: H. None means a third of the layers (release: 4 of 12).
    """

    needs_layers = True
    learning_rate = 6e-4

    def __init__(self, sizes: Sizes, *, rank: int = 8, fusion_layers: int | None = None, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        check_whole("rank", rank, at_least=1)
        depth = sizes.vision.layers
        fusion_layers = max(1, round(depth / 3)) if fusion_layers is None else fusion_layers
        check_whole("fusion_layers", fusion_layers, at_least=0)
        if fusion_layers > depth:
            raise UsageError(
                f"fusion_layers is {fusion_layers}; it must be at most {depth}, the layers of the vision tower"
            )
        self.text, self.vision = LowRanks(sizes.text, rank), LowRanks(sizes.vision, rank)
        self.fusions = Fusions(Fusion(sizes.vision.width, rank) for _ in range(fusion_layers))

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        return clip.text(ids, self.text.blocks(clip.text))

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        vision, (b, f) = clip.vision, pixels.shape[:2]
        x, k = vision.embed(pixels.flatten(0, 1)), vision.sizes.summaries  # (b * f, k + n, d)
        start = len(vision.layers) - len(self.fusions)
        fusions: list[Fusion | None] = [*([None] * start), *self.fusions]
        for number, (layer, fusion) in enumerate(zip(self.vision.blocks(vision), fusions, strict=True), start=1):
            if fusion is not None:
                if not k:
                    x, k = torch.cat([vision.summarise(x[:, :0], x).unsqueeze(1), x], dim=1), 1
                layer = partial(layer, across=f, fuse=fusion)
            x = vision.run_layer(number, x, summaries=k, layer=layer)
        return vision.output(x).unflatten(0, (b, f))


class Fusion(nn.Module):
    """The bottleneck F, from (..., d) to (..., d). Its output starts at 0."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = Linear(width, hidden), Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        if not self.down.bias.is_meta:
            nn.init.xavier_uniform_(self.down.weight)
            nn.init.normal_(self.down.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(quick_gelu(self.down(x)))


class Fusions(nn.ModuleList):
    """A bottleneck for each of the last layers."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Fusion]: ...
