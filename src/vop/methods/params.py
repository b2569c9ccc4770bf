"""How many parameters a method trains, as the paper counts them and as they are (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from vop import methods
from vop.backbone.clip import Clip
from vop.backbone.config import ClipSizes
from vop.methods.base import Method


@dataclass(frozen=True)
class ParameterCount:
    """Percentages are of the whole backbone, counted the same way."""

    paper_count: int
    paper_percent: float
    true_count: int
    true_percent: float


def count_parameters(sizes: ClipSizes, *, only: Sequence[str] | None = None, **settings) -> dict[str, ParameterCount]:
    """Counts every method on a backbone of `sizes`, or those in `only`, with those of `settings` that each one has.

    Builds no weights: everything stands on the meta device.
    """
    with torch.device("meta"):
        clip = Clip(sizes)
        built = {name: methods.create(name, sizes, **_its_own(name, settings)) for name in only or methods.METHODS}
    whole = {"paper": paper_size(clip), "true": sum(p.numel() for p in clip.parameters())}
    return {name: _count(method, whole) for name, method in built.items()}


def _its_own(name: str, settings: dict) -> dict:
    known = methods.settings_of(name)
    return {key: value for key, value in settings.items() if key in known}


def paper_size(clip: Clip) -> int:
    """The backbone as the paper counts it: without attention `in_proj`s and tensors that belong to no layer.

    119,826,432 of the 151,277,313 of ViT-B/32.
    """
    layers = (nn.Linear, nn.Conv2d, nn.Embedding, nn.LayerNorm)
    return sum(
        parameter.numel()
        for name, module in clip.named_modules()
        if isinstance(module, layers) and not name.endswith("in_proj")
        for parameter in module.parameters()
    )


def to_json(counts: dict[str, ParameterCount]) -> dict:
    return {"methods": {name: asdict(count) for name, count in counts.items()}}


def _count(method: Method, whole: dict[str, int]) -> ParameterCount:
    true = sum(p.numel() for p in method.parameters() if p.requires_grad)
    paper = true - method.uncounted_parameters()
    return ParameterCount(
        paper_count=paper,
        paper_percent=round(100 * paper / whole["paper"], 3),
        true_count=true,
        true_percent=round(100 * true / whole["true"], 3),
    )
