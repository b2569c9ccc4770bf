"""Search filters, and their SQL, which the database applies before it searches for neighbours.

`FILTERS` defines the command's options, the API's parameters and the documentation's table.
"""

from __future__ import annotations

import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from vop.errors import UsageError, unknown_name
from vop.storage.address import is_address
from vop.utils.names import letters, nfc, spellings

METADATA = "about_"  # in front of the names of the owner's columns
PLACE = ("latitude", "longitude")  # columns that older libraries lack
EARTH_KM = 6371.0
_LEAST_KM = 0.001  # rounding of the formula is far below
Order = Literal["match", "newest", "oldest"]  # of results; the first one is best first
DateOrder = Literal["newest", "oldest"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
DATE_ORDERS: Final[tuple[DateOrder, ...]] = get_args(DateOrder)

_CONDITION = r"\s*(?P<column>{column})\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<value>.*?)\s*"
_YEAR_OR_MONTH = re.compile(r"[0-9]{4}(-[0-9]{2})?")

# Marks that belong to the letter before them in decomposed names: accents, Arabic hamza, Japanese voicing, and the
# vowels and last consonants of Korean syllables. All marks of Unicode would make patterns slow to compile.
_MARKS = r"\x{300}-\x{36F}\x{653}-\x{655}\x{3099}\x{309A}\x{1160}-\x{11FF}"
_WILDCARDS = {"*": f"(?:[^{_MARKS}].*)?", "?": f"[^{_MARKS}][{_MARKS}]*"}
_LONGEST_PATH, _LONGEST_NAME = 4096, 255  # characters that a disk takes
_NOTHING = "FALSE"  # for longer ones, whose patterns would be too large for the database


@dataclass(frozen=True, kw_only=True)
class FilterOption:
    """The description of a filter for users: an option of `vop search`, a parameter of the API, a field of the page.

    Attributes:
        name: name of the parameter; `option` is the name on the command line.
        kind: "text", "seconds", "date", "tag", "switch", or "condition"; a tag and a condition can be given several
            times.
        metavar: placeholder for the value in the command's help.
        help: one sentence in plain text.
        label: short label for a form.
        placeholder: an example of a value.
    """

    name: str
    kind: Literal["text", "seconds", "date", "tag", "switch", "condition"]
    metavar: str | None
    help: str
    label: str
    placeholder: str

    @property
    def option(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def repeatable(self) -> bool:
        return self.kind in ("tag", "condition")

    @property
    def type(self) -> type[str] | type[float] | type[bool]:
        """The type of one value."""
        return {"seconds": float, "switch": bool}.get(self.kind, str)


def _filter(default: Sequence[str] | bool | None = None, **shown: str | None) -> Any:
    return field(default=default, metadata=shown)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The conditions that videos in a search must meet, all of them. None, "" and () mean no condition.

    Names match in any Unicode form; see `vop.utils.names`. A date without a time zone is local time.
    """

    folder: str | None = _filter(
        kind="text",
        metavar="DIR",
        label="Folder",
        placeholder="garden/2024",
        help="Only videos below this folder: an absolute path or address, or a folder's name anywhere on the way to "
        "the file (2024/summer).",
    )
    name: str | None = _filter(
        kind="text",
        metavar="GLOB",
        label="File name",
        placeholder="beach or IMG_*.mp4",
        help="Only videos whose file name contains this text, or matches it with * and ?. Case does not matter.",
    )
    min_seconds: float | None = _filter(
        kind="seconds",
        metavar="S",
        label="Not shorter than",
        placeholder="0:10",
        help="Only videos that last this many seconds or longer.",
    )
    max_seconds: float | None = _filter(
        kind="seconds",
        metavar="S",
        label="Not longer than",
        placeholder="2:00",
        help="Only videos that last this many seconds or less.",
    )
    after: str | None = _filter(
        kind="date",
        metavar="DATE",
        label="From date",
        placeholder="2024-07-01",
        help="Only videos recorded on or after this date: 2024-07-01, 2024-07-01T18:30, 2024-07 or 2024.",
    )
    before: str | None = _filter(
        kind="date",
        metavar="DATE",
        label="Before date",
        placeholder="2024-08-01",
        help="Only videos recorded before this date, written in the same way.",
    )
    where: Sequence[str] = _filter(
        default=(),
        kind="condition",
        metavar="CONDITION",
        label="Metadata",
        placeholder="stars>=4",
        help="Only videos whose metadata meets this condition: COLUMN, one of = != > < >= <= ~ (contains), VALUE, such "
        "as stars>=4. Repeat it for several conditions.",
    )

    near: str | None = _filter(
        kind="text",
        metavar="PLACE",
        label="Near",
        placeholder="48.2,16.4,5",
        help="Only videos recorded near this place: LATITUDE,LONGITUDE,KM in degrees and kilometres, such as "
        "48.2,16.4,5.",
    )
    tag: Sequence[str] = _filter(
        default=(),
        kind="tag",
        metavar="TAG",
        label="Tag",
        placeholder="beach",
        help="Only videos and moments with this tag. Repeat it for several tags.",
    )
    favourites: bool = _filter(
        default=False,
        kind="switch",
        metavar=None,
        label="Favourites",
        placeholder="yes",
        help="Only favourites.",
    )

    def check(self, columns: Sequence[str]) -> None:
        """Raise a UsageError if a value is not allowed, or a library with these columns of metadata has no such one."""
        self.sql(columns, marked=lambda tags, favourites: "TRUE")

    def sql(
        self,
        columns: Sequence[str],
        *,
        marked: Callable[[Sequence[str], bool], str] | None = None,
        has_places: bool = True,
    ) -> str | None:
        """Return the condition for a library with these columns of metadata; None if every video may be found.

        Args:
            marked: returns the condition of tags and of favourites, which are not in the table of segments.
            has_places: whether the table has the columns of `PLACE`.

        Raises:
            UsageError: a value is not allowed, or a column is unknown.
        """
        parts = [_folder(self.folder), _name(self.name)]
        parts += [_seconds("min_seconds", ">=", self.min_seconds), _seconds("max_seconds", "<=", self.max_seconds)]
        parts += [_date("after", ">=", self.after), _date("before", "<", self.before)]
        parts += [_metadata(condition, columns) for condition in self.where]
        near = _near(self.near)
        parts.append(near if has_places or near is None else _NOTHING)
        if self.tag or self.favourites:
            assert marked is not None, "the condition of tags and favourites is needed: use Store.condition"
            parts.append(marked(self.tag, self.favourites))
        return " AND ".join(f"({part})" for part in parts if part) or None


def _folder(folder: str | None) -> str | None:
    if not folder:
        return None
    if not is_address(folder):
        folder = re.sub("^/+", "/", posixpath.normpath(folder))
    inner = nfc(folder.rstrip("/"))
    is_absolute = folder.startswith("/") or is_address(folder)
    inside = f"{inner}/" if is_absolute else f"/{inner}/"
    literal = quoted(inside)
    if len(inside) > _LONGEST_PATH:
        return _NOTHING
    if _has_spellings(inside):
        return f"regexp_like(path, {quoted('^' * is_absolute + _pattern(inside))})"
    return f"starts_with(path, {literal})" if is_absolute else f"contains(path, {literal})"


def _name(name: str | None) -> str | None:
    if not name:
        return None
    glob = re.sub(r"\*+", "*", nfc(name))
    if not {"*", "?"} & set(glob):
        glob = f"*{glob}*"
    like = re.sub(r"([%_\\])", r"\\\1", glob).replace("*", "%").replace("?", "_")
    condition = f"name ILIKE {quoted(like)} ESCAPE '\\'"
    if len(glob.replace("*", "")) > _LONGEST_NAME:
        return _NOTHING
    if "?" in glob or _has_spellings(glob):
        parts = (_WILDCARDS.get(part) or _pattern(part) for part in re.split("([*?])", glob))
        condition = f"regexp_like(name, {quoted('(?is)^' + ''.join(parts) + '$')})"
    return condition


def _has_spellings(text: str) -> bool:
    """Whether a text has more than one Unicode form."""
    return any(len(spellings(letter)) > 1 for letter in letters(text))


def _pattern(text: str) -> str:
    """Return a regular expression for every way to spell a text."""
    return "".join(f"(?:{'|'.join(map(re.escape, spellings(letter)))})" for letter in letters(text))


def _seconds(name: str, operator: str, value: float | None) -> str | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value}; it must be a number of seconds, 0 or more")
    return f"duration_seconds {operator} {float(value)!r}"


def _date(name: str, operator: str, value: str | None) -> str | None:
    if not value:
        return None
    day = f"{value}-01-01"[:10] if _YEAR_OR_MONTH.fullmatch(value) else value
    try:
        moment = datetime.fromisoformat(day).astimezone(UTC)  # local time if it has no zone
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name} is {value!r}; write a date as 2024-07-01, 2024-07-01T18:30, 2024-07 or 2024"
        ) from None
    return f"date {operator} {quoted(moment.isoformat(timespec='seconds'))}"


def _near(place: str | None) -> str | None:
    """Return the condition of a distance on the globe, by the haversine formula."""
    if not place:
        return None
    numbers = [_number(part) for part in place.split(",")]
    match numbers:
        case [float() as latitude, float() as longitude, float() as km]:
            is_place = abs(latitude) <= 90 and abs(longitude) <= 180 and km >= 0
        case _:
            latitude = longitude = km = math.nan
            is_place = False
    if not is_place:
        raise UsageError(
            f"near is {place!r}; write LATITUDE,LONGITUDE,KM: degrees from -90 to 90 and from -180 to 180, and "
            "kilometres, such as 48.2,16.4,5"
        )
    if km >= math.pi * EARTH_KM:
        return "latitude IS NOT NULL"
    north, east = math.radians(latitude), math.radians(longitude)
    haversine = (
        f"power(sin((radians(latitude) - {north!r}) / 2), 2) + {math.cos(north)!r} * cos(radians(latitude)) * "
        f"power(sin((radians(longitude) - {east!r}) / 2), 2)"
    )
    return f"{haversine} <= {math.sin(max(km, _LEAST_KM) / (2 * EARTH_KM)) ** 2!r}"


def _metadata(condition: str, columns: Sequence[str]) -> str:
    # The library's own names come first, longest first, because they may contain operators.
    names = [*map(re.escape, sorted(columns, key=len, reverse=True)), ".+?"]
    read = (re.fullmatch(_CONDITION.format(column=name), condition, re.DOTALL) for name in names)
    found = next(filter(None, read), None)
    if found is None:
        raise UsageError(
            f"the condition {condition!r} is not COLUMN, one of = != > < >= <= ~, VALUE: such as author=bob"
        )
    name, operator, value = found["column"], found["operator"], found["value"]
    column = f"`{METADATA}{_own_column(name, columns)}`"
    if operator == "~":
        return " OR ".join(f"contains(lower({column}), {form})" for form in _forms(value.lower()))
    forms = _forms(value) if operator in ("=", "!=") else [quoted(nfc(value))]
    as_text = (" AND " if operator == "!=" else " OR ").join(f"{column} {operator} {form}" for form in forms)
    number = _number(value)
    if number is None:
        return as_text
    # NaN, which spreadsheets write for a missing value, would be larger than every number.
    as_number = f"nullif(try_cast({column} AS DOUBLE), CAST('NaN' AS DOUBLE)) {operator} {number!r}"
    if operator == "=":
        return f"{as_text} OR {as_number}"
    if operator == "!=":  # a value that is not a number is another value
        return f"{as_text} AND coalesce({as_number}, TRUE)"
    return as_number


def _own_column(name: str, columns: Sequence[str]) -> str:
    """Return the library's name of a column; libraries of earlier versions may have it decomposed."""
    own = {nfc(column): column for column in columns} | {column: column for column in columns}
    if not own:
        raise UsageError(f"{name!r}: the library has no metadata to filter by; add some: vop index … --metadata FILE")
    if nfc(name) not in own:
        raise unknown_name("column", name, columns)
    return own[nfc(name)]


def _forms(value: str) -> list[str]:
    """Return a value as SQL in each Unicode form that a table may contain: NFC, NFD and as it is given."""
    forms = dict.fromkeys([nfc(value), unicodedata.normalize("NFD", value), value])
    return [quoted(form) for form in forms]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def quoted(text: str) -> str:
    """Return a text as an SQL literal.

    Raises:
        UsageError: the text is not valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not valid Unicode; write it in UTF-8") from None
    return "'" + text.replace("'", "''") + "'"


FILTERS = tuple(FilterOption(name=own.name, **own.metadata) for own in fields(Filters))
