"""Start a deeper model from a shallower one, so that it computes the same from the first step on.

Each layer of the shallow towers becomes one or more layers of the deep ones. The first keeps the weights; the others
are copies whose last matrices are zero, so that they add nothing until they are trained.
"""

from __future__ import annotations

import torch


@torch.no_grad()
def grow(small, small_tokenizer, large, tokenizer) -> None:
    """Copy the weights of `small`, a `CLIPModel`, to `large`, a deeper `CLIPModel` of the same widths, in place.

    Words that both tokenizers have keep their embeddings; `large` keeps its own for the others.

    Raises:
        ValueError: the depth of a tower is not a multiple of the small tower's.
    """
    source = small.state_dict()
    for name, parameter in large.state_dict().items():
        found = source.get(_origin(name, small, large))
        if name.endswith("token_embedding.weight"):
            _copy_words(found, small_tokenizer.get_vocab(), parameter, tokenizer.get_vocab())
        else:
            parameter.copy_(found)
    for tower in ("text_model", "vision_model"):
        layers = getattr(large, tower).encoder.layers
        repeats = len(layers) // len(getattr(small, tower).encoder.layers)
        for i, layer in enumerate(layers):
            if i % repeats:
                for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
                    linear.weight.zero_()
                    linear.bias.zero_()


def _origin(name: str, small, large) -> str:
    """Return the name of the small model's parameter from which the large one's starts."""
    before, layers, after = name.partition(".encoder.layers.")
    if not layers:
        return name
    number, _, rest = after.partition(".")
    shallow, deep = (len(getattr(m, before).encoder.layers) for m in (small, large))
    if deep % shallow:
        raise ValueError(f"{before} has {deep} layers, which is not a multiple of {shallow}")
    return f"{before}{layers}{int(number) * shallow // deep}.{rest}"


def _copy_words(source: torch.Tensor, ids: dict[str, int], target: torch.Tensor, new_ids: dict[str, int]) -> None:
    for word, row in new_ids.items():
        if word in ids:
            target[row] = source[ids[word]]
