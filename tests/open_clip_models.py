"""open_clip for tests: small variants of timm's towers, and folders in the format of its hub repositories."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from tiny_clip import make_tokenizer

GOLDEN = Path(__file__).parent / "backbones" / "open_clip_golden.json"
TEXT = {"context_length": 24, "vocab_size": 514, "width": 32, "heads": 4, "layers": 2}
# Sizes of towers that are small variants of timm's.
SMALL = {
    "eva02_base_patch16_clip_224": {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 48},
    "vit_pe_core_base_patch16_224": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 48},
    "vit_pe_core_gigantic_patch14_448": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 56},
    "vit_base_patch16_siglip_224": {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 48},
    "vit_base_mci_224": {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 48},
}


VIT = {"image_size": 48, "layers": 3, "width": 48, "head_width": 16, "patch_size": 16}
SIGLIP_TEXT = TEXT | {
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
LAYERED = {
    "quick-gelu": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "heads of 80": {"embed_dim": 16, "vision_cfg": VIT | {"width": 160, "head_width": 80}, "text_cfg": TEXT},
    "an MLP of an odd width": {
        "embed_dim": 16,
        "vision_cfg": VIT | {"mlp_ratio": 4.9231, "ls_init_value": 0.1},
        "text_cfg": TEXT | {"mlp_ratio": 3},
    },
    "the mean of patches": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": VIT | {"pool_type": "avg", "no_ln_pre": True},
        "text_cfg": TEXT,
    },
    "the normalised mean of patches": {
        "embed_dim": 16,
        "vision_cfg": VIT | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        "text_cfg": TEXT | {"pool_type": "last", "no_causal_mask": True},
    },
    "SigLIP": {
        "embed_dim": 48,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": ("vit_base_patch16_siglip_224", {"timm_pool": "map", "timm_proj": "none"}),
        "text_cfg": SIGLIP_TEXT,
    },
    "SigLIP without its pooling": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": ("vit_base_patch16_siglip_224", {"timm_pool": "avg"}),
        "text_cfg": TEXT,
    },
    "MobileCLIP": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": ("vit_base_mci_224", {}),
        "text_cfg": TEXT,
    },
    "EVA-02": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": ("eva02_base_patch16_clip_224", {}),
        "text_cfg": TEXT,
    },
    "PE-Core": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": ("vit_pe_core_base_patch16_224", {"timm_pool": "map"}),
        "text_cfg": TEXT,
    },
    "PE-Core without a class token": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": ("vit_pe_core_gigantic_patch14_448", {"timm_pool": "map"}),
        "text_cfg": TEXT,
    },
}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None, "image_size": 64}
ZERO_SHOT = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": RESNET, "text_cfg": TEXT}


def full_config(name: str) -> dict:
    """The model_cfg of a name in `LAYERED`; registers its timm tower."""
    config = dict(LAYERED[name])
    if isinstance(config["vision_cfg"], tuple):
        timm_name, values = config["vision_cfg"]
        config["vision_cfg"] = timm_vision(timm_name, **values)
    return config


def draw(sizes, *, images: int = 2):
    generator = torch.Generator().manual_seed(1)
    side, length, vocab = sizes.vision.image_size, sizes.text.positions, sizes.text.vocab_size
    ids = torch.zeros(3, length, dtype=torch.long)
    for row, end in enumerate((5, 9, length)):
        ids[row, :end] = torch.randint(1, vocab - 2, (end,), generator=generator)
        ids[row, end - 1] = vocab - 1
    return torch.randn(images, 3, side, side, generator=generator), ids


def draw_state(shapes: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    """Random tensors that depend only on their names and shapes."""
    state = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        state[name] = torch.randn(shape, generator=generator) * 0.1 + (0.5 if name.endswith("norm.weight") else 0)
        if name.endswith("running_var"):
            state[name] = state[name].abs() + 0.5
    return state


def make_golden_folder(folder: Path, name: str, *, vision: dict | None = None) -> Path:
    """Write a checkpoint of a name in `LAYERED` with a vocabulary, without open_clip.

    Args:
        vision: its vision_cfg, if `LAYERED` only has the name of a tower of timm.
    """
    make_tokenizer(folder)
    config = LAYERED[name] | ({"vision_cfg": vision} if vision else {})
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(draw_state(json.loads(GOLDEN.read_text())[name]["shapes"]), folder / "open_clip_model.safetensors")
    return folder


def timm_vision(name: str, **options: object) -> dict[str, object]:
    """The vision_cfg of a small variant of timm's model `name`."""
    from timm.models import _registry

    original, small = _registry.model_entrypoint(name), f"small_{name}"

    def entry(pretrained: bool = False, **given: object) -> torch.nn.Module:
        return original(pretrained=False, **given | SMALL[name] | _stem(name))

    _registry._model_entrypoints[small] = entry
    _registry._model_to_module[small] = _registry._model_to_module[name]
    return {"timm_model_name": small, "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None} | options


def _stem(name: str) -> dict[str, object]:
    """The narrow convolutional stem of a small variant of MobileCLIP's ViT, whose widths are not options in timm."""
    if name != "vit_base_mci_224":
        return {}
    from timm.layers import HybridEmbed
    from timm.models.vision_transformer_hybrid import ConvStem

    sizes = {"channels": (8, 12, 48), "stride": (4, 2, 2), "kernel_size": (4, 2, 2), "padding": 0}
    return {"embed_layer": partial(HybridEmbed, backbone=ConvStem(**sizes, act_layer=torch.nn.GELU), proj=False)}


def make_open_clip_folder(folder: Path, model_cfg: dict, *, preprocess: dict | None = None, seed: int = 0):
    """Write a checkpoint with random weights; return the folder and open_clip's model."""
    from open_clip.model import CLIP, CustomTextCLIP

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    values = dict(model_cfg)
    custom = values.pop("custom_text", False)
    model = (CustomTextCLIP if custom else CLIP)(**values)
    for parameter in model.parameters():  # also biases and norms, so that a swapped tensor is noticed
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    save_file(
        {name: one.contiguous() for name, one in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, model.eval()
