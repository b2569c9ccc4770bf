"""A whole evaluation: a model on a split of a data set, with what the report should say about both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split
from vop.errors import UsageError
from vop.evaluation.evaluate import evaluate
from vop.evaluation.report import EvaluationReport
from vop.heads import MEAN
from vop.models.model import HEAD_PREFIX
from vop.utils.progress import Progress, silent
from vop.utils.text import count
from vop.video.clip import DISPLAY

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel


def evaluate_model(
    model: TextVideoModel,
    dataset: Dataset,
    *,
    split: str = "test",
    cache: Path | None = None,
    aspect: str | None = None,
    batch_size: int = 32,
    on_bad_video: str = "skip",
    bank_videos: int = 512,
    progress: Progress = silent,
) -> EvaluationReport:
    """Ranks one split in both directions.

    Args:
        cache: decoded frames, read and completed.
        aspect: as for `vop.read_frames`; by default that of the model's training.
        bank_videos: so many training videos, with a caption each, are QB-Norm's bank; 0, or a data set that has no
            training split or is evaluated on it, leaves QB-Norm out.
    """
    if bank_videos < 0:
        raise UsageError(f"bank_videos is {bank_videos}; give 1 or more, or 0 for no QB-Norm")
    model.check_vocabulary()  # before every video is decoded
    bank = None
    if "train" in dataset.splits and split != "train" and bank_videos:
        bank = _sample(dataset.split("train"), bank_videos)
    aspect = aspect or model.card.get("aspect", DISPLAY)
    with FrameStore(model.num_frames, model.image_size, cache=cache, aspect=aspect).isolated() as store:
        return evaluate(
            model,
            dataset.split(split),
            store,
            batch_size=batch_size,
            on_bad_video=on_bad_video,
            bank=bank,
            progress=progress,
            **report_facts(model, dataset, aspect=aspect),
        )


def report_facts(model: TextVideoModel, dataset: Dataset, *, aspect: str = DISPLAY) -> dict[str, Any]:
    """What a report says of the model and the data, as arguments of `evaluate`."""
    card = model.card
    return {
        "method": model.method_name if model.head_name == MEAN else f"{model.method_name}/{model.head_name}",
        "data": dataset.name,
        "selection": card.get("selection", None if model.trainable() else "untrained"),
        "epoch": card.get("epoch"),
        "seed": card.get("seed"),
        "notes": _frame_notes(model),
        "settings": {
            "backbone": model.backbone.name,
            "precision": str(model.clip.dtype).removeprefix("torch."),
            "trained_on": card.get("data"),
            "head": model.head_name,
            **model.method.settings,
            **{f"{HEAD_PREFIX}{name}": value for name, value in model.head.settings.items()},
            "num_frames": model.num_frames,
            "aspect": aspect,
        },
    }


def _frame_notes(model: TextVideoModel) -> tuple[str, ...]:
    if model.num_frames == model.trained_frames or not model.trainable():
        return ()
    note = f"tuned with {count('frame', model.trained_frames)} a video, evaluated with {model.num_frames}"
    return (f"{note}; its tables of frame positions are interpolated" if model.frame_tables() else note,)


def _sample(split: Split, count: int) -> Split:
    """At most `count` videos, drawn by a fixed seed, with the first caption of each."""
    rows = np.random.default_rng(0).permutation(len(split.videos))[:count]
    chosen = sorted(int(row) for row in rows)
    return Split(
        name=split.name,
        videos=tuple(split.videos[row] for row in chosen),
        captions=tuple(split.captions[split.captions_of[row][0]] for row in chosen),
        targets=tuple(range(len(chosen))),
    )
