"""Count the parameters that a method trains: all of them, and as in the paper (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vop import heads, methods
from vop.backbones.sizes import Sizes
from vop.backbones.towers import CLIP
from vop.heads.base import Head
from vop.methods.base import Method
from vop.methods.baselines import layer_parameters
from vop.models.model import attach, split_settings


@dataclass(frozen=True)
class ParameterCount:
    """Trainable parameters. Percentages are relative to the whole backbone, counted the same way."""

    paper_count: int
    paper_percent: float
    true_count: int
    true_percent: float


def count_parameters(sizes: Sizes, *, only: Sequence[str] | None = None, **settings: Any) -> dict[str, ParameterCount]:
    """Count the parameters of every method on a backbone of `sizes`, or only of the methods in `only`.

    Each method uses those of the `settings` that it knows. No weights are allocated (meta device).
    """
    counts = {}
    for name in only or methods.METHODS:
        known = methods.settings_of(name)
        counts[name] = count_model(name, sizes, settings={key: settings[key] for key in settings if key in known})
    return counts


def count_model(name: str, sizes: Sizes, *, head: str = heads.MEAN, settings: dict[str, Any]) -> ParameterCount:
    """Count the parameters that a method trains, including those in the backbone, and those of the head.

    The paper has no heads, so its count excludes them.

    Args:
        settings: settings of the method, and of the head as `head.NAME`.
    """
    with torch.device("meta"):
        clip = CLIP(sizes).requires_grad_(False)
        whole = {"paper": paper_size(clip), "true": sum(p.numel() for p in clip.parameters())}
    method, top = _attached(clip, name, head=head, settings=settings)
    true = sum(p.numel() for part in (clip, method, top) for p in part.parameters() if p.requires_grad)
    paper = true - method.uncounted_parameters(clip) - sum(p.numel() for p in top.parameters())
    return ParameterCount(
        paper_count=paper,
        paper_percent=round(100 * paper / whole["paper"], 3),
        true_count=true,
        true_percent=round(100 * true / whole["true"], 3),
    )


def trained_names(name: str, sizes: Sizes, *, head: str = heads.MEAN, settings: dict[str, Any]) -> list[str]:
    """Return the names of the parameters that a method and a head train, as in `TextVideoModel.trainable`.

    Args:
        settings: as for `count_model`.
    """
    with torch.device("meta"):
        clip = CLIP(sizes).requires_grad_(False)
    method, top = _attached(clip, name, head=head, settings=settings)
    parts = {"clip": clip, "method": method, "head": top}
    return [f"{part}.{key}" for part in parts for key, p in parts[part].named_parameters() if p.requires_grad]


def _attached(clip: CLIP, name: str, *, head: str, settings: dict[str, Any]) -> tuple[Method, Head]:
    """Return a method and a head on the meta device, attached to a CLIP there."""
    of_method, of_head = split_settings(settings)
    with torch.device("meta"):
        method = methods.create(name, clip.sizes, **of_method)
        top = heads.create(head, clip.sizes, num_frames=method.num_frames, **of_head)
        attach(clip, method, top)
    return method, top


def paper_size(clip: CLIP) -> int:
    """Count the backbone's parameters as in the paper: 119,826,432 of the 151,277,313 parameters of ViT-B/32."""
    return sum(parameter.numel() for parameter in layer_parameters(clip))


def to_json(counts: dict[str, ParameterCount]) -> dict[str, Any]:
    return {"methods": {name: asdict(count) for name, count in counts.items()}}
