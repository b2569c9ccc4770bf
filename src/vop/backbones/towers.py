"""The two towers of a backbone, each as embed -> layers -> head, so that a method can step in between.

Every family of backbones with layers is read into these: what differs (a [CLS] token or none, causal or not, how the
output is read) stands in its `Sizes`.

Shapes: `b` images or texts, `n` tokens, `d` a tower's width, `e` the joint space.

Activations have the tower's `dtype`. Frozen weights are stored in it, trained ones in float32; both are cast
where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.layers import LayerNorm, Linear, Mlp, attend, free_parameter, make_layers
from vop.backbones.rope import patch_angles
from vop.backbones.sizes import Sizes, TowerSizes, VisionSizes
from vop.errors import UsageError
from vop.utils.text import count

Block = Callable[..., Tensor]  # takes the arguments of `Layer.forward`


class Tower(nn.Module):
    """What both towers share."""

    dtype = torch.float32
    projection: nn.Parameter | None
    projection_bias: nn.Parameter | None

    def _add_projection(self, tower: TowerSizes, embed_dim: int, *, weight: bool, bias: bool) -> None:
        self.projection = free_parameter(tower.width, embed_dim, std=tower.width**-0.5) if weight else None
        self.projection_bias = free_parameter(embed_dim, std=0) if bias else None

    def project(self, x: Tensor) -> Tensor:
        """(..., d) to the joint space, (..., e)."""
        if self.projection is not None:
            x = x @ self.projection.to(x.dtype)
        return x if self.projection_bias is None else x + self.projection_bias.to(x.dtype)

    def projection_parameters(self) -> list[nn.Parameter]:
        """Return what maps the read-out into the joint space."""
        return [parameter for parameter in (self.projection, self.projection_bias) if parameter is not None]


class VisionTower(Tower):
    """Patches, behind a [CLS] token if there is one, through the layers.

    The image's embedding is the projected [CLS], an attention pooling of all tokens, or the mean of the patches.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = tower = sizes.vision
        width = tower.width
        std = width**-0.5
        self.patch_embedding = nn.Conv2d(3, width, tower.patch_size, stride=tower.patch_size, bias=tower.patch_bias)
        self.class_embedding = free_parameter(width, std=std) if tower.class_token else None
        self.positions = free_parameter(tower.summaries + tower.patches, width, std=std)
        self.pre_norm = LayerNorm(width, eps=tower.norm_eps) if tower.pre_norm else nn.Identity()
        self.layers = make_layers(tower)
        self.post_norm = LayerNorm(width, eps=tower.norm_eps)
        self.pool = AttentionPool(tower) if tower.readout == "attention" else None
        self._add_projection(tower, sizes.embed_dim, weight=tower.projection, bias=tower.projection_bias)

    def embed(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) to (b, [1 +] patches, d): patches behind a [CLS], with positions, before `pre_norm`."""
        convolution = self.patch_embedding
        bias = None if convolution.bias is None else convolution.bias.to(self.dtype)
        patches = F.conv2d(pixels.to(self.dtype), convolution.weight.to(self.dtype), bias, stride=convolution.stride)
        patches = patches.flatten(2).transpose(1, 2)
        if patches.shape[1] != self.sizes.patches:
            raise UsageError(
                f"images of {pixels.shape[-2]} x {pixels.shape[-1]} pixels make {count('patch', patches.shape[1])}; "
                f"this backbone takes {self.sizes.patches}: resize to its image_size"
            )
        if self.class_embedding is not None:
            cls = self.class_embedding.to(self.dtype).expand(len(pixels), 1, -1)
            patches = torch.cat([cls, patches], dim=1)
        return patches + self.positions.to(self.dtype)

    def run_layer(
        self, number: int, tokens: Tensor, *, summaries: int, frames: int = 1, layer: Block | None = None
    ) -> Tensor:
        """Apply layer `number` (from 1) to (b, n, d), with the norm before the first layer.

        In the last layer of a tower that reads [CLS] tokens, only the first `summaries` tokens are computed: nothing
        reads the others.

        Args:
            summaries: the tokens in front: the [CLS] of each frame, or none.
            frames: how many frames' patches are the last tokens.
            layer: what takes the place of the tower's own layer.
        """
        tower = self.sizes
        read = summaries if number == len(self.layers) and tower.readout == "class" else None
        angles = None
        if tower.rope is not None:
            angles = patch_angles(
                tower.rope,
                grid=tower.grid,
                head_width=tower.width // tower.heads,
                frames=frames,
                device=tokens.device,
            )
        layer = layer or self.layers[number - 1]
        return layer(self.pre_norm(tokens) if number == 1 else tokens, read=read, angles=angles)

    def summarise(self, summaries: Tensor, patches: Tensor) -> Tensor:
        """The summary of each frame as it enters a layer, (..., d): its [CLS] token, or else its pooled tokens.

        Args:
            summaries: (..., 1, d) with a [CLS], or else (..., 0, d).
            patches: (..., n, d).
        """
        if summaries.shape[-2]:
            return summaries.squeeze(-2)
        return self.read(patches)

    def read(self, tokens: Tensor) -> Tensor:
        """Read the tokens (..., n, d) of an image out: (..., d), the [CLS] token or the pooled tokens."""
        if self.pool is not None:
            return self.pool(self.post_norm(tokens))
        if self.sizes.readout == "mean":
            return self.post_norm(tokens)[..., self.sizes.summaries :, :].mean(dim=-2)
        return tokens[..., 0, :]

    def head(self, summary: Tensor) -> Tensor:
        """What `read` gives, (..., d), to the image's embedding, (..., e). A [CLS] token is normalised first."""
        return self.project(self.post_norm(summary) if self.sizes.readout == "class" else summary)

    def output(self, tokens: Tensor) -> Tensor:
        """The tokens (..., n, d) that the last layer leaves, to the image's embedding, (..., e)."""
        return self.head(self.read(tokens))

    def forward(self, pixels: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """(b, 3, h, w) to (b, e), not normalised: the tower as it is, or with `layers` in place of its own."""
        x = self.embed(pixels)
        blocks: Iterable[Block] = layers or self.layers
        for number, layer in enumerate(blocks, start=1):
            x = self.run_layer(number, x, summaries=self.sizes.summaries, layer=layer)
        return self.output(x)

    def projection_parameters(self) -> list[nn.Parameter]:
        """Return what maps the read-out into the joint space: the pooling, in a tower without a projection."""
        own = super().projection_parameters()
        return own or ([] if self.pool is None else list(self.pool.parameters()))


class AttentionPool(nn.Module):
    """A learned query attends to all tokens, and an MLP is added: (..., n, d) to (..., d).

    It is SigLIP's read-out (Zhai et al. 2023, arXiv 2303.15343) and the Perception Encoder's.
    """

    def __init__(self, tower: VisionSizes) -> None:
        super().__init__()
        width = tower.width
        self.heads = tower.pool_heads
        self.query = free_parameter(width, std=width**-0.5)
        self.in_proj, self.out_proj = Linear(width, 3 * width), Linear(width, width)
        self.norm = LayerNorm(width, eps=tower.norm_eps)
        self.mlp = Mlp(replace(tower, mlp_width=tower.pool_mlp_width, gated=False, inner_norms=False))

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.flatten(0, -3)
        weight, bias = self.in_proj.weight.to(x.dtype), self.in_proj.bias.to(x.dtype)
        width = x.shape[-1]
        q = F.linear(self.query.to(x.dtype), weight[:width], bias[:width]).view(1, self.heads, 1, -1)
        k, v = F.linear(x, weight[width:], bias[width:]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pooled = self.out_proj(attend(q.expand(len(x), -1, -1, -1), k, v).flatten(1))
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled.unflatten(0, tokens.shape[:-2])


class TextTower(Tower):
    """Tokens through the layers; the text's embedding is the projected [EOS], the first or the last token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = tower = sizes.text
        width = tower.width
        self.token_embedding = nn.Embedding.from_pretrained(
            free_parameter(tower.vocab_size, width, std=1), freeze=False
        )
        self.positions = free_parameter(tower.positions, width, std=0.01)
        self.embedding_norm = LayerNorm(width, eps=tower.norm_eps) if tower.embedding_norm else nn.Identity()
        self.layers = make_layers(tower)
        self.post_norm = LayerNorm(width, eps=tower.norm_eps) if tower.final_norm else nn.Identity()
        self._add_projection(tower, sizes.embed_dim, weight=tower.projection, bias=tower.projection_bias)

    def embed(self, ids: Tensor) -> Tensor:
        """(b, n) to (b, n, d), without positions: prompts may still move them."""
        return self.token_embedding(ids).to(self.dtype)

    def add_positions(self, x: Tensor) -> Tensor:
        """(b, n, d) to (b, n, d), as it enters the first layer."""
        if x.shape[1] > len(self.positions):
            raise UsageError(
                f"{x.shape[1]} text tokens, prompts included; this backbone takes {len(self.positions)}: "
                "truncate the captions (TextVideoModel.tokenize does)"
            )
        return self.embedding_norm(x + self.positions[: x.shape[1]].to(x.dtype))

    def attention(self, ids: Tensor, *, prompts: int = 0) -> dict[str, Any]:
        """Return how tokens attend to each other, as arguments of `Layer.forward`.

        Args:
            ids: (b, n).
            prompts: how many prompt tokens are inserted behind the marks; all tokens attend to them.
        """
        if self.sizes.causal:
            return {"causal": True}
        if self.sizes.pad_token_id is None:
            return {}
        keys = ids != self.sizes.pad_token_id
        marks = self.sizes.marks
        return {"keys": torch.cat([keys[:, :marks], keys.new_ones(len(ids), prompts), keys[:, marks:]], dim=1)}

    def output_index(self, ids: Tensor) -> Tensor:
        """(b, n) to (b,): the position of each text's token that is read."""
        if self.sizes.readout == "eos":
            return self.eos_index(ids)
        return ids.new_full((len(ids),), 0 if self.sizes.readout == "first" else ids.shape[1] - 1)

    def eos_index(self, ids: Tensor) -> Tensor:
        """(b, n) to (b,): the position of each text's first [EOS]."""
        found = ids == self.sizes.eos_token_id
        if not found.any(dim=1).all():
            row = int((~found.any(dim=1)).nonzero()[0])
            raise UsageError(
                f"text {row} holds no [EOS] (id {self.sizes.eos_token_id}), at which its embedding is read"
            )
        return found.int().argmax(dim=1)

    def head(self, token: Tensor) -> Tensor:
        """The token that is read, (..., d), to the text's embedding, (..., e)."""
        return self.project(self.post_norm(token))

    def forward(self, ids: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """(b, n) to (b, e), not normalised: the tower as it is, or with `layers` in place of its own."""
        x, attention = self.add_positions(self.embed(ids)), self.attention(ids)
        for layer in layers or self.layers:
            x = layer(x, **attention)
        return self.head(pick(x, self.output_index(ids)))


class Encoder(nn.Module):
    """Two towers in a joint space, as methods and models see them: the common ground of all backbones.

    Attributes:
        log_logit_scale: the logarithm of the logit scale, as backbones store it.
        logit_bias: what is added to the logits of the sigmoid loss; None for a backbone without.
    """

    dtype = torch.float32
    log_logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def add_logit_scale(self) -> None:
        """Create the parameters of the loss, after the towers: optimizers count parameters in this order."""
        self.log_logit_scale = free_parameter(std=0)
        self.logit_bias = free_parameter(std=0) if self.sizes.loss == "sigmoid" else None

    def train_logit_scale(self, trained: bool) -> None:
        """Set whether the parameters of the loss are trained."""
        for parameter in (self.log_logit_scale, self.logit_bias):
            if parameter is not None:
                parameter.requires_grad_(trained)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed token ids (b, n): (b, e), not normalised."""
        raise NotImplementedError

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed the frames (b, f, 3, h, w) of videos: (b, f, e), not normalised; (b, 1, e) by a video encoder."""
        raise NotImplementedError

    def compute_in(self, dtype: torch.dtype) -> None:
        """Sets the dtype of the activations and casts frozen weights to it. The logit scale stays unrounded."""
        unrounded = (self.log_logit_scale, self.logit_bias)
        for parameter in self.parameters():
            if not parameter.requires_grad and not any(parameter is one for one in unrounded):
                parameter.data = parameter.data.to(dtype)
        self.dtype = dtype


class CLIP(Encoder):
    """A backbone whose towers have layers that methods reach: CLIP and the families that followed it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.vision = VisionTower(sizes)
        self.text = TextTower(sizes)
        self.add_logit_scale()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.text(ids)

    def embed_frames(self, pixels: Tensor) -> Tensor:
        return self.vision(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

    def compute_in(self, dtype: torch.dtype) -> None:
        super().compute_in(dtype)
        self.vision.dtype = self.text.dtype = dtype


def pick(x: Tensor, index: Tensor) -> Tensor:
    """The token of each sequence (b, n, d) at `index` (b,): (b, d)."""
    return x.take_along_dim(index[:, None, None], dim=1).squeeze(1)
