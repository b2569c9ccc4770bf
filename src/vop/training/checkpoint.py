"""A training's state: one safetensors file, replaced whole, read without running code.

What is random in a step (the order of the pairs, a head's dropout) follows from the seed and its number, so that what
is trained, the optimizer's moments and the step number are all that a training needs to go on as if never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vop.errors import VopError
from vop.utils.files import atomic_write

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: optimizer steps done.
        loss_sum: of the steps of the epoch under way.
        history: a dictionary per epoch done: epoch, loss, and validation metrics where it was validated.
        scores: of the validation videos, for each epoch that was validated (`vop.training.selection`).
        untuned: validation metrics of the untuned model; None without validation.
        untuned_scores: of the validation videos.
        best_epoch: the epoch with the best validation, or without validation the last, from 1; None before the first.
        seconds: of training so far.
    """

    step: int = 0
    loss_sum: float = 0.0
    history: list[dict] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    untuned: dict | None = None
    untuned_scores: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float = 0.0


def save_checkpoint(
    path: Path,
    *,
    trained: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: dict,
) -> None:
    """Writes everything; `identity` says which training this is."""
    tensors = {f"trained.{name}": tensor for name, tensor in trained.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    names = {id(parameter): name for name, parameter in trained.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"{moment}.{names[id(parameter)]}": state[moment] for moment in _MOMENTS}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "identity": json.dumps(identity)}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(
    path: Path, *, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer, identity: dict
) -> tuple[Progress, dict[str, Tensor]]:
    """Puts `trained` and the optimizer back; returns the progress and the best epoch's tensors.

    Raises:
        VopError: the file is damaged, or is of another training; the message names the first difference.
    """
    check_identity(path, identity)
    with _damage_named(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        progress = Progress(**json.loads(file.metadata()["progress"]))
    for name, parameter in trained.items():
        parameter.data.copy_(tensors[f"trained.{name}"])
        if f"exp_avg.{name}" in tensors:
            state = {moment: tensors[f"{moment}.{name}"].clone() for moment in _MOMENTS}
            optimizer.state[parameter] = {
                moment: tensor if moment == "step" else tensor.to(parameter.device) for moment, tensor in state.items()
            }
    best = {name.removeprefix("best."): tensor for name, tensor in tensors.items() if name.startswith("best.")}
    return progress, best


def check_identity(path: Path, wanted: dict) -> None:
    """Compares a checkpoint's training with this one, in what is `wanted`; only the beginning of the file is read.

    Raises:
        VopError: as `load_checkpoint`.
    """
    with _damage_named(path), safe_open(path, framework="pt") as file:
        saved = json.loads(file.metadata()["identity"])
    for key, value in json.loads(json.dumps(wanted)).items():  # as it was saved: a tuple is a list there
        if saved.get(key) != value:
            raise VopError(
                f"{path} is of a training with {key} = {saved.get(key)!r}, this one has {value!r}: resume with "
                "what it was started with, or choose another --out"
            )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise VopError(f"{path}: damaged ({error}); delete it to train from the start") from None
