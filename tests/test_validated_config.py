"""Validation of outside values: suggested keys, types, nested models, a type's own checks."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel, ConfigDict

from vop.config import validated
from vop.errors import UsageError, VopError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    window_seconds: float = 10.0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()


@dataclass(frozen=True)
class Plain:
    size: int
    __pydantic_config__ = ConfigDict(extra="forbid")
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size is {self.size}; it must be 1 or more")


def test_values_are_typed():
    outer = validated(Outer, {"name": "a", "inner": {"window_seconds": 3}, "parts": [{}]}, source="x.json")
    assert outer == Outer(name="a", inner=Inner(window_seconds=3.0), parts=(Inner(),))
    assert validated(Plain, {"size": 2, "names": ["b"]}, source="x.json") == Plain(2, ["b"])


@pytest.mark.parametrize(
    ("kind", "values", "parts"),
    [
        (Outer, {"nam": "a"}, ["name", "missing"]),
        (Outer, {"name": "a", "iner": {}}, ["'iner'", "did you mean inner"]),
        (Outer, {"name": "a", "inner": {"window_second": 1}}, ["window_second'", "did you mean", "window_seconds"]),
        (Outer, {"name": "a", "parts": [{"window_second": 1}]}, ["parts.0.window_second", "window_seconds"]),
        (Outer, {"name": 1}, ["name is 1"]),
        (Outer, [], ["[]"]),
        (Plain, {"size": 1, "nmes": []}, ["'nmes'", "did you mean names"]),
        (Plain, {"size": 0}, ["size is 0", "1 or more"]),
    ],
)
def test_errors_name_the_field_and_the_allowed_values(kind, values, parts):
    with pytest.raises(UsageError, match=r"^x\.json: ") as raised:
        validated(kind, values, source="x.json")
    assert all(part in str(raised.value) for part in parts), raised.value


def test_errors_in_internal_files_are_not_usage_errors():
    with pytest.raises(VopError) as raised:
        validated(Outer, {}, source="x.json", error=VopError)
    assert not isinstance(raised.value, UsageError)
