"""MSVD (Chen and Dolan, ACL 2011) in its usual splits of 1,200, 100 and 670 videos. Every caption is a separate text.

Files, anywhere below the root: `captions_msvd.json` (an object: id to a list of captions), `train_list.txt`,
`val_list.txt`, `test_list.txt` (one id per line), and the videos, named by id.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair
from vop.datasets.text import expect, read_json, texts
from vop.datasets.types import Dataset
from vop.errors import DataError

_CAPTIONS = "captions_msvd.json"
_PICKLE = "raw-captions.pkl"
_LISTS = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `msvd` from its published files. Only the splits whose lists exist are returned.

    Raises:
        DataError: a file is missing or does not have its published format.
    """
    benchmark = Benchmark(name, root, videos=videos)
    captions = _captions_file(benchmark)
    pairs = _read_pairs(captions)
    for split, path in benchmark.each(_LISTS, beside=captions):
        benchmark.add(split, pairs, source=captions, listing=path)
    return benchmark.dataset()


def _captions_file(benchmark: Benchmark) -> Path:
    if not benchmark.find(_CAPTIONS) and (pickle := benchmark.find(_PICKLE)):
        raise DataError(
            f"{pickle}: this is a pickle, and loading one runs the code in it; give the captions as {_CAPTIONS}, "
            "an object that maps every id to a list of captions"
        )
    return benchmark.need(_CAPTIONS)


def _read_pairs(path: Path) -> list[Pair]:
    captions = expect(read_json(path), dict, path)
    return [(video_id, text) for video_id, found in captions.items() for text in texts(found, f"{path}: {video_id}")]
