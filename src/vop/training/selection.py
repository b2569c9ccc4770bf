"""Which weights a run keeps: an epoch's, if it is better than the untuned model on validation videos.

An epoch that is the best of several on a few videos looks better than it is. So it is compared with the untuned model
(zero-shot CLIP) by a one-sided randomisation test of the differences in reciprocal rank, video by video, in which the
best of all epochs is compared with the best that chance would give (Westfall and Young, "Resampling-Based Multiple
Testing", 1993, section 2.3). Without evidence the untuned model is kept: nothing is known to be gained. On fewer than
`FEWEST` videos there can be no evidence; there the best epoch is kept, and said to be unproven.

Shapes: `v` validation videos, `t` their captions, `c` epochs that were validated, `s` random relabellings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vop.evaluation.metrics import RetrievalMetrics

SWAPS = 10_000
LEVEL = 0.05  # how often a training that changes nothing may pass for a gain
FEWEST = 5  # videos; with fewer even a gain on every one of them is as likely by chance as `LEVEL`, or more
_BLOCK_CELLS = 2**22


def video_scores(metrics: RetrievalMetrics, targets: Sequence[int]) -> np.ndarray:
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
    gains = np.asarray(tuned) - np.asarray(untuned)  # (c, v)
    found = gains[chosen].sum()
    generator = np.random.default_rng(0)
    as_good = 0
    for start in range(0, SWAPS, block := max(1, _BLOCK_CELLS // gains.shape[1])):
        rows = min(block, SWAPS - start)
        signs = 2.0 * generator.integers(2, size=(rows, gains.shape[1])) - 1
        as_good += int((_best_sums(signs, gains) >= found - 1e-9).sum())
    return (as_good + 1) / (SWAPS + 1)


def _best_sums(signs: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(s, v) and (c, v) to (s,), the highest sum over the epochs; a video's gains change their sign together."""
    return (signs @ gains.T).max(axis=1)
