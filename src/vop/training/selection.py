"""Selects the weights that a run keeps: an epoch's, if it is better than the untuned model on validation videos.

An epoch that is the best of several on a few videos looks better than it is. So it is compared with the untuned model
(zero-shot CLIP) by a one-sided randomisation test of the differences in reciprocal rank, video by video, in which the
best of all epochs is compared with the best that chance would give (Westfall and Young, "Resampling-Based Multiple
Testing", 1993, section 2.3). Without evidence of a gain the untuned model is kept. On fewer than `FEWEST` videos there
can be no evidence; there the best epoch is kept, and reported as unproven.

Shapes: `v` validation videos, `t` their captions, `c` epochs that were validated, `s` random relabellings.
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
LEVEL = 0.05  # significance level: how often a training without effect may count as a gain
FEWEST = 5  # videos; with fewer even a gain on every one of them is as likely by chance as `LEVEL`, or more
_BLOCK_CELLS = 2**22


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        history: the epochs.
        best_epoch: the best on validation, or without it the last, even if it was not kept.
        selection: how the saved weights were chosen: "validation-selected", "last", "untrained", or "untuned" if no
            epoch was better than the untuned model, which the run then holds.
        seconds: of training, resumed parts included.
        untuned: validation metrics of the untuned model; None where it was not validated.
        p: how often chance alone makes an epoch look as good beside the untuned model; None without validation, and
            where there are too few videos to tell.
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
    """The state of a training, and the weights to keep."""
    selection = "untrained"
    if state.best_epoch is not None:
        selection = "validation-selected" if with_validation else "last"
    result = TrainingResult(state.history, state.best_epoch, selection, state.seconds, untuned=state.untuned)
    validated = [record["epoch"] for record in state.history if "validation" in record]
    is_known = len(state.scores) == len(validated)  # false for a checkpoint of an earlier version
    if state.best_epoch is None or not is_known or len(state.untuned_scores) < FEWEST:
        return result
    chosen = validated.index(state.best_epoch)
    result = replace(result, p=chance_of_gain(state.scores, state.untuned_scores, chosen=chosen))
    return result if result.is_proven or if_worse == TUNED else replace(result, selection=UNTUNED)


def is_better(record: EpochRecord, other: EpochRecord) -> bool:
    """Whether an epoch replaces the one kept so far."""
    return _score(record) > _score(other)


def _score(record: EpochRecord) -> tuple[float, float]:
    """Orders epochs: by t2v R@1, then by mean rank; without validation the later one wins."""
    if "validation" not in record:
        return 0.0, float(record["epoch"])
    t2v = record["validation"]["t2v"]
    return t2v["r1"], -t2v["mnr"]


def card_of(
    result: TrainingResult, tuned: TextVideoModel, recipe: Recipe, *, data: str, train: Split, validation: Split | None
) -> Card:
    """Return the facts on a training for the run's card.

    Args:
        tuned: the model that was trained, also where the untuned one is kept.
        recipe: with the number of epochs and the learning rate that were used.
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
    card |= {key: value for key, value in asdict(recipe).items() if key != "validation"}
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
    """(v,) float64, the mean reciprocal rank of each video: of its captions among the videos, and of itself.

    Args:
        targets: (t,), the video of each caption.
    """
    _, video = np.unique(np.asarray(targets), return_inverse=True)
    by_caption = np.bincount(video, weights=1 / metrics.t2v.ranks) / np.bincount(video)
    return (by_caption + 1 / metrics.v2t.ranks) / 2


def chance_of_gain(tuned: Sequence[Sequence[float]], untuned: Sequence[float], *, chosen: int) -> float:
    """How often chance alone makes the best of several epochs as good as the chosen one is: a p-value.

    Args:
        tuned: (c, v), the scores of the videos after each epoch.
        untuned: (v,), those of the untuned model.
        chosen: the place of the chosen epoch among them.
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
    """(s, v) and (c, v) to (s,), the highest sum over the epochs; a video's gains change their sign together."""
    best: NDArray[np.float64] = (signs @ gains.T).max(axis=1)
    return best
