"""Tune on few captions, and measure whether the default recipe gains or loses on held-out videos.

    python bench/few_captions.py [--sizes 30,100,300,1000] [--seeds 0,1] [--out bench-few-captions]

For each size and seed, the script draws training videos of emoji-motion with one caption each, and tunes the backbone
`mini` on them with default settings (`vop-f+p`, 12 frames; some of the drawn videos are held out for validation). A
paired test compares the result with the untuned model on the 500 test videos. Each result is written to a file, so that
a stopped run can resume. The figure shows all existing results.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vop.benchmarks import emoji_motion
from vop.datasets.types import Dataset, Split
from vop.evaluation.confidence import QueryRanks, paired_test
from vop.evaluation.job import evaluate
from vop.models.model import TextVideoModel
from vop.models.pretrained import load
from vop.training.job import train
from vop.training.recipe import Recipe
from vop.utils.device import default_device, machine_name, resolve_precision
from vop.utils.files import atomic_write
from vop.utils.threads import use_threads

METHOD = "vop-f+p"


def drawn(dataset: Dataset, size: int, seed: int) -> Dataset:
    """Return the data set with `size` training videos and without its validation split."""
    whole = dataset.split("train")
    order = np.random.default_rng(seed).permutation(len(whole.videos))[:size]
    kept: Split = whole.keep({whole.videos[place].id for place in order})
    return replace(dataset, splits={"train": kept, "test": dataset.split("test")})


def ranks_of(model: TextVideoModel, dataset: Dataset, cache: Path) -> QueryRanks:
    return evaluate(model, dataset, cache=cache, bank_videos=0).ranks


def run(dataset: Dataset, size: int, seed: int, *, untuned: QueryRanks, out: Path) -> dict:
    cache = out / "cache"
    few = drawn(dataset, size, seed)
    folder = out / f"run-{size}-{seed}"
    recipe, resume = Recipe(seed=seed), folder.exists()
    trained = train(few, out=folder, method=METHOD, backbone="mini", recipe=recipe, cache=cache, resume=resume)
    test = paired_test(ranks_of(trained.model, dataset, cache), untuned)
    result = trained.result
    return {
        "captions": size,
        "seed": seed,
        "machine": machine_name(),
        "selection": result.selection,
        "p_on_validation": result.p,
        "best_epoch": result.best_epoch,
        "validated_r1": [record["validation"]["t2v"]["r1"] for record in result.history if "validation" in record],
        "untuned_validation_r1": result.untuned["t2v"]["r1"],
        "validation_videos": result.untuned["videos"],
        "test": {way: {name: vars(cut) for name, cut in getattr(test, way).items()} for way in ("t2v", "v2t")},
        "minutes": result.seconds / 60,
    }


def draw(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.axhline(0, color="0.6", linewidth=1)
    seeds = sorted({result["seed"] for result in results})
    for place, seed in enumerate(seeds):
        own = sorted((result for result in results if result["seed"] == seed), key=lambda result: result["captions"])
        cuts = [result["test"]["t2v"]["r1"] for result in own]
        gains = np.array([cut["first"] - cut["second"] for cut in cuts])
        low, high = np.array([cut["interval"] for cut in cuts]).T
        x = np.array([result["captions"] for result in own]) * 1.06 ** (place - (len(seeds) - 1) / 2)
        axes.errorbar(x, gains, (gains - low, high - gains), fmt="o-", capsize=3, linewidth=1, label=f"seed {seed}")
    axes.set_xscale("log")
    sizes = sorted({result["captions"] for result in results})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("captioned videos")
    axes.set_ylabel("gain in t2v R@1 on test videos")
    axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="30,100,300,1000")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path, default=Path("bench-few-captions"))
    arguments = parser.parse_args()
    use_threads(1)
    dataset = emoji_motion.dataset(arguments.out / "data")
    precision = resolve_precision("auto", default_device())  # as the tuned model
    untuned = ranks_of(load("mini", num_frames=12, dtype=precision), dataset, arguments.out / "cache")
    results = []
    for seed in map(int, arguments.seeds.split(",")):
        for size in map(int, arguments.sizes.split(",")):
            path = arguments.out / f"result-{size}-{seed}.json"
            if not path.exists():
                found = run(dataset, size, seed, untuned=untuned, out=arguments.out)
                with atomic_write(path) as temporary:
                    temporary.write_text(json.dumps(found), encoding="utf-8")
            results.append(json.loads(path.read_text(encoding="utf-8")))
            cut = results[-1]["test"]["t2v"]["r1"]
            kept = results[-1]["selection"]
            low, high = cut["interval"]
            print(
                f"{size} captions, seed {seed}: t2v R@1 {cut['second']:.1f} untuned, {cut['first']:.1f} tuned "
                f"[{low:+.1f}, {high:+.1f}], p = {cut['p']:.4f}; {kept}, {results[-1]['minutes']:.1f} min",
                flush=True,
            )
            draw(results, arguments.out / "few-captions.svg")


if __name__ == "__main__":
    main()
