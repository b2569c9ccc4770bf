"""Train methods on the stories of `emoji-motion-2`, drawn like the pictures that `mini-2` was trained on.

    python bench/plain_videos.py FOLDER [--methods zero-shot,bias:0.032,vop:0.086] [--seed 0]

The videos have full colours and contrasts, nothing that no caption mentions, and no distance. All else is that of
`recipes/emoji-motion-2.yaml`. The results say how methods compare if no difference in looks has to be made up for.
A method is given with its learning rate. FOLDER keeps the videos, the frames and the runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vop.benchmarks.emoji_motion_2 import benchmark, stories
from vop.evaluation.job import evaluate
from vop.models.pretrained import load
from vop.training.job import train
from vop.training.recipe import TUNED, Recipe
from vop.utils import progress

FRAMES = 6


def draw_plainly() -> None:
    benchmark._SATURATIONS = benchmark._CONTRASTS = (1.0, 1.0)
    stories._BYSTANDERS, stories._DISTANCES = (0,), (1.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default="zero-shot,bias:0.032,vop:0.086")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw_plainly()
    with progress.show() as show:
        data = benchmark.dataset(arguments.folder / "data", progress=progress.stage(show, "rendering videos"))
        for one in arguments.methods.split(","):
            method, _, rate = one.partition(":")
            if method == "zero-shot":
                model = load("mini-2", num_frames=FRAMES)
            else:
                model = train(
                    data,
                    out=arguments.folder / f"{method}-{arguments.seed}",
                    method=method,
                    backbone="mini-2",
                    settings={"num_frames": FRAMES},
                    recipe=Recipe(
                        epochs=6,
                        captions_per_video=3,
                        learning_rate=float(rate),
                        workers=0,
                        if_worse=TUNED,
                        seed=arguments.seed,
                    ),
                    cache=arguments.folder / "cache",
                    progress=show,
                ).model
            report = evaluate(model, data, cache=arguments.folder / "cache", bank_videos=0)
            print(json.dumps({"method": method, **report.metrics.to_dict()}), flush=True)


if __name__ == "__main__":
    main()
