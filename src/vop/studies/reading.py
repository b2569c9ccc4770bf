"""Facts out of the document of a comparison, parts of which may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    """The paper's gain against the same baseline: on this benchmark, else (against Full) the average of its five."""
    baseline = baseline_of(document) or {}
    here = _difference(found(arm, "paper", "t2v", "r1"), found(baseline, "paper", "t2v", "r1"))
    return arm.get("paper_average_gain") if here is None and baseline.get("method") == "full" else here


def true_share(arm: Mapping) -> float:
    """Trainable parameters in percent of the backbone's, all of them counted."""
    return found(arm, "parameters", "true_percent") or 0.0


def runs(arm: Mapping) -> Sequence[Mapping]:
    """The arm's trainings, one a seed."""
    return arm.get("runs") or ()


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


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
