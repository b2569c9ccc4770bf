"""The two towers of a backbone, each split into embed -> layers -> head, so that methods can change the layers.

All families with layers use these towers. Their differences (such as a [CLS] token, causal attention, and how the
output is read) are in `Sizes`.

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

from vop.backbones.embedding_config import TokenMerging
from vop.backbones.layers import ACTIVATIONS, Conv2d, LayerNorm, Linear, Mlp, attend, free_parameter, make_layers
from vop.backbones.merging import Merger
from vop.backbones.rope import Angles, patch_angles
from vop.backbones.sizes import Sizes, Stem, TowerSizes, VisionSizes
from vop.errors import UsageError
from vop.utils.text import count

Block = Callable[..., Tensor]  # takes the arguments of `Layer.forward`


class Tower(nn.Module):
    """The base class of both towers."""

    dtype = torch.float32
    projection: nn.Parameter | None
    projection_bias: nn.Parameter | None

    def _add_projection(self, tower: TowerSizes, embed_dim: int, *, weight: bool, bias: bool) -> None:
        self.projection = free_parameter(tower.width, embed_dim, std=tower.width**-0.5) if weight else None
        self.projection_bias = free_parameter(embed_dim, std=0) if bias else None

    def project(self, x: Tensor) -> Tensor:
        """Project (..., d) to the joint space, (..., e)."""
        if self.projection is not None:
            x = x @ self.projection.to(x.dtype)
        return x if self.projection_bias is None else x + self.projection_bias.to(x.dtype)

    def projection_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that map the output token to the joint space."""
        return [parameter for parameter in (self.projection, self.projection_bias) if parameter is not None]


