"""Metadata of videos: a CSV file with one line per video."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vop.errors import DataError, UsageError
from vop.storage.address import Location, is_address, parse_address
from vop.utils.names import existing_path, nfc
from vop.utils.text import count
from vop.video.find import absolute_path

PATH_COLUMNS = ("path", "video", "file", "filename", "file_name", "video_path", "name")


@dataclass(frozen=True)
class Metadata:
    """The values of a CSV file. All text is in Unicode's composed form (NFC), but files may have names in any form.

    Attributes:
        columns: column names, in the order of the file.
        by_path: the values of each video, by its absolute path.
        by_name: the values of each video that the file lists without a folder, by file name.
        spellings: the videos as the CSV file spells them, by absolute path.
    """

    columns: tuple[str, ...]
    by_path: Mapping[str, Mapping[str, str]]
    by_name: Mapping[str, Mapping[str, str]]
    spellings: Mapping[str, str] = field(default_factory=dict)

    def of(self, path: Location) -> Mapping[str, str]:
        """Return the values of a video: those of its path, or else those of its name."""
        return self.by_path.get(nfc(str(path))) or self.by_name.get(nfc(path.name)) or {}

    def unmatched(self, paths: Iterable[str]) -> list[str]:
        """Return the videos of the CSV file that are not among `paths`, as the CSV file spells them."""
        found = {nfc(path) for path in paths}
        names = {os.path.basename(path) for path in found}
        return [video for path, video in self.spellings.items() if path not in found and video not in names]


def read_metadata(file: Path) -> Metadata:
    """Read a CSV file whose first line names the columns; one of `PATH_COLUMNS` names the video.

    A video is a path, absolute or relative to the folder of the CSV file, an address, or a bare file name, which
    matches every file of that name. Spaces around names and values are ignored.

    Raises:
        UsageError: the file does not exist.
        DataError: the file is not valid; the error names the line.
    """
    file = existing_path(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            text = nfc(stream.read())
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist") from None
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; give a CSV file that can be read") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a CSV file in UTF-8 ({error})") from None
    lines = _lines(file, text)
    _, names = next(lines, (1, []))
    key = next((name for wanted in PATH_COLUMNS for name in names if name.lower() == wanted), None)
    if key is None:
        raise DataError(f"{file}: no column names the video; expected one of {', '.join(PATH_COLUMNS)}, found {names}")
    _check_names(file, names)
    return _parse_rows(file, lines, names, key)


def _lines(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and values of each non-empty record. The number is that of the record's last line."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, [value.strip() for value in values]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV ({error})") from None


def _check_names(file: Path, names: list[str]) -> None:
    if len(names) == 1:
        raise DataError(f"{file}: the only column is {names[0]!r}, which names the video; add columns to filter by")
    for name in names:
        if not name or "`" in name or "." in name or names.count(name) > 1:
            raise DataError(
                f"{file}: {name!r} is not allowed as a column; names must be unique, not empty, and without ` and ."
            )


def _parse_rows(file: Path, lines: Iterable[tuple[int, list[str]]], names: list[str], key: str) -> Metadata:
    by_path: dict[str, dict[str, str]] = {}
    by_name: dict[str, dict[str, str]] = {}
    spellings: dict[str, str] = {}
    for line, values in lines:
        if len(values) != len(names):
            raise DataError(f"{file}, line {line}: {count('value', len(values))} instead of {len(names)}")
        row = dict(zip(names, values, strict=True))
        video = row.pop(key)
        if not video:
            raise DataError(f"{file}, line {line}: the video is missing")
        place = parse_address(video) if is_address(video) else absolute_path(file.parent / video)
        path = nfc(str(place))
        by_path[path], spellings[path] = row, video
        if "/" not in video:
            by_name[video] = row
    return Metadata(tuple(name for name in names if name != key), by_path, by_name, spellings)
