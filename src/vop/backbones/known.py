"""Well-known checkpoints: what can be said about them without their weights and without a network.

Sizes are those of the published configurations. Where a fact could not be verified, it is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vop.backbones.altclip.family import XLM_ROBERTA
from vop.backbones.bert import BERT
from vop.backbones.siglip import family as siglip
from vop.backbones.sizes import VIT_B_16, VIT_B_32, VIT_L_14, Rope, Sizes, Stem, TextSizes, VisionSizes


@dataclass(frozen=True, kw_only=True)
class KnownBackbone:
    """A checkpoint on the Hugging Face hub.

    Attributes:
        name: its id, "OWNER/NAME".
        family: the family that reads it, a `model_type`.
        sizes: the sizes of its towers; without layers for an encoder whose layers methods cannot reach.
        millions: parameters of both towers, in millions.
        languages: the languages of the captions that it was trained with.
        license: as on its model card; None if the card names none.
        short_name: another name for it, such as "ViT-B/32".
        revision: the pinned commit, because on a hub the files of a name can change; None for the newest.
        config: of an encoder whose layers methods cannot reach, what differs from its library's defaults.
    """

    name: str
    family: str
    sizes: Sizes
    millions: int
    languages: str = "English"
    license: str | None = None
    short_name: str | None = None
    revision: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)


def _with(sizes: Sizes, *, vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None) -> Sizes:
    """Return `sizes` with other values in one or both towers."""
    return replace(sizes, vision=replace(sizes.vision, **vision or {}), text=replace(sizes.text, **text or {}))


def _gelu(sizes: Sizes) -> Sizes:
    """Return `sizes` with the exact GELU, as open_clip trains."""
    return _with(sizes, vision={"activation": "gelu"}, text={"activation": "gelu"})


_VIT_H_14 = Sizes(
    vision=VisionSizes(width=1280, layers=32, heads=16, mlp_width=5120, patch_size=14),
    text=TextSizes(width=1024, layers=24, heads=16, mlp_width=4096),
    embed_dim=1024,
)
_SIGLIP_BASE = Sizes(vision=siglip.VISION, text=siglip.TEXT, embed_dim=768, loss="sigmoid")
_SO400M: dict[str, Any] = {"width": 1152, "layers": 27, "heads": 16, "mlp_width": 4304}
_PE_CORE_B_16 = Sizes(
    vision=VisionSizes(
        patch_size=16,
        activation="gelu",
        rope=Rope(reference=14, offset=1.0, columns_first=True),
        readout="attention",
        pool_heads=8,
        pool_mlp_width=3072,
        projection_bias=True,
    ),
    text=TextSizes(width=1024, layers=24, heads=16, mlp_width=4096, activation="gelu", positions=32),
    embed_dim=1024,
)
_EVA02_B_16 = Sizes(
    vision=VisionSizes(
        mlp_width=2048,
        activation="silu",
        norm_eps=1e-6,
        gated=True,
        inner_norms=True,
        patch_size=16,
        pre_norm=False,
        patch_bias=True,
        rope=Rope(reference=16),
        projection_bias=True,
    ),
    text=TextSizes(activation="gelu"),
)
_CHINESE_CLIP = replace(VIT_B_16, text=replace(BERT, vocab_size=21_128))
_ALTCLIP = replace(VIT_L_14, text=replace(XLM_ROBERTA, positions=512))  # two of 514 are for padding
_MOBILE_CLIP_B = Sizes(
    vision=VisionSizes(
        activation="gelu",
        norm_eps=1e-6,
        patch_size=16,
        pre_norm=False,
        stem=Stem(widths=(192, 192, 768), strides=(4, 2, 2)),
        projection_bias=True,
    ),
    text=TextSizes(activation="gelu"),
)


def _without_layers(
    *, embed_dim: int, image_size: int, vocab_size: int, positions: int, num_frames: int | None = None
) -> Sizes:
    """Return the sizes of an encoder whose layers methods cannot reach."""
    none: dict[str, Any] = {"width": embed_dim, "layers": 0, "heads": 1, "mlp_width": 0}
    return Sizes(
        vision=VisionSizes(**none, image_size=image_size, patch_size=image_size, class_token=False),
        text=TextSizes(**none, vocab_size=vocab_size, positions=positions),
        embed_dim=embed_dim,
        num_frames=num_frames,
    )


KNOWN = [
    KnownBackbone(
        name="openai/clip-vit-base-patch32",
        family="clip",
        sizes=VIT_B_32,
        millions=151,
        license="mit",
        short_name="ViT-B/32",
        revision="3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    ),
    KnownBackbone(
        name="openai/clip-vit-base-patch16",
        family="clip",
        sizes=VIT_B_16,
        millions=150,
        license="mit",
        short_name="ViT-B/16",
        revision="57c216476eefef5ab752ec549e440a49ae4ae5f3",
    ),
    KnownBackbone(
        name="openai/clip-vit-large-patch14",
        family="clip",
        sizes=VIT_L_14,
        millions=428,
        license="mit",
        short_name="ViT-L/14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    ),
    KnownBackbone(
        name="openai/clip-vit-large-patch14-336",
        family="clip",
        sizes=_with(VIT_L_14, vision={"image_size": 336}),
        millions=428,
        license="mit",
    ),
    KnownBackbone(
        name="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        family="clip",
        sizes=_gelu(VIT_B_32),
        millions=151,
        license="mit",
    ),
    KnownBackbone(
        name="laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        family="open_clip",
        sizes=_gelu(VIT_B_16),
        millions=150,
        license="mit",
    ),
    KnownBackbone(
        name="laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        family="clip",
        sizes=_gelu(VIT_L_14),
        millions=428,
        license="mit",
    ),
    KnownBackbone(
        name="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        family="clip",
        sizes=_gelu(_VIT_H_14),
        millions=986,
        license="mit",
    ),
    KnownBackbone(
        name="facebook/metaclip-b32-400m", family="clip", sizes=VIT_B_32, millions=151, license="cc-by-nc-4.0"
    ),
    KnownBackbone(
        name="facebook/metaclip-2-worldwide-huge-quickgelu",
        family="metaclip_2",
        sizes=_with(_VIT_H_14, text={"vocab_size": 901_629, "eos_token_id": 2}),
        millions=1859,
        languages="300+",
    ),
    KnownBackbone(
        name="google/siglip-base-patch16-224", family="siglip", sizes=_SIGLIP_BASE, millions=203, license="apache-2.0"
    ),
    KnownBackbone(
        name="google/siglip-so400m-patch14-384",
        family="siglip",
        sizes=replace(
            _with(
                _SIGLIP_BASE,
                vision={**_SO400M, "image_size": 384, "patch_size": 14, "pool_heads": 16, "pool_mlp_width": 4304},
                text=_SO400M,
            ),
            embed_dim=1152,
        ),
        millions=878,
        license="apache-2.0",
    ),
    KnownBackbone(
        name="google/siglip2-base-patch16-224",
        family="siglip",
        sizes=_with(_SIGLIP_BASE, text={"vocab_size": 256_000}),
        millions=375,
        languages="100+",
        license="apache-2.0",
    ),
    KnownBackbone(
        name="timm/PE-Core-B-16", family="open_clip", sizes=_PE_CORE_B_16, millions=448, license="apache-2.0"
    ),
    KnownBackbone(
        name="timm/PE-Core-L-14-336",
        family="open_clip",
        sizes=_with(
            _PE_CORE_B_16,
            vision={
                "width": 1024,
                "layers": 24,
                "heads": 16,
                "mlp_width": 4096,
                "image_size": 336,
                "patch_size": 14,
                "rope": Rope(reference=24, offset=1.0, columns_first=True),
                "pool_mlp_width": 4096,
            },
        ),
        millions=671,
        license="apache-2.0",
    ),
    KnownBackbone(
        name="timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
        family="open_clip",
        sizes=_EVA02_B_16,
        millions=150,
        license="mit",
    ),
    KnownBackbone(
        name="timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k",
        family="open_clip",
        sizes=replace(
            _with(
                _EVA02_B_16,
                vision={"width": 1024, "layers": 24, "heads": 16, "mlp_width": 2730, "patch_size": 14},
                text={"width": 768, "heads": 12, "mlp_width": 3072},
            ),
            embed_dim=768,
        ),
        millions=428,
        license="mit",
    ),
    KnownBackbone(
        name="timm/MobileCLIP2-S0-OpenCLIP",
        family="open_clip",
        sizes=_without_layers(embed_dim=512, image_size=256, vocab_size=49408, positions=77),
        millions=75,
        config={
            "model_cfg": {
                "embed_dim": 512,
                "custom_text": True,
                "vision_cfg": {
                    "timm_model_name": "fastvit_mci0",
                    "timm_pool": "avg",
                    "timm_proj": None,
                    "image_size": 256,
                },
                "text_cfg": {"width": 512, "heads": 8, "layers": 12, "no_causal_mask": True},
            }
        },
    ),
    KnownBackbone(
        name="timm/MobileCLIP2-B-OpenCLIP",
        family="open_clip",
        sizes=_MOBILE_CLIP_B,
        millions=150,
    ),
    KnownBackbone(
        name="OFA-Sys/chinese-clip-vit-base-patch16",
        family="chinese_clip",
        sizes=_CHINESE_CLIP,
        millions=188,
        languages="Chinese",
    ),
    KnownBackbone(
        name="BAAI/AltCLIP",
        family="altclip",
        sizes=_ALTCLIP,
        millions=864,
        languages="English, Chinese",
        license="creativeml-openrail-m",
    ),
    KnownBackbone(
        name="microsoft/xclip-base-patch32",
        family="xclip",
        sizes=_without_layers(embed_dim=512, image_size=224, vocab_size=49408, positions=77, num_frames=8),
        millions=197,
        license="mit",
        config={"projection_dim": 512},
    ),
    KnownBackbone(
        name="google/videoprism-lvt-base-f16r288",
        family="videoprism",
        sizes=_without_layers(embed_dim=768, image_size=288, vocab_size=32_000, positions=64, num_frames=16),
        millions=248,
    ),
]
BY_NAME = {known.name: known for known in KNOWN}
SHORT_NAMES = {known.short_name: known.name for known in KNOWN if known.short_name}


def full_name(name: str) -> str:
    """Return the hub id that a short name such as "ViT-B/32" stands for, and any other name unchanged."""
    return SHORT_NAMES.get(name, name)


def pinned_revision(name: str) -> str | None:
    """Return the pinned commit of a hub id, if there is one."""
    known = BY_NAME.get(name)
    return known.revision if known else None
