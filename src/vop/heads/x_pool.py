"""X-Pool: text-conditioned pooling of frames (Gorti et al., CVPR 2022, arXiv 2203.15086; code: layer6ai-labs/xpool).

For a text t and frames x_1 .. x_f, the projected outputs of the towers, not normalised:

    q = W_q LN(t),   k_j = W_k LN(x_j),   u_j = W_v LN(x_j)        one LN for both sides
    r = LN(W_o sum_j softmax_j(q . k_j / sqrt(e)) u_j)
    z = LN(r + dropout(W_l r))
    s(t, v) = cos(t, z)

Every W starts as the identity and, except W_k, has a bias that starts at zero. A bias of the keys would shift all frame
scores of a text equally, which the softmax cancels. The released code has this bias, without effect.

Shapes: `t` texts, `v` videos, `f` frames, `h` attention heads, `d` their width, `e` the joint space.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones.sizes import Sizes
from vop.errors import UsageError
from vop.heads.base import PairwiseHead
from vop.utils.checks import check_number, check_whole


class XPool(PairwiseHead):
    """Pools a video separately for each text, weighted by the text's attention to the frames.

    Settings:
        heads: the number of attention heads (X-Pool: 1).
        dropout: the dropout before the residual addition (X-Pool: 0.3).
    """

    def __init__(self, sizes: Sizes, *, heads: int = 1, dropout: float = 0.3, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        width = sizes.embed_dim
        check_whole("heads", heads, at_least=1)
        if width % heads:
            raise UsageError(f"heads is {heads}; it must divide the {width} dimensions of this backbone's joint space")
        check_number("dropout", dropout, at_least=0, below=1)
        self.heads = heads
        self.input_norm, self.pooled_norm, self.output_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.value, self.out, self.linear = (identity_linear(width) for _ in range(4))
        self.key = identity_linear(width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def score(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Return the cosines (t, v), float32, for raw text (t, e) and frame embeddings (v, f, e).

        Memory holds a few tensors (v, t, e): pass blocks that fit.
        """
        texts = texts.float()
        pooled = F.normalize(self.pool_for(texts, frames.float()), dim=-1)
        return torch.einsum("te,vte->tv", F.normalize(texts, dim=-1), pooled)

    def pool_for(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Pool each video (v, f, e) for each text (t, e): (v, t, e), not normalised."""
        attended = self.pooled_norm(self.attend(self.input_norm(texts), self.input_norm(frames)))
        return self.output_norm(attended + self.dropout(self.linear(attended)))

    def attend(self, texts: Tensor, frames: Tensor) -> Tensor:
        """Return the attention of texts (t, e) to the frames (v, f, e) of each video separately: (v, t, e).

        `W_o` is linear and a text's weights sum to one, so it is applied to the f frames of a video instead of t sums.
        """
        split = (self.heads, -1)
        q, k, u = self.query(texts), self.key(frames), self.value(frames)
        q, k, u = q.unflatten(-1, split), k.unflatten(-1, split), u.unflatten(-1, split)  # (..., h, d)
        weights = torch.einsum("thd,vfhd->vthf", q, k).mul(q.shape[-1] ** -0.5).softmax(dim=-1)
        values = torch.einsum("vfhd,ehd->vhfe", u, self.out.weight.unflatten(-1, split))
        return weights.flatten(2) @ values.flatten(1, 2) + self.out.bias  # (v, t, h f) @ (v, h f, e)


def identity_linear(width: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer that starts as the identity."""
    linear = nn.Linear(width, width, bias=bias)
    nn.init.eye_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
