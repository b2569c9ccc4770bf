"""DiDeMo (Hendricks et al., ICCV 2017) for paragraph retrieval: all descriptions of a video form one text.

Files, anywhere below the root: `train_data.json`, `val_data.json`, `test_data.json` (lists of objects with `video` and
`description`; a video may have several), optionally `train_list.txt` and so on beside them (the ids of a split, one per
line), and the videos. The descriptions are joined in the order of their file, as in published code, not in the order of
their `times`. The whole video is used, not single moments.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair
from vop.datasets.text import expect, member, one_line, read_json
from vop.datasets.types import Dataset
from vop.errors import DataError

_DATA = {"train": "train_data.json", "val": "val_data.json", "test": "test_data.json"}


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `didemo` from its published files. Only the splits whose files exist are returned.

    Raises:
        DataError: a file is missing or does not have its published format.
    """
    benchmark = Benchmark(name, root, videos=videos)
    for split, path in benchmark.each(_DATA):
        listing = benchmark.find(f"{split}_list.txt", beside=path)
        benchmark.add(split, _read_pairs(path), source=path, listing=listing)
    return benchmark.dataset()


def _read_pairs(path: Path) -> list[Pair]:
    descriptions: dict[str, list[str]] = {}
    for number, row in enumerate(expect(read_json(path), list, path), start=1):
        place = f"{path}: entry {number}"
        video_id = member(row, "video", str, place)
        if not video_id.strip():
            raise DataError(f"{place}: the video is {video_id!r}")
        descriptions.setdefault(video_id, []).append(member(row, "description", str, place))
    return [(video_id, one_line(" ".join(found))) for video_id, found in descriptions.items()]
