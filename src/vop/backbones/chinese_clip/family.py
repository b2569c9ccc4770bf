"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335): CLIP's vision tower and a Chinese BERT.

The authors trained it with captions of 52 tokens. Like `transformers`, we take as many as BERT has positions for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.bert import read_bert_sizes, rename_bert
from vop.backbones.clip.family import read_vision_sizes
from vop.backbones.config_values import read_part, read_value
from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary
from vop.backbones.preprocessing import Preprocessing, read_preprocessing
from vop.backbones.sizes import Sizes, TextSizes
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer


class ChineseClipFamily(Family):
    title = "Chinese-CLIP"

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        return Sizes(
            vision=read_vision_sizes(read_part(config, "vision_config")),
            text=TextSizes(**read_bert_sizes(read_part(config, "text_config"))),
            embed_dim=read_value(config, "projection_dim", Sizes().embed_dim),
        )

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.clip.weights import Weights, rename_vision

        weights = Weights(state, source=source, kind="transformers ChineseCLIPModel")
        ours = {
            **rename_vision(weights),
            **rename_bert(weights, "text_model"),
            "text.projection": weights.take("text_projection.weight").T,
            "log_logit_scale": weights.take("logit_scale"),
        }
        return {name: tensor.contiguous() for name, tensor in ours.items()}

    def read_preprocessing(self, folder: Path, sizes: Sizes) -> Preprocessing:
        size = sizes.vision.image_size
        return read_preprocessing(folder, image_size=size, usual=Preprocessing(resizing=Resizing(size, mode="squash")))

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        from vop.backbones.tokenizer import Tokenizer

        if not has_vocabulary(folder):
            return None
        return Tokenizer(folder, sizes.text, cleaning="none", pad_token_id=sizes.text.pad_token_id)
