"""Measure token merging: the speed of a vision tower with random weights, and R@1 of `mini` on emoji-motion.

    python bench/token_merging.py [--device cpu] [--videos 2] [--repeats 5] [--json]
    python bench/token_merging.py --data emoji-motion [--run RUN] [--cache DIR] [--json]

Without --data, the tower has the sizes of ViT-B/16, and videos have 4 frames. The ratios take turns, and times are
medians. With --data, the time is that of the forward passes, with the frames decoded before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import vop
from vop.backbones.embedding_config import TokenMerging
from vop.backbones.sizes import VIT_B_16
from vop.backbones.towers import VisionTower
from vop.datasets.frames import FrameStore
from vop.datasets.readers import load

VARIANTS = [TokenMerging(0.0)] + [TokenMerging(ratio, frames) for frames in (1, 2) for ratio in (0.25, 0.5, 0.75)]
FRAMES = 4


def seconds(embed, device: str) -> float:
    started = time.perf_counter()
    with torch.no_grad():
        embed()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def speed(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    tower = VisionTower(VIT_B_16).to(arguments.device).eval().requires_grad_(False)
    images = torch.randn(arguments.videos * FRAMES, 3, 224, 224, device=arguments.device)
    rows = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        tower.to(dtype).dtype = dtype
        taken: list[list[float]] = [[] for _ in VARIANTS]
        for _ in range(arguments.repeats + 1):
            for variant, times in zip(VARIANTS, taken, strict=True):
                tower.merging = variant if variant.ratio else None
                times.append(seconds(lambda: tower(images), arguments.device))
        medians = [1000 * statistics.median(times[1:]) / arguments.videos for times in taken]
        for variant, median in zip(VARIANTS, medians, strict=True):
            rows.append({"precision": name, "ms": median, "times_faster": medians[0] / median} | vars(variant))
    return rows


def quality(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    dataset = load(arguments.data)
    model = vop.load(arguments.run, num_frames=6, device=arguments.device)
    store = FrameStore(6, model.resizing, cache=arguments.cache)
    frames = torch.stack([store.load(video) for video in dataset.split("test").videos])
    taken: list[list[float]] = [[] for _ in VARIANTS]
    usable = [v for v in VARIANTS if v.across_frames == 1 or model.method.token_merging == "across frames"]
    for _ in range(arguments.repeats + 1):
        for variant, times in zip(usable, taken, strict=False):
            model.merge_tokens(variant)
            times.append(seconds(lambda: [model.encode_frames(part) for part in frames.split(32)], arguments.device))
    rows = []
    for variant, times in zip(usable, taken, strict=False):
        model.merge_tokens(variant)
        metrics = vop.evaluate(model, dataset, cache=arguments.cache, bank_videos=0).metrics
        median = 1000 * statistics.median(times[1:]) / len(frames)
        row = {"run": str(arguments.run), "t2v_r1": metrics.t2v.r1, "v2t_r1": metrics.v2t.r1, "ms": median}
        rows.append(row | vars(variant))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data")
    parser.add_argument("--run", default="mini")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = speed(arguments) if arguments.data is None else quality(arguments)
    for row in [json.dumps(rows)] if arguments.json else rows:
        print(row)


if __name__ == "__main__":
    main()
