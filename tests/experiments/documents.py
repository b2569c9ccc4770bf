"""Results of experiments in their file format, with made-up but plausible numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vop.experiments.results import ArmResult, ExperimentResults

# name: t2v R@1, v2t R@1, order, the paper's count, the true count, learning rate
ARMS = {
    "zero-shot": (18.6, 18.8, 47.6, 0, 0, None),
    "full": (34.1, 33.0, 58.2, 6_900_000, 8_123_456, 1e-4),
    "bias": (31.2, 29.9, 49.4, 18_000, 25_000, 3e-3),
    "proj": (24.9, 24.2, 48.8, 98_304, 98_304, 1e-3),
    "partial": (29.7, 28.1, 49.2, 1_100_000, 1_320_000, 3e-4),
    "adapter-attn": (30.9, 29.5, 49.9, 410_000, 410_000, 3e-3),
    "adapter-ffn": (31.4, 30.2, 48.1, 410_000, 410_000, 3e-3),
    "lora": (32.2, 31.1, 49.0, 196_608, 196_608, 3e-3),
    "vop": (32.5, 30.4, 49.1, 21_504, 21_504, 3e-2),
    "vop-p": (37.9, 35.3, 67.3, 57_600, 57_600, 1e-2),
    "vop-c": (37.1, 33.6, 59.3, 1_900_000, 1_900_000, 1e-2),
    "vop-f": (33.1, 30.8, 57.6, 21_504, 22_656, 1e-2),
    "vop-f+p": (39.7, 34.6, 65.9, 48_384, 49_536, 3e-2),
    "vop-f+c": (35.7, 32.7, 63.1, 1_890_000, 1_891_152, 3e-2),
}
BACKBONE = 8_123_456
MACHINE = "Intel(R) Xeon(R) Processor, 2 cores"
KINDS = {"leave": 56, "move": 115, "turn": 35}
PAPER = {"vop": 39.6, "vop-p": 40.1, "vop-c": 40.8, "vop-f": 42.6, "vop-f+p": 43.5, "vop-f+c": 44.6, "full": 41.7}


def typed(document: dict) -> ExperimentResults:
    return ExperimentResults.from_dict(document)


def typed_arm(row: dict) -> ArmResult:
    return ArmResult.from_dict(row)


def metrics(r1: float) -> dict:
    return {"r1": r1, "r5": min(100.0, r1 + 41.0), "r10": min(100.0, r1 + 52.0), "mdr": 3.0, "mnr": 250 / (r1 + 5)}


def history(r1: float, seed: int, epochs: int = 12) -> list[dict]:
    found = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-epoch / 4)
        value = 20 + (r1 - 10) * done + 0.8 * math.sin(epoch * (seed + 2.0))
        record = {"epoch": epoch, "loss": 2.6 - 0.04 * r1 * done + 0.05 * math.cos(epoch + seed)}
        found.append(record | {"validation": {"t2v": metrics(value), "v2t": metrics(value - 1)}})
    return found


def run(name: str, seed: int) -> dict:
    t2v, v2t, order, *_ = ARMS[name]
    shift = 1.1 * (seed - 1)
    trained = name != "zero-shot"
    return {
        "seed": seed,
        "run": f"runs/{name}-seed{seed}" if trained else None,
        "machine": MACHINE,
        "epoch": 11 if trained else None,
        "selection": "validation-selected" if trained else "untrained",
        "minutes": 3.1,
        "peak_memory_bytes": 812_000_000,
        "size_bytes": 4 * ARMS[name][4],
        "t2v": metrics(t2v + shift),
        "v2t": metrics(v2t - shift),
        "extras": {"order": order + shift},
        "history": history(t2v + shift, seed) if trained else [],
    }


def spread(value: float) -> dict:
    return {key: value for key in ("r1", "r5", "r10", "mdr", "mnr")}


def trials(rate: float | None, r1: float) -> list[dict]:
    if rate is None:
        return []
    states = {-1.0: "complete", -0.5: "complete", 0.0: "complete", 0.5: "complete", 1.0: "pruned"}
    found = [
        {"learning_rate": rate if step == 0 else rate * 10**step, "score": r1 - 6 * step**2, "state": state}
        for step, state in states.items()
    ]
    failed = {"learning_rate": rate * 30, "score": None, "state": "failed"}
    return [trial | {"minutes": 0.5} for trial in (*found, failed)]


def kinds(r1: float, order: float) -> dict:
    """Results by kind; the kind `turn` has no twins, so it has no order accuracy."""
    found = {kind: {"videos": count, "t2v_r1": r1 + count / 10} for kind, count in KINDS.items()}
    return {kind: facts if kind == "turn" else facts | {"order": order} for kind, facts in found.items()}


def arm(name: str, seeds: Sequence[int]) -> dict:
    t2v, v2t, order, paper_count, true_count, rate = ARMS[name]
    seeds = seeds[:1] if name == "zero-shot" else seeds
    deviation = 1.1
    both = {"t2v": spread(deviation), "v2t": spread(deviation), "minutes": 0.1, "extras": {"order": deviation}}
    return {
        "name": name,
        "method": name,
        "head": "meanP",
        "settings": {"prompts": 8} if name.startswith("vop") else {},
        "x": None,
        "learning_rate": rate,
        "parameters": {
            "paper_count": paper_count,
            "paper_percent": 100 * paper_count / BACKBONE,
            "true_count": true_count,
            "true_percent": 100 * true_count / BACKBONE,
        },
        "trials": trials(rate, t2v),
        "runs": [run(name, seed) for seed in seeds],
        "mean": {
            "t2v": metrics(t2v),
            "v2t": metrics(v2t),
            "minutes": 3.1,
            "peak_memory_bytes": 812_000_000,
            "size_bytes": 4 * true_count,
            "extras": {"order": order},
        },
        "spread": both if len(seeds) > 1 else None,
        "interval": {"level": 0.95, "t2v": {"r1": [t2v - 4, t2v + 4]}, "v2t": {"r1": [v2t - 4, v2t + 4]}},
        "kinds": kinds(t2v, order),
    }


def with_gain(row: dict, baseline: str) -> dict:
    if row["name"] == baseline:
        return row
    gained = row["mean"]["t2v"]["r1"] - ARMS[baseline][0]
    return row | {"gain": {"t2v_r1": gained, "interval": [gained - 3.2, gained + 3.1], "p": 0.0123}}


def order(lower: str, higher: str, paper: float, ours: float, verdict: str) -> dict:
    return {"lower": lower, "higher": higher, "paper": paper, "ours": ours, "spread": 1.1, "verdict": verdict}


def compare_document(
    *, names: Sequence[str] = tuple(ARMS), seeds: Sequence[int] = (0, 1, 2), data: str = "emoji-motion", **changes
) -> dict:
    """A comparison of all methods with full; `changes` replaces keys at the top."""
    baseline = "full" if "full" in names else None
    rows = [arm(name, seeds) for name in names]
    return {
        "command": f"vop compare --data {data} --backbone mini --seeds {len(seeds)}",
        "written": "2025-01-31T09:30:00+00:00",
        "minutes": 190.4,
        "machines": [MACHINE],
        "vop_versions": ["0.1.0"],
        "kind": "compare",
        "study": None,
        "data": data,
        "split": "test",
        "backbone": "mini",
        "recipe": {"epochs": 12, "batch_size": 32, "captions_per_video": 1, "num_frames": 6, "precision": "fp32"},
        "search": {"low": 1e-6, "high": 1e-2, "rates": [], "trials": 6, "epochs": 2, "steps": 1000},
        "learning_rate": None,
        "seeds": list(seeds),
        "gallery": {
            "videos": 500,
            "texts": 500,
            "listed_videos": 501,
            "listed_texts": 501,
            "tie_rule": "pessimistic",
            "fingerprint": "2f1c9a",
            "skipped": [{"id": "test-0500", "path": "videos/test-0500.mp4", "reason": "the file is empty (0 bytes)"}],
        },
        "notes": [],
        "baseline": baseline,
        "arms": [with_gain(row, baseline) for row in rows] if baseline else rows,
        "order": [
            order("vop", "vop-p", 0.5, 5.4, "holds"),
            order("vop", "vop-f", 3.1, 0.6, "within the spread"),
            order("vop-c", "vop-f+c", 0.4, -1.4, "does not hold"),
        ],
        "examples": [],
        "left_out_of_training": [],
        "failures": [],
    } | changes


def with_paper(document: dict) -> dict:
    """The document with the paper's rows next to its arms."""
    rows = [
        row | {"paper": {"t2v": metrics(PAPER[row["name"]]), "v2t": metrics(PAPER[row["name"]] + 0.5)}}
        if row["name"] in PAPER
        else row
        for row in document["arms"]
    ]
    return document | {"arms": rows}


def with_paper_average(document: dict) -> dict:
    """The document with the paper's average gains, as for benchmarks without rows in the paper."""
    rows = [
        row | {"paper": None, "paper_average_gain": PAPER[row["name"]] - PAPER["full"]} if row["name"] in PAPER else row
        for row in document["arms"]
    ]
    return document | {"arms": rows}


def ablation_document(study: str = "length", values: Sequence = (4, 8, 12, 16, 20), **changes) -> dict:
    """An ablation of vop. Numbers have a position on the x axis, names have none."""
    rows = []
    for n, value in enumerate(values):
        row = arm("vop", (0, 1, 2)) | {"name": f"{study}={value}", "settings": {study: value}}
        row["runs"] = [one | {"history": history(32.5 - (n - 1.5) ** 2, one["seed"])} for one in row["runs"]]
        row["mean"] = row["mean"] | {"t2v": metrics(32.5 - (n - 1.5) ** 2), "v2t": metrics(30.4 - (n - 2) ** 2)}
        rows.append(row | {"x": value} if isinstance(value, int) else row)
    document = compare_document(names=(), kind="ablate", study=study, baseline=None, order=[], **changes)
    return document | {"arms": rows, "command": f"vop ablate {study}"}
