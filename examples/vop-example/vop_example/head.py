"""Softmax pooling: frames have more weight if they are more similar to the mean of all frames.

    v = normalise(sum_j softmax_j(a * x_j . mean) * x_j),    x_j of unit length

Shapes: `v` videos, `f` frames, `e` the joint space.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vop.backbones import Sizes
from vop.heads.base import Head
from vop.utils.checks import check_number


class SoftmaxPooling(Head):
    """A head with one trained number, the sharpness `a`; 0 gives the mean of the frames.

    Settings:
        sharpness: the initial value.
    """

    def __init__(self, sizes: Sizes, *, sharpness: float = 1.0, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        check_number("sharpness", sharpness, at_least=0)
        self.sharpness = nn.Parameter(torch.tensor(float(sharpness)))

    def pool(self, frames: Tensor) -> Tensor:
        """Pool frame embeddings (v, f, e) to unit video embeddings (v, e), float32."""
        unit = F.normalize(frames.float(), dim=-1)
        agreement = (unit * unit.mean(dim=1, keepdim=True)).sum(dim=-1, keepdim=True)  # (v, f, 1)
        return F.normalize((unit * torch.softmax(self.sharpness * agreement, dim=1)).sum(dim=1), dim=-1)
