"""A study's document as tables: on the terminal, as CSV, as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vop.evaluation.metrics import METRIC_NAMES

if TYPE_CHECKING:
    from rich.table import Table

HEADS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR", "mnr": "MnR"}
Cells = Callable[[dict[str, Any]], str]


def columns(document: dict[str, Any], *, wide: bool = True) -> dict[str, Cells]:
    """The heading of every column, and an arm's cell in it; `wide` adds what a terminal has no room for."""
    arms = document["arms"]
    found: dict[str, Cells] = {"arm": lambda arm: arm["name"]}
    shown = METRIC_NAMES if wide else ("r1", "r5", "r10", "mnr")
    for way in ("t2v", "v2t"):
        for key in shown if wide or way == "t2v" else ("r1",):
            found[f"{way} {HEADS[key]}"] = lambda arm, way=way, key=key: _spread(arm, way, key)
    for key in arms[0]["mean"]["extras"]:
        found[key] = lambda arm, key=key: _spread(arm, "extras", key)
    if any("gain" in arm for arm in arms):
        found[f"gain on {document['baseline']} (95 %)"] = _gain
        found["p"] = lambda arm: f"{arm['gain']['p']:.4f}" if "gain" in arm else ""
    if any(arm.get("paper") for arm in arms):
        found["paper t2v R@1"] = lambda arm: f"{arm['paper']['t2v']['r1']:.1f}" if arm.get("paper") else ""
        found["ours - paper"] = _difference
    found["learning rate"] = lambda arm: f"{arm['learning_rate']:.2g}" if arm["learning_rate"] else ""
    found["parameters"] = lambda arm: f"{arm['parameters']['true_count']:,}"
    if wide:
        found["paper's count"] = lambda arm: f"{arm['parameters']['paper_count']:,}"
    found["minutes"] = lambda arm: f"{arm['mean']['minutes']:.1f}"
    found["memory MB"] = lambda arm: f"{arm['mean']['peak_memory_bytes'] / 1e6:,.0f}"
    found["disk kB"] = lambda arm: f"{arm['mean']['size_bytes'] / 1e3:,.0f}"
    return found


def rich_table(document: dict[str, Any]) -> Table:
    """For a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=Text(title(document)), title_justify="left", caption_justify="left"
    )
    cells = columns(document, wide=False)
    for heading in cells:
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=heading == "arm")
    best = best_arm(document)
    for arm in document["arms"]:
        table.add_row(*(Text(cell(arm)) for cell in cells.values()), style="bold" if arm["name"] == best else None)
    table.caption = Text("\n".join(protocol(document)))
    return table


def title(document: dict[str, Any]) -> str:
    what = f"study {document['study']}" if document["study"] else "methods"
    return f"{what} on {document['data']}, {document['split']}, with {document['backbone']}"


def protocol(document: dict[str, Any]) -> Iterator[str]:
    """What stands beside every result."""
    gallery, recipe = document["gallery"], document["recipe"]
    yield (
        f"gallery of {gallery['videos']:,} videos ({gallery['listed_videos']:,} listed), {gallery['texts']:,} texts; "
        f"ties: {gallery['tie_rule']}"
    )
    seeds = ", ".join(map(str, document["seeds"]))
    yield (
        f"seeds {seeds}: mean ± standard deviation; {recipe['epochs']} epochs, batch {recipe['batch_size']}, "
        f"{recipe['num_frames']} frames, {recipe['precision']}"
    )
    chosen = {run["selection"]: None for arm in document["arms"] for run in arm["runs"]}
    yield f"weights: {', '.join(str(choice) for choice in chosen)}"
    search = document["search"]
    if search:
        tried = f"{len(search['rates'])} given ones" if search["rates"] else f"[{search['low']:g}, {search['high']:g}]"
        trials = f"{len(search['rates']) or search['trials']} trials of {search['epochs']} epochs"
        yield f"learning rates: searched on validation among {tried}, {trials}"
    if gallery["skipped"]:
        yield f"{len(gallery['skipped'])} videos could not be read, and are out with their captions"
    yield from (f"failed: {line}" for line in document["failures"])


def best_arm(document: dict[str, Any]) -> str:
    return max(document["arms"], key=lambda arm: arm["mean"]["t2v"]["r1"])["name"]


def csv_text(document: dict[str, Any]) -> str:
    """A line for each run, numbers unrounded; an arm's own facts stand on each of its lines."""
    rows = [_flat(document, arm, run) for arm in document["arms"] for run in arm["runs"]]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown_table(document: dict[str, Any]) -> str:
    cells = columns(document)
    best = best_arm(document)
    lines = [_line(cells), _line(["---", *["---:"] * (len(cells) - 1)])]
    for arm in document["arms"]:
        row = [_plain(cell(arm)) for cell in cells.values()]
        if arm["name"] == best:
            row[0] = f"**{row[0]}**"
        lines.append(_line(row))
    return "\n".join(lines)


