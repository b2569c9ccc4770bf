"""The paper's results on its five benchmarks (arXiv 2211.12764), and which of its orders a study confirms."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from statistics import mean

METRICS = ("r1", "r5", "r10", "mdr", "mnr")
# What the paper concludes from its tables (section 4): pairs of methods of which the second is better.
ORDER = (
    *(("zero-shot", "vop"), ("proj", "vop"), ("bias", "vop"), ("adapter-attn", "vop"), ("adapter-ffn", "vop")),
    *(("vop", "vop-p"), ("vop", "vop-c"), ("vop", "vop-f"), ("vop-p", "vop-f+p"), ("vop-c", "vop-f+c")),
    *(("vop-f", "vop-f+p"), ("vop-f", "vop-f+c"), ("vop-f+p", "vop-f+c"), ("full", "vop-f+p"), ("full", "vop-f+c")),
)
ZERO_SHOT = {"msrvtt-9k": {"t2v": {"r1": 31.5, "r5": 52.8, "r10": 63.6, "mnr": 42.9, "mdr": 5.0}}}


@cache
def results() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By benchmark, method, direction and metric."""
    found: dict = {name: {"zero-shot": row} for name, row in ZERO_SHOT.items()}
    with files(__package__).joinpath("paper_results.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            both = {
                way: {key: float(row[f"{way}_{key}"]) for key in METRICS if row[f"{way}_{key}"]}
                for way in ("t2v", "v2t")
            }
            found.setdefault(row["dataset"], {})[row["method"]] = both
    return found


def row(data: str, method: str) -> dict[str, dict[str, float]] | None:
    """The paper's row of a method on a benchmark, if it has one."""
    return results().get(data, {}).get(method)


def average_gain(method: str, *, over: str = "full") -> float | None:
    """t2v R@1 of a method less that of `over`, averaged over the benchmarks for which the paper gives both."""
    gains = [
        rows[method]["t2v"]["r1"] - rows[over]["t2v"]["r1"]
        for rows in results().values()
        if method in rows and over in rows
    ]
    return mean(gains) if gains else None


def order(means: dict[str, float], spreads: dict[str, float | None]) -> list[dict]:
    """Which of the paper's orders hold for t2v R@1 of a study.

    Args:
        means: of each method over seeds.
        spreads: their standard deviations; None with one seed.

    Returns:
        for each pair of `ORDER` of which both were studied `{"lower", "higher", "paper", "ours", "spread", "verdict"}`:
        the differences (the paper's averaged over its benchmarks; none for zero-shot but on MSR-VTT-9k), the spread of
        ours, and "holds", "does not hold" or, where ours is no larger than its spread, "within the spread".
    """
    found = []
    for lower, higher in ORDER:
        if lower not in means or higher not in means:
            continue
        ours = means[higher] - means[lower]
        known = [spreads[name] for name in (lower, higher) if spreads.get(name) is not None]
        spread = sum(value**2 for value in known) ** 0.5 if known else None
        if spread is not None and abs(ours) <= spread:
            verdict = "within the spread"
        else:
            verdict = "holds" if ours > 0 else "does not hold"
        paper = average_gain(higher, over=lower)
        found.append(
            {"lower": lower, "higher": higher, "paper": paper, "ours": ours, "spread": spread, "verdict": verdict}
        )
    return found
