"""OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020) in the folders of `transformers`.

The models of LAION, DataComp, DFN and MetaCLIP belong to this family if they are exported for `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import check_heads, check_patches, read_part, read_value
from vop.backbones.family import Family
from vop.backbones.sizes import Sizes, TextSizes, TowerSizes, VisionSizes

if TYPE_CHECKING:
    from torch import Tensor

TEXT, VISION = TextSizes(), VisionSizes()  # the defaults of `transformers.CLIPConfig`, which takes a second to import


class ClipFamily(Family):
    title = "CLIP"

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        text, vision = read_part(config, "text_config"), read_part(config, "vision_config")
        sizes = read_text_sizes(text)
        # In old CLIP configurations 2 means the highest id: transformers then pools at argmax(ids).
        highest = text.get("eos_token_id", TEXT.eos_token_id) in (None, 2)
        eos = sizes.vocab_size - 1 if highest else read_value(text, "eos_token_id", TEXT.eos_token_id)
        if eos >= sizes.vocab_size:
            raise ValueError(f"eos_token_id is {eos}; it must be below vocab_size, {sizes.vocab_size}")
        return Sizes(
            vision=read_vision_sizes(vision),
            text=replace(sizes, eos_token_id=eos),
            embed_dim=read_value(config, "projection_dim", Sizes().embed_dim),
        )

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.clip.weights import from_transformers

        return from_transformers(state, source=source)


def read_vision_sizes(part: Mapping[str, Any], usual: VisionSizes = VISION) -> VisionSizes:
    """Read the sizes of the vision tower of a `transformers` CLIP, or of a family with the same format."""
    image_size = read_value(part, "image_size", usual.image_size)
    patch_size = read_value(part, "patch_size", usual.patch_size)
    check_patches(image_size, patch_size)
    return replace(usual, **read_tower(part, usual), image_size=image_size, patch_size=patch_size)


def read_text_sizes(part: Mapping[str, Any], usual: TextSizes = TEXT) -> TextSizes:
    """Read the sizes of the text tower in the same format, except its special tokens."""
    return replace(
        usual,
        **read_tower(part, usual),
        vocab_size=read_value(part, "vocab_size", usual.vocab_size),
        positions=read_value(part, "max_position_embeddings", usual.positions),
    )


def read_tower(part: Mapping[str, Any], usual: TowerSizes) -> dict[str, Any]:
    """Read the sizes that every tower has."""
    width, heads = (
        read_value(part, "hidden_size", usual.width),
        read_value(part, "num_attention_heads", usual.heads),
    )
    check_heads(width, heads)
    return {
        "width": width,
        "layers": read_value(part, "num_hidden_layers", usual.layers),
        "heads": heads,
        "mlp_width": read_value(part, "intermediate_size", usual.mlp_width),
        "activation": read_value(part, "hidden_act", usual.activation),
        "norm_eps": read_value(part, "layer_norm_eps", usual.norm_eps),
    }
