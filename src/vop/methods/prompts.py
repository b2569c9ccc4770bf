"""Trainable prompt tokens, separate for each layer.

Shapes: `L` layers with prompts, `P` prompts, `d` the tower's width. Layers are numbered from 1, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vop.backbones.layers import free_parameter
from vop.errors import UsageError
from vop.utils.checks import check_list, check_whole

PROMPT_STD = 0.02  # paper, section 4


class LayerPrompts(nn.Module):
    """Prompt tokens for each layer. `shape` is the shape for one layer: (P, d) if all frames share the tokens."""

    def __init__(self, layers: Sequence[int], *shape: int) -> None:
        super().__init__()
        self.row = {layer: row for row, layer in enumerate(layers)}
        has_tokens = bool(layers) and shape[-2] > 0
        self.tokens = free_parameter(len(layers), *shape, std=PROMPT_STD) if has_tokens else None

    def get(self, layer: int) -> Tensor | None:
        """Return the prompts of `layer` (from 1), or None if it has none."""
        return self.tokens[self.row[layer]] if self.tokens is not None and layer in self.row else None


def which_layers(layers: Sequence[int] | None, *, depth: int, setting: str) -> tuple[int, ...]:
    """Return the sorted layers of a setting. None means all `depth` layers, an empty sequence none."""
    if layers is None:
        return tuple(range(1, depth + 1))
    check_list(setting, layers, example="[1, 2, 3]")
    for layer in layers:
        check_whole(setting, layer, at_least=1)
    wrong = [layer for layer in layers if layer > depth]
    if wrong:
        raise UsageError(f"{setting} names layer {wrong[0]}; the tower has layers 1 to {depth}")
    return tuple(sorted(set(layers)))
