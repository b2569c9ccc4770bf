"""Files of a library, and a naive filter of them in Python."""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice, product

import numpy as np

from search.libraries import SIZE, a_file
from vop.search.filters import Filters
from vop.search.schema import VideoFile

FOLDERS = [
    "/v",
    "/v/20",
    "/v/2024",
    "/v/2024/summer",
    "/v/2024/summer2",
    "/o/2024/summer",
    "/it's/50%_a\\b",
    "/n\nl/😀",
]
NAMES = ["a_b.mp4", "aXb.MP4", "50%.mkv", "q?*.mov", 'it\'s "x".mp4', "new\nline.mp4", "😀É.webm", "back\\slash.avi"]
AUTHORS = [None, "bob", "Bob", "o'brien", "", "42", "1_0", "naïve 😀", "a%_\\"]
STARS = [None, "4", "4.0", "5", "-1", "1e3", "many", "nan", "inf", "", "0.1"]
ODD = "odd name'\"%ü"  # the name of a column
COLUMNS = ["author", "stars", ODD]
COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def make_files() -> list[VideoFile]:
    places = list(product(FOLDERS, NAMES))
    kinds = islice(zip(cycle(AUTHORS), cycle(STARS), cycle(range(7)), strict=False), len(places))
    return [
        a_file(
            f"{folder}/{name}",
            seconds=[0.04, 9.5, 10.0, 30.0, 60.0, 61.0, 36000.0][number],
            date=(datetime(2024, 6, 29, 22, tzinfo=UTC) + timedelta(hours=number * 9)).isoformat(timespec="seconds"),
            metadata={k: v for k, v in {"author": author, "stars": stars, ODD: author}.items() if v is not None},
        )
        for (folder, name), (author, stars, number) in zip(places, kinds, strict=True)
    ]


FILES = make_files()


def found(library, filters: Filters) -> set[str]:
    """Return the paths of all videos that a search with these filters finds."""
    query = np.eye(SIZE, dtype=np.float32)[0]
    return {moment.path for moment in library.search(query, k=1000, filters=filters)}


def expected(holds) -> set[str]:
    return {str(file.path) for file in FILES if holds(file)}


def in_folder(file: VideoFile, folder: str) -> bool:
    wanted, parts = folder.strip("/").split("/"), str(file.path.parent).strip("/").split("/")
    if folder.startswith("/"):
        return not folder.strip("/") or parts[: len(wanted)] == wanted
    return any(parts[at : at + len(wanted)] == wanted for at in range(len(parts)))


def is_named(file: VideoFile, name: str) -> bool:
    wild = {"*": ".*", "?": "."}
    pattern = "".join(wild.get(letter) or re.escape(letter) for letter in name)
    match = re.fullmatch if wild.keys() & set(name) else re.search
    return bool(match(pattern, file.path.name, re.IGNORECASE | re.DOTALL))


def number(text: str) -> float | None:
    """Return None also for NaN, and for texts that only Python reads as a number."""
    try:
        return float(text) if float(text) == float(text) and "_" not in text else None
    except ValueError:
        return None


def has_value(file: VideoFile, column: str, sign: str, wanted: str) -> bool:
    own = file.metadata.get(column)
    if own is None:
        return False
    if sign == "~":
        return wanted.lower() in own.lower()
    limit = number(wanted.replace("_", ""))
    if limit is None or abs(limit) == float("inf"):
        return COMPARE[sign](own, wanted)
    if sign in ("=", "!="):
        return (own == wanted or number(own) == limit) == (sign == "=")
    return number(own) is not None and COMPARE[sign](number(own), limit)


def utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).replace(microsecond=0)
