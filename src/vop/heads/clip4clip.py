"""CLIP4Clip's similarity calculators (Luo et al. 2021, arXiv 2104.08860; released code: ArrowLuo/CLIP4Clip).

Frames x_1 .. x_f and a text t, both as the towers project them, not normalised; `p` are learned frame positions:

    seqLSTM      h = x + LSTM(x)
    seqTransf    h = x + Transformer(x + p)
                 s(t, v) = cos(t, mean_j normalise(h_j))
    tightTransf  [c, ...] = Transformer([t + p_t + T_t, x + p + T_x])
                 s(t, v) = w . act(W LN(c) + b)

The Transformer is of CLIP's blocks: pre-norm, QuickGELU (`act`, too), every token sees every other.

As in the released code: seqLSTM has no positions (they are made there, and never added); tightTransf's sum of tokens
and positions has dropout, and nothing else has. Unlike it:
- Token types `T` are added; there they are commented out. They start at zero, where both are the same.
- `w` has no bias: it would add the same to every score, which neither the loss nor a ranking sees.
- LayerNorm's epsilon is CLIP's, 1e-5, with which the layers were pretrained; there 1e-12.
- Layers and positions that do not come from CLIP start as CLIP's did; there mostly with a standard deviation of 0.02,
  as `W` and `w` do here, too.
- There are positions for `num_frames` frames, not for 77 of which the first are used.

Shapes: `t` texts, `v` or `b` videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.clip.config import ClipSizes, TowerSizes
from vop.backbones.clip.layers import Layer, LayerNorm, Linear, free_parameter, quick_gelu
from vop.backbones.clip.model import CLIP, Layers, make_layers
from vop.errors import UsageError
from vop.heads.base import Head, PairwiseHead
from vop.utils.checks import check_frames, check_whole

HEAD_WIDTH = 64  # of an attention head, as in every CLIP of OpenAI's
POSITION_STD = 0.01  # of CLIP's text positions
POOLER_STD = 0.02  # the released code's `initializer_range`
TIGHT_DROPOUT = 0.1  # the released code's `hidden_dropout_prob`


class SeqLstm(Head):
    """A one-layer LSTM over the frames, first to last, hidden size `e`, added to them."""

    def __init__(self, sizes: ClipSizes, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        self.lstm = nn.LSTM(sizes.embed_dim, sizes.embed_dim, batch_first=True)

    def pool(self, frames: Tensor) -> Tensor:
        frames = frames.float()
        return super().pool(frames + self.lstm(frames)[0])


class SeqTransf(Head):
    """A Transformer over the frames with their positions, added to them.

    Settings:
        layers: of the Transformer (CLIP4Clip: 4).
    """

    def __init__(self, sizes: ClipSizes, *, layers: int = 4, num_frames: int = 12) -> None:
        super().__init__(sizes, num_frames=num_frames)
        self.positions = free_parameter(num_frames, sizes.embed_dim, std=POSITION_STD)
        self.layers = make_joint_layers(sizes, layers)

    def start_from(self, clip: CLIP) -> None:
        """The first layers and positions of the text tower, where it is as wide as the joint space."""
        copy_layers(self.layers, clip)
        copy_positions(self.positions, clip)

    def pool(self, frames: Tensor) -> Tensor:
        frames = frames.float()
        check_frames(frames.shape[1], len(self.positions))
        x = frames + self.positions
        for layer in self.layers:
            x = layer(x)
        return super().pool(frames + x)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        return [(self.positions, 0)]


class TightTransf(PairwiseHead):
    """A Transformer over the text and the frames. Its output at the text's token becomes the logit.

    Settings:
        layers: of the Transformer (CLIP4Clip: 4).
    """

    scaled = False

    def __init__(self, sizes: ClipSizes, *, layers: int = 4, num_frames: int = 12) -> None:
        super().__init__(sizes, num_frames=num_frames)
        width = sizes.embed_dim
        self.text_position = free_parameter(1, width, std=POSITION_STD)
        self.positions = free_parameter(num_frames, width, std=POSITION_STD)
        self.types = free_parameter(2, width, std=0)  # text, frames
        self.dropout = nn.Dropout(TIGHT_DROPOUT)
        self.layers = make_joint_layers(sizes, layers)
        self.pooler_norm = LayerNorm(width, eps=sizes.vision.norm_eps)
        self.pooler = Linear(width, width)
        self.similarity = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.pooler.weight, std=POOLER_STD)
        nn.init.zeros_(self.pooler.bias)
        nn.init.normal_(self.similarity.weight, std=POOLER_STD)

    def start_from(self, clip: CLIP) -> None:
        """The first layers and positions of the text tower, where it is as wide as the joint space."""
        copy_layers(self.layers, clip)
        copy_positions(self.text_position, clip)
        copy_positions(self.positions, clip, first=1)

    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Raw text (t, e) and frame embeddings (v, f, e) to logits (t, v), float32.

        Holds (1 + f) tokens of every layer's activations for each of the t * v pairs: pass blocks that fit.
        """
        check_frames(frames.shape[1], len(self.positions))
        x = self.dropout(self.pair_tokens(texts.float(), frames.float()))
        for layer in self.layers[:-1]:
            x = layer(x)
        text = self.layers[-1](x, read=1)[:, 0]
        pooled = quick_gelu(self.pooler(self.pooler_norm(text)))
        return self.similarity(pooled).view(len(texts), len(frames))

    def pair_floats(self, frames: Tensor) -> int:
        per_token = 16 * frames.shape[2]  # in a layer: tokens, q, k, v, and the MLP, which is four times as wide
        return (1 + frames.shape[1]) * per_token

    def pair_tokens(self, texts: Tensor, frames: Tensor) -> Tensor:
        """(t, e) and (v, f, e) to every pair's sequence, (t * v, 1 + f, e), the videos running faster."""
        texts = texts + self.text_position + self.types[0]
        frames = frames + self.positions + self.types[1]
        t, v = len(texts), len(frames)
        pairs = [texts[:, None, None].expand(t, v, -1, -1), frames.expand(t, -1, -1, -1)]
        return torch.cat(pairs, dim=2).flatten(0, 1)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        return [(self.positions, 0)]


