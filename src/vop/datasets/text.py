"""Text and JSON as people have them: UTF-8, or UTF-16 with its byte order mark; anything else is said clearly."""

from __future__ import annotations

import codecs
import reprlib
from pathlib import Path
from typing import Any, TypeVar

from vop.errors import DataError
from vop.utils.files import read_file
from vop.utils.parsing import parse_json

T = TypeVar("T", dict[str, Any], list[Any], str)
_KINDS = {dict: "an object", list: "a list", str: "a text"}
MAX_BYTES = 2 * 2**30  # of a file of annotations; the largest published one has 60 MB


def read_text(path: Path) -> str:
    """A file's text. A DataError names the line and byte at which it stops being UTF-8."""
    data = read_file(path, at_most=MAX_BYTES, error=DataError)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Excel's "Unicode text"
        return _decoded(path, data, "utf-16", "UTF-16")
    text = _decoded(path, data, "utf-8-sig", "UTF-8")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} holds a zero byte, which text does not; save the file as UTF-8")
    return text


def _decoded(path: Path, data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: byte {data[error.start]:#04x} (at {error.start}) is not {name}; "
            "save the file as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file's value. A DataError names the place of a mistake, or a key that an object repeats."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def expect(value: Any, kind: type[T], place: object) -> T:
    """`value`, which has to be a dict, list or str; `place` is where it stands, for the DataError."""
    if not isinstance(value, kind):
        raise DataError(f"{place}: expected {_KINDS[kind]}, got {reprlib.repr(value)}")
    return value


def member(row: Any, key: str, kind: type[T], place: object) -> T:
    """`row[key]`, which has to be there and of this kind."""
    if key not in expect(row, dict, place):
        raise DataError(f"{place}: no {key!r}; found: {', '.join(row) or 'nothing'}")
    return expect(row[key], kind, f"{place}: {key}")


def one_line(text: str) -> str:
    """A text with single spaces for its line breaks, tabs and runs of spaces."""
    return " ".join(text.split())


def texts(value: Any, place: object) -> list[str]:
    """A list of texts, each on one line."""
    return [one_line(expect(text, str, f"{place}: text {n}")) for n, text in enumerate(expect(value, list, place), 1)]
