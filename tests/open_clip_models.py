"""open_clip for tests: its import, small variants of timm's towers, and folders as its hub repositories have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

TEXT = {"context_length": 24, "vocab_size": 514, "width": 32, "heads": 4, "layers": 2}
# Sizes of towers that are small variants of timm's.
SMALL = {
    "eva02_base_patch16_clip_224": {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 48},
    "vit_pe_core_base_patch16_224": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 48},
    "vit_pe_core_gigantic_patch14_448": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 56},
    "vit_base_patch16_siglip_224": {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 48},
}


def import_open_clip():
    """Import open_clip, or skip the test where it is not installed.

    A torchvision of another build than PyTorch cannot load its operators, and then fails to describe two of them. No
    test needs them, so their schemas are declared here.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pytest.skip("open_clip is not installed")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return pytest.importorskip("open_clip")


def timm_vision(name: str, **options: object) -> dict[str, object]:
    """The vision_cfg of a small variant of timm's model `name`."""
    from timm.models import _registry

    original, small = _registry.model_entrypoint(name), f"small_{name}"

    def entry(pretrained: bool = False, **given: object) -> torch.nn.Module:
        return original(pretrained=False, **given | SMALL[name])

    _registry._model_entrypoints[small] = entry
    _registry._model_to_module[small] = _registry._model_to_module[name]
    return {"timm_model_name": small, "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None} | options


def make_open_clip_folder(folder: Path, model_cfg: dict, *, preprocess: dict | None = None, seed: int = 0):
    """Write a checkpoint with random weights; return the folder and open_clip's model."""
    from open_clip.model import CLIP, CustomTextCLIP

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    values = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    model = (CustomTextCLIP if model_cfg.get("custom_text") else CLIP)(**values)
    for parameter in model.parameters():  # biases and norms too, so that a swapped tensor cannot go unnoticed
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    save_file(
        {name: one.contiguous() for name, one in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder, model.eval()
