"""Facts out of the document of a comparison, parts of which may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vop.utils.text import count

# Words of the paper for what an ablation varies: the title, and the name of the axis.
STUDIES = {
    "towers": ("prompts in one tower or in both", "towers with prompts"),
    "depth": ("prompt depth", "layers with prompts"),
    "length": ("prompt length", "prompt length"),
    "specific-length": ("specific prompts", "specific prompts of 8"),
    "cmm": ("the context modelling module", "CMM"),
    "cmm-role": ("what the CMM's output is for", "role of the CMM"),
    "split-layer": ("layers that work within each frame", "K_s"),
}


def found(tree: Any, *keys: str) -> Any:
    """What lies at the end of the keys; None where one of them is missing."""
    for key in keys:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def mean_r1(arm: Mapping, direction: str = "t2v") -> float | None:
    """R@1 in percent, over seeds."""
    return found(arm, "mean", direction, "r1")


def spread_r1(arm: Mapping, direction: str = "t2v") -> float:
    """The standard deviation of R@1 over seeds, in points; 0 with one seed."""
    return found(arm, "spread", direction, "r1") or 0.0


def baseline_of(document: Mapping) -> Mapping | None:
    """The arm that the others are compared with."""
    return next((arm for arm in document["arms"] if arm["name"] == document.get("baseline")), None)


def gain(document: Mapping, arm: Mapping) -> float | None:
    """t2v R@1 above the baseline's, in points; None where there is no baseline."""
    counted = found(arm, "gain", "t2v_r1")
    if counted is not None:
        return counted
    return _difference(mean_r1(arm), mean_r1(baseline_of(document) or {}))


def paper_gain(document: Mapping, arm: Mapping) -> float | None:
    """The paper's gain over Full on this benchmark; None where it has no such row, or Full is not the baseline."""
    if document.get("baseline") != "full":
        return None
    baseline = baseline_of(document) or {}
    return _difference(found(arm, "paper", "t2v", "r1"), found(baseline, "paper", "t2v", "r1"))


def paper_average(document: Mapping, arm: Mapping) -> float | None:
    """The paper's gain over Full, averaged over its five benchmarks; None where it has a row on this very one."""
    # Of zero-shot the paper gives one benchmark, so there is no average.
    if document.get("baseline") != "full" or arm.get("paper") or arm["method"] == "zero-shot":
        return None
    return arm.get("paper_average_gain")


def true_share(arm: Mapping) -> float:
    """Trainable parameters in percent of the backbone's, all of them counted."""
    return found(arm, "parameters", "true_percent") or 0.0


def runs(arm: Mapping) -> Sequence[Mapping]:
    """The arm's trainings, one a seed."""
    return arm.get("runs") or ()


def heads(document: Mapping) -> list[str]:
    """The names of the arms' heads."""
    return list(dict.fromkeys(arm["head"] for arm in document["arms"] if arm.get("head")))


def heading(document: Mapping) -> str:
    """The document in a few words: the data and, of an ablation, what is varied."""
    study = document.get("study")
    return f"{document['data']}: {STUDIES.get(study, (study,))[0]}" if study else str(document["data"])


def stems(documents: Sequence[Mapping]) -> list[str]:
    """For each document a word that may stand in a file's name; no two are the same."""
    words: list[str] = []
    for document in documents:
        name = f"{document['data']}-{document.get('study') or document['kind']}"
        word = plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "study"
        number = 1
        while word in words:
            number += 1
            word = f"{plain}-{number}"
        words.append(word)
    return words


def protocol(document: Mapping) -> dict[str, str]:
    """By which rules the arms were trained and ranked: what stands beside every result."""
    recipe, seeds = document["recipe"], document["seeds"]
    return {
        "data": f"{document['data']}, split {document['split']}",
        "backbone": str(document["backbone"]),
        "head": ", ".join(heads(document)),
        "ranked": _gallery(document["gallery"]),
        "weights": _weights(document),
        "training": f"{count('epoch', recipe['epochs'])}, batch {recipe['batch_size']}, "
        f"{count('frame', recipe['num_frames'])}, {recipe['precision']}",
        "seeds": ", ".join(map(str, seeds)) + (": mean ± standard deviation" if len(seeds) > 1 else ""),
        "learning rates": _search(document),
    }


def origin(document: Mapping) -> dict[str, str]:
    """Where the numbers come from, but for the command."""
    written = document["written"].replace("T", " ")
    return {
        "machine": "; ".join(document["machines"]),
        "time": f"{number(document['minutes'])} minutes of training in all; written {written}",
        "version": f"vop {', '.join(document['vop_versions'])}",
    }


def remarks(document: Mapping) -> list[str]:
    """What a reader should know besides, and what failed."""
    lines = list(document.get("notes") or ())
    for videos, where in (
        (document["gallery"].get("skipped"), "out of the gallery with every caption"),
        (document.get("left_out_of_training"), "left out of the training"),
    ):
        if videos:
            lines.append(f"{count('video', len(videos))} could not be read: {where}")
    return lines + [f"failed: {line}" for line in document.get("failures") or ()]


def _gallery(gallery: Mapping) -> str:
    videos, listed_videos = gallery["videos"], gallery["listed_videos"]
    listed = f" ({listed_videos:,} listed)" if listed_videos != videos else ""
    return (
        f"{count('text', gallery['texts'])}, gallery of {count('video', videos)}{listed}; ties: {gallery['tie_rule']}"
    )


def _weights(document: Mapping) -> str:
    """How the evaluated weights were chosen, and of which epochs they are."""
    every_run = [run for arm in document["arms"] for run in runs(arm)]
    trained = [run for run in every_run if run.get("epoch") is not None]
    choices = ", ".join(dict.fromkeys(run["selection"] for run in trained or every_run if run.get("selection")))
    epochs = sorted({run["epoch"] for run in trained})
    if not epochs:
        return choices
    return f"{choices}, epoch {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "")


def _search(document: Mapping) -> str:
    search, rate = document.get("search"), document.get("learning_rate")
    if not search:
        return "" if rate is None else f"{rate:g} for all arms, given"
    tried = f"{len(search['rates'])} given ones" if search["rates"] else f"{search['low']:g} to {search['high']:g}"
    return (
        f"searched on validation videos, {tried}; trials: {len(search['rates']) or search['trials']}, "
        f"epochs of each: {search['epochs']}, steps of each: at most {search['steps']:,}"
    )


def number(value: float | None) -> str:
    """One digit after the point."""
    return "" if value is None else f"{value:,.1f}"


def signed(points: float | None) -> str:
    """One digit with its sign; what rounds to nothing has none."""
    text = "" if points is None else f"{points:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def size(count: float | None) -> str:
    """Bytes as a person reads them."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
