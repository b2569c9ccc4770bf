"""Text towers that are BERTs (Devlin et al. 2019, arXiv 1810.04805): Chinese-CLIP's and AltCLIP's.

They normalise behind each sum, and the embedded tokens too; all tokens attend to all but padding; the first, [CLS],
is read. The type of a token is always the first one, so that its embedding is part of our positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vop.backbones.clip.family import read_text_sizes
from vop.backbones.config_values import read_token_id
from vop.backbones.sizes import TextSizes

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.clip.weights import Weights

BERT = TextSizes(
    width=768,
    heads=12,
    mlp_width=3072,
    activation="gelu",
    norm_eps=1e-12,
    norm_first=False,
    vocab_size=30522,
    positions=512,
    causal=False,
    readout="first",
    pad_token_id=0,
    embedding_norm=True,
    final_norm=False,
)
_IN_LAYER = {
    "attention.output.dense": "attention.out_proj",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "mlp_norm",
}


def read_bert_sizes(part: Mapping[str, Any], usual: TextSizes = BERT) -> dict[str, Any]:
    """Read what all BERTs have, as arguments of `TextSizes`."""
    kind = part.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ValueError(f"position_embedding_type is {kind!r}; only absolute positions are supported")
    sizes = read_text_sizes(part, usual)
    pad = usual.pad_token_id or 0
    pad_token_id = read_token_id(part, "pad_token_id", pad, vocab_size=sizes.vocab_size)
    return {**vars(sizes), "pad_token_id": pad_token_id}


def rename_bert(weights: Weights, old: str, *, first_position: int = 0) -> dict[str, Tensor]:
    """Rename a BERT under the prefix `old` to the weights of our text tower, but for what follows its layers.

    Args:
        first_position: the row of the positions that the first token has.
    """
    import torch

    # Files have the one name, models that some versions of transformers hold in memory the other.
    layers = f"{old}.encoder.layers"
    if not weights.count_layers(f"{layers}."):
        layers = f"{old}.encoder.layer"
    positions = weights.take(f"{old}.embeddings.position_embeddings.weight")[first_position:]
    kind = weights.take(f"{old}.embeddings.token_type_embeddings.weight")[0]
    ours = {
        "text.token_embedding.weight": weights.take(f"{old}.embeddings.word_embeddings.weight"),
        "text.positions": positions.float() + kind.float(),
    }
    for part in ("weight", "bias"):
        ours[f"text.embedding_norm.{part}"] = weights.take(f"{old}.embeddings.LayerNorm.{part}")
        for i in range(weights.count_layers(f"{layers}.")):
            layer, name = f"{layers}.{i}", f"text.layers.{i}"
            inputs = [weights.take(f"{layer}.attention.self.{one}.{part}") for one in ("query", "key", "value")]
            ours[f"{name}.attention.in_proj.{part}"] = torch.cat(inputs)
            for theirs, mine in _IN_LAYER.items():
                ours[f"{name}.{mine}.{part}"] = weights.take(f"{layer}.{theirs}.{part}")
    return ours
