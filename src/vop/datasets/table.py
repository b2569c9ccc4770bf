"""Read captioned videos from tables: CSV, TSV, JSON, JSONL or Parquet, one file or one file per split.

A row holds a video and a caption (or a list of captions). A video with several captions may have several rows. The
column `split` names the split of a row. Without it the file name does (`test.csv`); other files are for training.

A text cell may hold a list in JSON or Python syntax (`["a", "b"]`, `['a', 'b']`), as pandas writes it to CSV files.
"""

from __future__ import annotations

import ast
import json
import math
import re
import reprlib
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vop.datasets.benchmark import overlaps
from vop.datasets.rows import TABLE_SUFFIXES, VIDEO_COLUMNS, plain_name, read_table
from vop.datasets.types import Dataset, Split, Video
from vop.datasets.videofolder import VideoFolder
from vop.errors import DataError, UsageError, unknown_name
from vop.utils.names import existing_path, nfc
from vop.utils.parsing import without_float
from vop.utils.text import count, is_unicode

CAPTION_COLUMNS = (
    *("caption", "captions", "text", "sentence", "sentences", "description", "descriptions", "title"),
    *("query", "label"),
)
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000  # limits of a file name and of a path on common file systems
SPLIT_COLUMNS = ("split", "subset", "partition")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Missing values as pandas and SQL write them.
_NULLS = ("nan", "NaN", "None", "null", "NULL", "<NA>", "NaT")
_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = rf"\s*(?:{_STRING}|None)\s*"
# Require commas: NumPy prints lists as ['a' 'b'], which Python would join into one string.
_PYTHON_LIST = re.compile(rf"\[(?:{_ITEM}(?:,{_ITEM})*(?:,\s*)?)?\]|\({_ITEM},(?:{_ITEM},)*(?:{_ITEM})?\)", re.DOTALL)
_PYTHON_SET = re.compile(rf"(?:frozenset\()?\{{({_ITEM}(?:,{_ITEM})*(?:,\s*)?)\}}\)?", re.DOTALL)
_STARTS_OF_LISTS = ("[", "(", "{", "array(", "frozenset(")
_ENDS_OF_LISTS = ("]", ")", "}", "'", '"', ",", "...")  # NumPy and pandas abbreviate long lists
_LIKE_A_LIST = re.compile(r"(?:array\(|frozenset\()?[\[{]\s*[\[({]*\s*[ub]?['\"]|array\(\[")


@dataclass
class _Pairs:
    """A partly read split: videos by id, captions in row order."""

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
    """Read a table, or a folder of tables. Relative video paths start at `videos`, or at the table's folder.

    Raises:
        UsageError: a given column does not exist.
        DataError: the file is missing or broken, or no column looks like a video or caption column.
    """
    path = existing_path(path)
    if not path.exists():
        raise DataError(f"{path}: the file does not exist")
    found: dict[str, _Pairs] = {}
    empty: dict[str, list[str]] = {}
    without_caption: dict[str, set[str]] = {}
    choices: list[str] = []
    for table in _tables(path) if path.is_dir() else [path]:
        folder = VideoFolder(videos or table.parent)
        for name, video_id, caption, place in _rows(table, video_column, caption_column, choices):
            if caption:
                found.setdefault(name, _Pairs()).add(video_id, caption, folder)
            else:
                empty.setdefault(name, []).append(place)
                without_caption.setdefault(name, set()).add(video_id)
    if not found:
        raise DataError(f"{path}: no row has a caption")
    splits = {name: pairs.split(name) for name, pairs in found.items()}
    notes = [
        f"{count('empty caption', len(places))} left out of {name}, first {places[0]}" for name, places in empty.items()
    ]
    for name, ids in without_caption.items():
        if without := ids - (found[name].places.keys() if name in found else set()):
            notes.append(
                f"{count('video', len(without))} of {name} without captions left out, for example {min(without)}"
            )
    named = path.resolve()
    return Dataset(
        named.name if path.is_dir() else named.stem, splits, notes=(*dict.fromkeys(choices), *notes, *overlaps(splits))
    )


