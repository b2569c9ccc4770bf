"""LoRA: low-rank updates of linear layers (Hu et al., ICLR 2022, arXiv 2106.09685), with the library `peft`.

    W x  becomes  W x + alpha / rank * B A x,    B = 0 at the start

in both towers. Here CLIP's query, key and value projections are one matrix (`in_proj`) with one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.errors import UsageError
from vop.methods.base import Method
from vop.utils.checks import check_choice, check_list, check_whole

TARGETS = ("in_proj", "out_proj", "fc1", "fc2")


class LoRA(Method):
    """Trains low-rank updates of linear layers, by default of the attention's projections.

    Settings:
        rank: the rank of the updates.
        alpha: the scale of the updates is `alpha / rank`.
        targets: the linear layers with updates: any of `in_proj` and `out_proj` (attention), `fc1` and `fc2` (MLP).
    """

    needs_layers = True
    learning_rate = 1e-3
    changes_backbone = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        rank: int = 8,
        alpha: int = 16,
        targets: Sequence[str] = ("in_proj", "out_proj"),
        **settings: Any,
    ) -> None:
        super().__init__(sizes, **settings)
        check_whole("rank", rank, at_least=1)
        check_whole("alpha", alpha, at_least=1)
        check_list("targets", targets, example="[fc1, fc2]")
        if not targets:
            raise UsageError(f"targets is {targets!r}; name at least one of {', '.join(TARGETS)}")
        for target in targets:
            check_choice("target of lora", target, TARGETS)
        self.rank, self.alpha, self.targets = rank, alpha, list(targets)

    def attach(self, clip: CLIP) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise UsageError("the method lora needs the library peft: pip install 'vop[lora]'") from None
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=self.targets, lora_dropout=0.0)
        inject_adapter_in_model(config, clip)
