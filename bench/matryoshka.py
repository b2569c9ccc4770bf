"""Measure R@1 of embeddings that keep only their first dimensions, with and without a training for them.

    python bench/matryoshka.py [--methods vop-f+p,proj,full] [--seeds 0,1] [--epochs 6]

Trains `mini`, whose embeddings have 128 dimensions, on emoji-motion with 6 frames and one thread, and ranks the test
split at several numbers of dimensions. Results are means over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

import vop
from vop.benchmarks import emoji_motion
from vop.datasets.types import Dataset
from vop.models.model import TextVideoModel
from vop.training.recipe import TUNED, Recipe

DIMENSIONS = (32, 64)
FRAMES = 6
RATES = {"vop-f+p": 3e-2, "proj": 1e-2, "full": 1e-3}


def ranked(model: TextVideoModel, dataset: Dataset, *, cache: Path) -> list[float]:
    """Return t2v R@1 at all dimensions and at each of `DIMENSIONS`, whether or not the model was trained for them."""
    model.matryoshka_dimensions = DIMENSIONS
    found = []
    for dimensions in (None, *reversed(DIMENSIONS)):
        model.use_dimensions(dimensions)
        found.append(vop.evaluate(model, dataset, cache=cache, bank_videos=0).metrics.t2v.r1)
    return found


def show(name: str, results: list[list[float]]) -> None:
    cells = []
    for r1 in zip(*results, strict=True):
        spread = f" ± {statistics.stdev(r1):.1f}" if len(r1) > 1 else ""
        cells.append(f"{statistics.mean(r1):.1f}{spread}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="vop-f+p,proj,full")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = emoji_motion.dataset()
    print(f"| model | 128 | {' | '.join(map(str, reversed(DIMENSIONS)))} |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        show("untuned", [ranked(vop.load("mini", num_frames=FRAMES), dataset, cache=out / "cache")])
        for method in arguments.methods.split(","):
            for matryoshka in ((), DIMENSIONS):
                results = []
                for seed in map(int, arguments.seeds.split(",")):
                    recipe = Recipe(
                        epochs=arguments.epochs,
                        learning_rate=RATES.get(method),
                        matryoshka=matryoshka,
                        seed=seed,
                        if_worse=TUNED,
                        workers=0,
                    )
                    trained = vop.train(
                        dataset,
                        out=out / f"{method}-{len(matryoshka)}-{seed}",
                        method=method,
                        backbone="mini",
                        settings={"num_frames": FRAMES},
                        recipe=recipe,
                        cache=out / "cache",
                    )
                    results.append(ranked(trained.model, dataset, cache=out / "cache"))
                show(f"{method}, {'with' if matryoshka else 'without'} matryoshka", results)


if __name__ == "__main__":
    main()
