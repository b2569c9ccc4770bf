"""Use PyTorch modules with float32 weights on bfloat16 activations.

A module such as `nn.Linear` rejects an input whose dtype differs from that of its weights. Hooks cast the input to the
dtype of the weights, and the output back to the dtype of the input. `torch.compile` checks the numbers of hooks, which
differ for every module, so layers with hooks in them cannot share a compiled graph.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

_CASTS_ITSELF = "peft."  # the layers of this library do the same
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # hooks go on their children instead


class _Calls(threading.local):
    """The input dtypes of the active calls in this thread, the innermost last."""

    def __init__(self) -> None:
        self.dtypes: list[torch.dtype | None] = []


_CALLS = _Calls()


def accept_any_dtype(part: nn.Module) -> None:
    """Make every PyTorch module in `part` compute in the dtype of its weights and return the dtype of its input."""
    for child in part.children():
        if type(child).__module__.startswith(_CASTS_ITSELF):
            continue
        if isinstance(child, _CONTAINERS) or not type(child).forward.__module__.startswith("torch.nn."):
            accept_any_dtype(child)
        elif any(True for _ in child.parameters()):
            child.register_forward_pre_hook(_enter, with_kwargs=True)
            child.register_forward_hook(_leave, with_kwargs=True, always_call=True)


def _enter(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    found: list[torch.dtype] = []
    own = next(module.parameters()).dtype

    def to_own(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            found.append(value.dtype)
            return value.to(own)
        return value

    args, kwargs = tree_map(to_own, (args, kwargs))
    _CALLS.dtypes.append(found[0] if found else None)
    return args, kwargs


def _leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    dtype = _CALLS.dtypes.pop()

    def back(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return output if dtype is None else tree_map(back, output)
