"""CLIP4Clip's similarity calculators (Luo et al. 2021, arXiv 2104.08860; released code: ArrowLuo/CLIP4Clip).

Frames x_1 .. x_f and a text t are the projected outputs of the towers, not normalised; `p` are learned frame positions:

    seqLSTM      h = x + LSTM(x)
    seqTransf    h = x + Transformer(x + p)
                 s(t, v) = cos(t, mean_j normalise(h_j))
    tightTransf  [c, ...] = Transformer([t + p_t + T_t, x + p + T_x])
                 s(t, v) = w . act(W LN(c) + b)

The Transformer consists of CLIP's blocks: pre-norm, QuickGELU (also `act`), full attention.

As in the released code, seqLSTM has no positions (the code creates them, but does not add them), and dropout applies
only to tightTransf's sum of tokens and positions. Differences from the released code:
- Token types `T` are added, while the released code has them commented out. They start at zero, where both are equal.
- `w` has no bias. A bias would shift all scores equally, which changes neither the loss nor a ranking.
- LayerNorm's epsilon is 1e-5, as in CLIP's pretraining, instead of 1e-12.
- Layers and positions without pretrained weights are initialised as in CLIP. The released code mostly uses a standard
  deviation of 0.02, which here applies to `W` and `w` only.
- There are positions for `num_frames` frames only, instead of 77.

Shapes: `t` texts, `v` or `b` videos, `f` frames, `e` the joint space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.layers import Layer, LayerNorm, Layers, Linear, free_parameter, make_layers, quick_gelu
from vop.backbones.sizes import Sizes, TowerSizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.heads.base import Head, PairwiseHead
from vop.utils.checks import check_frames, check_whole

HEAD_WIDTH = 64  # width of an attention head in every CLIP model of OpenAI
POSITION_STD = 0.01  # as for CLIP's text positions
POOLER_STD = 0.02  # the released code's `initializer_range`
TIGHT_DROPOUT = 0.1  # the released code's `hidden_dropout_prob`


class SeqLstm(Head):
    """Adds the outputs of a one-layer, forward LSTM to the frames. The hidden size is `e`."""

    def __init__(self, sizes: Sizes, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        self.lstm = nn.LSTM(sizes.embed_dim, sizes.embed_dim, batch_first=True)

    def pool(self, frames: Tensor) -> Tensor:
        frames = frames.float()
        return super().pool(frames + self.lstm(frames)[0])


class SeqTransf(Head):
    """Adds the outputs of a Transformer over frames and positions to the frames.

    Settings:
        layers: the number of Transformer layers (CLIP4Clip: 4).
    """

    def __init__(self, sizes: Sizes, *, layers: int = 4, num_frames: int = 12) -> None:
        super().__init__(sizes, num_frames=num_frames)
        self.positions = free_parameter(num_frames, sizes.embed_dim, std=POSITION_STD)
        self.layers = make_joint_layers(sizes, layers)

    def start_from(self, clip: CLIP) -> None:
        """Copy the first layers and positions of the text tower, if it is as wide as the joint space."""
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
    """Scores a text and a video with a Transformer over the text and the frames. The logit is read at the text's token.

    Settings:
        layers: the number of Transformer layers (CLIP4Clip: 4).
    """

    scaled = False

    def __init__(self, sizes: Sizes, *, layers: int = 4, num_frames: int = 12) -> None:
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
        """Copy the first layers and positions of the text tower, if it is as wide as the joint space."""
        copy_layers(self.layers, clip)
        copy_positions(self.text_position, clip)
        copy_positions(self.positions, clip, first=1)

    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Return the logits (t, v), float32, for raw text (t, e) and frame embeddings (v, f, e).

        For each of the t * v pairs, memory holds every layer's activations of 1 + f tokens: pass blocks that fit.
        """
        check_frames(frames.shape[1], len(self.positions))
        x = self.dropout(self.pair_tokens(texts.float(), frames.float()))
        for layer in self.layers[:-1]:
            x = layer(x)
        text = self.layers[-1](x, read=1)[:, 0]
        pooled = quick_gelu(self.pooler(self.pooler_norm(text)))
        return self.similarity(pooled).view(len(texts), len(frames))

    def pair_floats(self, frames: Tensor) -> int:
        per_token = 16 * frames.shape[2]  # in a layer: tokens, q, k, v, and the MLP of four times the width
        return (1 + frames.shape[1]) * per_token

    def pair_tokens(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Return the sequences of all pairs of (t, e) and (v, f, e): (t * v, 1 + f, e), in text-major order."""
        texts = texts + self.text_position + self.types[0]
        frames = frames + self.positions + self.types[1]
        t, v = len(texts), len(frames)
        pairs = [texts[:, None, None].expand(t, v, -1, -1), frames.expand(t, -1, -1, -1)]
        return torch.cat(pairs, dim=2).flatten(0, 1)

    def frame_tables(self) -> list[tuple[nn.Parameter, int]]:
        return [(self.positions, 0)]


def make_joint_layers(sizes: Sizes, layers: int) -> Layers:
    """Return CLIP blocks for tokens in the joint space, initialised like CLIP's towers before pretraining."""
    check_whole("layers", layers, at_least=1, at_most=100)
    width = sizes.embed_dim
    heads = max(1, width // HEAD_WIDTH)
    if width % heads:
        raise UsageError(
            f"the width of this backbone's joint space, {width}, is not a multiple of {heads} attention heads: "
            "use a head without a Transformer (meanP, seqLSTM, x-pool)"
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
    """Initialise a block like OpenAI's CLIP: the deeper the network, the smaller the std of output projections."""
    attention, mlp = layer.attention, layer.mlp
    into_stream = (2 * width * depth) ** -0.5
    nn.init.normal_(attention.in_proj.weight, std=width**-0.5)
    nn.init.normal_(attention.out_proj.weight, std=into_stream)
    nn.init.normal_(mlp.fc1.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(mlp.fc2.weight, std=into_stream)
    for linear in (attention.in_proj, attention.out_proj, mlp.fc1, mlp.fc2):
        nn.init.zeros_(linear.bias)


def copy_layers(layers: Iterable[Layer], clip: CLIP) -> None:
    """Copy the text tower's first layers into `layers`, if the widths are equal. Further layers stay unchanged."""
    tower = clip.sizes.text
    alike = tower.norm_first and not (tower.gated or tower.inner_norms or tower.layer_scale)
    if not (tower.layers and alike and tower.mlp_width == 4 * tower.width == 4 * clip.sizes.embed_dim):
        return
    for layer, pretrained in zip(layers, clip.text.layers, strict=False):
        layer.load_state_dict(pretrained.state_dict())


def copy_positions(table: nn.Parameter, clip: CLIP, *, first: int = 0) -> None:
    """Copy the text tower's positions from `first` on into `table` (n, e), if the widths are equal."""
    if not clip.sizes.text.layers or clip.sizes.text.width != table.shape[1]:
        return
    rows = clip.text.positions.detach()[first : first + len(table)]
    table.data[: len(rows)] = rows
