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
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vop.files import atomic_write

FRAMES, EPOCHS = 6, 12
SEEDS = (0, 1, 2)
PROMPT_RATES, CONTEXT_RATES = (1e-2, 3e-2, 1e-1), (3e-3, 1e-2, 3e-2)
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
    """One training, ranked on a split."""

    method: str
    learning_rate: float
    seed: int
    split: str

    @property
    def run(self) -> str:
        return f"{self.method}-{self.learning_rate:g}-{EPOCHS}-{self.seed}"


def run_job(job: Job, out: Path) -> dict:
    """Trains, if it has not been, and ranks; gives the result, from the disk if it is there."""
    path = out / "results" / f"{job.run}-{job.split}.json"
    if path.exists():
        return json.loads(path.read_text())
    from vop.device import default_device, resolve_precision
    from vop.model import load
    from vop.world import emoji_motion

    torch.set_num_threads(1)
    dataset, cache = emoji_motion.dataset(), out / "cache"
    dtype = resolve_precision("auto", default_device())
    if job.method == "zero-shot":
        model = load("mini", num_frames=FRAMES, dtype=dtype)
    else:
        model = load(trained_run(job, dataset, out), dtype=dtype)
    result = asdict(job) | {"epoch": model.card.get("epoch"), "minutes": model.card.get("minutes", 0)}
    result |= measure(model, dataset.split(job.split), cache)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result))
    return result


def trained_run(job: Job, dataset, out: Path) -> Path:
    """The run's folder, trained now or before."""
    from vop.training.job import train
    from vop.training.recipe import Recipe

    run = out / "runs" / job.run
    if not (run / "config.json").exists():
        recipe = Recipe(
            epochs=EPOCHS, learning_rate=job.learning_rate, seed=job.seed, workers=0, checkpoint_seconds=600
        )
        resume = (run / "training" / "state.safetensors").exists()
        train(
            dataset,
            job.method,
            run,
            backbone="mini",
            recipe=recipe,
            cache=out / "cache",
            resume=resume,
            num_frames=FRAMES,
        )
    return run


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
            facts = f"R@1 {result['t2v']['r1']:.1f}, order {result['order']:.1f}, {result['minutes']:.1f} min"
            print(f"{done}/{len(jobs)} {futures[future].run} on {futures[future].split}: {facts}", flush=True)
        return [future.result() for future in futures]


def search(out: Path, processes: int) -> tuple[dict[str, float], list[dict]]:
    """Each method's learning rate with the best R@1 on validation, both directions averaged."""
    jobs = [Job(method, rate, SEEDS[0], "val") for method, rates in RATES.items() for rate in rates]
    results = run_all(jobs, out, processes)
    best = {}
    for method in RATES:
        own = [result for result in results if result["method"] == method]
        best[method] = max(own, key=validation_score)["learning_rate"]
    return best, results


def validation_score(result: dict) -> float:
    return (result["t2v"]["r1"] + result["v2t"]["r1"]) / 2


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
    lines = ["| method | learning rate: validation R@1, both directions averaged |", "| --- | --- |"]
    for method in RATES:
        own = [r for r in results if r["method"] == method]
        lines.append(
            f"| {method} | " + ", ".join(f"{r['learning_rate']:g}: {validation_score(r):.1f}" for r in own) + " |"
        )
    return lines


def write_tables(finals: dict[str, list[dict]], searched: list[dict], machine: str, minutes: float) -> None:
    test = finals["zero-shot"][0]
    lines = [
        f"Gallery: {test['videos']} test videos, {test['texts']} captions. Ties: {test['tie_rule']}. Epoch: selected "
        f"on validation. Seeds: {', '.join(map(str, SEEDS))} (mean ± standard deviation). {FRAMES} frames, {EPOCHS} "
        f"epochs, batch 32. Machine: {machine}, one thread per training; all trainings took {minutes:.0f} minutes.",
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
        f"Learning rates, {EPOCHS} epochs, seed {SEEDS[0]}, on the {searched[0]['videos']} validation videos:",
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
    from vop.backbone import find_backbone
    from vop.world import emoji_motion

    emoji_motion.dataset()  # before several processes want it
    out = arguments.out / find_backbone("mini").content_hash()[:8]  # another mini, other results
    rates, searched = search(out, arguments.jobs)
    jobs = [Job("zero-shot", 0.0, 0, "test")]
    jobs += [Job(method, rates[method], seed, "test") for seed in SEEDS for method in RATES]
    results = run_all(jobs, out, arguments.jobs)
    finals = {method: [r for r in results if r["method"] == method] for method in ("zero-shot", *RATES)}
    runs = {Job(r["method"], r["learning_rate"], r["seed"], "").run: r["minutes"] for r in [*results, *searched]}
    write_tables(finals, searched, machine_name(), sum(runs.values()))


if __name__ == "__main__":
    main()
