"""Learning rates of the parts of a model, and which parts train.

A recipe's `rates` give parts multiples of the learning rate of a step. A part is a group of `GROUPS`, or the parameters
whose names match a pattern, such as `method.*_prompts.*`. If several parts contain a parameter, their factors are
multiplied. A part with the factor 0 is frozen: it keeps its values, and has no share in the gradient's clipped norm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vop.errors import UsageError, unknown_name

LOSS_PARAMETERS = ("clip.log_logit_scale", "clip.logit_bias")

# The parameters of each group, by pattern. A parameter belongs to the first group that has it.
GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("head.*",),
    "scale": LOSS_PARAMETERS,
    "text": (
        "clip.text.*",
        "method.text*",
        *(f"method.{part}.*" for part in ("before", "after", "hidden", "to_text")),  # make text prompts in DGL and STOP
    ),
    "video": ("*",),  # the vision tower, and what a method adds to it or to both towers
}


def group_of(parameter: str) -> str:
    """Return the group of a trained parameter."""
    return next(group for group, patterns in GROUPS.items() if any(fnmatchcase(parameter, one) for one in patterns))


def factors_of(parameters: Iterable[str], rates: Mapping[str, float] | None) -> dict[str, float]:
    """Return the factor of each parameter's learning rate; 1 for those that `rates` leave out.

    A group without parameters has no effect, so that the same rates suit methods without a part.

    Raises:
        UsageError: a pattern matches no parameter, or nothing is left to train.
    """
    rates, names = rates or {}, list(parameters)
    parts = {part: [name for name in names if group_of(name) == part or fnmatchcase(name, part)] for part in rates}
    for part, matched in parts.items():
        if not matched and part not in GROUPS:
            patterns = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names)
            raise unknown_name("part in rates", part, [*GROUPS, *patterns])
    factors = {name: math.prod(rates[part] for part in rates if name in parts[part]) for name in names}
    if not any(factors.values()):
        raise UsageError(f"rates is {dict(rates)}; nothing is left to train: give a part a rate above 0")
    return factors


def optimizer_groups(
    trained: Mapping[str, nn.Parameter], factors: Mapping[str, float], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the optimizer's groups: a group for each weight decay and each factor above 0, which is its "factor".

    Weight decay does not apply to logit scale and bias, as in CLIP's own training.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in sorted(trained.items(), key=lambda pair: pair[0] in LOSS_PARAMETERS):
        if factors[name]:
            groups.setdefault((name in LOSS_PARAMETERS, factors[name]), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if of_loss else weight_decay, "factor": factor}
        for (of_loss, factor), parameters in groups.items()
    ]
