"""A study's document: all that its tables, figures and reports say, as plain values.

Shapes: an arm has a run for each seed; `mean` and `spread` (sample standard deviation) are over them.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from statistics import mean, stdev
from typing import Any

from vop.datasets.types import Dataset, Split
from vop.errors import UsageError
from vop.evaluation.confidence import QueryRanks, bootstrap_intervals, check_same_gallery, paired_test
from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments import paper
from vop.experiments.plan import Arm, Plan
from vop.experiments.scheduler import Outcome
from vop.heads import MEAN

EXAMPLES = {"compare": 8, "ablate": 4}  # sentences with film strips; a page of ablations has several studies
WAYS = ("t2v", "v2t")


def make_document(
    plan: Plan, outcome: Outcome, dataset: Dataset, *, parameters: dict[str, dict], command: str
) -> dict[str, Any]:
    """The document of a study.

    Args:
        parameters: of each arm's method and head, as `ParameterCount` has them.
        command: by which somebody else does the same.

    Raises:
        UsageError: runs were ranked on different galleries.
    """
    kind = "compare" if plan.kind == "compare" else "ablate"
    done = [arm for arm in plan.arms if outcome.runs[arm.name]]
    ranks = {arm.name: [_ranks(run) for run in outcome.runs[arm.name]] for arm in done}
    _check_gallery(outcome, done, ranks)
    report = outcome.runs[done[0].name][0]["report"]
    arms = [_arm(plan, arm, outcome, ranks, parameters[arm.name]) for arm in done]
    r1 = {arm["name"]: arm["mean"]["t2v"]["r1"] for arm in arms if _is_default(plan.arm(arm["name"]))}
    spread = {arm["name"]: (arm["spread"] or {}).get("t2v", {}).get("r1") for arm in arms}
    kept = dataset.split(plan.split).keep(_readable(dataset.split(plan.split), report))
    return {
        "command": command,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": _minutes(outcome),
        "machines": _distinct(outcome, "machine"),
        "vop_versions": _distinct(outcome, "vop_version"),
        "kind": kind,
        "study": None if plan.kind == "compare" else plan.kind,
        "data": dataset.name,
        "split": plan.split,
        "backbone": plan.backbone,
        "recipe": {key: value for key, value in asdict(plan.recipe).items() if key not in ("seed", "learning_rate")}
        | {"num_frames": report["settings"]["num_frames"], "precision": report["settings"]["precision"]},
        "search": None if plan.search is None else asdict(plan.search),
        "learning_rate": plan.recipe.learning_rate if plan.search is None else None,
        "seeds": list(plan.seeds),
        "gallery": {
            key: report[key]
            for key in ("videos", "texts", "listed_videos", "listed_texts", "tie_rule", "fingerprint", "skipped")
        },
        "notes": list(dict.fromkeys([*dataset.notes, *report["notes"]])),
        "baseline": plan.baseline,
        "arms": arms,
        "order": paper.order(r1, spread),
        "examples": _examples(done, outcome, kept, count=EXAMPLES[kind]),
        "left_out_of_training": _left_out(plan, outcome),
        "failures": outcome.failures,
    }


def _arm(
    plan: Plan, arm: Arm, outcome: Outcome, ranks: dict[str, list[QueryRanks]], parameters: dict
) -> dict[str, Any]:
    runs = outcome.runs[arm.name]
    rates = outcome.rates.get(plan.rate_arm(arm).name, {})
    found = {
        "name": arm.name,
        "method": arm.method,
        "head": arm.head,
        "settings": arm.settings,
        "x": arm.x,
        "learning_rate": runs[0]["learning_rate"],
        "parameters": parameters,
        "trials": rates.get("trials", []) if arm.rate_of is None else [],
        "runs": [_run(run) for run in runs],
        "mean": _over_seeds(runs, mean),
        "spread": _over_seeds(runs, stdev) if len(runs) > 1 else None,
        "interval": bootstrap_intervals(ranks[arm.name]).to_dict(),
    }
    if "kinds" in runs[0]:
        found["kinds"] = _kinds(runs)
    if plan.baseline in ranks and arm.name != plan.baseline:
        found["gain"] = _gain(ranks[arm.name], ranks[plan.baseline])
    if _is_default(arm) and plan.split == "test":
        found["paper"] = paper.row(runs[0]["report"]["data"], arm.method)
        if plan.baseline == "full":
            found["paper_average_gain"] = paper.average_gain(arm.method)
    return found


def _minutes(outcome: Outcome) -> float:
    """Of all trainings and trials together; processes may have run side by side."""
    trials = sum(trial["minutes"] for rate in outcome.rates.values() for trial in rate["trials"])
    return trials + sum(run["minutes"] for runs in outcome.runs.values() for run in runs)


def _distinct(outcome: Outcome, fact: str) -> list[str]:
    """What the results of a study say of where they come from."""
    return list(dict.fromkeys(run[fact] for runs in outcome.runs.values() for run in runs))


def _left_out(plan: Plan, outcome: Outcome) -> list[dict[str, str]]:
    """The videos that could not be read, but for those of the gallery, which stand there."""
    gallery = {video["path"] for runs in outcome.runs.values() for run in runs for video in run["report"]["skipped"]}
    return [
        {"id": video.id, "path": video.path, "reason": video.reason}
        for video in outcome.left_out
        if video.path not in gallery
    ]


def _run(run: dict) -> dict[str, Any]:
    kept = ("seed", "run", "machine", "epoch", "selection", "minutes", "peak_memory_bytes", "size_bytes", "history")
    found = {key: run[key] for key in kept} | {way: run["report"][way] for way in WAYS}
    return found | ({"extras": run["extras"]} if "extras" in run else {})


def _over_seeds(runs: list[dict], statistic) -> dict[str, Any]:
    found: dict[str, Any] = {
        way: {key: statistic(run["report"][way][key] for run in runs) for key in METRIC_NAMES} for way in WAYS
    }
    found |= {key: statistic(run[key] for run in runs) for key in ("minutes", "peak_memory_bytes", "size_bytes")}
    extras = runs[0].get("extras", {})
    return found | {"extras": {key: statistic(run["extras"][key] for run in runs) for key in extras}}


def _kinds(runs: list[dict]) -> dict[str, dict]:
    """Mean over seeds, by kind of content."""
    found = {}
    for kind, first in runs[0]["kinds"].items():
        numbers = {key for key, value in first.items() if value is not None}
        found[kind] = {key: mean(run["kinds"][kind][key] for run in runs) for key in sorted(numbers)}
    return found


def _gain(ranks: list[QueryRanks], baseline: list[QueryRanks]) -> dict[str, Any]:
    test = paired_test(ranks, baseline).t2v["r1"]
    return {"t2v_r1": test.difference, "interval": list(test.interval), "p": test.p}


def _ranks(run: dict) -> QueryRanks:
    report = run["report"]
    ranks = report["ranks"]
    return QueryRanks(ranks["t2v"], ranks["v2t"], ranks["targets"], report["fingerprint"], name=report["method"])


def _check_gallery(outcome: Outcome, arms: list[Arm], ranks: dict[str, list[QueryRanks]]) -> None:
    """Every run was ranked on the same gallery; videos may have gone or come since the first one."""
    first = ranks[arms[0].name][0]
    for arm in arms:
        for run, own in zip(outcome.runs[arm.name], ranks[arm.name], strict=True):
            try:
                check_same_gallery(first, own)
            except UsageError as error:
                where = run["run"]
                raise UsageError(
                    f"{where} was ranked on another gallery than {arms[0].name}: {error}. "
                    f"Delete {where}/result.json, or those of the others, and run the study again"
                ) from None


def _is_default(arm: Arm) -> bool:
    """Whether it is a method as the paper has it."""
    return arm.name == arm.method and arm.head == MEAN and not arm.settings.keys() - {"num_frames"}


def _readable(split: Split, report: dict) -> set[str]:
    return {video.id for video in split.videos} - {video["id"] for video in report["skipped"]}


def _examples(arms: list[Arm], outcome: Outcome, split: Split, *, count: int) -> list[dict[str, Any]]:
    """The sentences on which the arms disagree most evenly, by their first seeds, in the order of the split."""
    runs = {arm.name: outcome.runs[arm.name][0] for arm in arms}
    right = [[run["report"]["ranks"]["t2v"][row] == 1 for run in runs.values()] for row in range(len(split))]
    uneven = [abs(2 * sum(marks) - len(marks)) for marks in right]
    rows = [row for row in range(len(split)) if 0 < sum(right[row]) < len(arms)]
    chosen = sorted(sorted(rows, key=lambda row: (uneven[row], row))[:count])
    return [
        {
            "sentence": split.captions[row],
            "path": str(split.videos[split.targets[row]].path),
            "found": [
                {
                    "arm": name,
                    "path": str(split.videos[run["first"][row]].path),
                    "right": is_right,
                    "caption": split.captions[split.captions_of[run["first"][row]][0]],
                }
                for (name, run), is_right in zip(runs.items(), right[row], strict=True)
            ],
        }
        for row in chosen
    ]
