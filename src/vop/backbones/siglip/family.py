"""SigLIP (Zhai et al. 2023, arXiv 2303.15343) in the folders of `transformers`.

SigLIP 2 (Tschannen et al. 2025, arXiv 2502.14786) of a fixed resolution has the same towers and the same `model_type`;
it differs in its vocabulary, Gemma's. Neither has a [CLS] or a [BOS] token: an image is read by attention pooling, a
text at its last position. Texts attend in both directions, also to their padding, which fills all positions.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.clip.family import read_text_sizes, read_vision_sizes
from vop.backbones.config_values import read_part, read_value
from vop.backbones.family import Family
from vop.backbones.files import converted_vocabulary, has_vocabulary
from vop.backbones.preprocessing import HALF, Preprocessing, read_preprocessing
from vop.backbones.sizes import Sizes, TextSizes, VisionSizes
from vop.errors import VopError
from vop.utils.files import check_file
from vop.utils.parsing import read_json_object
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer

# The defaults of `transformers.SiglipConfig`.
VISION = VisionSizes(
    patch_size=16,
    activation="gelu_pytorch_tanh",
    norm_eps=1e-6,
    class_token=False,
    pre_norm=False,
    patch_bias=True,
    readout="attention",
    pool_heads=12,
    pool_mlp_width=3072,
    projection=False,
)
TEXT = TextSizes(
    width=768,
    heads=12,
    mlp_width=3072,
    activation="gelu_pytorch_tanh",
    norm_eps=1e-6,
    vocab_size=32_000,
    positions=64,
    marks=0,
    causal=False,
    readout="last",
    eos_token_id=1,
    fixed_length=True,
    projection_bias=True,
)
SENTENCEPIECE = "spiece.model"
# How texts were cleaned, by the class of a folder's tokenizer. Gemma's is SigLIP 2's.
CLEANING = {
    "SiglipTokenizer": "canonicalize",
    "Siglip2Tokenizer": "lower",
    "GemmaTokenizer": "lower",
    "GemmaTokenizerFast": "lower",
}


class SiglipFamily(Family):
    title = "SigLIP"

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        text_part, vision_part = read_part(config, "text_config"), read_part(config, "vision_config")
        if not read_value(vision_part, "vision_use_head", True):
            raise ValueError("vision_use_head is false, but the embedding of an image is the output of this head")
        vision, text = read_vision_sizes(vision_part, VISION), read_text_sizes(text_part, TEXT)
        vision = replace(vision, pool_heads=vision.heads, pool_mlp_width=vision.mlp_width)
        size = text_part.get("projection_size")
        embed_dim = text.width if size is None else read_value(text_part, "projection_size", text.width)
        if embed_dim != vision.width:
            raise ValueError(
                f"projection_size is {embed_dim}, and hidden_size in vision_config {vision.width}; they must be equal, "
                "because images have no projection"
            )
        return Sizes(vision=vision, text=text, embed_dim=embed_dim, loss="sigmoid")

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.siglip.weights import from_transformers

        return from_transformers(state, source=source)

    def read_preprocessing(self, folder: Path, sizes: Sizes) -> Preprocessing:
        size = sizes.vision.image_size
        usual = Preprocessing(resizing=Resizing(size, "squash", "bicubic"), mean=HALF, std=HALF)
        return read_preprocessing(folder, image_size=size, usual=usual)

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        if not has_vocabulary(folder):
            return None
        if (folder / "tokenizer.json").exists() or not (folder / SENTENCEPIECE).exists():
            return _tokenizer(folder, sizes.text)
        with converted_vocabulary(folder) as converted:
            _convert_sentencepiece(folder, converted)
            return _tokenizer(converted, sizes.text)


def _tokenizer(folder: Path, sizes: TextSizes) -> Tokenizer:
    from vop.backbones.tokenizer import Tokenizer, pad_token

    path = folder / "tokenizer_config.json"
    config = read_json_object(path, remedy="fetch the folder again") if path.exists() else {}
    cleaning = config.get("text_cleaning") or CLEANING.get(str(config.get("tokenizer_class")))
    if cleaning is None:
        raise VopError(
            f"{path}: tokenizer_class is {config.get('tokenizer_class')!r}, so it is unknown how texts were cleaned: "
            'add "text_cleaning": "canonicalize" there for SigLIP, or "lower" for SigLIP 2'
        )
    return Tokenizer(folder, sizes, cleaning=cleaning, pad_token=pad_token(folder))


def _convert_sentencepiece(folder: Path, out: Path) -> None:
    """Write the tokenizer.json of a folder that has only a sentencepiece model."""
    from vop.backbones.tokenizer import MAX_BYTES

    check_file(folder / SENTENCEPIECE, at_most=MAX_BYTES)
    try:
        import_module("sentencepiece")
        import_module("google.protobuf")
    except ImportError:
        raise VopError(
            f"{folder}: its vocabulary is {SENTENCEPIECE}, without a tokenizer.json: to read it, "
            "pip install 'vop[sentencepiece]'; or fetch a tokenizer.json from the same repository"
        ) from None
    from transformers import SiglipTokenizer
    from transformers.convert_slow_tokenizer import T5Converter

    try:
        tokenizer = SiglipTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer._extra_ids = 0  # of T5, whose converter this is
        converter = T5Converter(tokenizer)  # type: ignore[no-untyped-call]  # transformers has no types here
        converter.converted().save(str(out / "tokenizer.json"))
    except Exception as error:  # the libraries raise no class of their own
        raise VopError(f"{folder / SENTENCEPIECE}: cannot be read ({error}); fetch the folder again") from error
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
