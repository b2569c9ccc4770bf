"""The rows of a table file as dictionaries, each with its place for error messages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from vop.data.readers.text import read_bytes, read_text
from vop.errors import DataError

Row = tuple[str, dict[str, Any]]  # "line 3", {column: value}


def read_rows(path: Path) -> list[Row]:
    """All rows of a CSV, TSV, JSONL or Parquet file.

    Raises:
        DataError: the file cannot be read; it names the line.
    """
    return _READ[path.suffix.lower()](path)


def _read_csv(path: Path) -> list[Row]:
    text = read_text(path)
    head = text.partition("\n")[0]
    # Spreadsheets export with a semicolon where the comma is the decimal sign.
    delimiter = max(",;\t", key=head.count) if path.suffix.lower() == ".csv" else "\t"
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(f"line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error
    for place, row in rows:
        if row.pop(None, None):
            raise DataError(f"{path}: {place}: more values than columns; quote captions that hold {delimiter!r}")
    return rows


def _read_jsonl(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number}: this is not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: expected an object with named values, found {line[:40]!r}")
        rows.append((f"line {number}", row))
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(read_bytes(path)))
        return [(f"row {number}", row) for number, row in enumerate(table.to_pylist())]
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet: {error}") from error


_READ = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
