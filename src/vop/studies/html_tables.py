"""The tables of a comparison's page, out of its document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from vop.studies.html_parts import NOTHING, Cell, Column, facts, folded, listed, number, signed, size, sortable_table
from vop.studies.reading import found, gain, runs

_METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR", "mnr": "MnR"}
_MARKS = {"holds": "✓", "within the spread": "≈", "does not hold": "✗"}


def head(document: Mapping) -> str:
    """What was measured, on what, and by which rules."""
    gallery = document["gallery"]
    return facts(
        {
            "data": f"{document['data']}, split {document['split']}",
            "backbone": str(document["backbone"]),
            "head": ", ".join(_heads(document)),
            "gallery": _gallery(gallery),
            "ties": str(gallery.get("tie_rule") or ""),
            "weights": _weights(document),
            "seeds": ", ".join(map(str, document["seeds"])),
            "baseline": str(document.get("baseline") or ""),
            "machine": str(document["machine"]),
            "time": f"{document['started'].replace('T', ' ')}, {number(document['minutes'])} minutes",
            "command": document["command"],
            "version": f"vop {document['vop_version']}",
        }
    )


def remarks(document: Mapping) -> str:
    """What a reader should know besides, and what failed; both may be missing."""
    lines = [*(document.get("notes") or ()), *(f"failed: {line}" for line in document.get("failures") or ())]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _weights(document: Mapping) -> str:
    """How the evaluated weights were chosen, and of which epochs they are."""
    every_run = [run for arm in document["arms"] for run in runs(arm)]
    trained = [run for run in every_run if run.get("epoch") is not None]
    choices = ", ".join(dict.fromkeys(run["selection"] for run in trained or every_run if run.get("selection")))
    epochs = sorted({run["epoch"] for run in trained})
    if not epochs:
        return choices
    return f"{choices}, epoch {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "")


def _gallery(gallery: Mapping) -> str:
    text = f"{gallery['texts']:,} texts, {gallery['videos']:,} videos"
    if gallery.get("skipped"):
        text += f" of {gallery['listed_videos']:,} listed ({len(gallery['skipped'])} could not be read)"
    return text


def main_table(document: Mapping) -> str:
    """A row an arm: what it trains, how well it retrieves, what it gains, what it costs."""
    extras = dict.fromkeys(name for arm in document["arms"] for name in found(arm, "mean", "extras") or ())
    against = f"t2v R@1 over {document.get('baseline')}"
    columns = [
        Column("arm", lambda arm: _arm(arm, with_head=len(_heads(document)) > 1)),
        *_direction("t2v", "text to video"),
        Column("gain", lambda arm: _gain(document, arm), against),
        Column("p", lambda arm: _value(found(arm, "gain", "p"), "{:.4f}"), against),
        *_direction("v2t", "video to text"),
        *(Column(name, _mean("extras", name), "besides", max) for name in extras),
        Column("all tensors", lambda arm: _parameters(arm, "true"), "trained parameters"),
        Column("the paper's way", lambda arm: _parameters(arm, "paper"), "trained parameters"),
        Column("learning rate", lambda arm: _value(arm.get("learning_rate"), "{:.2g}"), "training"),
        Column("minutes", _mean("minutes"), "training"),
        Column("memory", lambda arm: _size(arm, "peak_memory_bytes"), "training"),
        Column("file", lambda arm: _size(arm, "size_bytes"), "training"),
    ]
    return sortable_table(columns, document["arms"])


def _heads(document: Mapping) -> list[str]:
    return list(dict.fromkeys(arm["head"] for arm in document["arms"] if arm.get("head")))


def _arm(arm: Mapping, *, with_head: bool) -> Cell:
    notes = [arm["method"]] if arm["method"] != arm["name"] else []
    notes += [f"head {arm['head']}"] if with_head and arm.get("head") else []
    return Cell(arm["name"], notes=tuple(notes))


def _value(value: float | None, form: str) -> Cell:
    return Cell() if value is None else Cell(form.format(value), value)


def _parameters(arm: Mapping, way: str) -> Cell:
    count, percent = (found(arm, "parameters", f"{way}_{unit}") for unit in ("count", "percent"))
    return Cell() if count is None else Cell(f"{count:,}", count, (f"{percent or 0:.3f} %",))


def _direction(direction: str, group: str) -> list[Column]:
    return [
        Column(name, _mean(direction, key), group, min if key in ("mdr", "mnr") else max)
        for key, name in _METRICS.items()
    ]


def _mean(*keys: str) -> Callable[[Mapping], Cell]:
    """The cell of a mean: beneath it its interval, and the paper's number with the difference."""

    def cell(arm: Mapping) -> Cell:
        value, spread, paper = found(arm, "mean", *keys), found(arm, "spread", *keys), found(arm, "paper", *keys)
        interval = found(arm, "interval", *keys)
        notes = []
        if interval:
            notes.append(f"{100 * arm['interval']['level']:g} %: {number(interval[0])}–{number(interval[1])}")
        if None not in (value, paper):
            notes.append(f"paper {number(paper)}, {signed(value - paper)}")
        return Cell(number(value, spread), value, tuple(notes))

    return cell


