"""The transformer layer of every backbone, with fused attention.

Shapes: `b` sequences, `n` tokens, `d` width, `h` heads.

`Linear` and `LayerNorm` cast weights to the dtype of the activations. So frozen weights can be bf16 and trained weights
fp32, without autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vop.backbones.merging import Merger
from vop.backbones.rope import Angles, rotate
from vop.backbones.sizes import TowerSizes
from vop.errors import unknown_name


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Conv2d(nn.Conv2d):
    """A convolution without padding."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, stride=self.stride)


class LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class PReLU(nn.PReLU):
    """Computes in the dtype of its weight, and returns the dtype of the activations."""

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x.to(self.weight.dtype), self.weight).to(x.dtype)


class QuickGelu(torch.autograd.Function):
    """`silu(1.702 x) / 1.702`. The factors cancel in the gradient, so it takes one pass instead of autograd's three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scaled = x * 1.702
        ctx.save_for_backward(scaled)
        return F.silu(scaled).mul_(1 / 1.702)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(gradient, *ctx.saved_tensors)


def quick_gelu(x: Tensor) -> Tensor:
    """Return OpenAI's approximation of GELU, `x * sigmoid(1.702 x)`."""
    return QuickGelu.apply(x)  # type: ignore[no-untyped-call]  # PyTorch has no types for it


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, keys: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Compute attention over (b, h, n, d/h), usually with PyTorch's fused kernel.

    With gradients in bf16 on a CPU, this function computes the matrix itself for up to 1,024 tokens (more would take
    too much memory). There the fused kernel takes 2.6 times as long for the 58 tokens of a frame, and 1.3 times as long
    for the 608 tokens of VoP^F's upper layers (bench/attention.py).

    Args:
        keys: bool (b, n), the tokens that can be attended to; by default all.
        bias: (b, n), added to the scores of each key. Not together with `causal` or `keys`.
    """
    mask = None if keys is None else keys[:, None, None, :]
    if bias is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, None, None, :])
    written_out = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and k.shape[2] <= 1024
    if not written_out:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def attend_by_frame(
    q: Tensor, k: Tensor, v: Tensor, *, shared: int, frames: int, angles: Angles | None = None, read: int | None = None
) -> Tensor:
    """Compute attention over the tokens of a video, (b, h, shared + frames * m, d/h), frame by frame.

    The first `shared` tokens attend to all tokens. The m tokens of a frame attend to the shared ones and to those of
    their own frame.

    Args:
        angles: rotary positions of the tokens of a frame.
        read: compute only the first `read` outputs, at most `shared`.
    """
    (shared_q, q), (shared_k, k), (shared_v, v) = (
        (x[:, :, :shared], x[:, :, shared:].unflatten(2, (frames, -1)).transpose(1, 2)) for x in (q, k, v)
    )  # the frames' (b, f, h, m, d/h)
    if angles is not None:
        q, k = rotate(torch.stack([q, k]), angles)
    every_k, every_v = (
        torch.cat([first, x.transpose(1, 2).flatten(2, 3)], dim=2) for first, x in ((shared_k, k), (shared_v, v))
    )
    first = attend(shared_q[:, :, :read], every_k, every_v)
    if read is not None:
        return first
    k, v = (
        torch.cat([first[:, None].expand(-1, frames, -1, -1, -1), x], dim=3).flatten(0, 1)
        for first, x in ((shared_k, k), (shared_v, v))
    )
    rest = attend(q.flatten(0, 1), k, v).unflatten(0, (-1, frames)).transpose(1, 2).flatten(2, 3)
    return torch.cat([first, rest], dim=2)


class Attention(nn.Module):
    def __init__(self, tower: TowerSizes) -> None:
        super().__init__()
        self.heads = tower.heads
        self.in_proj = Linear(tower.width, 3 * tower.width)
        self.norm = LayerNorm(tower.width, eps=tower.norm_eps) if tower.inner_norms else None
        self.out_proj = Linear(tower.width, tower.width)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        keys: Tensor | None = None,
        angles: Angles | None = None,
        read: int | None = None,
        bias: Tensor | None = None,
        beside_in_proj: Callable[[Tensor], Tensor] | None = None,
        shared: int = 0,
        frames: int = 1,
        across: int = 1,
        fuse: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the outputs (b, n, d) or (b, read, d), and the keys (b, h, n, d/h)."""
        projected = self.in_proj(x)
        if beside_in_proj is not None:
            projected = projected + beside_in_proj(x)
        # Dividing (b, n, 3h, d/h) costs one copy in the gradient; moving q, k and v to the front would cost two.
        heads = projected.unflatten(-1, (3 * self.heads, -1))
        if angles is None or shared:
            parts = heads.chunk(3, dim=2)
        else:
            turned, v = heads.split([2 * self.heads, self.heads], dim=2)
            parts = (*rotate(turned, (angles[0][:, None], angles[1][:, None])).chunk(2, dim=2), v)
        q, k, v = (part.transpose(1, 2) for part in parts)  # each (b, h, n, d/h)
        if shared:
            x = attend_by_frame(q, k, v, shared=shared, frames=frames, angles=angles, read=read)
        else:
            x = attend(q[:, :, :read], k, v, causal=causal, keys=keys, bias=bias)
        x = self._project(x)
        if fuse is not None:
            first, every_k, every_v = (
                part.unflatten(0, (-1, across)).transpose(1, 2).flatten(2, 3) for part in (q[:, :, :1], k, v)
            )  # (b / across, h, across * n, d/h), one query of each sequence
            wide = self._project(attend(first, every_k, every_v)).reshape(len(x), 1, -1)
            x = torch.cat([fuse(x[:, :1]) + wide, x[:, 1:]], dim=1)
        return x, k

    def _project(self, x: Tensor) -> Tensor:
        """Turn the heads' outputs (b, h, n, d/h) into those of the attention (b, n, d)."""
        x = x.transpose(1, 2).flatten(2)
        return self.out_proj(x if self.norm is None else self.norm(x))


