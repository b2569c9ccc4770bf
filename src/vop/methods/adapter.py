"""Adapters: a bottleneck parallel to a part of every layer (arXiv 2211.12764, section 4: Adapter^ATTN, Adapter^FFN).

With `A(h) = W_up relu(W_down h + b_down) + b_up`, a layer of either tower becomes as follows. In `Layer`,
A is called `beside_attention` or `beside_mlp`.

    adapter-attn   x = x + attention(norm(x)) + A(norm(x));   x = x + mlp(norm'(x))
    adapter-ffn    x = x + attention(norm(x));                x = x + mlp(norm'(x)) + A(norm'(x))

`W_up` and `b_up` start at 0, so that training starts from CLIP itself. The paper does not specify the input of the
bottleneck. Here it is the input of the attention or the MLP (the parallel adapter of He et al., ICLR 2022).

Shapes: `b` sequences, `n` tokens, `d` a tower's width, `h` the bottleneck's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vop.backbones.layers import Linear
from vop.backbones.sizes import Sizes, TowerSizes
from vop.backbones.towers import CLIP, Block, TextTower, VisionTower
from vop.methods.base import ACROSS_FRAMES, Method
from vop.utils.checks import check_whole


class Bottleneck(nn.Module):
    """A bottleneck of width h, from (b, n, d) to (b, n, d). Its output starts at 0."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = Linear(width, hidden), Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(torch.relu(self.down(x)))


class Bottlenecks(nn.ModuleList):
    """One bottleneck for each layer of a tower."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Bottleneck]: ...


class AdapterFfn(Method):
    """Trains a bottleneck parallel to the MLP of every layer.

    Settings:
        hidden: the bottleneck's width (paper: 64).
    """

    needs_layers = True
    learning_rate = 1e-3
    token_merging = ACROSS_FRAMES
    beside: ClassVar[str] = "beside_mlp"  # where `Layer` takes it

    def __init__(self, sizes: Sizes, *, hidden: int = 64, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        check_whole("hidden", hidden, at_least=1)
        self.text, self.vision = (_bottlenecks(tower, hidden) for tower in (sizes.text, sizes.vision))

    def embed_tokens(self, clip: CLIP, ids: Tensor) -> Tensor:
        return clip.text(ids, self._blocks(clip.text, self.text))

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        frames = clip.vision(pixels.flatten(0, 1), self._blocks(clip.vision, self.vision))
        return frames.unflatten(0, pixels.shape[:2])

    def _blocks(self, tower: TextTower | VisionTower, bottlenecks: Bottlenecks) -> list[Block]:
        return [
            partial(layer, **{self.beside: adapter}) for layer, adapter in zip(tower.layers, bottlenecks, strict=True)
        ]


class AdapterAttn(AdapterFfn):
    """Trains a bottleneck parallel to the attention of every layer."""

    beside = "beside_attention"


def _bottlenecks(tower: TowerSizes, hidden: int) -> Bottlenecks:
    return Bottlenecks(Bottleneck(tower.width, hidden) for _ in range(tower.layers))
