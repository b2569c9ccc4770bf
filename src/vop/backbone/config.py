"""The sizes of a CLIP, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """One transformer: `layers` blocks of `heads` heads, model width `width`, MLP width `mlp_width`."""

    width: int
    layers: int
    heads: int
    mlp_width: int


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """A ViT CLIP. The defaults are those of OpenAI's ViT-B/32."""

    vision: TowerSizes = TowerSizes(width=768, layers=12, heads=12, mlp_width=3072)
    text: TowerSizes = TowerSizes(width=512, layers=12, heads=8, mlp_width=2048)
    image_size: int = 224  # pixels
    patch_size: int = 32  # pixels
    embed_dim: int = 512  # of the joint space
    vocab_size: int = 49408
    positions: int = 77  # of the text tower, [BOS] and [EOS] included
    eos_token_id: int = 49407
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5

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


def sizes_from_transformers(config) -> ClipSizes:
    """Reads the sizes from a `transformers.CLIPConfig`."""

    def tower(part) -> TowerSizes:
        return TowerSizes(
            width=part.hidden_size,
            layers=part.num_hidden_layers,
            heads=part.num_attention_heads,
            mlp_width=part.intermediate_size,
        )

    text, vision = config.text_config, config.vision_config
    # Old CLIP configurations say 2 and mean the highest id: transformers pools those at argmax(ids).
    eos = text.vocab_size - 1 if text.eos_token_id in (None, 2) else text.eos_token_id
    return ClipSizes(
        vision=tower(vision),
        text=tower(text),
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        embed_dim=config.projection_dim,
        vocab_size=text.vocab_size,
        positions=text.max_position_embeddings,
        eos_token_id=eos,
        activation=vision.hidden_act,
        norm_eps=vision.layer_norm_eps,
    )
