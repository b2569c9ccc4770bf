"""Text and JSON as people have them: UTF-8, with or without a byte order mark; anything else is said clearly."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from vop.errors import DataError

T = TypeVar("T", dict, list, str)
_KINDS = {dict: "an object", list: "a list", str: "a text"}


def read_bytes(path: Path) -> bytes:
    """A file's content; a DataError says why there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """A file's text. A DataError names the line and byte at which it stops being UTF-8."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: byte {data[error.start]:#04x} (at {error.start}) is not UTF-8; "
            "save the file as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file's value. A DataError names the place of a mistake, or a key that an object repeats."""

    def unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(members)
        if len(value) < len(members):
            (key, number), *_ = Counter(key for key, _ in members).most_common(1)
            raise DataError(f"{path}: an object has the key {key!r} {number} times; leave one of them")
        return value

    try:
        return json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: this is not JSON: {error.msg}") from error


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
