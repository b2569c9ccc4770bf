"""Find out when a video was recorded: from its metadata, else its file name, else the file's modification time.

The first plausible date is used. Its `source` is one of

creationdate    Apple's tag com.apple.quicktime.creationdate: local time with its offset; exports and edits keep it
creation_time   the tag of the container, or else of the video stream: UTC in MP4, MOV and MKV, local time in AVI
date            a tag with a day: Matroska's DATE_RECORDED, DATE_DIGITIZED, DATE and DATE_ENCODED, AVI's ICRD,
                MP4's ©day, FLV's creationdate
name            the file's name; cameras, phones, messengers and screen recorders write dates into it
file            the file's modification time, even if it is not plausible

A date from 1980 until tomorrow is plausible. Clocks that were never set and empty fields give 1904 or 1970.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

_SOURCES = {  # by tag, in the order of priority
    "com.apple.quicktime.creationdate": "creationdate",
    "date_recorded": "date",  # Matroska's creation_time is when the file was written
    "creation_time": "creation_time",
    **dict.fromkeys(("date_digitized", "date", "creationdate", "date_encoded"), "date"),
}
_FIRST_YEAR = 1980
_TOMORROW = timedelta(days=1)

# 2019-07-14T20:15:00.000Z, 2019:07:14 20:15:00 +02:00, 2019-07-14/ 20:15, 20190714
_IN_TAGS = re.compile(
    r"(?P<year>\d{4})(?P<dash>[-:/.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[T /]+(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,]\d+)?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[-+]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
# A day, alone or with a time: 20190714_201500, 2019-07-14 at 8.15.00 PM. Three more digits after a time are
# milliseconds. A number with other digits before or after is not a date.
_IN_NAMES = re.compile(
    r"(?<!\d)(?P<year>\d{4})(?P<dash>[-_.]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:(?:[-_.,T ]{0,2}| \D{1,7} )"
    r"(?P<hour>\d\d|\d(?=[-_.:]))(?P<dot>[-_.:]?)(?P<minute>\d\d)(?P=dot)(?P<second>\d\d)(?:\d{3})?"
    r"(?:[ \u00a0\u202f]?(?P<half>[AaPp])[Mm]\b|(?P<zone>Z)\b)?)?(?!\d)",
    re.ASCII,
)
_NAMED_IN_UTC = ("PXL_", "GMT")  # by Google's phones, and by Zoom
_MIDNIGHT = {"hour": "00", "minute": "00", "second": "00"}
_ISO = "{year}-{month}-{day}T{hour:0>2}:{minute}:{second}{zone}"


class RecordingDate(NamedTuple):
    """The time of a recording, with the recorded or else the local UTC offset, and where it was found."""

    at: datetime
    source: str


def recording_date(
    container: Mapping[str, str], stream: Mapping[str, str], path: Path, mtime_ns: int, *, now: datetime | None = None
) -> RecordingDate:
    """Return when a video was recorded.

    Args:
        container, stream: metadata of the file and of its video stream, with FFmpeg's names.
        mtime_ns: the file's modification time, in nanoseconds.
        now: the current time, for tests.
    """
    tomorrow = (now or datetime.now(UTC)) + _TOMORROW
    for date in _candidates(container, stream, path.name):
        if date.at.year >= _FIRST_YEAR and date.at <= tomorrow:
            return date
    return RecordingDate(_local_time(mtime_ns), "file")


def date_after_change(before: RecordingDate, name: str, mtime_ns: int | None) -> RecordingDate:
    """Return the date of a recording whose file has another name or modification time than before.

    A date in the name counts if the metadata have none. So does an earlier time of the file, if it is plausible; a
    later one may be that of a copy.

    Args:
        mtime_ns: the file's modification time, in nanoseconds; None if it has none.
    """
    if before.source not in ("name", "file"):
        return before
    found = recording_date({}, {}, Path(name), mtime_ns or 0)
    is_earlier = before.source == "file" and found.at.year >= _FIRST_YEAR and found.at < before.at
    return found if found.source == "name" or is_earlier else before


def _candidates(container: Mapping[str, str], stream: Mapping[str, str], name: str) -> Iterator[RecordingDate]:
    metadata = [{tag.lower(): value for tag, value in tags.items()} for tags in (container, stream)]
    for tag, source in _SOURCES.items():
        for tags in metadata:
            at = _in_tag(tags.get(tag, ""))
            if at is not None:
                yield RecordingDate(at, source)
    for found in _IN_NAMES.finditer(name):
        at = _in_name(found, zone="Z" if name.startswith(_NAMED_IN_UTC) else "")
        if at is not None:
            yield RecordingDate(at, "name")


def _in_tag(text: str) -> datetime | None:
    text = text.strip(" \t\r\n\0")
    found = _IN_TAGS.fullmatch(text)
    try:
        # The parser for mail also reads C's format, Sun Jul 14 20:15:00 2019.
        return _with_zone(_parse(found) if found else parsedate_to_datetime(text))
    except (ValueError, OverflowError):
        return None


def _in_name(found: re.Match[str], *, zone: str) -> datetime | None:
    try:
        return _with_zone(_parse(found, zone=zone, half=found["half"]))
    except (ValueError, OverflowError):
        return None


def _parse(found: re.Match[str], *, zone: str = "", half: str | None = None) -> datetime:
    """Return the matched date, with its time zone if it has one. Raise a ValueError if the date does not exist."""
    parts = _MIDNIGHT | {"zone": zone} | {name: text for name, text in found.groupdict().items() if text}
    parts["zone"] = parts["zone"].replace("UTC", "Z").replace("GMT", "Z")
    at = datetime.fromisoformat(_ISO.format(**parts))
    if half is None:
        return at
    if not 1 <= at.hour <= 12:
        raise ValueError(f"{at.hour} is not an hour of a 12-hour clock")
    return at.replace(hour=at.hour % 12 + 12 * (half in "Pp"))


def _with_zone(at: datetime) -> datetime:
    return at if at.tzinfo else at.astimezone()


def _local_time(mtime_ns: int) -> datetime:
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9, UTC).astimezone()
    except (ValueError, OverflowError, OSError):  # files may claim any year
        return datetime.fromtimestamp(0, UTC)
