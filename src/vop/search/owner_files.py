"""Tags and favourites as a CSV or JSON file, to keep them elsewhere or to take them over into another library."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vop.errors import DataError, UsageError
from vop.search.owners import SEPARATOR, Mark, Marks, check_tag
from vop.search.results import VideoRecord
from vop.storage.address import is_address
from vop.utils.names import existing_path, nfc
from vop.utils.text import in_spreadsheet
from vop.video.find import absolute_path

COLUMNS = ("path", "video", "start_seconds", "end_seconds", "tags", "favourite")
_ID = re.compile(r"[0-9a-f]{32}")
_YES, _NO = ("yes", "true", "1", "x"), ("no", "false", "0", "")
_QUOTED = re.compile(r"'(?=[=+\-@\t\r])")  # as `in_spreadsheet` writes it


@dataclass(frozen=True, kw_only=True)
class MarksImport:
    """The result of taking over tags and favourites.

    Attributes:
        imported: the number of videos and moments.
        waiting: how many of them belong to videos that the library does not have; they apply once it has them.
        unknown: paths without an id that the library does not have; they were left out.
    """

    imported: int
    waiting: int
    unknown: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def csv_of(marks: Iterable[Mark]) -> str:
    """Return marks as CSV, a line for each video or moment; tags are separated by semicolons."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for mark in marks:
        times = ["" if mark.is_whole else seconds for seconds in (mark.start_seconds, mark.end_seconds)]
        tags = f"{SEPARATOR} ".join(mark.tags)
        cells = [mark.path, mark.video, *times, tags, "yes" if mark.is_favourite else ""]
        writer.writerow(map(in_spreadsheet, cells))
    return out.getvalue()


def import_file(
    file: Path, videos: Iterable[VideoRecord], change: Callable[[Callable[[Marks], Marks]], object]
) -> MarksImport:
    """Add the tags and favourites of a file to those of a library; see `Library.import_marks`.

    Args:
        videos: the library's videos.
        change: changes its tags and favourites.
    """
    at_paths = {nfc(record.path): record.video for record in videos}
    marks, unknown = read_file(file, lambda path: at_paths.get(nfc(path)))
    change(lambda own: own.merged(marks))
    ids = set(at_paths.values())
    waiting = sum(mark.video not in ids for mark in marks)
    return MarksImport(imported=len(marks), waiting=waiting, unknown=unknown)


def read_file(file: Path, video_at: Callable[[str], str | None]) -> tuple[list[Mark], list[str]]:
    """Read a CSV file, or the JSON document of `vop library tags --json`.

    Args:
        video_at: returns the id of the library's video at a path, for lines without an id.

    Returns:
        the marks, and the paths without an id that the library does not have.

    Raises:
        UsageError: the file does not exist.
        DataError: it is not valid; the error names the line.
    """
    file = existing_path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file in UTF-8 ({error})") from None
    marks, unknown = [], []
    for number, values in enumerate(_json_rows(file, text) if text.lstrip().startswith("{") else _rows(file, text), 2):
        try:
            mark = _mark(values)
        except (ValueError, UsageError) as error:
            raise DataError(f"{file}, line {number}: {error}") from None
        video = mark.video or video_at(_path(mark.path, file))
        if video is None:
            unknown.append(mark.path)
        elif mark.tags or mark.is_favourite:
            marks.append(Mark(**{**mark.to_dict(), "video": video}))
    return marks, unknown


def _path(path: str, file: Path) -> str:
    return path if is_address(path) else str(absolute_path(file.parent / path))


def _rows(file: Path, text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="more", restval="")
    names = reader.fieldnames or []
    if not ({"path", "video"} & set(names) and {"tags", "favourite"} & set(names)):
        raise DataError(f"{file}: expected columns path or video, and tags or favourite; found {list(names)}")
    try:
        return [{name: _QUOTED.sub("", str(value), count=1) for name, value in row.items()} for row in reader]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV ({error})") from None


def _json_rows(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)["marks"]
        return [{**row, "tags": SEPARATOR.join(row["tags"]), "favourite": str(row["is_favourite"])} for row in rows]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file}: not a document of vop library tags --json") from None


def _mark(values: Mapping[str, Any]) -> Mark:
    """Read the values of one line. Raise a ValueError or UsageError if they are not allowed."""
    video, path = str(values.get("video") or "").strip(), nfc(str(values.get("path") or "").strip())
    if not (video or path):
        raise ValueError("the video is missing; give its path or id")
    if video and not _ID.fullmatch(video):
        raise ValueError(f"video is {video!r}; an id has 32 hexadecimal digits")
    start, end = (_seconds(values.get(name)) for name in ("start_seconds", "end_seconds"))
    if (start is None) != (end is None) or (start is not None and end is not None and not 0 <= start < end):
        raise ValueError(f"start_seconds {start}, end_seconds {end}: give both, the end after the start, or none")
    favourite = str(values.get("favourite") or "").strip().lower()
    if favourite not in (*_YES, *_NO):
        raise ValueError(f"favourite is {favourite!r}; write yes or leave it empty")
    return Mark(
        video=video,
        path=path,
        start_seconds=start,
        end_seconds=end,
        tags=tuple(check_tag(tag) for tag in str(values.get("tags") or "").split(SEPARATOR) if tag.strip()),
        is_favourite=favourite in _YES,
        duration_seconds=_seconds(values.get("duration_seconds")) or 0.0,
        changed_at=str(values.get("changed_at") or ""),
    )


def _seconds(value: object) -> float | None:
    return None if value in (None, "") else float(str(value))
