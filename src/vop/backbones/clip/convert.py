"""Convert the weights of `transformers`' CLIP to those of our `CLIP`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vop.errors import VopError

_TOP = {
    "logit_scale": "log_logit_scale",
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_model.final_layer_norm.weight": "text.post_norm.weight",
    "text_model.final_layer_norm.bias": "text.post_norm.bias",
    "vision_model.embeddings.class_embedding": "vision.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "vision.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight": "vision.positions",
    "vision_model.pre_layrnorm.weight": "vision.pre_norm.weight",
    "vision_model.pre_layrnorm.bias": "vision.pre_norm.bias",
    "vision_model.post_layernorm.weight": "vision.post_norm.weight",
    "vision_model.post_layernorm.bias": "vision.post_norm.bias",
}
_IN_LAYER = {
    "layer_norm1": "attention_norm",
    "layer_norm2": "mlp_norm",
    "self_attn.out_proj": "attention.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def from_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Convert the weights of a `transformers` CLIPModel to those of `CLIP`.

    The three attention projections are joined into one, as in OpenAI's files and the paper's counts. The final
    projections are transposed, because `transformers` has linear layers for them.

    Raises:
        VopError: a tensor is missing. The message names it and `source`.
    """

    def take(name: str) -> Tensor:
        if name not in state:
            raise VopError(f"{source}: the tensor {name!r} of a transformers CLIPModel is missing")
        return state[name]

    ours = {new: take(old) for old, new in _TOP.items()}
    for tower in ("text", "vision"):
        projection = "text_projection" if tower == "text" else "visual_projection"
        ours[f"{tower}.projection"] = take(f"{projection}.weight").T
        for i in range(_layer_count(state, tower)):
            old, new = f"{tower}_model.encoder.layers.{i}", f"{tower}.layers.{i}"
            for kind in ("weight", "bias"):
                parts = [take(f"{old}.self_attn.{p}_proj.{kind}") for p in "qkv"]
                ours[f"{new}.attention.in_proj.{kind}"] = torch.cat(parts)
                for theirs, mine in _IN_LAYER.items():
                    ours[f"{new}.{mine}.{kind}"] = take(f"{old}.{theirs}.{kind}")
    return {name: tensor.contiguous() for name, tensor in ours.items()}


def _layer_count(state: Mapping[str, Tensor], tower: str) -> int:
    prefix = f"{tower}_model.encoder.layers."
    return 1 + max(
        (int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix)),
        default=-1,
    )
