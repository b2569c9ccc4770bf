"""Measure how much the frames of a segment refine its ends, by segmentation and threshold.

    python bench/refine_ends.py [--data emoji-moments] [--split val] [--model mini] [--parts 12] [--folder DIR]

For each segmentation, `vop.evaluate_moments` makes a library that keeps the embeddings of frames (in DIR, if given, to
be used again), and measures it with whole segments and with refined ends, for each threshold and with and without the
neighbours. The thresholds were chosen on `val`; measure `test` once, with the chosen one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

import vop
from vop.benchmarks.emoji_moments import films
from vop.datasets.moments import load_moments
from vop.search import refining
from vop.search.manifest import SegmentationConfig
from vop.utils import progress

SEGMENTATIONS = ["2/0", "2/1", "4/1", "5/1", "10/2", "shots"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji-moments")
    parser.add_argument("--split", default="val")
    parser.add_argument("--parts", type=int, help="Make films of emoji-motion with this many parts.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--segmentations", default=",".join(SEGMENTATIONS))
    parser.add_argument("--thresholds", default=str(refining.THRESHOLD))
    parser.add_argument("--beyond", default=str(refining.BEYOND))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if arguments.parts:
        data = films(parts=arguments.parts, split=arguments.split)
    else:
        data = load_moments(arguments.data, split=arguments.split)
    print("segments | ends | R@1 0.5 | R@1 0.7 | R@5 0.5 | R@5 0.7 | mean IoU | all videos: the same")
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.segmentations.split(","):
            folder = (arguments.folder or Path(temporary)) / name.replace("/", "-")
            measure(data, name, folder, arguments)


def measure(data: vop.MomentSplit, name: str, folder: Path, arguments: argparse.Namespace) -> None:
    given = {"model": arguments.model, "segmentation": segmentation_of(name), "library": folder, "workers": 1}
    started = time.monotonic()
    with progress.show() as show:
        vop.evaluate_moments(data, refine=True, progress=show, **given)
    show_row(name, "segment", vop.evaluate_moments(data, refine=False, **given))
    for beyond in map(float, arguments.beyond.split(",")):
        for threshold in map(float, arguments.thresholds.split(",")):
            refining.THRESHOLD, refining.BEYOND = threshold, beyond
            show_row(name, f"{threshold:g}, {beyond:g} beyond", vop.evaluate_moments(data, refine=True, **given))
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def segmentation_of(name: str) -> SegmentationConfig:
    if name == "shots":
        return SegmentationConfig(by="shots")
    window, overlap = map(float, name.split("/"))
    return SegmentationConfig(window_seconds=window, overlap_seconds=overlap)


def show_row(name: str, ends: str, report: vop.MomentReport) -> None:
    cells = []
    for found in (report.one_video, report.all_videos):
        cells += [found.recall[k][iou] for k in (1, 5) for iou in (0.5, 0.7)] + [found.mean_iou]
    print(" | ".join([name, ends, *(f"{cell:.1f}" for cell in cells)]), flush=True)


if __name__ == "__main__":
    main()
