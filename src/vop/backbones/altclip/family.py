"""AltCLIP (Chen et al. 2022, arXiv 2211.06679): CLIP's vision tower and an XLM-RoBERTa, for several languages.

Behind the text tower stand two linear maps without anything in between, which we read as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.bert import BERT, read_bert_sizes, rename_bert
from vop.backbones.clip.family import read_vision_sizes
from vop.backbones.config_values import read_part, read_value
from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary
from vop.backbones.sizes import Sizes, TextSizes
from vop.errors import VopError

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.tokenizer import Tokenizer

XLM_ROBERTA = replace(
    BERT,
    width=1024,
    layers=24,
    heads=16,
    mlp_width=4096,
    norm_eps=1e-5,
    vocab_size=250_002,
    positions=514,
    pad_token_id=1,
    final_norm=True,
    projection_bias=True,
)


class AltClipFamily(Family):
    title = "AltCLIP"

    def read_sizes(self, config: Mapping[str, Any]) -> Sizes:
        text = TextSizes(**read_bert_sizes(read_part(config, "text_config"), XLM_ROBERTA))
        positions = text.positions - _first_position(text)
        if positions < 1:
            raise ValueError(
                f"max_position_embeddings is {text.positions}; a pad_token_id of {text.pad_token_id} "
                "leaves none for a text"
            )
        return Sizes(
            vision=read_vision_sizes(read_part(config, "vision_config")),
            text=replace(text, positions=positions),
            embed_dim=read_value(config, "projection_dim", 768),
        )

    def rename(self, state: Mapping[str, Tensor], sizes: Sizes, *, source: str) -> dict[str, Tensor]:
        from vop.backbones.clip.weights import Weights, rename_vision

        # The vision tower's layers are called `layers`, or `layer` in the files that transformers 5 writes.
        state = {
            name.replace("vision_model.encoder.layer.", "vision_model.encoder.layers."): tensor
            for name, tensor in state.items()
        }
        weights = Weights(state, source=source, kind="transformers AltCLIPModel")
        inner, bias = (weights.take(f"text_model.transformation.{part}").double() for part in ("weight", "bias"))
        outer = weights.take("text_projection.weight").double()
        if outer.shape[1] != len(inner):
            raise VopError(
                f"{source}: text_projection.weight takes {outer.shape[1]} values, and text_model.transformation gives "
                f"{len(inner)}: they are not of the same model"
            )
        ours = {
            **rename_vision(weights),
            **rename_bert(weights, "text_model.roberta", first_position=_first_position(sizes.text)),
            "text.post_norm.weight": weights.take("text_model.pre_LN.weight"),
            "text.post_norm.bias": weights.take("text_model.pre_LN.bias"),
            "text.projection": (outer @ inner).T,
            "text.projection_bias": outer @ bias,
            "log_logit_scale": weights.take("logit_scale"),
        }
        return {name: tensor.contiguous() for name, tensor in ours.items()}

    def read_tokenizer(self, folder: Path, sizes: Sizes) -> Tokenizer | None:
        from vop.backbones.tokenizer import Tokenizer

        if not has_vocabulary(folder):
            return None
        return Tokenizer(folder, sizes.text, cleaning="none", pad_token_id=sizes.text.pad_token_id)


def _first_position(text: TextSizes) -> int:
    """Return the row of the positions that the first token has: RoBERTa counts from behind the id of padding."""
    return (text.pad_token_id or 0) + 1
