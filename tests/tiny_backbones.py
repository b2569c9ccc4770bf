"""Tiny backbones with random weights, in folders as their authors publish them, one function for each family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 16,
}
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,一个人在切洋葱猫狗パンダéжук"


def write_model(model: Any, folder: Path) -> Path:
    """Write a model of `transformers` whose weights are all drawn, so that a swapped tensor cannot go unnoticed."""
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


def make_chinese_clip_folder(folder: Path, *, seed: int = 0, text: dict | None = None) -> Path:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{letter}" for letter in CHARACTERS)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")  # the only file of the vocabulary
    preprocessing = {
        "do_center_crop": False,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ChineseCLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    torch.manual_seed(seed)
    text = TEXT | {"vocab_size": len(words), "max_position_embeddings": 40} | (text or {})
    return write_model(
        ChineseCLIPModel(ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)), folder
    )


def make_altclip_folder(folder: Path, *, seed: int = 0, text: dict | None = None) -> Path:
    from transformers import AltCLIPConfig, AltCLIPModel, XLMRobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*special, "▁", *CHARACTERS, "▁a", "▁cat", "▁猫", "<mask>"]
    XLMRobertaTokenizer(vocab=[(word, -float(i)) for i, word in enumerate(words)]).save_pretrained(folder)
    torch.manual_seed(seed)
    text = TEXT | {"vocab_size": len(words), "max_position_embeddings": 42, "project_dim": 24} | (text or {})
    return write_model(AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)), folder)
