"""Read text and JSON files in UTF-8, or in UTF-16 with a byte order mark. Errors name the place of a mistake."""

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
MAX_BYTES = 2 * 2**30  # limit for an annotation file; the largest published one has 60 MB


def read_text(path: Path) -> str:
    """Return the text of a file. If it is not UTF-8, a DataError names the line and the byte."""
    data = read_file(path, at_most=MAX_BYTES, error=DataError)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Excel's "Unicode text"
        return _decoded(path, data, "utf-16", "UTF-16")
    text = _decoded(path, data, "utf-8-sig", "UTF-8")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} holds a zero byte, so it is not text; save the file as UTF-8")
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
    """Return the value of a JSON file. A DataError names the place of a mistake, or a repeated key."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def expect(value: Any, kind: type[T], place: object) -> T:
    """Return `value` if it is of type `kind` (dict, list or str); otherwise raise a DataError that names `place`."""
    if not isinstance(value, kind):
        raise DataError(f"{place}: expected {_KINDS[kind]}, got {reprlib.repr(value)}")
    return value


def member(row: Any, key: str, kind: type[T], place: object) -> T:
    """Return `row[key]`; raise a DataError if it is missing or not of type `kind`."""
    if key not in expect(row, dict, place):
        raise DataError(f"{place}: no {key!r}; found: {', '.join(row) or 'nothing'}")
    return expect(row[key], kind, f"{place}: {key}")


def one_line(text: str) -> str:
    """Replace line breaks, tabs and repeated spaces in a text with single spaces."""
    return " ".join(text.split())


def texts(value: Any, place: object) -> list[str]:
    """Return a list of texts, each on one line."""
    return [one_line(expect(text, str, f"{place}: text {n}")) for n, text in enumerate(expect(value, list, place), 1)]
