"""Convert the weights of `transformers`' CLIP, and of families with the same towers, to those of our `CLIP`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vop.errors import VopError

_VISION = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "patch_embedding.weight",
    "embeddings.position_embedding.weight": "positions",
    "pre_layrnorm.weight": "pre_norm.weight",
    "pre_layrnorm.bias": "pre_norm.bias",
    "post_layernorm.weight": "post_norm.weight",
    "post_layernorm.bias": "post_norm.bias",
}
_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positions",
    "final_layer_norm.weight": "post_norm.weight",
    "final_layer_norm.bias": "post_norm.bias",
}
_IN_LAYER = {
    "layer_norm1": "attention_norm",
    "layer_norm2": "mlp_norm",
    "self_attn.out_proj": "attention.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


class Weights:
    """The weights of a folder, for functions that rename them.

    Args:
        state: the tensors by their names in the folder.
        source, kind: the folder and the class of its model, for messages.
    """

    def __init__(self, state: Mapping[str, Tensor], *, source: str, kind: str) -> None:
        self.state, self.source, self.kind = state, source, kind

    def take(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            VopError: the tensor is missing. The message names it.
        """
        if name not in self.state:
            raise VopError(f"{self.source}: the tensor {name!r} of a {self.kind} is missing")
        return self.state[name]

    def count_layers(self, prefix: str) -> int:
        """Return the number of layers whose names begin with `prefix` ("text_model.encoder.layers.")."""
        numbers = (name.removeprefix(prefix).split(".")[0] for name in self.state if name.startswith(prefix))
        return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def from_transformers(
    state: Mapping[str, Tensor], *, source: str, kind: str = "transformers CLIPModel"
) -> dict[str, Tensor]:
    """Convert the weights of a `transformers` CLIPModel to those of `CLIP`.

    The three attention projections are joined into one, as in OpenAI's files and the paper's counts. The final
    projections are transposed, because `transformers` has linear layers for them.

    Raises:
        VopError: a tensor is missing. The message names it and `source`.
    """
    weights = Weights(state, source=source, kind=kind)
    ours = rename_vision(weights) | rename_text(weights) | {"log_logit_scale": weights.take("logit_scale")}
    return {name: tensor.contiguous() for name, tensor in ours.items()}


def rename_vision(weights: Weights) -> dict[str, Tensor]:
    """Rename CLIP's vision tower and its projection."""
    return {
        **{f"vision.{new}": weights.take(f"vision_model.{old}") for old, new in _VISION.items()},
        **rename_layers(weights, "vision_model.encoder.layers", "vision.layers"),
        "vision.projection": weights.take("visual_projection.weight").T,
    }


def rename_text(weights: Weights) -> dict[str, Tensor]:
    """Rename CLIP's text tower and its projection."""
    return {
        **{f"text.{new}": weights.take(f"text_model.{old}") for old, new in _TEXT.items()},
        **rename_layers(weights, "text_model.encoder.layers", "text.layers"),
        "text.projection": weights.take("text_projection.weight").T,
    }


def rename_layers(weights: Weights, old: str, new: str) -> dict[str, Tensor]:
    """Rename the layers `old`.0, `old`.1, ... to those of `vop.backbones.layers.Layer`."""
    ours = {}
    for i in range(weights.count_layers(f"{old}.")):
        for kind in ("weight", "bias"):
            parts = [weights.take(f"{old}.{i}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            ours[f"{new}.{i}.attention.in_proj.{kind}"] = torch.cat(parts)
            for theirs, mine in _IN_LAYER.items():
                ours[f"{new}.{i}.{mine}.{kind}"] = weights.take(f"{old}.{i}.{theirs}.{kind}")
    return ours
