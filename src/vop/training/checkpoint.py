"""Checkpoints: the state of a training in one safetensors file, which is replaced atomically.

The random numbers of a step (the order of the pairs, a head's dropout) depend only on the seed and the step number. So
the trained parameters, their moving average if there is one, the optimizer's moments and the step number are enough to
resume a training exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vop.errors import VopError
from vop.evaluation.metrics import MetricsDict
from vop.models.model import HEAD_PREFIX, TextVideoModel
from vop.training.loss import loss_of
from vop.training.recipe import Recipe
from vop.utils.files import atomic_write

CHECKPOINT = "state.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# When a training is resumed. The parts of a batch change its gradient only by rounding.
_MAY_CHANGE = ("epochs", "workers", "checkpoint_seconds", "on_bad_video", "if_worse", "chunk_size", "recompute")
# In checkpoints of versions that had nothing to choose from.
_BEFORE: dict[str, object] = {
    "loss": "infonce",
    "matryoshka": [],
    "augment": "none",
    "frame_sampling": None,
    "crop_area": None,
    "flip": None,
    "rates": None,
    "ema_decay": None,
    "hard_negatives": 0,
    "accumulate": 1,
}

Identity = Mapping[str, object]


class EpochRecord(TypedDict):
    """One epoch, counted from 1: its mean loss, and its validation metrics if it was validated."""

    epoch: int
    loss: float
    validation: NotRequired[MetricsDict]


@dataclass
class TrainingState:
    """The progress of a training.

    Attributes:
        step: optimizer steps done.
        loss_sum: sum of the losses of the current epoch's steps.
        history: records of the finished epochs.
        scores: scores of the validation videos for each validated epoch (`vop.training.selection`).
        untuned: validation metrics of the untuned model; None without validation.
        untuned_scores: scores of the validation videos with the untuned model.
        best_epoch: the best epoch on validation, or the last without validation, counted from 1; None before the first.
        seconds: training time so far.
    """

    step: int = 0
    loss_sum: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    untuned: MetricsDict | None = None
    untuned_scores: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float = 0.0


def identity_of(model: TextVideoModel, recipe: Recipe, *, data: str) -> dict[str, object]:
    """Return the values that must be unchanged when a training resumes, as far as known before any video is read."""
    return {
        "method": model.method_name,
        **model.method.settings,
        "head": model.head_name,
        **{f"{HEAD_PREFIX}{name}": value for name, value in model.head.settings.items()},
        "backbone": model.backbone.content_hash(),
        "data": data,
        **{name: value for name, value in asdict(recipe).items() if name not in _MAY_CHANGE},
        "loss": loss_of(model, recipe),
        "learning_rate": recipe.learning_rate or model.method.learning_rate,
        "precision": str(model.clip.dtype),
    }


def save_checkpoint(
    path: Path,
    *,
    trained: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    identity: Identity,
) -> None:
    """Write a checkpoint.

    Args:
        average: the moving average of `trained`; empty without one.
        best: the tensors of the best epoch; empty before the first.
        identity: the values that identify the training.
    """
    tensors = {f"trained.{name}": tensor for name, tensor in trained.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    names = {id(parameter): name for name, parameter in trained.items()}
    for parameter, moments in optimizer.state.items():
        tensors |= {f"{moment}.{names[id(parameter)]}": moments[moment] for moment in _MOMENTS}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(state)), "identity": json.dumps(identity)}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(
    path: Path, *, trained: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, identity: Identity
) -> tuple[TrainingState, dict[str, Tensor], dict[str, Tensor]]:
    """Restore `trained` and the optimizer; return the state, the average and the best epoch's tensors.

    Raises:
        VopError: the file is damaged, or belongs to another training; the message names the first difference.
    """
    check_identity(path, identity)
    with _errors_as_damage(path), safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        state = TrainingState(**json.loads(file.metadata()["progress"]))
    for name, parameter in trained.items():
        parameter.data.copy_(tensors[f"trained.{name}"])
        if f"exp_avg.{name}" in tensors:
            moments = {moment: tensors[f"{moment}.{name}"].clone() for moment in _MOMENTS}
            optimizer.state[parameter] = {
                moment: tensor if moment == "step" else tensor.to(parameter.device)
                for moment, tensor in moments.items()
            }
    average, best = (
        {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        for part in ("average.", "best.")
    )
    return state, average, best


def check_identity(path: Path, wanted: Identity) -> None:
    """Check that a checkpoint belongs to this training. This reads only the beginning of the file.

    Raises:
        VopError: as `load_checkpoint`.
    """
    with _errors_as_damage(path), safe_open(path, framework="pt") as file:
        saved = _BEFORE | json.loads(file.metadata()["identity"])
    for key, value in json.loads(json.dumps(wanted)).items():  # in its JSON form, where a tuple is a list
        if saved.get(key) != value:
            raise VopError(
                f"{path} belongs to a training with {key} = {saved.get(key)!r}, this one has {value!r}: resume with "
                "the original values, or choose another --out"
            )


@contextmanager
def _errors_as_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise VopError(f"{path}: damaged ({error}); delete it to restart the training") from None
