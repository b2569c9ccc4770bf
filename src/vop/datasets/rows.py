"""Read the rows of a table file as dictionaries, each with its place for error messages."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vop.datasets.text import read_text
from vop.errors import DataError
from vop.utils.files import check_file
from vop.utils.names import nfc
from vop.utils.parsing import parse_json

Row = tuple[str, dict[str, Any]]  # "line 3", {column: value}
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
VIDEO_COLUMNS = (
    *("video", "video_path", "path", "file", "file_name", "filename", "video_file", "filepath", "clip"),
    *("video_id", "video_name", "vid", "id"),
)
DELIMITERS = ",;\t|"
# Limits for a Parquet file, where a few bytes can encode any number of rows.
MAX_ROWS, MAX_CELL_BYTES = 50_000_000, 8 * 2**30
JSON_FORMS = (
    'a list of objects ([{"video": …, "caption": …}, …]), an object with one such list, an object that maps '
    "each video to its captions or to an object with them, pandas' to_json, or MSR-VTT's videos and sentences"
)


@dataclass(frozen=True)
class Table:
    """A table: its column names, and a function that returns the rows with the given columns."""

    columns: list[str]
    rows: Callable[[Sequence[str]], Iterable[Row]]


def plain_name(column: str) -> str:
    """Return a column's name in the form in which names are compared."""
    return re.sub(r"[\s-]+", "_", nfc(column).strip().lower())


def read_table(path: Path, *, known: Collection[str]) -> Table:
    """Read a CSV, TSV, JSON, JSONL or Parquet file.

    Args:
        known: column names (as `plain_name` returns them), used to detect the delimiter.

    Raises:
        DataError: the file cannot be read; the message names the line.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix not in (".json", ".jsonl"):
        return _read_csv(path, known)
    found = _read_json(path, known) if suffix == ".json" else _parse_lines(path, read_text(path))
    return Table(list(dict.fromkeys(column for _, row in found for column in row)), lambda _: found)


# Columns that always name the video. "id", "vid" and "clip" may hold something else where keys name the videos.
_PLAIN_NAMES = frozenset(VIDEO_COLUMNS) - {"id", "vid", "clip"}
_MAX_CELL_CHARACTERS = 2**24  # characters; the default limit of the csv module is too low for lists of captions


def _read_csv(path: Path, known: Collection[str]) -> Table:
    text = read_text(path)
    usual = "\t,;|" if path.suffix.lower() == ".tsv" else DELIMITERS
    if named := re.match(r"sep=(.)\r?\n", text):  # a line that only Excel uses
        usual, text = named[1], text[named.end() :]
    skipped = 1 if named else 0
    delimiter = _delimiter(text, usual, known)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] | None = None
    rows: list[Row] = []
    usual_limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)  # a setting of the whole process
    try:
        for values in reader:
            place = f"line {reader.line_num + skipped}"
            if not any(value.strip() for value in values):  # Excel leaves empty lines at the end
                continue
            if header is None:
                header = [value.strip() for value in values]
                _check_header(header, f"{path}: {place}")
            elif len(values) > len(header) and any(values[len(header) :]):
                raise DataError(f"{path}: {place}: more values than columns; quote captions that hold {delimiter!r}")
            else:
                rows.append((place, dict(zip(header, values, strict=False))))
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num + skipped}: {error}; inside a quoted value, write a quote twice"
        ) from error
    finally:
        csv.field_size_limit(usual_limit)
    return Table(header or [], lambda _: rows)


def _delimiter(text: str, usual: str, known: Collection[str]) -> str:
    """Return the delimiter that gives the most known column names, then the most columns, then the first one."""

    def score(delimiter: str) -> tuple[int, int]:
        header = _header(text, delimiter)
        return sum(plain_name(name) in known for name in header), len(header)

    return max(usual, key=score)


def _header(text: str, delimiter: str) -> list[str]:
    try:
        return next(
            filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)), []
        )
    except csv.Error:
        return []


def _check_header(columns: Iterable[str], place: str) -> None:
    """Raise a DataError if two columns have the same name. Columns without a name are ignored."""
    counts = Counter(nfc(column) for column in columns if column)
    twice = [f"{name!r} ({count} times)" for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{place}: the header has the column {', '.join(twice)}; rename or remove all but one")


def _parse_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            reason = str(error).removeprefix("line 1: ")
            raise DataError(f"{path}: line {number}: {reason}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: expected an object with named values, found {line[:40]!r}")
        rows.append((f"line {number}", row))
    return rows


def _read_json(path: Path, known: Collection[str]) -> list[Row]:
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        value = parse_json(text)
    except ValueError as error:
        if _is_lines(text):
            return _parse_lines(path, text)
        raise DataError(f"{path}: {error}") from error
    rows = _rows_in(value, known)
    if rows is None:
        raise DataError(f"{path}: this JSON is not a table; a table is {JSON_FORMS}")
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}: {place}: expected an object with named values, found {str(row)[:40]!r}")
    return rows


def _is_lines(text: str) -> bool:
    """Whether the text is JSON Lines in a .json file: the first line is a JSON object, and more lines follow."""
    first, _, rest = text.strip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest)
    except (ValueError, RecursionError):
        return False


def _rows_in(value: Any, known: Collection[str]) -> list[tuple[str, Any]] | None:
    """Return the rows of a JSON value in one of `JSON_FORMS`, or None if it has another form."""
    if isinstance(value, list):
        return _numbered(value)
    if not isinstance(value, dict) or not value:
        return None
    if isinstance(value.get("videos"), list) and isinstance(value.get("sentences"), list):
        return sentences_with_splits(value["videos"], value["sentences"])
    lists = [key for key, inner in value.items() if isinstance(inner, list) and _all(inner, dict) and inner]
    if len(lists) == 1 and not any(
        isinstance(inner, list) and inner for key, inner in value.items() if key != lists[0]
    ):
        return _numbered(value[lists[0]], f"{lists[0]} ")
    if _all(value.values(), dict):
        return _by_key(value, known)
    if any(plain_name(key) in known for key in value):
        return _columns(value)
    if all(isinstance(inner, str) or (isinstance(inner, list) and _all(inner, str)) for inner in value.values()):
        return [(repr(key), {"video": key, "caption": inner}) for key, inner in value.items()]
    return None


def _numbered(rows: list[Any], of: str = "") -> list[tuple[str, Any]]:
    return [(f"{of}entry {number}", row) for number, row in enumerate(rows, start=1)]


def _all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _by_key(value: Mapping[str, dict[str, Any]], known: Collection[str]) -> list[tuple[str, Any]] | None:
    """Return the rows of an object of objects: pandas' columns by row index, or rows by index or by video."""
    if any(plain_name(key) in known for key in value):
        index = next(iter(value.values()))
        if any(column.keys() != index.keys() for column in value.values()):
            return None
        return [(f"entry {key!r}", {name: column[key] for name, column in value.items()}) for key in index]
    is_index = list(value) == [str(number) for number in range(len(value))]
    named = _PLAIN_NAMES if not is_index else VIDEO_COLUMNS
    if any(plain_name(key) in named for row in value.values() for key in row):
        return [(f"entry {key!r}", row) for key, row in value.items()]
    return [(f"entry {key!r}", {"video": key, **row}) for key, row in value.items()]


