"""Validate configurations where they are read, and convert them to typed objects."""

from __future__ import annotations

import reprlib
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vop.errors import UsageError, VopError, unknown_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def validated(kind: type[T], values: object, *, source: str, error: type[VopError] = UsageError) -> T:
    """Validate values from a file or a caller, and return them as a pydantic model or a dataclass.

    Args:
        kind: the type to build. It rejects unknown keys if its configuration has `extra="forbid"`.
        source: where the values come from ("config.json"), for the beginning of error messages.

    Raises:
        UsageError: a key is unknown (the error suggests the nearest known ones) or missing, or a value is not allowed.
            `error` replaces this type.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(cast(type, kind)).validate_python(values)
    except ValidationError as invalid:
        raise error(f"{source}: {_explain(kind, invalid.errors()[0])}") from None
    return found


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Return the validator of a type. Building one takes milliseconds."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _explain(kind: type, fault: Any) -> str:
    """Describe an error of pydantic in plain words."""
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return str(unknown_name("key", name, _keys(kind, fault["loc"][:-1])))
    if fault["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name!r} is missing"
    if fault["type"] == "value_error":  # raised by a check of the type itself
        return f"{name}: {fault['ctx']['error']}" if name else str(fault["ctx"]["error"])
    value = reprlib.repr(fault["input"])  # it may be a whole document
    return f"{name or 'the whole'} is {value}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _keys(kind: type, inside: tuple[int | str, ...]) -> list[str]:
    """Return the keys of a type, or of a type nested inside it."""
    schema = _adapter(kind).json_schema()
    definitions, here = schema.get("$defs", {}), schema
    for step in inside:
        here = here.get("items", {}) if isinstance(step, int) else here.get("properties", {}).get(step, {})
        here = next((one for one in here.get("anyOf", []) if "$ref" in one), here)  # a part that may be null
        here = definitions.get(here.get("$ref", "").rpartition("/")[2], here)
    return list(here.get("properties", {}))
