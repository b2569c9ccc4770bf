"""Text files as people have them: UTF-8, with or without a byte order mark; anything else is said clearly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vop.errors import DataError


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
    """A JSON file's value. A DataError names the place of a mistake."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: this is not JSON: {error.msg}") from error