def read_hub(spec: str, *, videos: Path | None = None, **columns: str | None) -> Dataset:
    """Read `hf:OWNER/NAME`, a data set repository on the Hugging Face hub with tables and video files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name = spec.removeprefix("hf:")
    try:
        folder = snapshot_download(name, repo_type="dataset")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise DataError(
            f"{spec}: cannot be downloaded from the Hugging Face hub ({error}). "
            "Without a network, give the path of a local copy"
        ) from error
    dataset = read(Path(folder), videos=videos, **columns)
    return Dataset(name, dataset.splits, notes=dataset.notes)


def _tables(folder: Path) -> list[Path]:
    """Return the tables of a folder: those named after splits, or the only one.

    A JSON file is often something else (a configuration, metadata). It counts only if no other table holds its split.
    """
    found = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if _is_table(path)]
    others = [path for path in found if path.suffix.lower() != ".json"]
    named = [path for path in others if split_of_file(path)]
    taken = {split_of_file(path) for path in named}
    named += [path for path in found if path not in others and split_of_file(path) and split_of_file(path) not in taken]
    if named:
        return named
    found = others or found
    if len(found) == 1:
        return found
    if not found:
        raise DataError(f"{folder}: the folder holds no table ({', '.join(TABLE_SUFFIXES)})")
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    raise DataError(f"{folder} holds several tables ({names}): give one of them, or name them train, val and test")


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def split_of_file(path: Path) -> str | None:
    """Return the split that a file name starts with: "test" for test.csv and test-00000-of-00001.parquet."""
    return _SPLITS.get(re.split(r"[-_.]", path.stem.lower())[0])


def _rows(
    path: Path, video_column: str | None, caption_column: str | None, choices: list[str]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (split, video id, caption or "", place) for every caption in a table.

    Args:
        choices: gets a note if several columns may hold the captions, and none of them was given.
    """
    named = {plain_name(column) for column in (video_column, caption_column) if column}
    table = read_table(path, known={*VIDEO_COLUMNS, *CAPTION_COLUMNS, *SPLIT_COLUMNS, *named})
    if not table.columns:
        raise DataError(f"{path}: the table is empty")
    video_column = _column(path, "video", video_column, VIDEO_COLUMNS, table.columns)
    given = caption_column
    caption_column = _column(path, "caption", given, CAPTION_COLUMNS, table.columns)
    others = [one for one in table.columns if plain_name(one) in CAPTION_COLUMNS and one != caption_column]
    if others and given is None:
        names = ", ".join(map(repr, others))
        choices.append(f"captions are read from the column {caption_column!r}, not {names}; --caption-column chooses")
    split_column = guess_column(SPLIT_COLUMNS, table.columns)
    default_split = split_of_file(path) or "train"
    needed = dict.fromkeys(column for column in (video_column, caption_column, split_column) if column is not None)
    for line, row in table.rows(list(needed)):
        place = f"{path}: {line}"
        video_id = _video_id(row.get(video_column), place, video_column)
        name = default_split if split_column is None else split_name(row.get(split_column), place, split_column)
        for caption in _captions(row.get(caption_column), place, caption_column):
            yield name, video_id, caption, f"{path.name}: {line}"


def _column(path: Path, role: str, named: str | None, usual: tuple[str, ...], found: list[str]) -> str:
    """Return the column for a role: the given one, or the first usual name that exists."""
    own = {nfc(column): column for column in found}
    if named is not None and nfc(named) not in own:
        raise UsageError(f"{path}: {unknown_name(f'{role} column', named, found)}")
    guessed = own[nfc(named)] if named is not None else guess_column(usual, found)
    if guessed is None:
        raise DataError(
            f"{path}: no column looks like the {role}; found: {', '.join(found)}. "
            f"Name it with {role}_column (--{role}-column), or rename it to {usual[0]!r}"
        )
    return guessed


