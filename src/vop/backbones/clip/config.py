"""The sizes of a CLIP, as plain numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value", int, float, str)
# Far above every known CLIP, and far below sizes that exhaust memory.
_MOST = {
    "num_hidden_layers": 200,
    "hidden_size": 20_000,
    "num_attention_heads": 1_000,
    "intermediate_size": 100_000,
    "projection_dim": 20_000,
    "image_size": 4_096,
    "patch_size": 4_096,
    "vocab_size": 5_000_000,
    "max_position_embeddings": 100_000,
}


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """The sizes of one transformer: `layers` blocks, each with `heads` attention heads, and the widths."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """The sizes of a ViT CLIP. The defaults are those of OpenAI's ViT-B/32."""

    vision: TowerSizes = TowerSizes(width=768, layers=12, heads=12, mlp_width=3072)
    text: TowerSizes = TowerSizes(width=512, layers=12, heads=8, mlp_width=2048)
    image_size: int = 224  # pixels
    patch_size: int = 32  # pixels
    embed_dim: int = 512  # width of the joint space
    vocab_size: int = 49408
    positions: int = 77  # of a text, including [BOS] and [EOS]
    eos_token_id: int = 49407

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


VIT_B_32 = ClipSizes()
VIT_B_16 = ClipSizes(patch_size=16)
VIT_L_14 = ClipSizes(
    vision=TowerSizes(width=1024, layers=24, heads=16, mlp_width=4096),
    text=TowerSizes(width=768, layers=12, heads=12, mlp_width=3072),
    patch_size=14,
    embed_dim=768,
)


def sizes_from_config(config: Mapping[str, Any]) -> ClipSizes:
    """Read the sizes from the config.json of a `transformers` CLIP folder.

    The defaults are those of ViT-B/32, as in `transformers.CLIPConfig`, which would take a second to import.

    Raises:
        ValueError: a value is not allowed. The message names it.
    """
    usual = VIT_B_32
    text, vision = _part(config, "text_config"), _part(config, "vision_config")
    vocab_size = _read(text, "vocab_size", usual.vocab_size)
    # In old CLIP configurations 2 means the highest id: transformers then pools at argmax(ids).
    highest = text.get("eos_token_id", usual.eos_token_id) in (None, 2)
    image_size, patch_size = (
        _read(vision, "image_size", usual.image_size),
        _read(vision, "patch_size", usual.patch_size),
    )
    if patch_size > image_size:
        raise ValueError(f"patch_size is {patch_size}; it must be at most image_size, {image_size}")
    eos = vocab_size - 1 if highest else _read(text, "eos_token_id", usual.eos_token_id)
    if eos >= vocab_size:
        raise ValueError(f"eos_token_id is {eos}; it must be below vocab_size, {vocab_size}")
    return ClipSizes(
        vision=_tower(vision, usual.vision),
        text=_tower(text, usual.text),
        image_size=image_size,
        patch_size=patch_size,
        embed_dim=_read(config, "projection_dim", usual.embed_dim),
        vocab_size=vocab_size,
        positions=_read(text, "max_position_embeddings", usual.positions),
        eos_token_id=eos,
    )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a tower's values. Some old files repeat them under `NAME_dict`, which takes precedence."""
    part = config.get(f"{name}_dict")
    part = config.get(name) if part is None else part
    if not isinstance(part, Mapping | None):
        raise ValueError(f"{name} is {reprlib.repr(part)}; it must be an object")
    return part or {}


def _tower(part: Mapping[str, Any], usual: TowerSizes) -> TowerSizes:
    width, heads = _read(part, "hidden_size", usual.width), _read(part, "num_attention_heads", usual.heads)
    if width % heads:
        raise ValueError(f"hidden_size is {width}; it must be a multiple of num_attention_heads, {heads}")
    return TowerSizes(
        width=width,
        layers=_read(part, "num_hidden_layers", usual.layers),
        heads=heads,
        mlp_width=_read(part, "intermediate_size", usual.mlp_width),
        activation=_read(part, "hidden_act", usual.activation),
        norm_eps=_read(part, "layer_norm_eps", usual.norm_eps),
    )


def _read(part: Mapping[str, Any], name: str, usual: Value) -> Value:
    """Return a value, which must have the type of the default `usual`."""
    value = part.get(name, usual)
    if type(value) is not type(usual) or (isinstance(value, int) and value < 1):
        kind = {int: "a whole number, 1 or more", float: "a number such as 1e-5", str: "a name"}[type(usual)]
        raise ValueError(f"{name} is {reprlib.repr(value)}; it must be {kind}")
    if isinstance(value, int) and value > _MOST.get(name, value):
        raise ValueError(f"{name} is {value:,}; at most {_MOST[name]:,} are allowed")
    if isinstance(value, float) and not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; it must be 0 or more and below 1")
    return value
