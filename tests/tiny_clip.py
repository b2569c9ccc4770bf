"""A tiny CLIP with random weights and a real byte-level vocabulary, in an ordinary `transformers` folder."""

from __future__ import annotations

from pathlib import Path

import torch


def make_clip_folder(folder: Path, *, seed: int = 0, vision_layers: int = 3, **kinds: dict) -> Path:
    """`kinds` are other values of the `text` and the `vision` tower."""
    from transformers import CLIPConfig, CLIPModel

    size = make_tokenizer(folder)
    torch.manual_seed(seed)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": size,
        "max_position_embeddings": 40,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 16,
    }
    text, vision = text | kinds.get("text", {}), vision | kinds.get("vision", {})
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, logit_scale_init_value=3.9)
    model = CLIPModel(config)
    for parameter in model.parameters():  # also biases and norms, so that a swapped tensor is noticed
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path) -> int:
    """Write the vocabulary, and return its size. The end mark has the highest id."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return len(words)