def guess_column(usual: tuple[str, ...], found: list[str]) -> str | None:
    """Return the first column with a usual name, or None."""
    plain = {plain_name(column): column for column in reversed(found)}
    return next((plain[name] for name in usual if name in plain), None)


def _video_id(value: Any, place: str, column: str) -> str:
    if isinstance(value, dict):  # a video column of the Hugging Face hub: a path, perhaps with the bytes
        value = value.get("path")
    if _is_missing(value):
        raise DataError(f"{place}: no video in the column {column!r}")
    value = without_float(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f"{place}: the column {column!r} holds {reprlib.repr(value)}, a {type(value).__name__}; "
            "a video is a path, a name or a whole number"
        )
    name = nfc(str(value).strip())  # one id for all Unicode forms of a name
    if "://" not in name:
        name = str(PurePosixPath(name))  # and for all spellings of a path: ./a.mp4, v//a.mp4
    if "\0" in name or max(map(_bytes, name.split("/"))) > MAX_NAME_BYTES or _bytes(name) > MAX_PATH_BYTES:
        raise DataError(
            f"{place}: the column {column!r} holds {reprlib.repr(name)}, which cannot be a file name; name the "
            "column of the videos with --video-column"
        )
    return name


def _bytes(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip() or value.strip() in _NULLS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _captions(value: Any, place: str, column: str) -> list[str]:
    """Return the captions of a cell, each on one line. A missing caption is an empty string."""
    if isinstance(value, str):
        value = _parse_list(value, place, column)
    values = (value or [None]) if isinstance(value, list | tuple) else [value]
    captions = []
    for text in values:
        if isinstance(text, list | tuple) or not (isinstance(text, str) or _is_missing(text)):
            raise DataError(f"{place}: the caption is {reprlib.repr(text)} (column {column!r}), which is not text")
        captions.append("" if _is_missing(text) else " ".join(text.split()))
        if not is_unicode(captions[-1]):
            raise DataError(f"{place}: the caption {captions[-1]!r} (column {column!r}) is not valid Unicode")
    return captions


def _parse_list(text: str, place: str, column: str) -> str | list[Any] | tuple[Any, ...]:
    """Return the list that a text cell holds in JSON or Python syntax; return other text unchanged.

    Raises:
        DataError: the cell looks like a list, but it is unclear where its captions end.
    """
    cell = text.strip()
    if not cell.startswith(_STARTS_OF_LISTS):
        return text
    if members := _PYTHON_SET.fullmatch(cell):
        cell = f"[{members[1]}]"  # a set would lose their order
    if cell.startswith("["):
        with suppress(ValueError, RecursionError):
            found = json.loads(cell)
            if not any(isinstance(item, list | dict) for item in found):
                is_empty = all(item is None for item in found)
                return found if is_empty or any(isinstance(item, str) for item in found) else text  # "[2020]" is text
    if _PYTHON_LIST.fullmatch(cell):
        with suppress(ValueError, SyntaxError), warnings.catch_warnings(action="ignore"):  # unknown escapes
            found_items: list[Any] | tuple[Any, ...] = ast.literal_eval(cell)
            return found_items
    if _LIKE_A_LIST.match(cell) and cell.endswith(_ENDS_OF_LISTS):
        raise DataError(
            f"{place}: the column {column!r} holds {reprlib.repr(cell)}, which looks like a list printed by "
            'NumPy or another program; give each caption its own row, or write the list as JSON: ["one", "two"]'
        )
    return text


def split_name(value: Any, place: str, column: str) -> str:
    """Return the split that a cell names: "val" for "validation". Raises a DataError if it names none."""
    name = _SPLITS.get(str(value).strip().lower())
    if name is None:
        raise DataError(f"{place}: the split is {value!r}; known: {', '.join(_SPLITS)} (column {column!r})")
    return name