def _gain(document: Mapping, arm: Mapping) -> Cell:
    value, interval = gain(document, arm), found(arm, "gain", "interval")
    if value is None or arm["name"] == document.get("baseline"):
        return Cell()
    return Cell(signed(value), value, (f"{signed(interval[0])} to {signed(interval[1])}",) if interval else ())


def _size(arm: Mapping, key: str) -> Cell:
    value = found(arm, "mean", key)
    return Cell(size(value), value)


def order_table(document: Mapping) -> str:
    """Pairs that the paper puts in an order, and whether they come in it here."""
    if not document.get("order"):
        return ""
    columns = [
        Column("lower", lambda pair: Cell(pair["lower"])),
        Column("higher", lambda pair: Cell(pair["higher"])),
        Column("paper", lambda pair: Cell(signed(pair["paper"]), pair["paper"])),
        Column("here", _ours),
        Column("verdict", lambda pair: Cell(f"{_MARKS.get(pair['verdict'], '')} {pair['verdict']}")),
    ]
    return f"<h3>Where the paper's order of t2v R@1 holds</h3>{sortable_table(columns, document['order'])}"


def _ours(pair: Mapping) -> Cell:
    spread = f" ± {pair['spread']:.1f}" if pair.get("spread") else ""
    return Cell(signed(pair["ours"]) + spread, pair["ours"])


def more_tables(document: Mapping) -> str:
    """What a reader looks up, each part folded: settings, trainings, trials, skipped videos."""
    skipped = document["gallery"].get("skipped") or ()
    every_run = [(arm, run) for arm in document["arms"] for run in runs(arm)]
    trials = [(arm, trial) for arm in document["arms"] for trial in arm.get("trials") or ()]
    parts = [folded("Recipe and settings", _settings(document)), folded("Trainings", _run_table(every_run))]
    if trials:
        parts.append(folded(f"Trials of learning rates ({len(trials)})", _trial_table(trials)))
    if skipped:
        parts.append(folded(f"Skipped videos ({len(skipped)})", _skipped_table(skipped)))
    return "".join(parts)


def _settings(document: Mapping) -> str:
    search = document.get("search")
    common = facts({"recipe": listed(document["recipe"]), "search": listed(search) if search else "none"})
    columns = [
        Column("arm", lambda arm: Cell(arm["name"])),
        Column("settings", lambda arm: Cell(listed(arm.get("settings")) or NOTHING)),
    ]
    return common + sortable_table(columns, document["arms"])


def _run_table(pairs: list) -> str:
    columns = [
        Column("arm", lambda pair: Cell(pair[0]["name"])),
        Column("seed", lambda pair: _value(pair[1].get("seed"), "{}")),
        Column("epoch", lambda pair: _value(pair[1].get("epoch"), "{}")),
        Column("weights", lambda pair: Cell(pair[1].get("selection") or NOTHING)),
        Column("t2v R@1", lambda pair: _value(found(pair[1], "t2v", "r1"), "{:.1f}")),
        Column("v2t R@1", lambda pair: _value(found(pair[1], "v2t", "r1"), "{:.1f}")),
        Column("minutes", lambda pair: _value(pair[1].get("minutes"), "{:.1f}")),
        Column("folder", lambda pair: Cell(str(pair[1].get("run") or NOTHING))),
    ]
    return sortable_table(columns, pairs)


def _trial_table(pairs: list) -> str:
    columns = [
        Column("arm", lambda pair: Cell(pair[0]["name"])),
        Column("learning rate", lambda pair: _value(pair[1]["learning_rate"], "{:.2g}")),
        Column("score on validation data", lambda pair: _value(pair[1].get("score"), "{:.2f}")),
        Column("state", lambda pair: Cell(pair[1]["state"])),
    ]
    return sortable_table(columns, pairs)


def _skipped_table(videos) -> str:
    columns = [Column(key, lambda video, key=key: Cell(str(video[key]))) for key in ("id", "path", "reason")]
    return sortable_table(columns, videos)
