"""VATEX (Wang et al., ICCV 2019) with its English captions, in the retrieval splits of HGR (Chen et al., CVPR 2020).

Files, anywhere below the root: `vatex_training_v1.0.json`, `vatex_validation_v1.0.json` (lists of `videoID` and
`enCap`, ten captions), beside the latter `val_list.txt` and `test_list.txt` (1,500 ids each, one a line), and the
videos, named by id. Every caption is a text. Without those lists, the whole validation file is the test split.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair, unique
from vop.datasets.text import expect, member, read_json, texts
from vop.datasets.types import Dataset

_CAPTIONS = {"train": "vatex_training_v1.0.json", "test": "vatex_validation_v1.0.json"}
_HALVES = {"val": "val_list.txt", "test": "test_list.txt"}


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """`vatex` from its published files: the splits that are there.

    Raises:
        DataError: a file is missing or not in its published form.
    """
    benchmark = Benchmark(name, root, videos=videos)
    for split, path in benchmark.each(_CAPTIONS):
        if split == "train":
            benchmark.add("train", _read_pairs(path), source=path)
        else:
            _add_halves(benchmark, path)
    return benchmark.dataset()


def _add_halves(benchmark: Benchmark, path: Path) -> None:
    pairs = _read_pairs(path)
    if not any(benchmark.find(listing, beside=path) for listing in _HALVES.values()):
        benchmark.add("test", pairs, source=path)
        benchmark.notes.append(
            f"no {' and no '.join(_HALVES.values())}: all of {path.name} is the test split, "
            "while published results are on the half of it that HGR lists"
        )
        return
    for split, listing in benchmark.each(_HALVES, beside=path):
        benchmark.add(split, pairs, source=path, listing=listing)


def _read_pairs(path: Path) -> list[Pair]:
    rows = [(f"entry {number}", row) for number, row in enumerate(expect(read_json(path), list, path), start=1)]
    ids = unique(path, [(entry, member(row, "videoID", str, f"{path}: {entry}")) for entry, row in rows])
    captions = [texts(member(row, "enCap", list, f"{path}: {entry}"), f"{path}: {entry}: enCap") for entry, row in rows]
    # A video without captions stands as one with an empty caption, so that it is counted.
    return [(video_id, text) for video_id, found in zip(ids, captions, strict=True) for text in found or [""]]
