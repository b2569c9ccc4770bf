"""The vision towers of timm inside open_clip's models: SigLIP's ViT, EVA-02, Perception Encoder and MobileCLIP's ViT.

A configuration names a model of timm, whose structure stands in timm's code. So it is built without memory (on the
device `meta`), and its sizes are read from its modules: nothing is guessed from a name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vop.backbones.clip.weights import Weights
from vop.backbones.open_clip.encoder import build
from vop.backbones.sizes import Rope, Sizes, Stem, VisionSizes

TRUNK, HEAD = "visual.trunk", "visual.head.proj"
BATCH_NORM_EPS = 1e-5  # PyTorch's default; weights do not tell it


class NotReachable(Exception):
    """A tower has a part that our towers do not have."""


def is_timm(state: Mapping[str, Tensor]) -> bool:
    """Whether the vision tower of these weights is timm's."""
    return any(name.startswith(f"{TRUNK}.") for name in state)


def vision_sizes(model: Mapping[str, Any]) -> VisionSizes | None:
    """Read the sizes of the vision tower of a `model_cfg`, or return None if its layers cannot be reached."""
    with torch.device("meta"):
        visual = build(model).visual
    try:
        return _read(visual)
    except (NotReachable, AttributeError):  # a model of another kind lacks an attribute
        return None