class Mlp(nn.Module):
    """`fc2(activation(fc1(x)))`. If gated, `fc1` has twice the width, and one activated half multiplies the other."""

    def __init__(self, tower: TowerSizes) -> None:
        super().__init__()
        if tower.activation not in ACTIVATIONS:
            raise unknown_name("activation", tower.activation, ACTIVATIONS)
        self.activation, self.gated = ACTIVATIONS[tower.activation], tower.gated
        self.fc1 = Linear(tower.width, tower.mlp_width * (2 if tower.gated else 1))
        self.norm = LayerNorm(tower.mlp_width, eps=tower.norm_eps) if tower.inner_norms else None
        self.fc2 = Linear(tower.mlp_width, tower.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            x = self.activation(gate) * value
        else:
            x = self.activation(x)
        return self.fc2(x if self.norm is None else self.norm(x))


class Layer(nn.Module):
    """One block of a tower, (b, n, d) to (b, n, d): attention, then an MLP, each added to its input.

    norm_first      x = x + attention(norm(x)),    x = x + mlp(norm(x))
    otherwise       x = norm(x + attention(x)),    x = norm(x + mlp(x))

    Attributes:
        recomputed: whether training keeps only the input, and computes the rest again for the gradient (activation
            checkpointing: Chen et al. 2016, arXiv 1604.06174). See `recompute_layers`.
    """

    recomputed = False

    def __init__(self, tower: TowerSizes) -> None:
        super().__init__()
        self.norm_first = tower.norm_first
        self.attention_norm = LayerNorm(tower.width, eps=tower.norm_eps)
        self.attention = Attention(tower)
        self.attention_scale = free_parameter(tower.width, std=0) if tower.layer_scale else None
        self.mlp_norm = LayerNorm(tower.width, eps=tower.norm_eps)
        self.mlp = Mlp(tower)
        self.mlp_scale = free_parameter(tower.width, std=0) if tower.layer_scale else None

    def __call__(self, *tokens: Any, **arguments: Any) -> Tensor:
        """Apply the block, as `forward` describes it."""
        apply = super().__call__
        stateful = arguments.get("merger") is not None  # it counts the tokens that are left
        if not self.recomputed or stateful or not torch.is_grad_enabled():
            return cast(Tensor, apply(*tokens, **arguments))
        return cast(Tensor, checkpoint(apply, *tokens, use_reentrant=False, **arguments))

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        keys: Tensor | None = None,
        angles: Angles | None = None,
        read: int | None = None,
        merger: Merger | None = None,
        shared: int = 0,
        frames: int = 1,
        beside_in_proj: Callable[[Tensor], Tensor] | None = None,
        across: int = 1,
        fuse: Callable[[Tensor], Tensor] | None = None,
        beside_attention: Callable[[Tensor], Tensor] | None = None,
        beside_mlp: Callable[[Tensor], Tensor] | None = None,
        beside_norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Apply the block.

        Args:
            causal: whether each token attends only to itself and earlier tokens.
            keys: bool (b, n), the tokens that can be attended to; by default all.
            angles: rotary positions of the last tokens.
            read: compute only the first `read` outputs, (b, read, d), with attention to all tokens.
            merger: merges patches, the last tokens, so that the output is shorter.
            shared: the number of first tokens that all frames share; 0 if every token attends to every other. They
                attend to all tokens, the others to them and to the tokens of their own frame (`attend_by_frame`).
            frames: the number of frames that the other tokens belong to, with as many tokens each.
            beside_in_proj: a map (b, n, d) to (b, n, 3d) parallel to the projection to queries, keys and values, such
                as a low-rank update. Its output is added.
            across, fuse: the first token of each sequence attends to its sequence, and also to all tokens of `across`
                neighbouring sequences. Its output is the second, plus the first through the map `fuse`, (b, 1, d) to
                (b, 1, d).
            beside_attention, beside_mlp: maps (b, n, d) to (b, n, d) parallel to attention and MLP, such as adapters.
                They get the same input, and their outputs are added.
            beside_norm: as `beside_mlp`, but gets the input of the MLP's normalisation.
        """
        h = self.attention_norm(x) if self.norm_first else x
        bias = None if merger is None else merger.key_bias(h)
        attended, k = self.attention(
            h,
            causal=causal,
            keys=keys,
            angles=angles,
            read=read,
            bias=bias,
            shared=shared,
            frames=frames,
            beside_in_proj=beside_in_proj,
            across=across,
            fuse=fuse,
        )
        x = x[:, :read] + _scaled(attended, self.attention_scale)
        if beside_attention is not None:
            x = x + beside_attention(h[:, :read])
        if not self.norm_first:
            x = self.attention_norm(x)
        if merger is not None:
            x = merger.merge(x, k)
        h, before = self.mlp_norm(x) if self.norm_first else x, x
        x = x + _scaled(self.mlp(h), self.mlp_scale)
        if beside_mlp is not None:
            x = x + beside_mlp(h)
        if beside_norm is not None:
            x = x + beside_norm(before)
        return x if self.norm_first else self.mlp_norm(x)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale.to(x.dtype)


class Layers(nn.ModuleList):
    """The blocks of a tower."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Layer]: ...


def make_layers(tower: TowerSizes) -> Layers:
    """Return the blocks of a tower, freshly initialised."""
    return Layers(Layer(tower) for _ in range(tower.layers))


def recompute_layers(model: nn.Module, recomputed: bool = True) -> int:
    """Set whether the blocks of a model keep only their inputs for the gradient. Return the number of blocks."""
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    for layer in layers:
        layer.recomputed = recomputed
    return len(layers)


def free_parameter(*shape: int, std: float) -> nn.Parameter:
    """Return a parameter outside of any layer, initialised from normal(0, std)."""
    parameter = nn.Parameter(torch.empty(shape))
    if not parameter.is_meta:  # `normal_` on a meta tensor would import PyTorch's compiler, which takes a second
        nn.init.normal_(parameter, std=std)
    return parameter
