"""VATEX (Wang et al., ICCV 2019) with its English captions, in the retrieval splits of HGR (Chen et al., CVPR 2020).

Files, anywhere below the root: `vatex_training_v1.0.json` and `vatex_validation_v1.0.json` (lists of objects with
`videoID` and the ten captions `enCap`), `val_list.txt` and `test_list.txt` beside the latter (1,500 ids each, one per
line), and the videos, named by id. Without the two lists, the whole validation file is the test split.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair, unique
from vop.datasets.text import expect, member, read_json, texts
from vop.datasets.types import Dataset

_CAPTIONS = {"train": "vatex_training_v1.0.json", "test": "vatex_validation_v1.0.json"}
_HALVES = {"val": "val_list.txt", "test": "test_list.txt"}


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `vatex` from its published files. Only the splits whose files exist are returned.

    Raises:
        DataError: a file is missing or does not have its published format.
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
            "but published results use the half that HGR lists"
        )
        return
    for split, listing in benchmark.each(_HALVES, beside=path):
        benchmark.add(split, pairs, source=path, listing=listing)


def _read_pairs(path: Path) -> list[Pair]:
    rows = [(f"entry {number}", row) for number, row in enumerate(expect(read_json(path), list, path), start=1)]
    ids = unique(path, [(entry, member(row, "videoID", str, f"{path}: {entry}")) for entry, row in rows])
    captions = [texts(member(row, "enCap", list, f"{path}: {entry}"), f"{path}: {entry}: enCap") for entry, row in rows]
    # A video without captions gets an empty one, so that it is counted.
    return [(video_id, text) for video_id, found in zip(ids, captions, strict=True) for text in found or [""]]
