"""Experiment trackers, by their names in `accelerate`: TensorBoard, W&B, MLflow and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from vop.errors import UsageError, unknown_name

PROJECT = "vop"  # name of the project or experiment in trackers
NO_TRACKER = "none"
TENSORBOARD = "tensorboard"


def trackers_of(names: Sequence[str] | None) -> list[str]:
    """Return the trackers to use: by default TensorBoard, if it is installed.

    Raises:
        UsageError: a tracker is unknown, or its library is not installed.
    """
    installed = [str(name) for name in get_available_trackers()]
    if names is None:
        return [TENSORBOARD] if TENSORBOARD in installed and find_spec(TENSORBOARD) else []
    known = [*map(str, LOGGER_TYPE_TO_CLASS), NO_TRACKER]
    for name in names:
        if name not in known:
            raise unknown_name("tracker", name, known)
        if name not in (*installed, NO_TRACKER):
            raise UsageError(f"the tracker {name} needs its library: pip install {name.replace('_', '-')}")
    return [name for name in dict.fromkeys(names) if name != NO_TRACKER]


@contextmanager
def tracked(accelerator: Accelerator, out: Path, *, config: Mapping[str, object]) -> Iterator[None]:
    """Start the accelerator's trackers, and finish them at the end of the block.

    Args:
        out: the run's folder. Trackers use its name for the run.
        config: the settings of the training.
    """
    if accelerator.log_with:
        names = {"wandb": {"name": out.name}, "mlflow": {"run_name": out.name}}
        accelerator.init_trackers(PROJECT, config=_flat(config), init_kwargs=names)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # `end_training` would also end the process group
            tracker.finish()
        accelerator.trackers.clear()


def _flat(config: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """Return the values in types that every tracker accepts."""
    known = {name: value for name, value in config.items() if value is not None}
    return {name: value if isinstance(value, bool | int | float) else str(value) for name, value in known.items()}
