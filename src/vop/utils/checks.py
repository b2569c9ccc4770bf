"""Check the values of settings. An error names the setting, its value and the allowed values."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from vop.errors import UsageError, unknown_name
from vop.utils.text import count

MOST = 10_000  # maximum of settings that count something


def plain(value: Any) -> Any:
    """Return a number as Python's own type, which JSON and YAML know, for example one of NumPy; or the value itself."""
    if isinstance(value, bool | int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def check_whole(setting: str, value: object, *, at_least: int, at_most: int = MOST) -> None:
    """Raise a UsageError if a setting's value is not a whole number from `at_least` to `at_most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or plain(value) < at_least:
        raise UsageError(f"{setting} is {reprlib.repr(value)}; it must be a whole number, {at_least} or more")
    if plain(value) > at_most:
        raise UsageError(f"{setting} is {plain(value):,}; it must be a whole number from {at_least} to {at_most:,}")


def check_number(setting: str, value: object, *, at_least: float, below: float = math.inf) -> None:
    """Raise a UsageError if a setting's value is not a number of at least `at_least` and below `below`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not at_least <= plain(value) < below:
        end = "" if below == math.inf else f" and below {below:g}"
        raise UsageError(f"{setting} is {reprlib.repr(value)}; it must be a number, at least {at_least:g}{end}")


def check_switch(setting: str, value: object) -> bool:
    """Return `value`. Raise a UsageError if it is not true or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{setting} is {reprlib.repr(value)}; it must be true or false")
    return value


def check_choice(setting: str, value: object, known: Iterable[str]) -> None:
    """Raise a UsageError if a setting's value is not one of `known`."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise unknown_name(setting, value if isinstance(value, str) else reprlib.repr(value), known)


def check_list(setting: str, value: object, *, example: str) -> None:
    """Raise a UsageError if a setting's value is not a list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"{setting} is {reprlib.repr(value)}; it must be a list, such as {example}")


def check_frames(got: int, trained: int) -> None:
    """Raise a UsageError if a video has a different number of frames than the model has positions."""
    if got != trained:
        raise UsageError(
            f"a video has {count('frame', got)}; this model takes {trained}: pass {trained} frames, "
            f"or open the model with vop.load(…, num_frames={got})"
        )
