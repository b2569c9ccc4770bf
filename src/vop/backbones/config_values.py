"""Read and check the values of a backbone's configuration file."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value", bool, int, float, str)
# Far above every known backbone, and far below sizes that exhaust memory.
_MOST = {
    "num_hidden_layers": 200,
    "hidden_size": 20_000,
    "num_attention_heads": 1_000,
    "intermediate_size": 100_000,
    "projection_dim": 20_000,
    "image_size": 4_096,
    "patch_size": 4_096,
    "vocab_size": 5_000_000,
    "max_position_embeddings": 100_000,
}
_ALSO = {  # the names that open_clip and other families use
    "layers": "num_hidden_layers",
    "mit_num_hidden_layers": "num_hidden_layers",
    "prompt_layers": "num_hidden_layers",
    "num_spatial_layers": "num_hidden_layers",
    "num_temporal_layers": "num_hidden_layers",
    "num_auxiliary_layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "head_width": "hidden_size",
    "embed_dim": "projection_dim",
    "projection_size": "projection_dim",
    "project_dim": "projection_dim",
    "context_length": "max_position_embeddings",
}
_KINDS = {bool: "true or false", int: "a whole number, 1 or more", float: "a number such as 1e-5", str: "a name"}


def read_value(part: Mapping[str, Any], name: str, usual: Value) -> Value:
    """Return a value, which must have the type of the default `usual`.

    Raises:
        ValueError: the value has another type or is out of range. The message names it.
    """
    value = part.get(name, usual)
    if type(value) is not type(usual) or (type(value) is int and value < 1):
        raise ValueError(f"{name} is {reprlib.repr(value)}; it must be {_KINDS[type(usual)]}")
    if type(value) is int and value > _MOST.get(_ALSO.get(name, name), value):
        raise ValueError(f"{name} is {value:,}; at most {_MOST[_ALSO.get(name, name)]:,} are allowed")
    if type(value) is float and not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; it must be 0 or more and below 1")
    return value


def read_token_id(part: Mapping[str, Any], name: str, usual: int, *, vocab_size: int) -> int:
    """Return the id of a token. Raise a ValueError if it is not in the vocabulary."""
    value = part.get(name, usual)
    if type(value) is not int or not 0 <= value < vocab_size:
        raise ValueError(f"{name} is {reprlib.repr(value)}; the vocabulary has the ids 0 to {vocab_size - 1}")
    return value


def read_matryoshka_dimensions(config: Mapping[str, Any], *, below: int) -> tuple[int, ...]:
    """Return the numbers of dimensions of shorter embeddings, for which the authors trained the model, in order.

    The key is that of jina-clip-v2, whose list also names the whole dimension.

    Raises:
        ValueError: the value is not a list of whole numbers.
    """
    value = config.get("matryoshka_dimensions") or []
    if not isinstance(value, list) or not all(type(number) is int and number > 0 for number in value):
        raise ValueError(f"matryoshka_dimensions is {reprlib.repr(value)}; it must be a list such as [64, 128]")
    return tuple(sorted({number for number in value if number < below}))


def read_part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the values of a tower. Some old files repeat them under `NAME_dict`, which takes precedence."""
    part = config.get(f"{name}_dict")
    part = config.get(name) if part is None else part
    if not isinstance(part, Mapping | None):
        raise ValueError(f"{name} is {reprlib.repr(part)}; it must be an object with named values")
    return part or {}


def check_heads(width: int, heads: int) -> None:
    """Raise a ValueError if a width cannot be split into heads."""
    if width % heads:
        raise ValueError(f"hidden_size is {width}; it must be a multiple of num_attention_heads, {heads}")


def check_patches(image_size: int, patch_size: int) -> None:
    """Raise a ValueError if a patch is larger than the image."""
    if patch_size > image_size:
        raise ValueError(f"patch_size is {patch_size}; it must be at most image_size, {image_size}")
