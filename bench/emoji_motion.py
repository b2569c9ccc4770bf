"""All methods on emoji-motion with `mini`: learning rates searched on validation, then several seeds on test.

    python bench/emoji_motion.py --out runs/emoji-motion [--jobs 2]

Runs that are done are used again, so that the command goes on where it was stopped. At the end it writes the tables
into docs/results.md and every number into docs/results/emoji-motion.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

FRAMES = 6
SEARCH_EPOCHS, EPOCHS = 3, 12
SEEDS = (0, 1, 2)
PROMPT_RATES, CONTEXT_RATES = (3e-3, 1e-2, 3e-2, 1e-1), (1e-3, 3e-3, 1e-2, 3e-2)
RATES = {
    "vop": PROMPT_RATES,
    "vop-p": PROMPT_RATES,
    "vop-c": CONTEXT_RATES,
    "vop-f": PROMPT_RATES,
    "vop-f+p": PROMPT_RATES,
    "vop-f+c": CONTEXT_RATES,
}
DOCS = Path(__file__).resolve().parent.parent / "docs"


@dataclass(frozen=True)
class Job:
    """One training and its evaluation. `phase` is "search" (ranked on val) or "final" (ranked on test)."""

    phase: str
    method: str
    learning_rate: float
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.method}-{self.learning_rate:g}-{self.epochs}-{self.seed}"


def run_job(job: Job, out: Path) -> dict:
    """Trains and evaluates one job; gives its result, from the disk if it is there."""
    path = out / "results" / f"{job.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    from vop.device import default_device, resolve_precision
    from vop.model import load
    from vop.training.job import train
    from vop.training.recipe import Recipe
    from vop.world import emoji_motion

    torch.set_num_threads(1)
    dataset = emoji_motion.dataset()
    cache, started, result = out / "cache", time.monotonic(), {}
    if job.method == "zero-shot":
        model = load("mini", num_frames=FRAMES, dtype=resolve_precision("auto", default_device()))
    else:
        recipe = Recipe(
            epochs=job.epochs, learning_rate=job.learning_rate, seed=job.seed, workers=0, checkpoint_seconds=600
        )
        run = out / "runs" / job.name
        resume = (run / "training" / "state.safetensors").exists()
        trained = train(
            dataset, job.method, run, backbone="mini", recipe=recipe, cache=cache, resume=resume, num_frames=FRAMES
        )
        model, result = trained.model, {"best_epoch": trained.result.best_epoch}
    result |= asdict(job) | {"seconds": time.monotonic() - started}
    result |= measure(model, dataset.split("val" if job.phase == "search" else "test"), cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return result


def measure(model, split, cache: Path) -> dict:
    """Both directions, order accuracy, and t2v R@1 by kind of content."""
    from vop.data.frames import FrameStore
    from vop.evaluation.embedding import embed_split
    from vop.evaluation.metrics import metrics_from_embeddings
    from vop.world import emoji_motion
    from vop.world.order import order_accuracy

    embedded = embed_split(model, split, FrameStore(FRAMES, model.image_size, cache=cache), workers=1)
    metrics = metrics_from_embeddings(embedded.texts, embedded.videos, targets=split.targets)
    metadata = emoji_motion.load_metadata()
    kinds = [metadata[video.id].kind for video in split.videos]
    twins = emoji_motion.twin_indices([video.id for video in split.videos], metadata)
    similarity = embedded.similarity()
    by_kind = {}
    for kind in sorted(set(kinds)):
        rows = [i for i, other in enumerate(kinds) if other == kind]
        own = [twins[i] if kinds[i] == kind else None for i in range(len(kinds))]
        by_kind[kind] = {
            "videos": len(rows),
            "t2v_r1": 100 * float((metrics.t2v.ranks[rows] == 1).mean()),
            "order": order_accuracy(similarity, own) if any(twin is not None for twin in own) else None,
        }
    return metrics.to_dict() | {"order": order_accuracy(similarity, twins), "by_kind": by_kind}


def run_all(jobs: list[Job], out: Path, processes: int) -> list[dict]:
    """Side by side, one thread each: at these sizes threads only get in each other's way."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, out): job for job in jobs}
        for done, future in enumerate(as_completed(futures), start=1):
            result = future.result()
            facts = f"R@1 {result['t2v']['r1']:.1f}, order {result['order']:.1f}, {result['seconds']:.0f} s"
            print(f"{done}/{len(jobs)} {futures[future].name}: {facts}", flush=True)
        return [future.result() for future in futures]


