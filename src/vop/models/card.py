"""A run's README.md: what it is, how to use it, and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from vop.utils.text import in_markdown

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel

_CARD = """\
---
library_name: vop
pipeline_tag: feature-extraction
tags: [text-video-retrieval, prompt-tuning, clip]
{base_model}---

# {method} on {backbone}

A frozen CLIP, tuned for text-video retrieval by [vop](https://arxiv.org/abs/2211.12764)'s method {method}:
{trained:,} trained parameters ({kilobytes:,.0f} kB).

```python
import vop

model = vop.load("path/to/this/folder")
texts = model.encode_text(["a man cuts an onion"])
videos = model.encode_video(["a.mp4", "b.webm"])
similarity = texts @ videos.T
```

## How it was made

{facts}
## Settings

```json
{settings}
```
"""


def render_card(model: TextVideoModel, config: dict) -> str:
    """The card as Markdown."""
    name = config["backbone"]["name"]
    trained = sum(parameter.numel() for parameter in model.trainable().values())
    return _CARD.format(
        method=in_markdown(config["method"]),
        base_model=yaml.safe_dump({"base_model": name}, allow_unicode=True) if config["backbone"]["revision"] else "",
        backbone=in_markdown(Path(name).name if Path(name).is_absolute() else name),
        trained=trained,
        kilobytes=trained * 4 / 1000,
        facts=_facts(model.card),
        settings=json.dumps(config["settings"], indent=2),
    )


def _facts(card: dict) -> str:
    """A list of what is known; results as a table."""
    lines = [
        f"- {in_markdown(key.replace('_', ' '))}: {in_markdown(str(value))}"
        for key, value in card.items()
        if not isinstance(value, dict | list)
    ]
    text = "\n".join(lines) or "Nothing was recorded."
    for key, title in {"results": "Results", "validation": "Validation, which selected the epoch"}.items():
        if card.get(key):
            text += f"\n\n## {title}\n\n{_table(card[key])}"
    return text + "\n"


def _table(metrics: dict) -> str:
    """Both directions, in percent and ranks."""
    rows = [
        f"| {way} | " + " | ".join(f"{metrics[way][key]:.1f}" for key in ("r1", "r5", "r10", "mdr", "mnr")) + " |"
        for way in ("t2v", "v2t")
    ]
    header = "| | R@1 | R@5 | R@10 | MdR | MnR |\n| --- | --- | --- | --- | --- | --- |"
    return "\n".join([header, *rows])
