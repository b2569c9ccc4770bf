"""Select the weights that a run keeps: the best epoch, if it is better than the untuned model on validation videos.

The best of several epochs on a few videos looks better than it is. So a one-sided randomisation test compares it with
the untuned model (zero-shot CLIP). The test uses the differences in reciprocal rank of each video, and compares the
best of all epochs with the best by chance (Westfall and Young, "Resampling-Based Multiple Testing", 1993, section 2.3).
Without evidence of a gain the run keeps the untuned model. With fewer than `FEWEST` videos no evidence is possible; the
run then keeps the best epoch and reports it as unproven.

Shapes: `v` validation videos, `t` captions, `c` validated epochs, `s` random sign changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vop.datasets.types import Split
from vop.evaluation.metrics import MetricsDict, RetrievalMetrics
from vop.models.model import TextVideoModel
from vop.models.run_folder import Card
from vop.training.checkpoint import EpochRecord, TrainingState
from vop.training.recipe import TUNED, UNTUNED, Recipe

SWAPS = 10_000
LEVEL = 0.05  # significance level: the share of trainings without effect that may count as a gain
FEWEST = 5  # videos; with fewer, even a gain on every video has a p-value above `LEVEL`
_BLOCK_CELLS = 2**22


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        history: the records of the epochs.
        best_epoch: the best epoch on validation, or the last without validation, even if the run does not keep it.
        selection: how the saved weights were selected: "validation-selected", "last", "untrained", or "untuned" if no
            epoch was better than the untuned model and the run holds that one.
        seconds: training time, including parts before a resume.
        untuned: validation metrics of the untuned model; None if it was not validated.
        p: p-value of the gain over the untuned model; None without validation or with too few videos.
    """

    history: list[EpochRecord]
    best_epoch: int | None
    selection: str
    seconds: float
    untuned: MetricsDict | None = None
    p: float | None = None

    @property
    def best(self) -> EpochRecord | None:
        """The record of the best epoch."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    @property
    def is_proven(self) -> bool:
        """Whether there is evidence that the best epoch is better than the untuned model."""
        return self.p is not None and self.p < LEVEL


def result_of(state: TrainingState, *, with_validation: bool, if_worse: str) -> TrainingResult:
    """Return the result of a training, with the selection of the weights to keep."""
    selection = "untrained"
    if state.best_epoch is not None:
        selection = "validation-selected" if with_validation else "last"
    result = TrainingResult(state.history, state.best_epoch, selection, state.seconds, untuned=state.untuned)
    validated = [record["epoch"] for record in state.history if "validation" in record]
    is_known = len(state.scores) == len(validated)  # False for a checkpoint of an earlier version
    if state.best_epoch is None or not is_known or len(state.untuned_scores) < FEWEST:
        return result
    chosen = validated.index(state.best_epoch)
    result = replace(result, p=chance_of_gain(state.scores, state.untuned_scores, chosen=chosen))
    return result if result.is_proven or if_worse == TUNED else replace(result, selection=UNTUNED)


def is_better(record: EpochRecord, other: EpochRecord) -> bool:
    """Return whether an epoch is better than `other`."""
    return _score(record) > _score(other)


def _score(record: EpochRecord) -> tuple[float, float]:
    """Return the sort key of an epoch: t2v R@1, then mean rank; without validation its number."""
    if "validation" not in record:
        return 0.0, float(record["epoch"])
    t2v = record["validation"]["t2v"]
    return t2v["r1"], -t2v["mnr"]


def card_of(
    result: TrainingResult, tuned: TextVideoModel, recipe: Recipe, *, data: str, train: Split, validation: Split | None
) -> Card:
    """Return the facts about a training for the model card.

    Args:
        tuned: the trained model, even if the run keeps the untuned one.
        recipe: the recipe with the epochs and the learning rate that were used.
    """
    is_untuned = result.selection == UNTUNED
    card: dict[str, object] = {
        "data": data,
        "training_pairs": len(train),
        "training_videos": len(train.videos),
        "validation_videos": len(validation.videos) if validation else 0,
        "epoch": 0 if is_untuned else result.best_epoch,
        "selection": result.selection,
        "minutes": round(result.seconds / 60, 2),
    }
    # The first has other facts, the second stands beside the card, and the others do not change the training.
    left_out = ["validation", "matryoshka", "chunk_size", "recompute", *(["accumulate"] * (recipe.accumulate == 1))]
    card |= {key: value for key, value in asdict(recipe).items() if key not in left_out and value is not None}
    if recipe.rates:
        card["rates"] = ", ".join(f"{part} {rate:g}" for part, rate in recipe.rates.items())
    if is_untuned:
        card["not_kept"] = f"{tuned.method_name}, no better than the untuned model on validation videos"
    validated = (
        result.untuned
        if is_untuned
        else result.best["validation"]
        if result.best and "validation" in result.best
        else None
    )
    card |= tuned.made_with()
    return cast(Card, card | ({"validation": validated} if validated else {}))


def video_scores(metrics: RetrievalMetrics, targets: Sequence[int]) -> NDArray[np.float64]:
    """Return the score of each video, (v,) float64: the mean of its reciprocal ranks in both directions.

    Args:
        targets: (t,), the video index of each caption.
    """
    _, video = np.unique(np.asarray(targets), return_inverse=True)
    by_caption = np.bincount(video, weights=1 / metrics.t2v.ranks) / np.bincount(video)
    return (by_caption + 1 / metrics.v2t.ranks) / 2


def chance_of_gain(tuned: Sequence[Sequence[float]], untuned: Sequence[float], *, chosen: int) -> float:
    """Return the p-value of the chosen epoch's gain: how often the best of all epochs is as good by chance.

    Args:
        tuned: (c, v), the scores of the videos after each epoch.
        untuned: (v,), the scores of the untuned model.
        chosen: the index of the chosen epoch in `tuned`.
    """
    gains: NDArray[np.float64] = np.asarray(tuned, dtype=np.float64) - np.asarray(untuned)  # (c, v)
    found = gains[chosen].sum()
    generator = np.random.default_rng(0)
    as_good = 0
    for start in range(0, SWAPS, block := max(1, _BLOCK_CELLS // gains.shape[1])):
        rows = min(block, SWAPS - start)
        signs = 2.0 * generator.integers(2, size=(rows, gains.shape[1])) - 1
        as_good += int((_best_sums(signs, gains) >= found - 1e-9).sum())
    return (as_good + 1) / (SWAPS + 1)


def _best_sums(signs: NDArray[np.floating[Any]], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest sum over the epochs, (s,), for signs (s, v) and gains (c, v). Epochs share a video's sign."""
    best: NDArray[np.float64] = (signs @ gains.T).max(axis=1)
    return best
