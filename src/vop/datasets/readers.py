"""Readers: one for each format of annotations, found by the data set's name.

A reader is a function `read(name, root, *, videos) -> Dataset`: `root` is the folder after the colon of the SPEC (None
without a folder), and `videos` the folder of the videos if it is not `root`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vop.datasets.rows import TABLE_SUFFIXES
from vop.datasets.types import Dataset
from vop.errors import DataError, UsageError, unknown_name
from vop.utils.files import expand
from vop.utils.registry import Registry

Reader = Callable[..., Dataset]

# Add a line here for a new benchmark. Its module is imported when its name is used.
READERS: dict[str, str] = {
    "activitynet": "vop.datasets.activitynet:read",
    "didemo": "vop.datasets.didemo:read",
    "emoji-motion": "vop.benchmarks.emoji_motion:read",
    "emoji-motion-2": "vop.benchmarks.emoji_motion_2.benchmark:read",
    "lsmdc": "vop.datasets.lsmdc:read",
    "msrvtt-7k": "vop.datasets.msrvtt:read",
    "msrvtt-9k": "vop.datasets.msrvtt:read",
    "msvd": "vop.datasets.msvd:read",
    "vatex": "vop.datasets.vatex:read",
}
# The built-in readers and those that installed packages add through entry points.
REGISTRY: Registry[Reader] = Registry("data set", READERS, group="vop.datasets")
_KINDS = f"or a {', '.join(TABLE_SUFFIXES[:-1])} or {TABLE_SUFFIXES[-1]} file, or hf:OWNER/NAME"


def load(
    spec: str | Path,
    *,
    videos: str | Path | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
) -> Dataset:
    """Read the data set that a SPEC names.

    Args:
        spec: `NAME:DIR`, a benchmark and its folder (`msrvtt-9k:/data/msrvtt`); a CSV, TSV, JSON, JSONL or Parquet file
            with a video and a caption column, or a folder with one for each split (`train.csv`, `test.csv`); or
            `hf:OWNER/NAME`, such a folder on the Hugging Face hub.
        videos: the folder of the videos, if it is not the folder of the annotations.
        video_column, caption_column: names of a table's columns. Usual names are detected.

    Raises:
        UsageError: the data set or a column does not exist.
        DataError: its files are missing or cannot be read.
    """
    from vop.datasets import table as tables  # imports PyArrow

    spec = str(spec)
    videos = None if videos is None else Path(videos)
    if spec.startswith("hf:"):
        return tables.read_hub(spec, videos=videos, video_column=video_column, caption_column=caption_column)
    path = expand(spec)
    if path.suffix.lower() in TABLE_SUFFIXES or path.is_dir():
        return tables.read(path, videos=videos, video_column=video_column, caption_column=caption_column)
    name, _, folder = spec.partition(":")
    known = REGISTRY.names()
    if name not in known and path.exists():
        raise DataError(
            f"{path}: the name of a table ends in {', '.join(TABLE_SUFFIXES[:-1])} or {TABLE_SUFFIXES[-1]}; "
            "rename or convert the file"
        )
    if name not in known:
        raise _unknown(spec, name)
    if video_column or caption_column:
        raise UsageError(f"{name} is not a table: video_column and caption_column apply only to tables")
    root = expand(folder) if folder else None
    return reader(name)(name, root, videos=videos)


def reader(name: str) -> Reader:
    """Import the reader of a benchmark, and return it."""
    return REGISTRY.find(name)


def _unknown(spec: str, name: str) -> UsageError:
    from vop.datasets.moments import REGISTRY as WITH_MOMENTS

    if name in WITH_MOMENTS.names():
        return UsageError(
            f"{name} has sentences with times in long videos, not captions of whole videos: evaluate it with "
            "`vop evaluate --moments`"
        )
    error = unknown_name("data set", name, REGISTRY.names())
    return UsageError(f"{error}, {_KINDS} ({spec!r} is neither a file nor a folder)")
