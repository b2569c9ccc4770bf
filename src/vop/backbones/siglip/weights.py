"""Renames the weights of `transformers`' SigLIP to ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vop.backbones.clip.weights import Weights, rename_layers

_NAMES = {
    "vision_model.embeddings.patch_embedding.weight": "vision.patch_embedding.weight",
    "vision_model.embeddings.patch_embedding.bias": "vision.patch_embedding.bias",
    "vision_model.embeddings.position_embedding.weight": "vision.positions",
    "vision_model.head.attention.in_proj_weight": "vision.pool.in_proj.weight",
    "vision_model.head.attention.in_proj_bias": "vision.pool.in_proj.bias",
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_model.head.bias": "text.projection_bias",
}
_KINDS = ("weight", "bias")
_MODULES = {
    "vision_model.post_layernorm": "vision.post_norm",
    "vision_model.head.attention.out_proj": "vision.pool.out_proj",
    "vision_model.head.layernorm": "vision.pool.norm",
    "vision_model.head.mlp.fc1": "vision.pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "vision.pool.mlp.fc2",
    "text_model.final_layer_norm": "text.post_norm",
}


def from_transformers(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Rename the weights of a `transformers` SiglipModel to those of `CLIP`.

    Raises:
        VopError: a tensor is missing; the message names it and `source`.
    """
    weights = Weights(state, source=source, kind="transformers SiglipModel")
    ours = {
        **{new: weights.take(old) for old, new in _NAMES.items()},
        **{f"{new}.{kind}": weights.take(f"{old}.{kind}") for old, new in _MODULES.items() for kind in _KINDS},
        **rename_layers(weights, "vision_model.encoder.layers", "vision.layers"),
        **rename_layers(weights, "text_model.encoder.layers", "text.layers"),
        "vision.pool.query": weights.take("vision_model.head.probe").flatten(),
        "text.projection": weights.take("text_model.head.weight").T,
        "log_logit_scale": weights.take("logit_scale").squeeze(),
        "logit_bias": weights.take("logit_bias").squeeze(),
    }
    return {name: tensor.contiguous() for name, tensor in ours.items()}
