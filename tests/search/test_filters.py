"""Filters as SQL, against a naive filter in Python over the same library."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.filtered import (
    AUTHORS,
    COLUMNS,
    COMPARE,
    FILES,
    FOLDERS,
    NAMES,
    STARS,
    expected,
    found,
    has_value,
    in_folder,
    is_named,
    utc,
)
from search.libraries import make_library
from vop.search.filters import Filters


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("filters") / "library", FILES, columns=COLUMNS)


def test_empty_filters_find_everything(library):
    assert Filters(folder="", name="", after="", before="").sql(COLUMNS) is None
    assert found(library, Filters()) == expected(lambda file: True)


@st.composite
def folders(draw) -> str:
    parts = draw(st.sampled_from(FOLDERS)).strip("/").split("/")
    first = draw(st.integers(0, len(parts) - 1))
    some = "/".join(parts[first : draw(st.integers(first + 1, len(parts)))])
    shape = draw(st.sampled_from(["{}", "/{}", "{}/", "/{}//", "{}2", "%{}", "_", "/", "/{}/none"]))
    return shape.format(some)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(folder=folders())
@example(folder="/v/20")  # and not /v/2024
@example(folder="/v/2024/summer/")
@example(folder="/v/2024/sum")
def test_folders_match_as_in_python(library, folder):
    assert found(library, Filters(folder=folder)) == expected(lambda file: in_folder(file, folder))


@pytest.mark.parametrize("folder", ["./2024/summer", "2024//summer/.", "2024/winter/../summer/"])
def test_spellings_of_a_folder(library, folder):
    assert found(library, Filters(folder=folder)) == found(library, Filters(folder="2024/summer"))
    absolute = Filters(folder=f"//v/{folder}")
    assert found(library, absolute) == found(library, Filters(folder="/v/2024/summer"))
    assert len(found(library, Filters(folder="2024/summer"))) == 2 * len(NAMES)


LETTERS = st.text("aAxXbé\n😀'\"%_*?\\.", min_size=1, max_size=5)
PARTS = st.sampled_from(NAMES).flatmap(
    lambda name: st.sampled_from([name, name[1:], name[:4], f"*{name[2:]}", f"{name[:-3]}???"])
)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(name=LETTERS | PARTS)
def test_names_match_as_in_python(library, name):
    assert found(library, Filters(name=name)) == expected(lambda file: is_named(file, name))


SECONDS = st.sampled_from([0, 10, 10.0, 60, 10**20]) | st.floats(0, 1e5) | st.floats(0, 1e308)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(least=st.none() | SECONDS, most=st.none() | SECONDS)
def test_durations_match_as_in_python(library, least, most):
    filters = Filters(min_seconds=least, max_seconds=most)
    least, most = (0 if least is None else least), (float("inf") if most is None else most)
    assert found(library, filters) == expected(lambda file: least <= file.duration_seconds <= most)


def test_durations_may_be_numpy_numbers(library):
    assert found(library, Filters(min_seconds=np.float64(60))) == found(library, Filters(min_seconds=60))


ZONES = st.none() | st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
DATES = st.datetimes(datetime(2024, 6, 28), datetime(2024, 7, 4), timezones=ZONES).map(datetime.isoformat)
DAYS = st.dates(datetime(2024, 6, 28).date(), datetime(2024, 7, 4).date()).map(lambda day: day.isoformat())


@settings(deadline=None, max_examples=40, derandomize=True)
@given(after=st.none() | DATES | DAYS, before=st.none() | DATES | DAYS)
@example(after="2024-06-29T22:00:00+00:00", before="2024-07-01T10:00:00+00:00")  # of the first and the fifth file
def test_dates_match_as_in_python(library, after, before):
    first, last = utc(after or "1970-01-01"), utc(before or "2999-01-01")
    assert found(library, Filters(after=after, before=before)) == expected(lambda file: first <= utc(file.date) < last)


@pytest.mark.parametrize(
    ("short", "day"),
    [("2024", "2024-01-01"), ("2025", "2025-01-01"), ("2024-07", "2024-07-01"), ("2024-06", "2024-06-01")],
)
def test_a_year_or_month_means_its_first_day(library, short, day):
    assert Filters(after=short).sql([]) == Filters(after=day).sql([])
    assert Filters(before=short).sql([]) == Filters(before=day).sql([])
    assert found(library, Filters(after=short)) == expected(lambda file: utc(file.date) >= utc(day))


def test_a_year_starts_in_local_time(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert Filters(after="2024", before="2024-07").sql([]) == (
            "(date >= '2023-12-31T15:00:00+00:00') AND (date < '2024-06-30T15:00:00+00:00')"
        )
    finally:
        monkeypatch.undo()
        time.tzset()


VALUES = st.sampled_from([*filter(None, AUTHORS), *filter(None, STARS), "", "B", "' OR ''='"]) | st.text(
    "4.-e'%\\b", max_size=4
)


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    column=st.sampled_from(COLUMNS),
    sign=st.sampled_from([*COMPARE, "~"]),
    value=VALUES,
    space=st.sampled_from(["", " "]),
)
@example(column="author", sign="=", value="1_0", space="")  # only Python reads it as a number
def test_metadata_matches_as_in_python(library, column, sign, value, space):
    filters = Filters(where=[f"{column}{space}{sign}{space}{value}"])
    assert found(library, filters) == expected(lambda file: has_value(file, column, sign, value.strip()))


def test_all_filters_must_match(library):
    filters = Filters(folder="2024", name=".mp4", min_seconds=5, before="2024-07-03", where=["author=42", "stars!=5"])
    both = expected(
        lambda file: (
            in_folder(file, "2024")
            and is_named(file, ".mp4")
            and file.duration_seconds >= 5
            and utc(file.date) < utc("2024-07-03")
            and has_value(file, "author", "=", "42")
            and has_value(file, "stars", "!=", "5")
        )
    )
    assert found(library, filters) == both
    assert both
