"""ActivityNet Captions (Krishna et al., ICCV 2017) for paragraph retrieval: all sentences of a video form one text.

Files, anywhere below the root: `train.json` and `val_1.json` (an object: id to `sentences`), optionally
`train_ids.json` and `val_ids.json` beside them (lists of ids), and the videos, named by id (`v_….mp4`). In the usual
protocol `val_1` is the test split, and there is no validation split; see `with_validation`.

The published lists name 10,024 and 4,926 videos, of which 10,009 and 4,917 have sentences.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair
from vop.datasets.text import expect, member, one_line, read_json, texts
from vop.datasets.types import Dataset

_CAPTIONS = {"train": "train.json", "test": "val_1.json"}
_LISTS = {"train": "train_ids.json", "test": "val_ids.json"}


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `activitynet` from its published files. Only the splits whose files exist are returned.

    Raises:
        DataError: a file is missing or does not have its published format.
    """
    benchmark = Benchmark(name, root, videos=videos)
    for split, path in benchmark.each(_CAPTIONS):
        listing = benchmark.find(_LISTS[split], beside=path)
        benchmark.add(split, _read_pairs(path), source=path, listing=listing)
    return benchmark.dataset()


def _read_pairs(path: Path) -> list[Pair]:
    pairs = []
    for video_id, row in expect(read_json(path), dict, path).items():
        place = f"{path}: {video_id}"
        sentences = texts(member(row, "sentences", list, place), f"{place}: sentences")
        pairs.append((video_id, one_line(" ".join(sentences))))
    return pairs