def _read(visual: Any) -> VisionSizes:
    trunk = visual.trunk
    block, patches = trunk.blocks[0], trunk.patch_embed
    attention, mlp = block.attn, block.mlp
    _need(type(trunk).__name__ in ("Eva", "VisionTransformer") and type(block).__name__ in ("EvaBlock", "Block"))
    _need(all(type(one) is type(block) for one in trunk.blocks))
    _need(getattr(trunk, "reg_token", None) is None and trunk.pos_embed is not None)
    _need(_is_absent(attention.q_norm) and _is_absent(attention.k_norm) and getattr(attention, "gate", None) is None)
    _need(attention.proj.in_features == trunk.embed_dim)
    _need(not getattr(attention, "rotate_half", False) and not getattr(trunk, "rope_mixed", False))
    _need(getattr(attention, "num_kv_groups", 1) == 1)
    norm_behind = _is_absent(trunk.norm)  # behind the pooling
    norm = trunk.fc_norm if norm_behind else trunk.norm
    _need(isinstance(norm, nn.LayerNorm) and norm.eps == block.norm1.eps and (norm_behind or _is_absent(trunk.fc_norm)))
    inner = not _is_absent(getattr(attention, "norm", None))
    _need(inner == (not _is_absent(getattr(mlp, "norm", None))))
    gated = type(mlp).__name__ in ("SwiGLU", "GluMlp")
    _need(gated or type(mlp).__name__ == "Mlp")
    (image_size, other), patch_size = patches.img_size, patches.feat_ratio()
    _need(image_size == other)
    activation = _activation(mlp.act)
    stem = _stem(patches, activation=activation)
    _need(stem is None or math.prod(stem.strides) == patch_size)
    pool = getattr(trunk, "attn_pool", None)
    if pool is None:
        _need(trunk.global_pool in ("token", "avg") and not getattr(trunk, "pool_include_prefix", False))
    else:
        _need(not norm_behind and (trunk.cls_token is None or getattr(trunk, "pool_include_prefix", True)))
        _check_pool(pool, activation=activation, norm_eps=norm.eps)
    readout = "attention" if pool is not None else {"token": "class", "avg": "mean"}[trunk.global_pool]
    _need({name for name, _ in visual.head.named_children()} <= {"drop", "proj"})
    projection = trunk.head if isinstance(trunk.head, nn.Linear) else getattr(visual.head, "proj", None)
    return VisionSizes(
        width=trunk.embed_dim,
        layers=len(trunk.blocks),
        heads=attention.num_heads,
        mlp_width=mlp.fc2.in_features,
        activation=activation,
        norm_eps=norm.eps,
        gated=gated,
        inner_norms=inner,
        layer_scale=_scales(block) is not None,
        image_size=image_size,
        patch_size=patch_size,
        class_token=trunk.cls_token is not None,
        pre_norm=not _is_absent(trunk.norm_pre),
        patch_bias=stem is None and patches.proj.bias is not None,
        stem=stem,
        rope=_rope(getattr(trunk, "rope", None), grid=image_size // patch_size),
        readout=readout,
        mean_norm=norm_behind and readout == "mean",
        pool_heads=0 if pool is None else pool.num_heads,
        pool_mlp_width=0 if pool is None else pool.mlp.fc1.out_features,
        projection=projection is not None,
        projection_bias=projection is not None and projection.bias is not None,
    )


def _need(condition: bool) -> None:
    if not condition:
        raise NotReachable


def _is_absent(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _activation(module: nn.Module) -> str:
    kind = type(module).__name__
    if kind in ("GELU", "GELUTanh"):
        tanh = kind == "GELUTanh" or getattr(module, "approximate", "none") == "tanh"
        return "gelu_pytorch_tanh" if tanh else "gelu"
    _need(kind in ("SiLU", "QuickGELU"))
    return {"SiLU": "silu", "QuickGELU": "quick_gelu"}[kind]


def _check_pool(pool: Any, *, activation: str, norm_eps: float) -> None:
    """Our attention pooling has the activation and the norms of the layers."""
    _need(type(pool).__name__ == "AttentionPoolLatent" and pool.latent_len == 1 and pool.pos_embed is None)
    _need(_is_absent(pool.q_norm) and isinstance(pool.q, nn.Linear) and pool.mlp is not None)
    _need(_activation(pool.mlp.act) == activation and pool.norm.eps == norm_eps)


def _stem(patches: Any, *, activation: str) -> Stem | None:
    """The convolutions that embed a patch, or None for a linear map."""
    if type(patches).__name__ == "PatchEmbed":
        _need(_is_absent(patches.norm))
        return None
    _need(type(patches).__name__ == "HybridEmbed" and type(patches.backbone).__name__ == "ConvStem")
    _need(_is_absent(patches.proj) and tuple(patches.patch_size) == (1, 1))
    *stages, last = patches.backbone
    # Behind each convolution but the last is a batch normalisation with the activation of the layers.
    for stage in stages:
        _need(type(stage.bn).__name__ == "BatchNormAct2d" and stage.bn.eps == BATCH_NORM_EPS)
        _need(stage.conv.bias is None and _activation(stage.bn.act) == activation)
    _need(len(last.bn) == 0 and last.conv.bias is not None)
    convolutions = [stage.conv for stage in patches.backbone]
    strides = [one.stride[0] for one in convolutions]
    for one, stride in zip(convolutions, strides, strict=True):
        _need(type(one) is nn.Conv2d and one.kernel_size == one.stride == (stride, stride))
        _need(one.padding == (0, 0) and one.dilation == (1, 1) and one.groups == 1)
    return Stem(widths=tuple(one.out_channels for one in convolutions), strides=tuple(strides))


def _scales(block: Any) -> tuple[str, str] | None:
    """The names of the two scales of a block's outputs, if it has any."""
    if getattr(block, "gamma_1", None) is not None:
        return "gamma_1", "gamma_2"
    return None if _is_absent(getattr(block, "ls1", None)) else ("ls1.gamma", "ls2.gamma")


def _rope(rope: Any, *, grid: int) -> Rope | None:
    if rope is None:
        return None
    _need(type(rope).__name__ == "RotaryEmbeddingCat" and not rope.in_pixels)
    _need(not getattr(rope, "rotate_half", False))
    reference = grid if rope.ref_feat_shape is None else rope.ref_feat_shape[0]
    return Rope(
        reference=reference,
        offset=float(rope.grid_offset),
        columns_first=rope.grid_indexing == "xy",
        temperature=float(rope.temperature),
    )


def rename_vision(weights: Weights, sizes: Sizes) -> dict[str, Tensor]:
    """Rename the weights of timm's tower to ours."""
    vision = sizes.vision
    norm = f"{TRUNK}.norm" if f"{TRUNK}.norm.weight" in weights.state else f"{TRUNK}.fc_norm"
    ours = {
        **_patch_embedding(weights, vision),
        "positions": _positions(weights, vision),
        **_norm(weights, norm, "post_norm"),
    }
    if vision.class_token:
        ours["class_embedding"] = weights.take(f"{TRUNK}.cls_token").flatten()
    if vision.pre_norm:
        ours |= _norm(weights, f"{TRUNK}.norm_pre", "pre_norm")
    for i in range(weights.count_layers(f"{TRUNK}.blocks.")):
        ours |= {
            f"layers.{i}.{name}": tensor for name, tensor in _layer(weights, f"{TRUNK}.blocks.{i}", vision).items()
        }
    if vision.readout == "attention":
        ours |= {f"pool.{name}": tensor for name, tensor in _pool(weights).items()}
    if vision.projection:
        projection = f"{TRUNK}.head" if f"{TRUNK}.head.weight" in weights.state else HEAD
        ours["projection"] = weights.take(f"{projection}.weight").T
        if vision.projection_bias:
            ours["projection_bias"] = weights.take(f"{projection}.bias")
    return {f"vision.{name}": tensor for name, tensor in ours.items()}


def _norm(weights: Weights, old: str, new: str) -> dict[str, Tensor]:
    return {f"{new}.{kind}": weights.take(f"{old}.{kind}") for kind in ("weight", "bias")}


def _patch_embedding(weights: Weights, vision: VisionSizes) -> dict[str, Tensor]:
    if vision.stem is None:
        old, new = f"{TRUNK}.patch_embed.proj", "patch_embedding"
        ours = {f"{new}.weight": weights.take(f"{old}.weight")}
        return ours | ({f"{new}.bias": weights.take(f"{old}.bias")} if vision.patch_bias else {})
    ours, last = {}, len(vision.stem.widths) - 1
    for i in range(last):
        for kind, tensor in _with_batch_norm(weights, f"{TRUNK}.patch_embed.backbone.{i}").items():
            ours[f"patch_embedding.{i}.{kind}"] = tensor
    return ours | _norm(weights, f"{TRUNK}.patch_embed.backbone.{last}.conv", f"patch_embedding.{last}")


def _with_batch_norm(weights: Weights, old: str) -> dict[str, Tensor]:
    """The weight and the bias of a convolution with the batch normalisation behind it, whose statistics are fixed."""
    gain, bias, mean, variance = (
        weights.take(f"{old}.bn.{name}").double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain / (variance + BATCH_NORM_EPS).sqrt()
    weight = weights.take(f"{old}.conv.weight").double() * gain[:, None, None, None]
    return {"weight": weight.float(), "bias": (bias - mean * gain).float()}


def _positions(weights: Weights, vision: VisionSizes) -> Tensor:
    """A [CLS] that timm gives no position gets one of zeros.

    The grid of the weights is a square, and the grid of `vision` may be another one.
    """
    positions = weights.take(f"{TRUNK}.pos_embed").flatten(0, 1)
    missing = vision.class_token and math.isqrt(len(positions)) ** 2 == len(positions)
    return torch.cat([positions.new_zeros(1, positions.shape[1]), positions]) if missing else positions


def _layer(weights: Weights, old: str, vision: VisionSizes) -> dict[str, Tensor]:
    state = weights.state
    ours = _norm(weights, f"{old}.norm1", "attention_norm") | _norm(weights, f"{old}.norm2", "mlp_norm")
    ours |= _norm(weights, f"{old}.attn.proj", "attention.out_proj") | _norm(weights, f"{old}.mlp.fc2", "mlp.fc2")
    ours |= _attention_input(weights, f"{old}.attn")
    if vision.inner_norms:
        ours |= _norm(weights, f"{old}.attn.norm", "attention.norm") | _norm(weights, f"{old}.mlp.norm", "mlp.norm")
    if f"{old}.mlp.fc1_g.weight" in state:  # the gate, then what it multiplies
        for kind in ("weight", "bias"):
            parts = [weights.take(f"{old}.mlp.fc1_{part}.{kind}") for part in "gx"]
            ours[f"mlp.fc1.{kind}"] = torch.cat(parts)
    else:
        ours |= _norm(weights, f"{old}.mlp.fc1", "mlp.fc1")
    if vision.layer_scale:
        first, second = ("gamma_1", "gamma_2") if f"{old}.gamma_1" in state else ("ls1.gamma", "ls2.gamma")
        ours |= {"attention_scale": weights.take(f"{old}.{first}"), "mlp_scale": weights.take(f"{old}.{second}")}
    return ours


def _attention_input(weights: Weights, old: str) -> dict[str, Tensor]:
    """One projection to queries, keys and values; a part without a bias gets one of zeros."""
    state = weights.state
    if f"{old}.qkv.weight" in state:
        weight = weights.take(f"{old}.qkv.weight")
        parts = [state.get(f"{old}.{name}_bias") for name in "qkv"]
        whole = state.get(f"{old}.qkv.bias")
    else:
        weight = torch.cat([weights.take(f"{old}.{name}_proj.weight") for name in "qkv"])
        parts, whole = [state.get(f"{old}.{name}_proj.bias") for name in "qkv"], None
    zeros = weight.new_zeros(len(weight) // 3)
    bias = whole if whole is not None else torch.cat([zeros if part is None else part for part in parts])
    return {"attention.in_proj.weight": weight, "attention.in_proj.bias": bias}


def _pool(weights: Weights) -> dict[str, Tensor]:
    old = f"{TRUNK}.attn_pool"
    ours = {"query": weights.take(f"{old}.latent").flatten()}
    for kind in ("weight", "bias"):
        ours[f"in_proj.{kind}"] = torch.cat([weights.take(f"{old}.q.{kind}"), weights.take(f"{old}.kv.{kind}")])
        for theirs, mine in (("proj", "out_proj"), ("norm", "norm"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            ours[f"{mine}.{kind}"] = weights.take(f"{old}.{theirs}.{kind}")
    return ours