def _columns(value: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Return the rows of an object whose keys are columns: lists of the same length, or the values of one row."""
    if _all(value.values(), list):
        if len({len(column) for column in value.values()}) > 1:
            return None
        return _numbered([dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)])
    is_row = any(isinstance(inner, str) and plain_name(key) in VIDEO_COLUMNS for key, inner in value.items())
    return _numbered([value]) if is_row else None


def sentences_with_splits(videos: list[Any], sentences: list[Any]) -> list[tuple[str, Any]]:
    """Return the rows of MSR-VTT's format: one for each sentence, with the split of its video in `videos`."""
    listed = [video for video in videos if isinstance(video, dict) and isinstance(video.get("video_id"), str)]
    splits = {video["video_id"]: video["split"] for video in listed if video.get("split")}
    rows: list[tuple[str, Any]] = []
    for place, row in _numbered(sentences, "sentences "):
        if isinstance(row, dict):
            row = {key: row[key] for key in ("video_id", "caption") if key in row}
            if splits:
                row["split"] = splits.get(row.get("video_id"))
        rows.append((place, row))
    return rows


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    check_file(path, error=DataError)
    damage = (pyarrow.ArrowException, UnicodeDecodeError, OSError, ValueError, OverflowError)
    try:
        # Open by path: Arrow's threads may outlive the interpreter, so they must not hold a Python buffer.
        with pyarrow.parquet.ParquetFile(str(path)) as file:
            columns = list(file.schema_arrow.names)
            _check_size(path, file.metadata)
    except damage as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    _check_header(columns, str(path))

    def rows(needed: Sequence[str]) -> list[Row]:
        try:
            with pyarrow.parquet.ParquetFile(str(path)) as file:
                found = file.read(columns=list(needed), use_threads=False).to_pylist()
        except damage as error:
            raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
        return [(f"row {number}", row) for number, row in enumerate(found)]

    return Table(columns, rows)


def _check_size(path: Path, metadata: Any) -> None:
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if metadata.num_rows > MAX_ROWS or size > MAX_CELL_BYTES:
        raise DataError(
            f"{path}: {metadata.num_rows:,} rows with {size:,} bytes in total; the limits are {MAX_ROWS:,} rows and "
            f"{MAX_CELL_BYTES:,} bytes: split the table"
        )
