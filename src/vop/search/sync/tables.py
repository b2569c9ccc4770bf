"""Tables of videos, given in place of a folder: CSV, TSV, JSON, JSONL or Parquet.

One column has the paths or addresses, the first of `PLACE_COLUMNS` that exists. A relative path begins at the table's
folder. Another column may have the durations (`SECONDS_COLUMNS`), by which shards are cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vop.datasets.rows import TABLE_SUFFIXES, plain_name, read_table
from vop.errors import DataError, UsageError
from vop.storage.address import Location, is_address, parse_address
from vop.video.find import absolute_path

PLACE_COLUMNS = (
    *("path", "address", "location", "video", "video_path", "file", "file_name", "filename", "filepath"),
    *("uri", "url"),
)
SECONDS_COLUMNS = ("duration_seconds", "duration", "seconds")


@dataclass(frozen=True)
class VideoTable:
    """The videos of a table, each once.

    Attributes:
        places: paths and addresses, in the order of the table.
        seconds: durations, by path or address, as far as the table has them.
    """

    places: tuple[Location, ...]
    seconds: Mapping[str, float]


def is_table(path: Path) -> bool:
    """Return whether a path is the file of a table."""
    return path.suffix.lower() in TABLE_SUFFIXES and path.is_file()


def read_videos(file: Path) -> VideoTable:
    """Read a table.

    Raises:
        DataError: the file is not a table, has no column with paths or no row, or a row has no valid path; the error
            names the row.
    """
    table = read_table(file, known={*PLACE_COLUMNS, *SECONDS_COLUMNS})
    column, seconds_column = _column(table.columns, PLACE_COLUMNS), _column(table.columns, SECONDS_COLUMNS)
    if column is None:
        raise DataError(
            f"{file}: no column names the videos; found: {', '.join(table.columns) or 'none'}. Rename the one with "
            f"their paths or addresses to {PLACE_COLUMNS[0]!r}"
        )
    places: dict[Location, None] = {}
    seconds: dict[str, float] = {}
    for where, row in table.rows([column] if seconds_column is None else [column, seconds_column]):
        place = _place(row.get(column), file, where)
        places[place] = None
        duration = _seconds(row.get(seconds_column)) if seconds_column else None
        if duration is not None:
            seconds[str(place)] = duration
    if not places:
        raise DataError(f"{file}: the table lists no video; add a row for each")
    return VideoTable(tuple(places), seconds)


def _column(found: list[str], usual: tuple[str, ...]) -> str | None:
    plain = {plain_name(name): name for name in reversed(found)}
    return next((plain[name] for name in usual if name in plain), None)


def _place(value: Any, file: Path, where: str) -> Location:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{file}: {where}: the path is {value!r}; give the path or the address of a video in each row")
    try:
        return parse_address(value) if is_address(value) else absolute_path(file.parent / value)
    except (UsageError, ValueError) as error:  # a ValueError: a path with a zero byte
        raise DataError(f"{file}: {where}: {error}") from None


def _seconds(value: Any) -> float | None:
    """Return a duration; None if it is not a positive number."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
