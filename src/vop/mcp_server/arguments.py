"""The arguments of the tools: a parameter for each filter, and none that a tool does not know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, create_model

from vop.search.filters import FILTERS, FilterOption

if TYPE_CHECKING:
    from mcp.server.mcpserver.tools import Tool

_Result = TypeVar("_Result")


def with_filters(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Replace the parameter `**filters` of a tool with one for each of `FILTERS`, which is None by default."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD]
    filters = [
        Parameter(option.name, Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(option))
        for option in FILTERS
    ]
    function.__signature__ = signature.replace(parameters=[*own, *filters])  # type: ignore[attr-defined]
    return function


def _annotation(option: FilterOption) -> Any:
    kind: Any = list[str] if option.repeatable else option.type
    return Annotated[kind | None, Field(description=option.help)]


def refuse_unknown(tool: Tool) -> Tool:
    """Make a tool refuse unknown arguments. The SDK ignores them: a misspelt filter would silently not filter."""
    known = tool.fn_metadata.arg_model
    tool.fn_metadata.arg_model = create_model(known.__name__, __base__=known, __cls_kwargs__={"extra": "forbid"})
    tool.parameters = tool.fn_metadata.arg_model.model_json_schema(by_alias=True)
    return tool
