"""The two towers of a ViT CLIP, each split into embed -> layers -> head, so that methods can change the layers.

Shapes: `b` images or texts, `n` tokens, `d` a tower's width, `e` the joint space.

Activations have the tower's `dtype`. Frozen weights are stored in it, trained ones in float32; both are cast
where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.clip.config import ClipSizes, TowerSizes
from vop.backbones.clip.layers import Layer, LayerNorm, free_parameter
from vop.errors import UsageError
from vop.utils.text import count

Block = Callable[..., Tensor]  # takes the arguments of `Layer.forward`


class VisionTower(nn.Module):
    """Embeds images: patches and [CLS] pass through the layers, and [CLS] is projected to the joint space."""

    dtype = torch.float32

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, tower = sizes.vision.width, sizes.vision
        std = width**-0.5
        self.patch_embedding = nn.Conv2d(3, width, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = free_parameter(width, std=std)
        self.positions = free_parameter(1 + sizes.patches, width, std=std)
        self.pre_norm = LayerNorm(width, eps=tower.norm_eps)
        self.layers = make_layers(tower)
        self.post_norm = LayerNorm(width, eps=tower.norm_eps)
        self.projection = free_parameter(width, sizes.embed_dim, std=std)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels (b, 3, h, w) as [CLS] and patches with positions, before `pre_norm`: (b, 1 + patches, d)."""
        weight = self.patch_embedding.weight.to(self.dtype)
        patches = F.conv2d(pixels.to(self.dtype), weight, stride=self.patch_embedding.stride)
        patches = patches.flatten(2).transpose(1, 2)
        if patches.shape[1] != len(self.positions) - 1:
            raise UsageError(
                f"images of {pixels.shape[-2]} x {pixels.shape[-1]} pixels make {count('patch', patches.shape[1])}; "
                f"this backbone takes {len(self.positions) - 1}: resize to its image_size"
            )
        cls = self.class_embedding.to(self.dtype).expand(len(pixels), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.positions.to(self.dtype)

    def head(self, cls: Tensor) -> Tensor:
        """Project [CLS] (..., d) to the joint space (..., e)."""
        cls = self.post_norm(cls)
        return cls @ self.projection.to(cls.dtype)

    def forward(self, pixels: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """Embed pixels (b, 3, h, w): (b, e), not normalised. `layers` replace the tower's own."""
        *layers, last = layers or self.layers
        x = self.pre_norm(self.embed(pixels))
        for layer in layers:
            x = layer(x)
        return self.head(last(x, read=1)[:, 0])  # the patches of the last layer are not used


class TextTower(nn.Module):
    """Embeds texts: tokens pass through causal layers, and [EOS] is projected to the joint space."""

    dtype = torch.float32

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, tower = sizes.text.width, sizes.text
        self.eos_token_id = sizes.eos_token_id
        self.token_embedding = nn.Embedding.from_pretrained(
            free_parameter(sizes.vocab_size, width, std=1), freeze=False
        )
        self.positions = free_parameter(sizes.positions, width, std=0.01)
        self.layers = make_layers(tower)
        self.post_norm = LayerNorm(width, eps=tower.norm_eps)
        self.projection = free_parameter(width, sizes.embed_dim, std=width**-0.5)

    def embed(self, ids: Tensor) -> Tensor:
        """Embed token ids (b, n): (b, n, d), without positions, because inserted prompts change them."""
        return self.token_embedding(ids).to(self.dtype)

    def add_positions(self, x: Tensor) -> Tensor:
        """Add position embeddings to tokens (b, n, d)."""
        if x.shape[1] > len(self.positions):
            raise UsageError(
                f"a text has {x.shape[1]} tokens, including prompts; this backbone takes {len(self.positions)}: "
                "truncate the captions, as TextVideoModel.tokenize does"
            )
        return x + self.positions[: x.shape[1]].to(x.dtype)

    def eos_index(self, ids: Tensor) -> Tensor:
        """Return the position of the first [EOS] in each text (b, n): (b,)."""
        found = ids == self.eos_token_id
        if not found.any(dim=1).all():
            row = int((~found.any(dim=1)).nonzero()[0])
            raise UsageError(f"text {row} has no [EOS] (id {self.eos_token_id}); its embedding is read at this token")
        return found.int().argmax(dim=1)

    def head(self, eos: Tensor) -> Tensor:
        """Project [EOS] (..., d) to the joint space (..., e)."""
        eos = self.post_norm(eos)
        return eos @ self.projection.to(eos.dtype)

    def forward(self, ids: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """Embed token ids (b, n): (b, e), not normalised. `layers` replace the tower's own."""
        x = self.add_positions(self.embed(ids))
        for layer in layers or self.layers:
            x = layer(x, causal=True)
        return self.head(pick(x, self.eos_index(ids)))


class CLIP(nn.Module):
    """Both towers, and the logarithm of the logit scale."""

    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision = VisionTower(sizes)
        self.text = TextTower(sizes)
        self.log_logit_scale = free_parameter(std=0)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the activations."""
        return self.vision.dtype

    def compute_in(self, dtype: torch.dtype) -> None:
        """Set the dtype of the activations and cast frozen weights to it. The logit scale is not rounded."""
        for parameter in self.parameters():
            if not parameter.requires_grad and parameter is not self.log_logit_scale:
                parameter.data = parameter.data.to(dtype)
        self.vision.dtype = self.text.dtype = dtype


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Return the token of each sequence (b, n, d) at `index` (b,): (b, d)."""
    return x.take_along_dim(index[:, None, None], dim=1).squeeze(1)


class Layers(nn.ModuleList):
    """The blocks of a tower."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Layer]: ...


def make_layers(tower: TowerSizes) -> Layers:
    """Return the blocks of a tower, freshly initialised."""
    return Layers(
        Layer(
            width=tower.width,
            heads=tower.heads,
            mlp_width=tower.mlp_width,
            activation=tower.activation,
            norm_eps=tower.norm_eps,
        )
        for _ in range(tower.layers)
    )
