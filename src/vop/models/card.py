"""Write a run's README.md: metadata for a hub, how to use the model, how it was trained, and its results.

The template is `card.md.jinja` in this folder.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch

from vop.backbones.source import is_hub_id
from vop.models.run_folder import RunConfig
from vop.utils.text import in_markdown
from vop.version import VERSION

TEMPLATE = Path(__file__).with_name("card.md.jinja")
TAGS = ["text-video-retrieval", "video-retrieval", "prompt-tuning", "clip"]
_METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR", "mnr": "MnR"}
_TYPES = {"r1": "recall_at_1", "r5": "recall_at_5", "r10": "recall_at_10", "mdr": "median_rank", "mnr": "mean_rank"}
_DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
_TITLES = {"results": "Results", "validation": "Validation, which selected the epoch"}


def render_card(config: RunConfig, *, trained: int, name: str = "path/to/this/folder") -> str:
    """Return the model card as Markdown, beginning with the metadata for the Hugging Face hub.

    Args:
        trained: the number of trained parameters.
        name: the name that the card's example passes to `vop.load`.
    """
    from huggingface_hub import ModelCard

    backbone = config.backbone.name
    card = ModelCard.from_template(
        _metadata(config),
        template_path=str(TEMPLATE),
        name=name,
        method=in_markdown(config.method),
        backbone=in_markdown(Path(backbone).name if Path(backbone).is_absolute() else backbone),
        trained=f"{trained:,}",
        kilobytes=f"{trained * 4 / 1000:,.0f}",
        facts=[*_facts(config.card), *_shorter(config)],
        tables=list(_tables(config.card)),
        settings=json.dumps(config.model_dump(mode="json")["settings"], indent=2),
    )
    return str(card).rstrip() + "\n"


def made_with(dtype: torch.dtype) -> dict[str, str]:
    """Return facts for a card: the precision, the versions of the libraries, and the commit, if known."""
    facts = {"computed_in": str(dtype).removeprefix("torch."), "vop_version": VERSION}
    facts |= {f"{library}_version": version(library) for library in ("torch", "transformers")}
    commit = source_commit()
    return facts | ({"vop_commit": commit} if commit else {})


@cache
def source_commit() -> str | None:
    """Return the git commit of this vop, if it was installed from git or runs in a checkout."""
    try:
        source = json.loads(distribution("vop").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        source = {}
    installed = source.get("vcs_info", {}).get("commit_id")
    root = Path(__file__).parents[3]  # the checkout, above src/vop/models
    if installed or not (root / ".git").exists():
        return installed if isinstance(installed, str) else None
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _metadata(config: RunConfig) -> Any:
    """Return the `ModelCardData` of a run."""
    from huggingface_hub import EvalResult, ModelCardData

    card, results = config.card, config.card.get("results") or {}
    data = str(results.get("data") or card.get("data") or "unnamed data")
    found = [
        EvalResult(
            task_type="text-to-video-retrieval" if way == "t2v" else "video-to-text-retrieval",
            dataset_type=_slug(data),
            dataset_name=data,
            dataset_split=results.get("split"),
            metric_type=_TYPES[key],
            metric_name=f"{_DIRECTIONS[way]} {_METRICS[key]}",
            metric_value=round(float(results[way][key]), 2),
        )
        for way in _DIRECTIONS
        for key in _METRICS
        if key in (results.get(way) or {})
    ]
    trained_on = str(card.get("data") or "").removeprefix("hf:")
    return ModelCardData(
        license=card.get("license", "unknown"),
        library_name="vop",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        base_model=config.backbone.name if config.backbone.revision else None,
        datasets=[trained_on] if is_hub_id(trained_on) else None,
        model_name=f"{config.method} on {Path(config.backbone.name).name}" if found else None,
        eval_results=found or None,
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9/]+", "-", name.lower()).strip("-/") or "data"


def _facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the facts of a card that are not tables, escaped for Markdown."""
    for key, value in card.items():
        if not isinstance(value, dict | list):
            yield in_markdown(key.replace("_", " ")), in_markdown(str(value))


def _shorter(config: RunConfig) -> list[tuple[str, str]]:
    """Return the fact that the model was trained for shorter embeddings, if it was."""
    numbers = config.matryoshka_dimensions
    return [("matryoshka dimensions", ", ".join(map(str, numbers)))] if numbers else []


def _tables(card: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tables of metrics, with a title and a line about the measurement."""
    for key, title in _TITLES.items():
        metrics = card.get(key)
        if metrics:
            rows = [[way, *(f"{metrics[way][name]:.1f}" for name in _METRICS)] for way in _DIRECTIONS if way in metrics]
            yield {"title": title, "about": _measured_on(metrics), "rows": rows}


def _measured_on(metrics: Mapping[str, Any]) -> str:
    """Return a line with the data, the split, the size of the gallery and the precision, if they are known."""
    gallery = metrics.get("gallery_size", metrics.get("videos"))
    known = {
        "data": metrics.get("data"),
        "split": metrics.get("split"),
        "gallery": None if gallery is None else f"{gallery:,} videos",
        "precision": metrics.get("precision"),
    }
    return in_markdown("; ".join(f"{name}: {value}" for name, value in known.items() if value is not None))
