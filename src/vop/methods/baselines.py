"""The paper's baselines that train parts of the backbone itself (arXiv 2211.12764, section 4 and Table 1).

    full      every parameter
    bias      the biases of linear and normalisation layers
    proj      the final projections of both towers
    partial   the last layer of both towers

A run saves the trained parameters; the others are read from the backbone. The paper's counts exclude the attention's
input projections (and, in `full`, tensors outside of layers), although they are trained; see `layer_parameters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.methods.base import Method
from vop.utils.checks import check_switch


class Full(Method):
    """Full fine-tuning.

    Settings:
        train_logit_scale: whether to train the inverse temperature of the loss, up to CLIP's limit of 100.
    """

    learning_rate = 1e-5
    changes_backbone = True
    needs_layers = True

    def __init__(self, sizes: Sizes, *, train_logit_scale: bool = True, **settings: Any) -> None:
        super().__init__(sizes, **settings)
        self.train_logit_scale = check_switch("train_logit_scale", train_logit_scale)

    def attach(self, clip: CLIP) -> None:
        clip.requires_grad_(True)
        clip.train_logit_scale(self.train_logit_scale)

    def uncounted_parameters(self, clip: CLIP) -> int:
        return uncounted(clip)


class Bias(Method):
    """BitFit (Ben Zaken et al., 2022): trains biases only.

    Settings:
        train_logit_scale: as for `full`.
        attention_biases: whether to train the biases of the attention's input projections. The paper does not count
            them.
    """

    learning_rate = 1e-3
    changes_backbone = True
    needs_layers = True

    def __init__(
        self, sizes: Sizes, *, train_logit_scale: bool = False, attention_biases: bool = False, **settings: Any
    ) -> None:
        super().__init__(sizes, **settings)
        self.train_logit_scale = check_switch("train_logit_scale", train_logit_scale)
        self.attention_biases = check_switch("attention_biases", attention_biases)

    def attach(self, clip: CLIP) -> None:
        train_biases(clip, attention=self.attention_biases)
        clip.train_logit_scale(self.train_logit_scale)

    def uncounted_parameters(self, clip: CLIP) -> int:
        return uncounted(clip)


class Proj(Method):
    """Linear probing: trains the projections of both towers into the joint space."""

    learning_rate = 1e-3
    changes_backbone = True
    needs_layers = True

    def attach(self, clip: CLIP) -> None:
        for tower in (clip.vision, clip.text):
            for parameter in tower.projection_parameters():
                parameter.requires_grad_(True)


class Partial(Method):
    """Trains the last layer of both towers."""

    learning_rate = 1e-4
    changes_backbone = True
    needs_layers = True

    def attach(self, clip: CLIP) -> None:
        for tower in (clip.vision, clip.text):
            tower.layers[-1].requires_grad_(True)

    def uncounted_parameters(self, clip: CLIP) -> int:
        return uncounted(clip)


def train_biases(module: nn.Module, *, attention: bool = False) -> None:
    """Let the biases of a module train, those of the attention's input projections only with `attention`."""
    for name, parameter in module.named_parameters():
        if name.endswith((".bias", ".projection_bias")):
            parameter.requires_grad_(attention or not name.endswith("in_proj.bias"))


def uncounted(clip: CLIP) -> int:
    """Count the trainable parameters of the backbone outside `layer_parameters`."""
    return _trainable(clip.parameters()) - _trainable(layer_parameters(clip))


def layer_parameters(clip: CLIP) -> Iterator[nn.Parameter]:
    """Yield the parameters that the paper counts: those of layers, except the attention's `in_proj`."""
    layers = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm)
    for name, module in clip.named_modules():
        if isinstance(module, layers) and not name.endswith("in_proj"):
            yield from module.parameters()


def _trainable(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
