"""Metrics for moments: how often one of the first k found clips overlaps the right one.

Ties are broken against the query: of equal scores, clips that do not match come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vop.datasets.moments import MomentQuery
from vop.errors import DataError

RECALLS = (1, 5)
IOUS = (0.5, 0.7)

_BLOCK = 256  # queries; their scores with 100,000 clips take 100 MB

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class EmbeddedClips:
    """Clips of videos, which a search can find.

    Attributes:
        embeddings: float32 (n, e), of unit length.
        videos: (n,), the video of each clip, as an index like `MomentQuery.video`.
        starts, ends: (n,), in seconds.
    """

    embeddings: Floats
    videos: NDArray[np.int64]
    starts: Floats
    ends: Floats


@dataclass(frozen=True)
class MomentRecall:
    """Recall in percent, by k and then by IoU (`recall[5][0.7]`), and what no ranking of these clips can exceed.

    Attributes:
        recall: the share of the queries for which one of the first k clips matches.
        mean_iou: mean IoU of the first clip with the right one, in percent.
        reachable: by IoU: the share of the queries for which any clip of the video matches.
    """

    recall: dict[int, dict[float, float]]
    mean_iou: float
    reachable: dict[float, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def iou(starts: Floats, ends: Floats, *, start: float, end: float) -> Floats:
    """Return the intersection over union, in time, of clips (n,) with one clip."""
    common = np.clip(np.minimum(ends, end) - np.maximum(starts, start), 0, None)
    found: Floats = common / (np.maximum(ends, end) - np.minimum(starts, start))
    return np.where(common > 0, found, 0.0)


def agreed_iou(starts: Floats, ends: Floats, query: MomentQuery) -> Floats:
    """Return the IoU of clips (n,) with the right one: the highest that `query.agreeing` of its clips reach."""
    each = []
    for clip in query.clips:
        if clip.end_seconds is None:
            raise DataError(f"a clip of {query.sentence!r} has no end")
        each.append(iou(starts, ends, start=clip.start_seconds, end=clip.end_seconds))
    best: Floats = np.sort(np.stack(each), axis=0)[-query.agreeing]
    return best


def moment_recall(
    texts: Floats, clips: EmbeddedClips, queries: Sequence[MomentQuery]
) -> tuple[MomentRecall, MomentRecall]:
    """Measure how well clips are found by the cosine similarity with a query.

    Args:
        texts: (q, e), the embeddings of the queries, of unit length.

    Returns:
        recall among the clips of the query's own video, and among those of all videos.

    Raises:
        DataError: there are no queries.
    """
    if not queries:
        raise DataError("there are no queries whose video can be read")
    within: list[_Found] = []
    overall: list[_Found] = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        for query, scores in zip(block, texts[start : start + _BLOCK] @ clips.embeddings.T, strict=True):
            own = clips.videos == query.video
            overlap = np.zeros(len(own))
            overlap[own] = agreed_iou(clips.starts[own], clips.ends[own], query)
            within.append(_found(scores[own], overlap[own]))
            overall.append(_found(scores, overlap))
    return _summary(within), _summary(overall)


@dataclass(frozen=True)
class _Found:
    """What one query found: the IoU of its first clip, and for each of `IOUS` the place of the first that matches."""

    first: float
    places: list[float]


def _found(scores: Floats, overlap: Floats) -> _Found:
    best = overlap[scores == scores.max()].min()
    return _Found(float(best), [_first_match(scores, overlap >= threshold) for threshold in IOUS])


def _first_match(scores: Floats, matches: Flags) -> float:
    """Return the place of the best clip that matches, from 0; infinity if none does."""
    if not matches.any():
        return np.inf
    return float(np.count_nonzero(scores[~matches] >= scores[matches].max()))


def _summary(found: Sequence[_Found]) -> MomentRecall:
    places = np.array([query.places for query in found])  # (q, ious)
    return MomentRecall(
        recall={k: {iou: _percent(places[:, i] < k) for i, iou in enumerate(IOUS)} for k in RECALLS},
        mean_iou=100 * float(np.mean([query.first for query in found])),
        reachable={iou: _percent(np.isfinite(places[:, i])) for i, iou in enumerate(IOUS)},
    )


def _percent(flags: Flags) -> float:
    return 100 * float(np.mean(flags))
