"""Tiny backbones of all families with random weights, in the folder format of their authors."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

NOT_LATIN = "日本語犬猫собакбегтكلبहि"
SENTENCES = {
    "Chinese": "一个人在切洋葱",
    "Arabic": "كلب يجري",
    "Hindi": "कुत्ता दौड़ता है",
    "Thai": "สุนัขวิ่ง",
    "emoji": "🐕🏃 🧅",
}
_THEIR_LETTERS = "".join(sorted({*"".join(SENTENCES.values())} - {" "}))
_WORDS = ["▁a", "▁dog", "run", "s▁", "▁CUT"]
_PIECES = [*string.ascii_letters, *string.digits, *string.punctuation, *NOT_LATIN, *_WORDS, *_THEIR_LETTERS]
_TOWER = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}


def _save(model: Any, folder: Path, *, seed: int) -> None:
    """Draw all weights, also biases and norms, so that a swapped tensor is noticed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.save_pretrained(folder)


def _write_preprocessor(folder: Path, **values: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def unigram_pieces(*special: str) -> list[tuple[str, float]]:
    """The pieces of a SentencePiece vocabulary with their scores; a longer piece is likelier than its letters."""
    pieces = ["▁", *dict.fromkeys(_PIECES)]
    return [*((token, 0.0) for token in special), *((piece, -2.0 - i / 100) for i, piece in enumerate(pieces))]


def make_metaclip2_folder(folder: Path, *, seed: int = 0, **kinds: dict[str, Any]) -> Path:
    """`kinds` are other values of the `text` and the `vision` tower."""
    from transformers import MetaClip2Config, MetaClip2Model, XLMRobertaTokenizer

    pieces = unigram_pieces("<s>", "<pad>", "</s>", "<unk>")
    XLMRobertaTokenizer(vocab=pieces, add_prefix_space=True).save_pretrained(folder)
    torch.manual_seed(seed)
    text = {"hidden_size": 32, "vocab_size": len(pieces) + 1, "max_position_embeddings": 40}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "projection_dim": 16}
    vision = {"image_size": 32, "patch_size": 16, "projection_dim": 16}
    config = MetaClip2Config(
        text_config=_TOWER | text | kinds.get("text", {}),
        vision_config=_TOWER | vision | kinds.get("vision", {}),
        projection_dim=16,
        logit_scale_init_value=3.9,
    )
    _save(MetaClip2Model(config), folder, seed=seed)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    _write_preprocessor(folder, image_processor_type="CLIPImageProcessor", resample=3, **size)
    return folder


def make_siglip_folder(folder: Path, *, version: int = 1, seed: int = 0, **kinds: dict[str, Any]) -> Path:
    """`version` 2 has Gemma's vocabulary. `kinds` are other values of the `text` and the `vision` tower."""
    from transformers import SiglipConfig, SiglipModel

    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = (_write_siglip_vocabulary if version == 1 else _write_gemma_vocabulary)(folder)
    torch.manual_seed(seed)
    config = SiglipConfig(
        text_config=_TOWER | {"vocab_size": vocab_size, "max_position_embeddings": 24} | kinds.get("text", {}),
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8} | kinds.get("vision", {}),
    )
    model = SiglipModel(config)
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-10)
    _save(model, folder, seed=seed)
    half = [0.5, 0.5, 0.5]
    _write_preprocessor(
        folder,
        image_processor_type="SiglipImageProcessor",
        size={"height": 32, "width": 32},
        resample=3 if version == 1 else 2,
        image_mean=half,
        image_std=half,
    )
    return folder


def _write_siglip_vocabulary(folder: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = unigram_pieces("<pad>", "</s>", "<unk>")
    rules = Tokenizer(models.Unigram(pieces, unk_id=2))
    rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    rules.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    rules.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)


def _write_gemma_vocabulary(folder: Path) -> int:
    from transformers import Siglip2Tokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *(piece for piece in dict.fromkeys(_PIECES) if len(piece) == 1), "do", "dog", "▁dog"]
    Siglip2Tokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=[("d", "o"), ("do", "g"), ("▁", "dog")],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_max_length=24,
    ).save_pretrained(folder)
    return len(words)


TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 16,
}
CHARACTERS = "".join(
    dict.fromkeys(f"abcdefghijklmnopqrstuvwxyz0123456789.,一个人在切洋葱猫狗パンダéжук{_THEIR_LETTERS}")
)


def write_model(model: Any, folder: Path) -> Path:
    """Draw all weights of a model of `transformers`, so that a swapped tensor is noticed, and save it."""
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


def make_x_clip_folder(folder: Path, *, seed: int = 0) -> Path:
    """X-CLIP for 4 frames, with the vocabulary of `make_clip_folder`."""
    from transformers import XCLIPConfig, XCLIPModel

    from tiny_clip import make_tokenizer

    size = make_tokenizer(folder)
    write_json(
        folder / "preprocessor_config.json",
        image_processor_type="VideoMAEImageProcessor",
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=2,
    )
    torch.manual_seed(seed)
    mit = {"mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_attention_heads": 2, "num_frames": 4}
    text = TEXT | {"vocab_size": size, "max_position_embeddings": 40, "eos_token_id": 2}  # as Microsoft's files
    config = XCLIPConfig(text_config=text, vision_config=VISION | mit, projection_dim=16, prompt_num_attention_heads=2)
    return write_model(XCLIPModel(config), folder)


def make_videoprism_folder(folder: Path, *, seed: int = 0) -> Path:
    """VideoPrism with a text tower, for 4 frames."""
    from transformers import VideoPrismClipModel, VideoPrismConfig, VideoPrismTokenizer

    words = ["<pad>", "</s>", "<unk>", "▁", *CHARACTERS, "▁a", "▁cat", "▁猫"]
    tokenizer = VideoPrismTokenizer(vocab=[(word, -float(i)) for i, word in enumerate(words)], extra_ids=0)
    tokenizer.save_pretrained(folder)
    values = {"size": {"height": 36, "width": 36}, "do_normalize": False, "resample": 3}
    write_json(folder / "video_preprocessor_config.json", video_processor_type="LlavaOnevisionVideoProcessor", **values)
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_spatial_layers": 2,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
        "image_size": 36,
        "num_frames": 4,
    }
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    return write_model(VideoPrismClipModel(VideoPrismConfig(text_config=text, vision_config=vision)), folder)


def pe_video_config(vocab_size: int) -> dict[str, Any]:
    video = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "ref_feat_shape": [2, 2]},
            "num_classes": 16,
        },
    }
    special = {name: vocab_size - 1 for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")}
    text = TEXT | special | {"vocab_size": vocab_size, "pad_token_id": 0, "max_position_embeddings": 64}
    return {"text_config": text | {"model_type": "modernbert"}, "video_config": video}


def make_pe_video_folder(folder: Path, *, seed: int = 0) -> Path:
    """PE-Video, whose towers need timm."""
    from transformers import BertTokenizer, PeVideoConfig, PeVideoModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, *(f"##{letter}" for letter in CHARACTERS)]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(seed)
    return write_model(PeVideoModel(PeVideoConfig(**pe_video_config(len(words)))), folder)


def write_json(path: Path, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
