"""Measure how several captions per video in a training step change R@1 and time, for the same number of captions.

    python bench/captions_per_video.py [--seeds 0,1] [--epochs 3]

The training videos of emoji-motion get four different, correct captions each; validation and test do not change. Every
variant sees all captions in every epoch. Its learning rate is the better of two on validation. Test results are means
over seeds. The variants alternate in one process with one thread, so that their times can be compared.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from random import Random

import torch

from vop.benchmarks import emoji_motion, stories
from vop.datasets.types import Dataset, Split
from vop.evaluation.job import evaluate
from vop.training.job import train
from vop.training.recipe import Recipe

CAPTIONS = 4
WAYS = {  # captions per video in a step, videos per step
    "1 of 32 videos": (1, 32),
    "2 of 32 videos": (2, 32),
    "4 of 32 videos": (4, 32),
    "4 of 8 videos": (4, 8),
}
RATES = (1e-2, 3e-2)
METHOD, FRAMES = "vop-f+p", 6


def with_captions(dataset: Dataset) -> Dataset:
    """Return the data set with `CAPTIONS` captions for each training video."""
    told = {clip.id: tellings(clip) for clip in emoji_motion.plan_clips() if clip.split == "train"}
    train_split = dataset.split("train")
    captions = [caption for video in train_split.videos for caption in told[video.id]]
    targets = [row for row in range(len(train_split.videos)) for _ in range(CAPTIONS)]
    return Dataset(dataset.name, {**dataset.splits, "train": Split("train", train_split.videos, captions, targets)})


def tellings(clip: emoji_motion.Clip) -> list[str]:
    """Return captions of a clip, its original one first."""
    rng = Random(f"captions/{clip.id}")
    found = {clip.caption: None}
    while len(found) < CAPTIONS:
        found[stories.tell(clip.story, rng, backwards=clip.backwards)] = None
    return list(found)


def run(dataset: Dataset, way: str, rate: float, seed: int, *, epochs: int, out: Path) -> dict:
    captions, videos = WAYS[way]
    recipe = Recipe(
        epochs=epochs,
        batch_size=videos,
        captions_per_video=captions,
        learning_rate=rate,
        seed=seed,
        workers=0,
        checkpoint_seconds=1e9,
    )
    folder = out / f"{way}-{rate}-{seed}"
    trained = train(
        dataset,
        out=folder,
        method=METHOD,
        backbone="mini",
        settings={"num_frames": FRAMES},
        recipe=recipe,
        cache=out / "cache",
    )
    chosen = trained.result.history[trained.result.best_epoch - 1]["validation"]
    test = evaluate(trained.model, dataset, cache=out / "cache", bank_videos=0).metrics
    shutil.rmtree(folder)
    seconds = trained.result.seconds
    print(f"  {way}, rate {rate:g}, seed {seed}: {seconds:.0f} s, test t2v R@1 {test.t2v.r1:.1f}", flush=True)
    return {"validation": chosen["t2v"]["r1"] + chosen["v2t"]["r1"], "r1": test.t2v.r1, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    dataset = with_captions(emoji_motion.dataset())
    with tempfile.TemporaryDirectory() as folder:
        given = {"epochs": arguments.epochs, "out": Path(folder)}
        tried = {(way, rate): run(dataset, way, rate, seeds[0], **given) for rate in RATES for way in WAYS}
        best = {way: max(RATES, key=lambda rate, way=way: tried[way, rate]["validation"]) for way in WAYS}
        results = {way: [tried[way, best[way]]] for way in WAYS}
        for seed in seeds[1:]:
            for way in WAYS:
                results[way].append(run(dataset, way, best[way], seed, **given))
    print(f"\n{METHOD}, {CAPTIONS} captions per training video, {arguments.epochs} epochs, seeds {arguments.seeds}")
    slowest = statistics.mean(result["seconds"] for result in results["1 of 32 videos"])
    for way, found in results.items():
        r1 = [result["r1"] for result in found]
        spread = f" ± {statistics.stdev(r1):.1f}" if len(r1) > 1 else ""
        seconds = statistics.mean(result["seconds"] for result in found)
        print(
            f"{way}: t2v R@1 {statistics.mean(r1):.1f}{spread}, rate {best[way]:g}, "
            f"{seconds:.0f} s, {slowest / seconds:.1f} times as fast"
        )


if __name__ == "__main__":
    main()
