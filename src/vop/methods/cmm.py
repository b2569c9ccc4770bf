"""The context modelling module (CMM) of VoP^C, a sequence model over a video's [CLS] tokens.

Shapes: `b` videos, `f` frames, `d` the vision tower's width, `h` the output's width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vop.backbones.layers import free_parameter, make_layers
from vop.backbones.sizes import Sizes, TowerSizes
from vop.utils.checks import check_choice

TRANSFORMER_LAYERS = 4  # as in the paper's ablation


class Lstm(nn.Module):
    """A one-layer LSTM with hidden size `d` per direction: (b, f, d) to (b, f, h), h = d or 2d."""

    positions: nn.Parameter | None = None  # an LSTM needs no positions

    def __init__(self, width: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=bidirectional)
        self.out_width = width * (2 if bidirectional else 1)

    def forward(self, cls: Tensor) -> Tensor:
        return self.lstm(cls)[0]


class Transformer(nn.Module):
    """Four transformer layers of the tower's shape over frames with learned positions: (b, f, d) to (b, f, d).

    The paper says only "4-layer Transformer". Without positions it would ignore the order of the frames.
    """

    def __init__(self, sizes: Sizes, *, num_frames: int) -> None:
        super().__init__()
        tower = sizes.vision
        self.positions = free_parameter(num_frames, tower.width, std=0.02)
        shape = TowerSizes(
            width=tower.width,
            layers=TRANSFORMER_LAYERS,
            heads=tower.heads,
            mlp_width=tower.mlp_width,
            activation=tower.activation,
            norm_eps=tower.norm_eps,
        )
        self.layers = make_layers(shape)
        self.out_width = tower.width

    def forward(self, cls: Tensor) -> Tensor:
        x = cls + self.positions
        for layer in self.layers:
            x = layer(x)
        return x


_KINDS: dict[str, Callable[[Sizes, int], Lstm | Transformer]] = {
    "bilstm": lambda sizes, num_frames: Lstm(sizes.vision.width, bidirectional=True),
    "lstm": lambda sizes, num_frames: Lstm(sizes.vision.width, bidirectional=False),
    "transformer": lambda sizes, num_frames: Transformer(sizes, num_frames=num_frames),
}


class ContextModule(nn.Module):
    """The CMM and its FC layer: (b, f, d) to (b, f, outputs, d). Computes in the dtype of its weights."""

    def __init__(self, sizes: Sizes, *, kind: str, outputs: int, num_frames: int) -> None:
        super().__init__()
        check_choice("cmm", kind, _KINDS)
        self.cmm = _KINDS[kind](sizes, num_frames)
        self.fc = nn.Linear(self.cmm.out_width, outputs * sizes.vision.width)
        self.outputs = outputs

    def forward(self, cls: Tensor) -> Tensor:
        context = self.cmm(cls.to(self.fc.weight.dtype))
        return self.fc(context).unflatten(-1, (self.outputs, -1))
