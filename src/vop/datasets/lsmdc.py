"""LSMDC (Rohrbach et al., IJCV 2017) as its 2016 challenge published it, tested on 1,000 clips.

Files, anywhere below the root: `LSMDC16_annos_training.csv`, `LSMDC16_annos_val.csv`,
`LSMDC16_challenge_1000_publictect.csv`, and the clips, named by id, usually in a sub-folder for each film. The tables
have no header and no quoting: clip id, four times and a sentence, separated by tabs. A repeated clip id adds
a caption to its clip.
"""

from __future__ import annotations

from pathlib import Path

from vop.datasets.benchmark import Benchmark, Pair
from vop.datasets.text import one_line, read_text
from vop.datasets.types import Dataset
from vop.errors import DataError

_TABLES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
_COLUMNS = 6


def read(name: str, root: Path | None, *, videos: Path | None = None) -> Dataset:
    """Read `lsmdc` from its published files. Only the splits whose files exist are returned.

    Raises:
        DataError: a file is missing or does not have its published format.
    """
    benchmark = Benchmark(name, root, videos=videos)
    for split, path in benchmark.each(_TABLES):
        benchmark.add(split, _read_pairs(path), source=path)
    return benchmark.dataset()


def _read_pairs(path: Path) -> list[Pair]:
    pairs = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.split("\t", _COLUMNS - 1)
        if len(fields) < _COLUMNS or not fields[0].strip():
            raise DataError(
                f"{path}: line {number}: expected a clip id, four times and a sentence, separated by tabs, "
                f"got {line.strip()[:80]!r}"
            )
        pairs.append((fields[0].strip(), one_line(fields[-1])))
    return pairs