def search(out: Path, processes: int) -> tuple[dict[str, float], list[dict]]:
    """Each method's learning rate with the best t2v R@1 on validation."""
    jobs = [Job("search", method, rate, SEARCH_EPOCHS, 0) for method, rates in RATES.items() for rate in rates]
    results = run_all(jobs, out, processes)
    best = {}
    for method in RATES:
        own = [result for result in results if result["method"] == method]
        best[method] = max(own, key=lambda result: (result["t2v"]["r1"], -result["t2v"]["mnr"]))["learning_rate"]
    return best, results


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def main_table(finals: dict[str, list[dict]]) -> list[str]:
    heads = ["method", "rate", *(f"{way} R@{k}" for way in ("t2v", "v2t") for k in (1, 5, 10)), "t2v MnR", "order"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for method, results in finals.items():
        cells = [spread([r[way][key] for r in results]) for way in ("t2v", "v2t") for key in ("r1", "r5", "r10")]
        cells += [spread([r["t2v"]["mnr"] for r in results]), spread([r["order"] for r in results])]
        rate = "" if method == "zero-shot" else f"{results[0]['learning_rate']:g}"
        lines.append(f"| {method} | {rate} | " + " | ".join(cells) + " |")
    return lines


def kind_table(finals: dict[str, list[dict]], key: str) -> list[str]:
    """Mean over seeds, by kind of content."""
    kinds = next(iter(finals.values()))[0]["by_kind"]
    kinds = {kind: facts["videos"] for kind, facts in kinds.items() if facts[key] is not None}
    heads = ["method", *(f"{kind} ({count})" for kind, count in kinds.items())]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for method, results in finals.items():
        cells = [f"{statistics.mean(r['by_kind'][kind][key] for r in results):.1f}" for kind in kinds]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def search_table(results: list[dict]) -> list[str]:
    lines = ["| method | learning rate: validation t2v R@1 |", "| --- | --- |"]
    for method in RATES:
        own = [r for r in results if r["method"] == method]
        lines.append(f"| {method} | " + ", ".join(f"{r['learning_rate']:g}: {r['t2v']['r1']:.1f}" for r in own) + " |")
    return lines


def write_tables(finals: dict[str, list[dict]], searched: list[dict], machine: str, minutes: float) -> None:
    test = finals["zero-shot"][0]
    lines = [
        f"Gallery: {test['videos']} test videos, {test['texts']} captions. Ties: {test['tie_rule']}. Epoch: selected "
        f"on validation. Seeds: {', '.join(map(str, SEEDS))} (mean ± standard deviation). {FRAMES} frames, {EPOCHS} "
        f"epochs, batch 32. Machine: {machine}. Training and evaluation took {minutes:.0f} process-minutes.",
        "",
        *main_table(finals),
        "",
        "t2v R@1 by content (videos in brackets), mean over seeds:",
        "",
        *kind_table(finals, "t2v_r1"),
        "",
        "Order accuracy by content (a video's own caption against its mirrored twin's, chance 50), mean over seeds:",
        "",
        *kind_table(finals, "order"),
        "",
        f"Learning rates, {SEARCH_EPOCHS} epochs, seed 0, on the {searched[0]['videos']} validation videos:",
        "",
        *search_table(searched),
    ]
    page = DOCS / "results.md"
    before, _, rest = page.read_text().partition("<!-- tables -->")
    after = rest.partition("<!-- end -->")[2]
    page.write_text(f"{before}<!-- tables -->\n\n" + "\n".join(lines) + f"\n\n<!-- end -->{after}")
    (DOCS / "results").mkdir(exist_ok=True)
    everything = {"machine": machine, "search": searched, "final": finals}
    (DOCS / "results" / "emoji-motion.json").write_text(json.dumps(everything, indent=1) + "\n")


def machine_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {multiprocessing.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-motion"))
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    arguments = parser.parse_args()
    from vop.world import emoji_motion

    emoji_motion.dataset()  # before several processes want it
    rates, searched = search(arguments.out, arguments.jobs)
    jobs = [Job("final", "zero-shot", 0.0, 0, 0)]
    jobs += [Job("final", method, rates[method], EPOCHS, seed) for seed in SEEDS for method in RATES]
    results = run_all(jobs, arguments.out, arguments.jobs)
    finals = {method: [r for r in results if r["method"] == method] for method in ("zero-shot", *RATES)}
    minutes = sum(result["seconds"] for result in [*results, *searched]) / 60
    write_tables(finals, searched, machine_name(), minutes)


if __name__ == "__main__":
    main()
