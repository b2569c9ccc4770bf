"""Parse untrusted JSON and YAML. Documents that are too deep, too large or malformed raise an error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vop.errors import VopError
from vop.utils.files import read_file

MAX_CONFIG_BYTES = 4 * 2**20  # the largest configuration of a CLIP folder has 20 kB
MAX_YAML_BYTES = 200_000  # a recipe has 2 kB
MAX_YAML_VALUES = 20_000


def parse_json(text: str | bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the value of a JSON document.

    Args:
        parse_constant: returns the value of NaN, Infinity or -Infinity, or raises a ValueError; by default a float.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or has an object that repeats a key.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=parse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: this is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None


def without_float(value: Any) -> Any:
    """Return 7.0 as 7, and other values unchanged: pandas makes floats of whole numbers beside a missing value."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) < len(members):
        (key, count), *_ = Counter(key for key, _ in members).most_common(1)
        raise ValueError(f"an object has the key {key!r} {count} times; keep only one")
    return value


def read_json_object(path: str | Path, *, remedy: str, at_most: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file as a dictionary.

    Args:
        remedy: what the user can do, for the end of the error message.

    Raises:
        VopError: the file cannot be read, or is not a JSON object.
    """
    data = read_file(path, at_most=at_most)
    try:
        values = parse_json(data)
    except ValueError as error:
        raise VopError(f"{path}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise VopError(f"{path}: the file contains a {type(values).__name__} instead of an object; {remedy}")
    return values


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document. Only safe types are built.

    Raises:
        ValueError: the text is not YAML, is too large (with aliases expanded) or is nested too deeply.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has {len(text):,} characters; the maximum is {MAX_YAML_BYTES:,}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _weight(node, {}) > MAX_YAML_VALUES:
            raise ValueError(f"it has more than {MAX_YAML_VALUES:,} values")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def _weight(node: Any, known: dict[int, float]) -> float:
    """Return the number of values in a node; infinity if it contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # until its values are counted
        inner = node.value if isinstance(node.value, list) else ()
        parts = (part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_weight(part, known) for part in parts)
    return known[id(node)]
