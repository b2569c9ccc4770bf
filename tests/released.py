"""A tiny CLIP in OpenAI's names, with values that depend on the names alone, for comparisons with released code."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vop.backbones.open_clip.weights import from_open_clip
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.backbones.towers import CLIP

FRAMES = 12
SIZES = Sizes(  # 50 tokens of an image and heads of width 64, which the releases take for granted
    vision=VisionSizes(width=64, layers=12, heads=1, mlp_width=256, image_size=28, patch_size=4),
    text=TextSizes(width=64, layers=2, heads=1, mlp_width=256, vocab_size=50, positions=20, eos_token_id=49),
    embed_dim=16,
)
STOP_SIZES = replace(SIZES, vision=replace(SIZES.vision, layers=3), text=replace(SIZES.text, layers=3))
STOP_FRAMES = 3


def drawn(name: str, shape: tuple[int, ...], *, std: float = 0.1) -> Tensor:
    """Return random values that depend on a name and a shape alone."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * std


def clip_state(sizes: Sizes = SIZES) -> dict[str, Tensor]:
    """Return the weights in OpenAI's names."""
    vision, text = sizes.vision, sizes.text
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (vision.width, 3, vision.patch_size, vision.patch_size),
        "visual.class_embedding": (vision.width,),
        "visual.positional_embedding": (vision.patches + 1, vision.width),
        "visual.ln_pre.weight": (vision.width,),
        "visual.ln_pre.bias": (vision.width,),
        "visual.ln_post.weight": (vision.width,),
        "visual.ln_post.bias": (vision.width,),
        "visual.proj": (vision.width, sizes.embed_dim),
        "token_embedding.weight": (text.vocab_size, text.width),
        "positional_embedding": (text.positions, text.width),
        "ln_final.weight": (text.width,),
        "ln_final.bias": (text.width,),
        "text_projection": (text.width, sizes.embed_dim),
    }
    for tower, start in ((vision, "visual.transformer"), (text, "transformer")):
        width, wide = tower.width, tower.mlp_width
        for number in range(tower.layers):
            layer = f"{start}.resblocks.{number}"
            shapes |= {f"{layer}.ln_{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")}
            shapes |= {f"{layer}.attn.in_proj_weight": (3 * width, width), f"{layer}.attn.in_proj_bias": (3 * width,)}
            shapes |= {f"{layer}.attn.out_proj.weight": (width, width), f"{layer}.attn.out_proj.bias": (width,)}
            shapes |= {f"{layer}.mlp.c_fc.weight": (wide, width), f"{layer}.mlp.c_fc.bias": (wide,)}
            shapes |= {f"{layer}.mlp.c_proj.weight": (width, wide), f"{layer}.mlp.c_proj.bias": (width,)}
    state = {name: drawn(name, shape) for name, shape in shapes.items()}
    state |= {name: 1 + value for name, value in state.items() if ".ln_" in f".{name}" and name.endswith("weight")}
    return state | {"logit_scale": torch.tensor(2.0)}


def inputs(sizes: Sizes = SIZES) -> tuple[Tensor, Tensor]:
    """Return the ids (2, n) of two captions, padded with 0, and the pixels (2, f, 3, h, w) of two videos."""
    eos, side = sizes.text.eos_token_id, sizes.vision.image_size
    ids = torch.tensor([[48, 3, 17, 29, 5, eos], [48, 31, 8, eos, 0, 0]])
    return ids, drawn("pixels", (2, FRAMES, 3, side, side), std=1)


def clip(sizes: Sizes = SIZES) -> CLIP:
    """Return the tiny CLIP in ours."""
    model = CLIP(sizes)
    model.load_state_dict(from_open_clip(clip_state(sizes), sizes, source="released"))
    return model.eval().requires_grad_(False)


def probe(name: str, gradient: Tensor) -> list[float]:
    """Return the norm of a gradient, and its product with a tensor that depends on the name alone."""
    gradient = gradient.flatten().double()
    return [float(gradient.norm()), float(gradient @ drawn(f"{name} probe", tuple(gradient.shape), std=1).double())]


def rounded(value: Any) -> Any:
    """Return numbers and tensors, also in dictionaries, as numbers with 8 digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    value = value.detach().double().tolist() if isinstance(value, Tensor) else value
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.8g}"))


def contrastive_loss(logits: Tensor) -> Tensor:
    """Return the mean of both directions' cross-entropy."""
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
