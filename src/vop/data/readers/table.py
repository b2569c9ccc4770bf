"""Captioned videos in a table: CSV, TSV, JSONL or Parquet, one file or one for each split.

A row is a video and a caption (or a list of captions); several rows of one video are several captions. A column
`split` says where a row belongs; without one the file's name does (`test.csv`), and any other file is for training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vop.data.readers import TABLE_SUFFIXES
from vop.data.readers.benchmark import overlaps
from vop.data.readers.rows import read_rows
from vop.data.readers.videofolder import VideoFolder
from vop.data.types import Dataset, Split, Video
from vop.errors import DataError, UsageError, unknown_name
from vop.utils.names import existing_path, nfc
from vop.utils.text import count

VIDEO_COLUMNS = (
    *("video", "video_path", "path", "file", "file_name", "filename", "video_file", "filepath", "clip"),
    *("video_id", "video_name", "vid", "id"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "text", "sentence", "sentences", "description", "descriptions", "title"),
    *("query", "label"),
)
SPLIT_COLUMNS = ("split", "subset", "partition")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass
class _Pairs:
    """A split that is being read: videos by id, captions in the order of their rows."""

    places: dict[str, int] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, video_id: str, caption: str, folder: VideoFolder) -> None:
        if video_id not in self.files:
            self.files[video_id] = folder.find(video_id)
        self.targets.append(self.places.setdefault(video_id, len(self.places)))
        self.captions.append(caption)

    def split(self, name: str) -> Split:
        videos = tuple(Video(video_id, self.files[video_id]) for video_id in self.places)
        return Split(name, videos, tuple(self.captions), tuple(self.targets))


def read(
    path: Path,
    *,
    videos: Path | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
) -> Dataset:
    """A table, or a folder of them. Relative paths of videos start at `videos`, or at the table's folder.

    Raises:
        UsageError: a named column is not there.
        DataError: the file is missing or broken, or no column looks like what is needed.
    """
    path = existing_path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    found: dict[str, _Pairs] = {}
    empty: Counter[str] = Counter()
    for table in _tables(path) if path.is_dir() else [path]:
        folder = VideoFolder(videos or table.parent)
        for name, video_id, caption in _rows(table, video_column, caption_column):
            if caption:
                found.setdefault(name, _Pairs()).add(video_id, caption, folder)
            else:
                empty[name] += 1
    if not found:
        raise DataError(f"{path}: there is no row with a caption in it")
    splits = {name: pairs.split(name) for name, pairs in found.items()}
    notes = [f"{count('empty caption', number)} left out of {name}" for name, number in empty.items()]
    named = path.resolve()
    return Dataset(named.name if path.is_dir() else named.stem, splits, notes=(*notes, *overlaps(splits)))


def read_hub(spec: str, *, videos: Path | None = None, **columns: str | None) -> Dataset:
    """`hf:OWNER/NAME`: a data set repository of the Hugging Face hub that holds tables and video files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name = spec.removeprefix("hf:")
    try:
        folder = snapshot_download(name, repo_type="dataset")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise DataError(
            f"{spec}: it cannot be had from the Hugging Face hub ({error}). "
            "Without a network, give the path of a folder that has it"
        ) from error
    dataset = read(Path(folder), videos=videos, **columns)
    return Dataset(name, dataset.splits, notes=dataset.notes)


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder: those named after splits, or the only one there is."""
    found = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if _is_table(path)]
    named = [path for path in found if _split_of(path)]
    if named or len(found) == 1:
        return named or found
    if not found:
        raise DataError(f"{folder}: there is no {', '.join(TABLE_SUFFIXES)} file in this folder")
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    raise DataError(f"{folder}: which of {names} is meant? Give the file, or call them train, val and test")


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def _split_of(path: Path) -> str | None:
    """test.csv and data/test-00000-of-00001.parquet -> "test"."""
    return _SPLITS.get(re.split(r"[-_.]", path.stem.lower())[0])


def _rows(path: Path, video_column: str | None, caption_column: str | None) -> Iterator[tuple[str, str, str]]:
    """(split, video id, caption or "") of every caption in a table."""
    rows = read_rows(path)
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    if not rows:
        raise DataError(f"{path}: the table is empty")
    video_column = _column(path, "video", video_column, VIDEO_COLUMNS, columns)
    caption_column = _column(path, "caption", caption_column, CAPTION_COLUMNS, columns)
    split_column = _guess(SPLIT_COLUMNS, columns)
    of_file = _split_of(path) or "train"
    for place, row in rows:
        video_id = _video_id(row.get(video_column), f"{path}: {place}", video_column)
        name = of_file if split_column is None else _split(row.get(split_column), f"{path}: {place}")
        for caption in _captions(row.get(caption_column), f"{path}: {place}"):
            yield name, video_id, caption


def _column(path: Path, role: str, named: str | None, usual: tuple[str, ...], found: list[str]) -> str:
    """The column for a role: the one that was named, or the first of the usual names that is there."""
    own = {nfc(column): column for column in found}
    if named is not None and nfc(named) not in own:
        raise UsageError(f"{path}: {unknown_name(f'{role} column', named, found)}")
    guessed = own[nfc(named)] if named is not None else _guess(usual, found)
    if guessed is None:
        raise DataError(
            f"{path}: no column looks like the {role}; found: {', '.join(found)}. "
            f"Name it with {role}_column (--{role}-column), or call it {usual[0]!r}"
        )
    return guessed


def _guess(usual: tuple[str, ...], found: list[str]) -> str | None:
    plain = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in reversed(found)}
    return next((plain[name] for name in usual if name in plain), None)


def _video_id(value: Any, place: str, column: str) -> str:
    if isinstance(value, dict):  # the hub's video columns: the path, and the bytes if they are in the table
        value = value.get("path")
    if value is None or not str(value).strip():
        raise DataError(f"{place}: no video in the column {column!r}")
    return nfc(str(value).strip())  # one video, however its rows spell it


def _captions(value: Any, place: str) -> list[str]:
    values = value if isinstance(value, list) and value else [value]
    for text in values:
        if text is not None and not isinstance(text, str):
            raise DataError(f"{place}: the caption is {text!r}, which is no text")
    return [" ".join((text or "").split()) for text in values]


def _split(value: Any, place: str) -> str:
    name = _SPLITS.get(str(value).strip().lower())
    if name is None:
        raise DataError(f"{place}: the split is {value!r}; known: {', '.join(_SPLITS)}")
    return name
