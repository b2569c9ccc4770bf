"""A run's README.md: what it is, how to use it, and its results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.model import TextVideoModel

_CARD = """\
---
library_name: vop
pipeline_tag: video-text-to-text
tags: [text-video-retrieval, prompt-tuning, clip]
---

# {method} on {backbone}

A frozen CLIP, tuned for text-video retrieval by [vop](https://arxiv.org/abs/2211.12764)'s method `{method}`:
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
    trained = sum(parameter.numel() for parameter in model.trainable().values())
    return _CARD.format(
        method=config["method"],
        backbone=config["backbone"]["name"],
        trained=trained,
        kilobytes=trained * 4 / 1000,
        facts=_facts(model.card),
        settings=json.dumps(config["settings"], indent=2),
    )


def _facts(card: dict) -> str:
    """A list of what is known; results as a table."""
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in card.items() if not isinstance(value, dict | list)]
    text = "\n".join(lines) or "Nothing was recorded."
    results = card.get("results")
    if results:
        rows = [
            f"| {way} | " + " | ".join(f"{results[way][key]:.1f}" for key in ("r1", "r5", "r10", "mdr", "mnr")) + " |"
            for way in ("t2v", "v2t")
        ]
        header = "| | R@1 | R@5 | R@10 | MdR | MnR |\n| --- | --- | --- | --- | --- | --- |"
        text += "\n\n" + "\n".join([header, *rows])
    return text + "\n"
