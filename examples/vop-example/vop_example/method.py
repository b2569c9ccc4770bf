"""Frame adapter: a bottleneck on the embedding of each frame.

    e' = e + W_up relu(W_down LN(e)),    W_up = 0 at the start

Shapes: `b` videos, `f` frames, `e` the joint space.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones import Sizes
from vop.backbones.towers import CLIP
from vop.methods.base import Method
from vop.utils.checks import check_whole


class FrameAdapter(Method):
    """Zero-shot CLIP with an adapter after the vision tower.

    Settings:
        hidden: the bottleneck's width.
    """

    learning_rate = 1e-3

    def __init__(self, sizes: Sizes, *, hidden: int = 32, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        check_whole("hidden", hidden, at_least=1)
        self.norm = nn.LayerNorm(sizes.embed_dim)
        self.down, self.up = nn.Linear(sizes.embed_dim, hidden), nn.Linear(hidden, sizes.embed_dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def embed_frames(self, clip: CLIP, pixels: Tensor) -> Tensor:
        """Embed normalised pixels (b, f, 3, h, w): frame embeddings (b, f, e)."""
        frames = super().embed_frames(clip, pixels)
        return frames + self.up(torch.relu(self.down(self.norm(frames))))
