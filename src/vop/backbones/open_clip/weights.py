"""Renames the weights of open_clip's own towers to ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vop.backbones.clip.weights import Weights
from vop.backbones.sizes import Sizes

_IN_LAYER = {
    "ln_1.weight": "attention_norm.weight",
    "ln_1.bias": "attention_norm.bias",
    "attn.in_proj_weight": "attention.in_proj.weight",
    "attn.in_proj_bias": "attention.in_proj.bias",
    "attn.out_proj.weight": "attention.out_proj.weight",
    "attn.out_proj.bias": "attention.out_proj.bias",
    "ln_2.weight": "mlp_norm.weight",
    "ln_2.bias": "mlp_norm.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
_SCALES = {"ls_1.gamma": "attention_scale", "ls_2.gamma": "mlp_scale"}
_VISION = {
    "class_embedding": "class_embedding",
    "conv1.weight": "patch_embedding.weight",
    "positional_embedding": "positions",
    "ln_post.weight": "post_norm.weight",
    "ln_post.bias": "post_norm.bias",
    "proj": "projection",
}
_TEXT = {
    "token_embedding.weight": "token_embedding.weight",
    "positional_embedding": "positions",
    "ln_final.weight": "post_norm.weight",
    "ln_final.bias": "post_norm.bias",
}


def from_open_clip(state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
    """Rename the weights of an open_clip model to those of `CLIP`.

    Raises:
        VopError: a tensor is missing; the message names it and `source`.
    """
    from vop.backbones.open_clip.timm_towers import is_timm, rename_vision

    weights = Weights(state, source=source, kind="open_clip model")
    vision = rename_vision(weights, sizes) if is_timm(state) else _rename_vision(weights, sizes)
    ours = vision | _rename_text(weights, sizes) | {"log_logit_scale": weights.take("logit_scale").reshape(())}
    if sizes.loss == "sigmoid":
        ours["logit_bias"] = weights.take("logit_bias").reshape(())
    return {name: tensor.contiguous() for name, tensor in ours.items()}


def _rename_vision(weights: Weights, sizes: Sizes) -> dict[str, Tensor]:
    names = dict(_VISION)
    if sizes.vision.pre_norm:
        names |= {"ln_pre.weight": "pre_norm.weight", "ln_pre.bias": "pre_norm.bias"}
    return {
        **{f"vision.{new}": weights.take(f"visual.{old}") for old, new in names.items()},
        **_rename_layers(weights, "visual.transformer.resblocks", "vision.layers", scaled=sizes.vision.layer_scale),
    }


def _rename_text(weights: Weights, sizes: Sizes) -> dict[str, Tensor]:
    """The text tower is a part of its own in a model with `custom_text`, or else its tensors lie at the top."""
    prefix = "text." if "text.token_embedding.weight" in weights.state else ""
    ours = {f"text.{new}": weights.take(f"{prefix}{old}") for old, new in _TEXT.items()}
    ours |= _rename_layers(weights, f"{prefix}transformer.resblocks", "text.layers", scaled=sizes.text.layer_scale)
    if sizes.text.projection_bias:  # a linear layer
        ours["text.projection"] = weights.take(f"{prefix}text_projection.weight").T
        ours["text.projection_bias"] = weights.take(f"{prefix}text_projection.bias")
    elif sizes.text.projection:
        ours["text.projection"] = weights.take(f"{prefix}text_projection")
    return ours


def _rename_layers(weights: Weights, old: str, new: str, *, scaled: bool) -> dict[str, Tensor]:
    names = _IN_LAYER | (_SCALES if scaled else {})
    return {
        f"{new}.{i}.{mine}": weights.take(f"{old}.{i}.{theirs}")
        for i in range(weights.count_layers(f"{old}."))
        for theirs, mine in names.items()
    }
