"""MetaCLIP 2 (Chuang et al. 2025, arXiv 2507.22062) in the folders of `transformers`.

It has CLIP's towers and a vocabulary of many languages, XLM-V's. Unlike in
old CLIP configurations, an `eos_token_id` of 2 is the token with the id 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.clip.family import read_text_sizes, read_vision_sizes
from vop.backbones.config_values import read_part, read_token_id, read_value
from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary
from vop.backbones.sizes import Sizes

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer


class MetaClip2Family(Family):
    title = "MetaCLIP 2"

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        text = read_part(config, "text_config")
        sizes = read_text_sizes(text)
        eos = read_token_id(text, "eos_token_id", sizes.eos_token_id, vocab_size=sizes.vocab_size)
        return Sizes(
            vision=read_vision_sizes(read_part(config, "vision_config")),
            text=replace(sizes, eos_token_id=eos),
            embed_dim=read_value(config, "projection_dim", Sizes().embed_dim),
        )

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.clip.weights import from_transformers

        return from_transformers(state, source=source, kind="transformers MetaClip2Model")

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        from vop.backbones.tokenizer import Tokenizer

        if not has_vocabulary(folder):
            return None
        return Tokenizer(folder, sizes.text, cleaning="none")
