"""The table of well-known checkpoints agrees with the towers and with published configurations."""

from __future__ import annotations

import pytest
import torch

from vop.backbones.known import BY_NAME, KNOWN, SHORT_NAMES
from vop.backbones.source import FAMILIES, find_sizes
from vop.backbones.towers import CLIP

SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
GELU = {"hidden_act": "gelu"}
# Each checkpoint's config.json, without the defaults of `transformers`.
CONFIGS = {
    "openai/clip-vit-large-patch14-336": {
        "projection_dim": 768,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2},
        "vision_config": {**LARGE, "patch_size": 14, "image_size": 336},
    },
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": {"text_config": GELU, "vision_config": GELU},
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": {
        "projection_dim": 1024,
        "text_config": {**LARGE, **GELU, "eos_token_id": 2},
        "vision_config": {**HUGE, **GELU, "patch_size": 14},
    },
    "facebook/metaclip-b32-400m": {"text_config": {"heads": 8, "layers": 12}},
    "facebook/metaclip-2-worldwide-huge-quickgelu": {
        "projection_dim": 1024,
        "text_config": {**LARGE, "vocab_size": 901629, "eos_token_id": 2},
        "vision_config": {**HUGE, "patch_size": 14},
    },
    "google/siglip-base-patch16-224": {},
    "google/siglip-so400m-patch14-384": {
        "text_config": SO400M,
        "vision_config": {**SO400M, "patch_size": 14, "image_size": 384},
    },
    "google/siglip2-base-patch16-224": {"text_config": {"vocab_size": 256000}},
    "OFA-Sys/chinese-clip-vit-base-patch16": {
        "projection_dim": 512,
        "text_config": {"vocab_size": 21128},
        "vision_config": {"patch_size": 16},
    },
    "BAAI/AltCLIP": {"projection_dim": 768, "text_config": LARGE, "vision_config": {**LARGE, "patch_size": 14}},
    "microsoft/xclip-base-patch32": {"projection_dim": 512},
    "google/videoprism-lvt-base-f16r288": {},
}


@pytest.mark.parametrize("known", [known for known in KNOWN if known.sizes.has_layers], ids=lambda known: known.name)
def test_parameter_counts_equal_the_table(known):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in CLIP(known.sizes).parameters())
    assert round(count / 1e6) == known.millions


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_equal_the_published_configuration(name):
    known = BY_NAME[name]
    if known.family not in FAMILIES.names():
        pytest.skip(f"there is no family {known.family}")
    read = FAMILIES.find(known.family)().read_sizes(CONFIGS[name])
    if known.sizes.has_layers:
        assert read == known.sizes
    assert (read.embed_dim, read.vision.image_size, read.num_frames, read.has_layers) == (
        known.sizes.embed_dim,
        known.sizes.vision.image_size,
        known.sizes.num_frames,
        known.sizes.has_layers,
    )


OPEN_CLIP = {
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": "ViT-B-16",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": "ViT-L-14",
    "timm/PE-Core-B-16": "PE-Core-B-16",
    "timm/PE-Core-L-14-336": "PE-Core-L-14-336",
    "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k": "EVA02-B-16",
    "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k": "EVA02-L-14",
    "timm/MobileCLIP2-S0-OpenCLIP": "MobileCLIP2-S0",
    "timm/MobileCLIP2-B-OpenCLIP": "MobileCLIP2-B",
}


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_sizes_equal_those_of_open_clip(name):
    open_clip = pytest.importorskip("open_clip")
    config = {"model_cfg": open_clip.get_model_config(OPEN_CLIP[name])}
    read, known = FAMILIES.find("open_clip")().read_sizes(config), BY_NAME[name]
    if known.sizes.has_layers:
        assert read == known.sizes
    else:
        assert not read.has_layers
        assert (read.embed_dim, read.vision.image_size) == (known.sizes.embed_dim, known.sizes.vision.image_size)


def test_sizes_need_no_network():
    assert find_sizes("ViT-L/14").embed_dim == 768
    assert find_sizes("hf-hub:timm/PE-Core-B-16").embed_dim == 1024
    assert find_sizes("timm/PE-Core-B-16@336").vision.grid == 21


def test_names_are_unique():
    assert len(BY_NAME) == len(KNOWN)
    assert SHORT_NAMES == {
        "ViT-B/32": "openai/clip-vit-base-patch32",
        "ViT-B/16": "openai/clip-vit-base-patch16",
        "ViT-L/14": "openai/clip-vit-large-patch14",
    }
