"""Compile the layers of a backbone with `torch.compile`.

Every layer is compiled by itself, so that methods can put prompts between the layers. The layers of a tower share one
compiled graph, because they differ only in their weights. Sizes are symbols in it, so that it fits every batch and
every length of texts. There are more graphs for what a layer does differently: in the other tower, in the last layer,
which computes only what is read, with gradients, and with another number of threads.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from vop.backbones.towers import CLIP
from vop.errors import UsageError

_TOOLS = {"cpu": "a C++ compiler, such as g++", "cuda": "Triton and a C compiler, such as gcc"}
# All layers share the limit. After PyTorch's own, 8 graphs, the others would not be compiled.
_MOST_GRAPHS = 64


def compile_layers(clip: CLIP) -> None:
    """Compile the layers of both towers at their next call.

    Raises:
        UsageError: PyTorch cannot compile for this device on this machine.
    """
    device = clip.log_logit_scale.device
    check_compiler(device.type)
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, _MOST_GRAPHS)
    for tower in (clip.vision, clip.text):
        for layer in tower.layers:
            layer.compile(dynamic=True)  # in place: the names of its parameters stay
    clip.compiled = True


@cache
def check_compiler(device: str) -> None:
    """Compile a tiny function for a type of device ("cpu"), to learn whether that works before other work starts.

    Raises:
        UsageError: it does not.
    """
    if device not in _TOOLS:
        raise UsageError(f"compile is True on the device {device}; use {' or '.join(_TOOLS)}, or leave out compile")
    try:
        torch.compile(_tiny)(torch.ones(2, device=device))
    except RuntimeError as error:  # the class of all errors of PyTorch's compilers
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"compile is True, but PyTorch cannot compile for {device} on this machine ({reason}): install "
            f"{_TOOLS[device]}, or leave out compile"
        ) from error


def _tiny(x: Tensor) -> Tensor:
    return x.sin() + 1
