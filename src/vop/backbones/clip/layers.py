"""CLIP's transformer block, with fused attention.

Shapes: `b` sequences, `n` tokens, `d` width, `h` heads.

`Linear` and `LayerNorm` cast weights to the dtype of the activations. So frozen weights can be bf16 and trained weights
fp32, without autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.errors import unknown_name


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


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


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Compute attention over (b, h, n, d/h), usually with PyTorch's fused kernel.

    With gradients in bf16 on a CPU, this function computes the matrix itself for up to 1,024 tokens (more would take
    too much memory). There the fused kernel takes 2.6 times as long for the 58 tokens of a frame, and 1.3 times as long
    for the 608 tokens of VoP^F's upper layers (bench/attention.py).
    """
    written_out = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and k.shape[2] <= 1024
    if not written_out:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(dim=-1) @ v


class Attention(nn.Module):
    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool = False, read: int | None = None) -> Tensor:
        q, k, v = self.in_proj(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (b, h, n, d/h)
        x = attend(q[:, :, :read], k, v, causal=causal)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, *, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        self.activation = ACTIVATIONS[activation]
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """A pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`; (b, n, d) to (b, n, d).

    With `read`, only the first `read` outputs are computed, (b, read, d), with attention to all tokens.
    """

    def __init__(self, *, width: int, heads: int, mlp_width: int, activation: str, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width=width, heads=heads)
        self.mlp_norm = LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width=width, hidden=mlp_width, activation=activation)

    def forward(self, x: Tensor, *, causal: bool = False, read: int | None = None) -> Tensor:
        x = x[:, :read] + self.attention(self.attention_norm(x), causal=causal, read=read)
        return x + self.mlp(self.mlp_norm(x))


def free_parameter(*shape: int, std: float) -> nn.Parameter:
    """Return a parameter outside of any layer, initialised from normal(0, std)."""
    parameter = nn.Parameter(torch.empty(shape))
    if not parameter.is_meta:  # `normal_` on a meta tensor would import PyTorch's compiler, which takes a second
        nn.init.normal_(parameter, std=std)
    return parameter