def kinds_table(document: dict[str, Any], key: str) -> str:
    """t2v R@1 or order accuracy by kind of content, as Markdown; empty where there are no kinds."""
    arms = [arm for arm in document["arms"] if "kinds" in arm]
    if not arms:
        return ""
    kinds = [kind for kind, facts in arms[0]["kinds"].items() if key in facts]
    heads = [f"{kind} ({arms[0]['kinds'][kind]['videos']:g})" for kind in kinds]
    lines = [_line(["arm", *heads]), _line(["---", *["---:"] * len(kinds)])]
    lines += [_line([_plain(arm["name"]), *(f"{arm['kinds'][kind][key]:.1f}" for kind in kinds)]) for arm in arms]
    return "\n".join(lines)


def order_table(document: dict[str, Any]) -> str:
    """Which of the paper's orders hold, as Markdown; empty where no two of its methods were compared."""
    if not document["order"]:
        return ""
    lines = [_line(["the paper has", "there", "here", "spread", ""]), _line(["---", "---:", "---:", "---:", "---"])]
    for pair in document["order"]:
        paper = "" if pair["paper"] is None else f"{pair['paper']:+.1f}"
        spread = "" if pair["spread"] is None else f"{pair['spread']:.1f}"
        lines.append(
            _line([f"{pair['lower']} < {pair['higher']}", paper, f"{pair['ours']:+.1f}", spread, pair["verdict"]])
        )
    return "\n".join(lines)


def trials_table(document: dict[str, Any]) -> str:
    """Every rate that was tried, as Markdown; empty where none was searched."""
    arms = [arm for arm in document["arms"] if arm["trials"]]
    if not arms:
        return ""
    lines = [
        _line(["arm", "learning rate: validation score (mean of R@1, R@5, R@10 in both directions)"]),
        _line(["---", "---"]),
    ]
    for arm in arms:
        tried = sorted(arm["trials"], key=lambda trial: trial["learning_rate"])
        lines.append(_line([_plain(arm["name"]), ", ".join(map(_trial, tried))]))
    return "\n".join(lines)


def _trial(trial: dict[str, Any]) -> str:
    score = "" if trial["score"] is None else f": {trial['score']:.1f}"
    mark = "" if trial["state"] == "complete" else f" ({trial['state']})"
    return f"{trial['learning_rate']:.2g}{score}{mark}"


def _spread(arm: dict[str, Any], part: str, key: str) -> str:
    value = f"{arm['mean'][part][key]:.1f}"
    return value if arm["spread"] is None else f"{value} ± {arm['spread'][part][key]:.1f}"


def _gain(arm: dict[str, Any]) -> str:
    if "gain" not in arm:
        return ""
    low, high = arm["gain"]["interval"]
    return f"{arm['gain']['t2v_r1']:+.1f} ({low:+.1f} to {high:+.1f})"


def _difference(arm: dict[str, Any]) -> str:
    return f"{arm['mean']['t2v']['r1'] - arm['paper']['t2v']['r1']:+.1f}" if arm.get("paper") else ""


def _flat(document: dict[str, Any], arm: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    facts = {key: document[key] for key in ("data", "split", "backbone", "study")}
    facts |= {key: arm[key] for key in ("name", "method", "head", "x", "learning_rate")}
    facts |= {key: run[key] for key in ("seed", "epoch", "selection")}
    facts |= {f"{way}_{key}": run[way][key] for way in ("t2v", "v2t") for key in METRIC_NAMES}
    facts |= {key: document["gallery"][key] for key in ("videos", "texts", "tie_rule")}
    facts |= {key: arm["parameters"][key] for key in ("paper_count", "true_count")}
    facts |= {key: run[key] for key in ("minutes", "peak_memory_bytes", "size_bytes")}
    return facts | run.get("extras", {})


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """A bar or a line's end would break a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
