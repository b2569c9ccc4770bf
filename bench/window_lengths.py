"""Measure how well windows of several lengths can match the moments of ActivityNet Captions, whatever the model.

    python bench/window_lengths.py val_1.json [--windows 2:1,5:1,10:2,20:4,30:6] [--json]

`val_1.json` has the duration of each video, and the times of its sentences; no video is needed. `reachable_50` and
`reachable_70` are the percentages of the sentences for which some window has an intersection over union of at least 0.5
or 0.7 with the right time: no search can have a higher recall with such windows, unless it refines their ends.
`segments_an_hour` is what a library has to hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vop.search.segmentation import windows


def moments(path: Path) -> Iterator[tuple[float, list[tuple[float, float]]]]:
    """Yield the duration of each video, and the times of its sentences within it."""
    for video in json.loads(path.read_text(encoding="utf-8")).values():
        times = [(min(pair), min(max(pair), video["duration"])) for pair in video["timestamps"]]
        yield video["duration"], [(start, end) for start, end in times if start < end]


def best_iou(segments: np.ndarray, start: float, end: float) -> float:
    common = (np.minimum(segments[:, 1], end) - np.maximum(segments[:, 0], start)).clip(0)
    return float((common / (segments[:, 1] - segments[:, 0] + end - start - common)).max())


def measure(path: Path, length: float, overlap: float) -> dict[str, float]:
    found, count, seconds = [], 0, 0.0
    for duration, times in moments(path):
        segments = np.array(windows(duration, window_seconds=length, overlap_seconds=overlap))
        found += [best_iou(segments, start, end) for start, end in times]
        count, seconds = count + len(segments), seconds + duration
    return {
        "window_seconds": length,
        "overlap_seconds": overlap,
        "segments_an_hour": 3600 * count / seconds,
        "reachable_50": 100 * statistics.mean(iou >= 0.5 for iou in found),
        "reachable_70": 100 * statistics.mean(iou >= 0.7 for iou in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument(
        "--windows", default="2:1,5:1,10:2,20:4,30:6", help="LENGTH:OVERLAP in seconds, several of them."
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lengths = [end - start for _, times in moments(arguments.annotations) for start, end in times]
    rows = [measure(arguments.annotations, *map(float, one.split(":"))) for one in arguments.windows.split(",")]
    if arguments.json:
        print(json.dumps({"sentences": len(lengths), "median_seconds": statistics.median(lengths), "windows": rows}))
        return
    print(f"{len(lengths):,} sentences, median {statistics.median(lengths):.1f} s")
    for row in rows:
        print("  ".join(f"{name} {value:.1f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
