"""The paper's results on its five benchmarks (arXiv 2211.12764), and which of its rankings an experiment confirms.

`later_results.csv` holds published results of methods that came after the paper, on ViT-B/32, and of heads with full
fine-tuning, as arms are named (`full/x-pool`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from statistics import mean

from vop.experiments.results import ArmResult, OrderVerdict, PaperRow

METRICS = ("r1", "r5", "r10", "mdr", "mnr")
# The paper's conclusions from its tables (section 4): pairs of methods, the better one second.
ORDER = (
    *(("zero-shot", "vop"), ("proj", "vop"), ("bias", "vop"), ("adapter-attn", "vop"), ("adapter-ffn", "vop")),
    *(("vop", "vop-p"), ("vop", "vop-c"), ("vop", "vop-f"), ("vop-p", "vop-f+p"), ("vop-c", "vop-f+c")),
    *(("vop-f", "vop-f+p"), ("vop-f", "vop-f+c"), ("vop-f+p", "vop-f+c"), ("full", "vop-f+p"), ("full", "vop-f+c")),
)
ZERO_SHOT = {"msrvtt-9k": PaperRow(t2v={"r1": 31.5, "r5": 52.8, "r10": 63.6, "mnr": 42.9, "mdr": 5.0})}


@cache
def results() -> dict[str, dict[str, PaperRow]]:
    """Return the paper's rows, by benchmark and method."""
    found = {name: {"zero-shot": row} for name, row in ZERO_SHOT.items()}
    for data, rows in _read("paper_results.csv").items():
        found.setdefault(data, {}).update(rows)
    return found


@cache
def later_results() -> dict[str, dict[str, PaperRow]]:
    """Return the rows of methods that came after the paper, from their own papers, by benchmark and method.

    The column `source` of the file names the paper. Its training may differ from this paper's.
    """
    return _read("later_results.csv")


def _read(name: str) -> dict[str, dict[str, PaperRow]]:
    found: dict[str, dict[str, PaperRow]] = {}
    with files(__package__).joinpath(name).open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            found.setdefault(line["dataset"], {})[line["method"]] = PaperRow(
                t2v=_metrics(line, "t2v"), v2t=_metrics(line, "v2t")
            )
    return found


def _metrics(line: dict[str, str], way: str) -> dict[str, int | float]:
    return {key: float(line[f"{way}_{key}"]) for key in METRICS if line[f"{way}_{key}"]}


def row(data: str, method: str) -> PaperRow | None:
    """Return the paper's row of a method on a benchmark, or that of another paper (also for METHOD/HEAD), or None."""
    return results().get(data, {}).get(method) or later_results().get(data, {}).get(method)


def average_gain(method: str, *, over: str = "full") -> float | None:
    """Return the gain in t2v R@1 of a method over `over`, averaged over the benchmarks that have both in the paper."""
    gains = [
        rows[method].t2v["r1"] - rows[over].t2v["r1"] for rows in results().values() if method in rows and over in rows
    ]
    return mean(gains) if gains else None


def order(arms: Sequence[ArmResult]) -> list[OrderVerdict]:
    """Return which of the paper's rankings by t2v R@1 hold in an experiment.

    Args:
        arms: methods with the paper's settings, named after the method.

    Returns:
        a verdict for each pair of `ORDER` whose methods are both among the arms. The paper's difference is an average
        over its benchmarks, for zero-shot the one on MSR-VTT-9k. A difference
        within its spread has the verdict "within the spread".
    """
    known = {arm.name: arm for arm in arms}
    found = []
    for lower, higher in ORDER:
        if lower not in known or higher not in known:
            continue
        both = [known[lower], known[higher]]
        ours = both[1].mean_r1() - both[0].mean_r1()
        spreads = [arm.spread_r1() for arm in both if arm.spread is not None]
        spread = sum(value**2 for value in spreads) ** 0.5 if spreads else None
        if spread is not None and abs(ours) <= spread:
            verdict = "within the spread"
        else:
            verdict = "holds" if ours > 0 else "does not hold"
        paper = average_gain(higher, over=lower)
        found.append(OrderVerdict(lower=lower, higher=higher, paper=paper, ours=ours, spread=spread, verdict=verdict))
    return found