def make_joint_layers(sizes: ClipSizes, layers: int) -> Layers:
    """CLIP's blocks for tokens of the joint space, initialised as CLIP's towers were before their training."""
    check_whole("layers", layers, at_least=1, at_most=100)
    width = sizes.embed_dim
    heads = max(1, width // HEAD_WIDTH)
    if width % heads:
        raise UsageError(
            f"this backbone's joint space is {width} wide, which its {heads} attention heads do not divide: "
            "take a head without a Transformer (meanP, seqLSTM, x-pool)"
        )
    shape = TowerSizes(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=4 * width,
        activation="quick_gelu",
        norm_eps=sizes.vision.norm_eps,
    )
    made = make_layers(shape)
    for layer in made:
        initialise(layer, width=width, depth=layers)
    return made


def initialise(layer: Layer, *, width: int, depth: int) -> None:
    """Initialises a block as OpenAI's CLIP does: output projections get a smaller deviation in deeper networks."""
    attention, mlp = layer.attention, layer.mlp
    into_stream = (2 * width * depth) ** -0.5
    nn.init.normal_(attention.in_proj.weight, std=width**-0.5)
    nn.init.normal_(attention.out_proj.weight, std=into_stream)
    nn.init.normal_(mlp.fc1.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(mlp.fc2.weight, std=into_stream)
    for linear in (attention.in_proj, attention.out_proj, mlp.fc1, mlp.fc2):
        nn.init.zeros_(linear.bias)


def copy_layers(layers: Iterable[Layer], clip: CLIP) -> None:
    """Copies the text tower's first layers into `layers`, if the widths are equal. Layers that it lacks stay."""
    tower = clip.sizes.text
    if (tower.width, tower.mlp_width) != (clip.sizes.embed_dim, 4 * clip.sizes.embed_dim):
        return
    for layer, pretrained in zip(layers, clip.text.layers, strict=False):
        layer.load_state_dict(pretrained.state_dict())


def copy_positions(table: nn.Parameter, clip: CLIP, *, first: int = 0) -> None:
    """Copies the text tower's positions from `first` on into `table` (n, e), if the widths are equal."""
    if clip.sizes.text.width != table.shape[1]:
        return
    rows = clip.text.positions.detach()[first : first + len(table)]
    table.data[: len(rows)] = rows
