"""MSR-VTT (Xu et al., CVPR 2016) in its two usual training splits, tested on 1k-A (JSFusion, Yu et al., ECCV 2018).

Files, anywhere below the root: `MSRVTT_train.9k.csv` or `MSRVTT_train.7k.csv` (column `video_id`),
`MSRVTT_JSFUSION_test.csv` (columns `video_id`, `sentence`), `MSRVTT_data.json` (`sentences`: a list of `video_id` and
`caption`), and the videos, named by id. No validation split is published for these splits; see `with_validation`.

The challenge's own files `train_val_videodatainfo.json` and `test_videodatainfo.json`, with 7,010 and 2,990 videos,
may replace `MSRVTT_data.json`. They have the same format. With them the training list may be missing: the 7k split then
has all videos of the first file, the 9k split all videos of both files, without the test videos.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair, unique
from vop.datasets.text import expect, read_json, read_text
from vop.datasets.types import Dataset
from vop.errors import DataError

_TRAIN = {"msrvtt-9k": "MSRVTT_train.9k.csv", "msrvtt-7k": "MSRVTT_train.7k.csv"}
_TEST = "MSRVTT_JSFUSION_test.csv"
_CAPTIONS = "MSRVTT_data.json"
_OFFICIAL = ("train_val_videodatainfo.json", "test_videodatainfo.json")


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `msrvtt-9k` or `msrvtt-7k` from its published files.

    Raises:
        DataError: a file is missing or does not have its published format.
    """
    benchmark = Benchmark(name, root, videos=videos)
    captions = {path: _read_sentences(path) for path in _captions_files(benchmark)}
    test = benchmark.need(_TEST)
    test_pairs = read_test_pairs(test)
    source = next(iter(captions))
    listing = benchmark.find(_TRAIN[name]) if source.name in _OFFICIAL else benchmark.need(_TRAIN[name])
    if listing is None:
        captions = _without_training_list(benchmark, captions)
        tested = {video_id for video_id, _ in test_pairs}
        captions = {path: [pair for pair in pairs if pair[0] not in tested] for path, pairs in captions.items()}
    sentences = [pair for pairs in captions.values() for pair in pairs]
    benchmark.add("train", sentences, source=source, listing=listing, read=read_training_ids)
    benchmark.add("test", test_pairs, source=test)
    return benchmark.dataset()


def _captions_files(benchmark: Benchmark) -> list[Path]:
    if usual := benchmark.find(_CAPTIONS):
        return [usual]
    if benchmark.find(_OFFICIAL[0]) is None:
        raise DataError(
            f"{benchmark.root}: no {_CAPTIONS} in this folder or below it, and no {_OFFICIAL[0]} in its place"
        )
    return [path for file in _OFFICIAL if (path := benchmark.find(file))]


def _without_training_list(benchmark: Benchmark, captions: dict[Path, list[Pair]]) -> dict[Path, list[Pair]]:
    """Return the files with the training videos if the training list is missing, and add a note."""
    listing, every = _TRAIN[benchmark.name], benchmark.name == "msrvtt-9k"
    if every and len(captions) < len(_OFFICIAL):
        raise DataError(
            f"{benchmark.root}: no {listing} in this folder or below it; without it, {benchmark.name} needs "
            f"{_OFFICIAL[1]} too"
        )
    used = {path: pairs for path, pairs in captions.items() if every or path.name == _OFFICIAL[0]}
    names = " and ".join(path.name for path in used)
    benchmark.notes.append(f"no {listing}: all videos of {names} are for training, except those of the test split")
    return used


def read_training_ids(path: Path) -> list[str]:
    """Return the ids of a training list; repeated ids count once."""
    return list(dict.fromkeys(row["video_id"] for row in _rows(path, ["video_id"])))


def read_test_pairs(path: Path) -> list[Pair]:
    """Return the pairs of the test list, which must list each video once."""
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
            f"{path}: expected the key 'sentences' with a list of objects with 'video_id' and 'caption' ({error!r})"
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