class VisionTower(Tower):
    """Embeds images: patches, and in some families a [CLS] token, pass through the layers.

    The image's embedding is the projected [CLS], an attention pooling of all tokens, or the mean of the patches.

    Attributes:
        merging: how similar patches are merged in eval mode; None for not at all. `TextVideoModel.merge_tokens` checks
            and sets it.
    """

    merging: TokenMerging | None = None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = tower = sizes.vision
        width = tower.width
        std = width**-0.5
        self.patch_embedding = (
            Conv2d(3, width, tower.patch_size, stride=tower.patch_size, bias=tower.patch_bias)
            if tower.stem is None
            else ConvStem(tower.stem, activation=tower.activation)
        )
        self.class_embedding = free_parameter(width, std=std) if tower.class_token else None
        self.positions = free_parameter(tower.summaries + tower.patches, width, std=std)
        self.pre_norm = LayerNorm(width, eps=tower.norm_eps) if tower.pre_norm else nn.Identity()
        self.layers = make_layers(tower)
        self.post_norm = LayerNorm(width, eps=tower.norm_eps)
        self.pool = AttentionPool(tower) if tower.readout == "attention" else None
        self._add_projection(tower, sizes.embed_dim, weight=tower.projection, bias=tower.projection_bias)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels (b, 3, h, w) as tokens (b, [1 +] patches, d) with positions, before `pre_norm`."""
        patches = self.patch_embedding(pixels.to(self.dtype)).flatten(2).transpose(1, 2)
        if patches.shape[1] != self.sizes.patches:
            raise UsageError(
                f"images of {pixels.shape[-2]} x {pixels.shape[-1]} pixels make {count('patch', patches.shape[1])}; "
                f"this backbone takes {self.sizes.patches}: resize to its image_size"
            )
        if self.class_embedding is not None:
            cls = self.class_embedding.to(self.dtype).expand(len(pixels), 1, -1)
            patches = torch.cat([cls, patches], dim=1)
        # The convolution leaves each channel together; sums would keep that order, and every layer would copy them.
        return patches.contiguous() + self.positions.to(self.dtype)

    def run_layer(
        self,
        number: int,
        tokens: Tensor,
        *,
        summaries: int,
        frames: int = 1,
        layer: Block | None = None,
        merger: Merger | None = None,
    ) -> Tensor:
        """Apply layer `number` (from 1) to (b, n, d), with `pre_norm` before the first layer.

        In the last layer of a tower that reads [CLS] tokens, only the first `summaries` tokens are computed, because
        the others are not used.

        Args:
            summaries: the number of [CLS] tokens at the beginning.
            frames: the number of frames whose patches are the last tokens.
            layer: replaces the tower's own layer.
            merger: merges the patches.
        """
        tower = self.sizes
        read = summaries if number == len(self.layers) and tower.readout == "class" else None
        angles = self._angles(tokens, frames=frames)
        layer = layer or self.layers[number - 1]
        return layer(self.pre_norm(tokens) if number == 1 else tokens, read=read, angles=angles, merger=merger)

    def run_layer_by_frame(
        self, number: int, shared: Tensor, frames: Tensor, *, layer: Block | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply layer `number` (from 1) to tokens that all frames of a video share, and to each frame's own tokens.

        The shared tokens attend to all tokens, those of a frame to the shared ones and to the frame's own. `pre_norm`
        is not applied. In the last layer only the shared tokens are computed.

        Args:
            shared: (b, s, d).
            frames: (b, f, n, d), the patches last.
            layer: replaces the tower's own layer.

        Returns:
            Both, at the layer's output. The frames of the last layer are empty, (b, f, 0, d).
        """
        b, f, _, d = frames.shape
        s, is_last = shared.shape[1], number == len(self.layers)
        angles = self._angles(frames, frames=1)
        tokens = torch.cat([shared, frames.reshape(b, -1, d)], dim=1)
        layer = layer or self.layers[number - 1]
        tokens = layer(tokens, read=s if is_last else None, angles=angles, shared=s, frames=f)
        shared, rest = tokens.split([s, tokens.shape[1] - s], dim=1)
        return shared, rest.reshape(b, f, rest.shape[1] // f, d)

    def _angles(self, tokens: Tensor, *, frames: int) -> Angles | None:
        """Return the rotary angles of tokens (..., n, d), of which the last are the patches of `frames` frames."""
        tower = self.sizes
        if tower.rope is None:
            return None
        return patch_angles(
            tower.rope,
            grid=tower.grid,
            head_width=tower.width // tower.heads,
            before=tokens.shape[-2] - frames * tower.grid**2,
            frames=frames,
            device=tokens.device,
            dtype=tokens.dtype,
        )

    def summarise(self, summaries: Tensor, patches: Tensor) -> Tensor:
        """Return the summary of each frame at the input of a layer, (..., d): its [CLS] token, or its pooled tokens.

        Args:
            summaries: (..., 1, d) with a [CLS], or else (..., 0, d).
            patches: (..., n, d).
        """
        if summaries.shape[-2]:
            return summaries.squeeze(-2)
        return self.read(patches)

    def merger(self, images: int) -> Merger | None:
        """Return what merges the patches of `images` images in one pass; None if the tower does not merge."""
        if self.merging is None:
            return None
        if self.training:
            raise UsageError(
                "token merging is only for evaluation and indexing: call eval(), or leave out merge_tokens"
            )
        return Merger(self.merging.schedule(self.sizes), self.sizes, images=images, device=self.positions.device)

    def read(self, tokens: Tensor, merger: Merger | None = None) -> Tensor:
        """Return the [CLS] token or the pooled tokens, (..., d), of an image's tokens (..., n, d).

        If patches were merged, the tokens are (b, n, d).
        """
        if self.pool is not None:
            return self.pool(self.post_norm(tokens), key_bias=None if merger is None else merger.key_bias(tokens))
        if self.sizes.readout == "mean":
            patches = tokens[..., self.sizes.summaries if merger is None else -merger.patches :, :]
            patches = patches if self.sizes.mean_norm else self.post_norm(patches)
            return patches.mean(dim=-2) if merger is None else merger.mean(patches)
        return tokens[..., 0, :]

    def head(self, summary: Tensor) -> Tensor:
        """Project the result of `read`, (..., d), to the image's embedding, (..., e).

        A [CLS], and in some families a mean, is normalised first.
        """
        normalised = self.sizes.readout != "class" and not self.sizes.mean_norm
        return self.project(summary if normalised else self.post_norm(summary))

    def output(self, tokens: Tensor) -> Tensor:
        """Return the image's embedding, (..., e), from the output (..., n, d) of the last layer."""
        return self.head(self.read(tokens))

    def forward(self, pixels: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """Embed pixels (b, 3, h, w): (b, e), not normalised. `layers` replace the tower's own."""
        x, summaries = self.embed(pixels), self.sizes.summaries
        merger = self.merger(len(x))
        joined = 1 if self.merging is None else self.merging.across_frames
        blocks: Iterable[Block] = layers or self.layers
        for number, layer in enumerate(blocks, start=1):
            if merger is not None and joined > 1 and number == len(self.layers) // 2 + 1:
                merger.join(joined)
                cls, patches = x[:, :summaries], x[:, summaries:]
                x = torch.cat([part.reshape(len(x) // joined, -1, x.shape[2]) for part in (cls, patches)], dim=1)
                summaries *= joined
            x = self.run_layer(number, x, summaries=summaries, layer=layer, merger=merger)
        if joined > 1:  # only [CLS] tokens, one for each frame
            x = x.reshape(len(pixels), 1, -1)
        return self.head(self.read(x, merger))

    def projection_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that map tokens to the joint space: the projection, or else the pooling."""
        own = super().projection_parameters()
        return own or ([] if self.pool is None else list(self.pool.parameters()))


class ConvStem(nn.ModuleList):
    """Embeds pixels (b, 3, h, w) by several convolutions without overlap: (b, d, rows, columns).

    The batch normalisations that MobileCLIP (Vasu et al. 2023, arXiv 2311.17049) trained behind all convolutions but
    the last are part of their weights here, so their statistics stay as they are.
    """

    def __init__(self, stem: Stem, *, activation: str) -> None:
        inputs = (3, *stem.widths[:-1])
        super().__init__(
            Conv2d(channels, width, stride, stride=stride)
            for channels, width, stride in zip(inputs, stem.widths, stem.strides, strict=True)
        )
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self):
            x = convolution(x if number == 0 else self.activation(x))
        return x


class AttentionPool(nn.Module):
    """Pools tokens (..., n, d) to (..., d): a learned query attends to all tokens, and an MLP is added.

    SigLIP (Zhai et al. 2023, arXiv 2303.15343) and the Perception Encoder use it.
    """

    def __init__(self, tower: VisionSizes) -> None:
        super().__init__()
        width = tower.width
        self.heads = tower.pool_heads
        self.query = free_parameter(width, std=width**-0.5)
        self.in_proj, self.out_proj = Linear(width, 3 * width), Linear(width, width)
        self.norm = LayerNorm(width, eps=tower.norm_eps)
        self.mlp = Mlp(replace(tower, mlp_width=tower.pool_mlp_width, gated=False, inner_norms=False))

    def forward(self, tokens: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
        """Pool the tokens. `key_bias`, (b, n) for all b sequences, is added to the scores of each token."""
        x = tokens.flatten(0, -3)
        weight, bias = self.in_proj.weight.to(x.dtype), self.in_proj.bias.to(x.dtype)
        width = x.shape[-1]
        q = F.linear(self.query.to(x.dtype), weight[:width], bias[:width]).view(1, self.heads, 1, -1)
        k, v = F.linear(x, weight[width:], bias[width:]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pooled = self.out_proj(attend(q.expand(len(x), -1, -1, -1), k, v, bias=key_bias).flatten(1))
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled.unflatten(0, tokens.shape[:-2])


class TextTower(Tower):
    """Embeds texts: tokens pass through the layers, and [EOS], the first or the last token is projected."""

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
        """Embed token ids (b, n): (b, n, d), without positions, because inserted prompts change them."""
        return self.token_embedding(ids).to(self.dtype)

    def add_positions(self, x: Tensor) -> Tensor:
        """Add positions to embedded tokens (b, n, d), and normalise them if the tower does."""
        if x.shape[1] > len(self.positions):
            raise UsageError(
                f"a text has {x.shape[1]} tokens, including prompts; this backbone takes {len(self.positions)}: "
                "truncate the captions, as TextVideoModel.tokenize does"
            )
        return self.embedding_norm(x + self.positions[: x.shape[1]].to(x.dtype))

    def attention(self, ids: Tensor, *, prompts: int = 0, suffix: int = 0) -> dict[str, Any]:
        """Return how tokens attend to each other, as arguments of `Layer.forward`.

        Args:
            ids: (b, n).
            prompts: the number of prompt tokens after the marks. All tokens attend to them.
            suffix: the number of prompt tokens after all others. All tokens attend to them, unless causal.
        """
        if self.sizes.causal:
            return {"causal": True}
        if self.sizes.pad_token_id is None:
            return {}
        keys = ids != self.sizes.pad_token_id
        marks = self.sizes.marks
        before, after = keys.new_ones(len(ids), prompts), keys.new_ones(len(ids), suffix)
        return {"keys": torch.cat([keys[:, :marks], before, keys[:, marks:], after], dim=1)}

    def output_index(self, ids: Tensor) -> Tensor:
        """Return the position of the output token in each text (b, n): (b,)."""
        if self.sizes.readout == "eos":
            return self.eos_index(ids)
        return ids.new_full((len(ids),), 0 if self.sizes.readout == "first" else ids.shape[1] - 1)

    def eos_index(self, ids: Tensor) -> Tensor:
        """Return the position of the first [EOS] in each text (b, n): (b,)."""
        found = ids == self.sizes.eos_token_id
        if not found.any(dim=1).all():
            row = int((~found.any(dim=1)).nonzero()[0])
            raise UsageError(
                f"text {row} has no [EOS] (id {self.sizes.eos_token_id}); its embedding is read at this token"
            )
        return found.int().argmax(dim=1)

    def head(self, token: Tensor) -> Tensor:
        """Project the output token (..., d) to the text's embedding (..., e)."""
        return self.project(self.post_norm(token))

    def forward(self, ids: Tensor, layers: Sequence[Block] | None = None) -> Tensor:
        """Embed token ids (b, n): (b, e), not normalised. `layers` replace the tower's own."""
        x, attention = self.add_positions(self.embed(ids)), self.attention(ids)
        for layer in layers or self.layers:
            x = layer(x, **attention)
        return self.head(pick(x, self.output_index(ids)))


class Encoder(nn.Module):
    """The base class of all backbones: two towers with a joint space.

    Attributes:
        log_logit_scale: the logarithm of the logit scale.
        logit_bias: the bias of the logits in the sigmoid loss; None for other losses.
    """

    dtype = torch.float32
    log_logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def add_logit_scale(self) -> None:
        """Create the parameters of the loss. Call this after creating the towers, to keep the order for optimizers."""
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
        """Embed the frames (b, f, 3, h, w) of videos: (b, f, e), not normalised. A video encoder returns (b, 1, e)."""
        raise NotImplementedError

    def compute_in(self, dtype: torch.dtype) -> None:
        """Set the dtype of the activations and cast frozen weights to it. The logit scale is not rounded."""
        unrounded = (self.log_logit_scale, self.logit_bias)
        for parameter in self.parameters():
            if not parameter.requires_grad and not any(parameter is one for one in unrounded):
                parameter.data = parameter.data.to(dtype)
        self.dtype = dtype


class CLIP(Encoder):
    """A backbone whose layers methods can change: CLIP and related families.

    Attributes:
        compiled: whether its layers are compiled (`vop.backbones.compiling`).
    """

    compiled = False

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
    """Return the token of each sequence (b, n, d) at `index` (b,): (b, d)."""
    return x.take_along_dim(index[:, None, None], dim=1).squeeze(1)
