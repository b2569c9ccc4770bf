"""Reads the published annotation files below a folder with the readers, and compares with the published counts.

    python tests/data/check_annotations.py FOLDER

What is not there is not checked. Prints a table; exits with status 1 if a count differs, a file cannot be read, or
there is nothing to read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vop.datasets import load
from vop.datasets.msrvtt import read_test_pairs, read_training_ids
from vop.datasets.videofolder import FileTree
from vop.errors import DataError

# Videos and captions; None where no count of captions is published. Those of MSR-VTT, MSVD, DiDeMo, ActivityNet and
# LSMDC are the ones of the VoP paper's benchmarks, those of VATEX are HGR's. The counts of LSMDC's
# training and validation tables are of captions.
EXPECTED = {
    ("msrvtt-9k", "train"): (9_000, 180_000),
    ("msrvtt-9k", "train list"): (9_000, None),
    ("msrvtt-7k", "train"): (7_010, 140_200),
    ("msrvtt-7k", "train list"): (7_010, None),
    ("msrvtt", "test"): (1_000, 1_000),
    ("msrvtt", "test, distinct"): (None, 995),
    ("msvd", "train"): (1_200, 48_774),
    ("msvd", "val"): (100, 4_290),
    ("msvd", "test"): (670, 27_763),
    ("didemo", "train"): (8_392, 8_392),
    ("didemo", "val"): (1_065, 1_065),
    ("didemo", "test"): (1_004, 1_004),
    ("activitynet", "train"): (10_009, 10_009),
    ("activitynet", "test"): (4_917, 4_917),
    ("lsmdc", "train"): (None, 101_079),
    ("lsmdc", "val"): (None, 7_408),
    ("lsmdc", "test"): (1_000, 1_000),
    ("vatex", "train"): (25_991, 259_910),
    ("vatex", "val"): (1_500, 15_000),
    ("vatex", "test"): (1_500, 15_000),
}
# A benchmark is read if one of these files exists.
FILES = {
    "msvd": ("captions_msvd.json", "raw-captions.pkl"),
    "didemo": ("train_data.json", "val_data.json", "test_data.json"),
    "activitynet": ("train.json", "val_1.json"),
    "lsmdc": ("LSMDC16_annos_training.csv", "LSMDC16_annos_val.csv", "LSMDC16_challenge_1000_publictect.csv"),
    "vatex": ("vatex_training_v1.0.json", "vatex_validation_v1.0.json"),
}
LISTS = {"msrvtt-9k": "MSRVTT_train.9k.csv", "msrvtt-7k": "MSRVTT_train.7k.csv"}

Row = tuple[str, str, int | None, int | None]  # benchmark, split, videos, captions


def read_msrvtt(tree: FileTree) -> Iterator[Row]:
    """The available splits of MSR-VTT. Its lists can be counted without the training captions."""
    captions, test = tree.nearest("MSRVTT_data.json"), tree.nearest("MSRVTT_JSFUSION_test.csv")
    for name, file in LISTS.items():
        if listing := tree.nearest(file):
            yield name, "train list", len(read_training_ids(Path(listing))), None
            if captions and test:
                train = load(f"{name}:{tree.root}").split("train")
                yield name, "train", len(train.videos), len(train)
    if test:
        pairs = read_test_pairs(Path(test))
        yield "msrvtt", "test", len({video_id for video_id, _ in pairs}), len(pairs)
        yield "msrvtt", "test, distinct", None, len({caption for _, caption in pairs})


def read(name: str, tree: FileTree, notes: list[str]) -> Iterator[Row]:
    """The available splits of a benchmark."""
    if any(map(tree.nearest, FILES[name])):
        dataset = load(f"{name}:{tree.root}")
        notes += [f"{name}: {note}" for note in dataset.notes]
        yield from ((name, split.name, len(split.videos), len(split)) for split in dataset.splits.values())


def as_published(row: Row) -> bool:
    benchmark, split, *counts = row
    pairs = zip(counts, EXPECTED[benchmark, split], strict=True)
    return all(published is None or count == published for count, published in pairs)


def table(rows: list[Row]) -> Table:
    drawn = Table("benchmark", "split", "videos", "captions", "expected", "ok", box=None)
    for row in rows:
        benchmark, split, *counts = row
        videos, captions, *published = ("-" if n is None else f"{n:,}" for n in (*counts, *EXPECTED[benchmark, split]))
        drawn.add_row(benchmark, split, videos, captions, " / ".join(published), "yes" if as_published(row) else "NO")
    return drawn


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="compare annotation files with their published counts")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    tree = FileTree(parser.parse_args(arguments).folder)
    rows: list[Row] = []
    notes: list[str] = []
    errors: list[str] = []
    for found in (read_msrvtt(tree), *(read(name, tree, notes) for name in FILES)):
        try:
            rows += found
        except DataError as error:
            errors.append(str(error))
    Console(width=120).print(table(rows))
    for line in (*(f"note: {note}" for note in notes), *(f"error: {error}" for error in errors)):
        print(line)
    return 0 if rows and not errors and all(map(as_published, rows)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
