"""Which segments a search may find, as SQL that the database evaluates before it looks for the nearest."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vop.errors import UsageError, unknown_name
from vop.search.rows import METADATA, quoted

_CONDITION = re.compile(r"\s*(?P<column>.+?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<value>.*?)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a search is limited to; None and () stand for no limit.

    Attributes:
        folder: an absolute path, or the name of a folder anywhere on the way to the file (`2024/summer`).
        name: the file's name or a part of it; `*` and `?` stand for any characters; case does not matter.
        min_seconds, max_seconds: of the whole video's duration.
        after, before: of its date, ISO 8601 (`2024-07-01`), from the first on and up to, but without, the second; local
            time where no zone is given.
        where: conditions on columns of the metadata, all of which must hold: `author=bob`, `stars>=4`, `title~dog`;
            the operators are `=`, `!=`, `>`, `<`, `>=`, `<=` and `~` (contains). Numbers are compared as numbers.
    """

    folder: str | None = None
    name: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    after: str | None = None
    before: str | None = None
    where: Sequence[str] = ()

    def sql(self, columns: Sequence[str]) -> str | None:
        """The condition, of a library with these metadata columns; None if everything may be found.

        Raises:
            UsageError: a value is not allowed, or a column is unknown.
        """
        parts = [_folder(self.folder), _name(self.name)]
        parts += [_seconds("min_seconds", ">=", self.min_seconds), _seconds("max_seconds", "<=", self.max_seconds)]
        parts += [_date("after", ">=", self.after), _date("before", "<", self.before)]
        parts += [_metadata(condition, columns) for condition in self.where]
        return " AND ".join(f"({part})" for part in parts if part) or None


def _folder(folder: str | None) -> str | None:
    if not folder:
        return None
    inner = folder.removeprefix("./").rstrip("/")
    if inner.startswith("/") or folder.startswith("/"):
        return f"starts_with(path, {quoted(inner + '/')})"
    return f"contains(path, {quoted(f'/{inner}/')})"


def _name(name: str | None) -> str | None:
    if not name:
        return None
    literal = re.sub(r"([%_\\])", r"\\\1", name)
    pattern = literal.replace("*", "%").replace("?", "_")
    if pattern == literal:  # no wildcard
        pattern = f"%{pattern}%"
    return f"name ILIKE {quoted(pattern)} ESCAPE '\\'"


def _seconds(name: str, operator: str, value: float | None) -> str | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value}; it is a number of seconds, 0 or more")
    return f"duration_seconds {operator} {float(value)!r}"


def _date(name: str, operator: str, value: str | None) -> str | None:
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value).astimezone(UTC)  # without a zone it is the owner's
    except (ValueError, OverflowError):
        raise UsageError(f"{name} is {value!r}; write a date as 2024-07-01 or 2024-07-01T18:30") from None
    return f"date {operator} {quoted(moment.isoformat(timespec='seconds'))}"


def _metadata(condition: str, columns: Sequence[str]) -> str:
    found = _CONDITION.fullmatch(condition)
    if found is None:
        raise UsageError(
            f"the condition {condition!r} is not COLUMN, one of = != > < >= <= ~, VALUE: such as author=bob"
        )
    name, operator, value = found["column"], found["operator"], found["value"]
    if name not in columns:
        if not columns:
            raise UsageError(
                f"{name!r} cannot be asked for: the library has no metadata; give it some: vop index … --metadata FILE"
            )
        raise unknown_name("column", name, columns)
    column = f"`{METADATA}{name}`"
    if operator == "~":
        return f"contains(lower({column}), {quoted(value.lower())})"
    as_text, number = f"{column} {operator} {quoted(value)}", _number(value)
    if number is None:
        return as_text
    # NaN, which spreadsheets write for a missing value, would be larger than every number.
    as_number = f"nullif(try_cast({column} AS DOUBLE), CAST('NaN' AS DOUBLE)) {operator} {number!r}"
    if operator == "=":
        return f"{as_text} OR {as_number}"
    if operator == "!=":  # a value that is no number is another one
        return f"{as_text} AND coalesce({as_number}, TRUE)"
    return as_number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
