"""Hold out training videos for validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vop.datasets.types import Dataset
from vop.errors import DataError, UsageError
from vop.utils.text import count


def with_validation(
    dataset: Dataset, *, fraction: float = 0.05, min_videos: int = 1, max_videos: int = 500, seed: int = 0
) -> Dataset:
    """Return the data set with a validation split. Without one, hold out training videos, with all their captions.

    `seed` selects the videos. Their number is `fraction` of the training videos, at least `min_videos` and at most
    `max_videos`, but never all. The test split does not change.

    Raises:
        DataError: there is no training split, or it has only one video.
    """
    if "val" in dataset.splits:
        return dataset
    if not 0 < fraction < 1:
        raise UsageError(f"fraction is {fraction}; it must be between 0 and 1")
    if max_videos < 1:
        raise UsageError(f"max_videos is {max_videos}; at least 1 is needed")
    train = dataset.split("train")
    ids = sorted(video.id for video in train.videos)
    if len(ids) < 2:
        raise DataError(f"{dataset.name}: no validation video can be held out of {count('training video', len(ids))}")
    number = min(max(round(fraction * len(ids)), min_videos, 1), max_videos, len(ids) - 1)
    chosen = {ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[:number]}
    splits = dict(dataset.splits)
    splits["train"] = train.keep(set(ids) - chosen)
    splits["val"] = replace(train.keep(chosen), name="val")
    note = f"{count('video', number)} held out of train for validation (seed {seed})"
    return Dataset(dataset.name, splits, notes=(*dataset.notes, note))
