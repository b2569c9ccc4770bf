"""MSR-VTT (Xu et al., CVPR 2016) in its two usual training splits, tested on 1k-A (JSFusion, Yu et al., ECCV 2018).

Files, anywhere below the root: `MSRVTT_train.9k.csv` or `MSRVTT_train.7k.csv` (column `video_id`),
`MSRVTT_JSFUSION_test.csv` (columns `video_id`, `sentence`), `MSRVTT_data.json` (`sentences`: a list of `video_id` and
`caption`), and the videos, named by id. There is no published validation split for these; see `with_validation`.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vop.data.readers.benchmark import Benchmark, Pair, unique
from vop.data.readers.text import expect, read_json, read_text
from vop.data.types import Dataset
from vop.errors import DataError

_TRAIN = {"msrvtt-9k": "MSRVTT_train.9k.csv", "msrvtt-7k": "MSRVTT_train.7k.csv"}
_TEST = "MSRVTT_JSFUSION_test.csv"
_CAPTIONS = "MSRVTT_data.json"


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """`msrvtt-9k` or `msrvtt-7k` from its published files.

    Raises:
        DataError: a file is missing or not in its published form.
    """
    benchmark = Benchmark(name, root, videos=videos)
    listing, captions, test = (benchmark.need(file) for file in (_TRAIN[name], _CAPTIONS, _TEST))
    benchmark.add("train", _read_sentences(captions), source=captions, listing=listing, read=read_training_ids)
    benchmark.add("test", read_test_pairs(test), source=test)
    return benchmark.dataset()


def read_training_ids(path: Path) -> list[str]:
    """The ids of a training list; one that is listed again counts once."""
    return list(dict.fromkeys(row["video_id"] for row in _rows(path, ["video_id"])))


def read_test_pairs(path: Path) -> list[Pair]:
    """The pairs of the test list, which names each video once."""
    rows = _rows(path, ["video_id", "sentence"])
    unique(path, [(f"line {line}", row["video_id"]) for line, row in enumerate(rows, start=2)])
    return [(row["video_id"], row["sentence"]) for row in rows]


def _read_sentences(path: Path) -> list[Pair]:
    data = read_json(path)
    try:
        rows = [(f"{path}: sentence {n}", row) for n, row in enumerate(data["sentences"], start=1)]
        return [(expect(row["video_id"], str, place), expect(row["caption"], str, place)) for place, row in rows]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the key 'sentences' with a list of 'video_id' and 'caption'; {error!r} went wrong"
        ) from error


def _rows(path: Path, columns: list[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    found = reader.fieldnames or []
    missing = [column for column in columns if column not in found]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; found: {', '.join(found) or 'nothing'}")
    rows = list(reader)
    for line, row in enumerate(rows, start=2):
        if any(not row[column] for column in columns):
            raise DataError(f"{path}: line {line}: a value is missing")
    return rows
