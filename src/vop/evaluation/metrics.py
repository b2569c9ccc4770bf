"""Retrieval metrics in both directions: R@1, R@5, R@10, median and mean rank.

With several captions per video, text-to-video (t2v) ranks every caption on its own and video-to-text (v2t) takes
each video's best-placed caption; videos without a caption are wrong items for t2v and no queries for v2t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from vop.errors import UsageError
from vop.evaluation.ranks import BLOCK_BYTES, Ranks, ranks_from_embeddings, ranks_from_similarity
from vop.utils.text import count

METRIC_NAMES = ("r1", "r5", "r10", "mdr", "mnr")
Targets = Sequence[int] | np.ndarray | Tensor


class DirectionDict(TypedDict):
    """`DirectionMetrics` as plain numbers."""

    r1: float
    r5: float
    r10: float
    mdr: float
    mnr: float


class MetricsDict(TypedDict):
    """`RetrievalMetrics` as plain numbers."""

    t2v: DirectionDict
    v2t: DirectionDict
    texts: int
    videos: int
    tie_rule: str


@dataclass(frozen=True)
class DirectionMetrics:
    """One direction's metrics.

    Attributes:
        r1, r5, r10: percentage of queries with rank 1, up to 5, up to 10.
        mdr, mnr: median and mean rank, from 1.
        queries, gallery: how many queries there were, and how many items each was ranked against.
        ranks: (queries,) int64, the rank of every query, in order (for v2t: of the videos that have a caption).
    """

    r1: float
    r5: float
    r10: float
    mdr: float
    mnr: float
    queries: int
    gallery: int
    ranks: np.ndarray = field(repr=False, compare=False)

    @classmethod
    def from_ranks(cls, ranks: np.ndarray, *, gallery: int) -> DirectionMetrics:
        """Metrics of `ranks` (queries,), each from 1 to `gallery`."""
        r1, r5, r10 = (100.0 * int(np.sum(ranks <= k)) / len(ranks) for k in (1, 5, 10))
        mdr, mnr = float(np.median(ranks)), float(np.mean(ranks))
        return cls(r1, r5, r10, mdr, mnr, queries=len(ranks), gallery=gallery, ranks=ranks)

    def to_dict(self) -> DirectionDict:
        return {"r1": self.r1, "r5": self.r5, "r10": self.r10, "mdr": self.mdr, "mnr": self.mnr}


@dataclass(frozen=True)
class RetrievalMetrics:
    """Both directions' metrics, how many texts and videos took part, and the tie rule that was used."""

    t2v: DirectionMetrics
    v2t: DirectionMetrics
    texts: int
    videos: int
    tie_rule: str = "pessimistic"

    @property
    def rsum(self) -> float:
        """R@1, R@5 and R@10 of both directions, added up."""
        return sum(way.r1 + way.r5 + way.r10 for way in (self.t2v, self.v2t))

    def to_dict(self) -> MetricsDict:
        """Plain numbers: `{"t2v": {"r1", "r5", "r10", "mdr", "mnr"}, "v2t": {…}, "texts", "videos", "tie_rule"}`."""
        return {
            "t2v": self.t2v.to_dict(),
            "v2t": self.v2t.to_dict(),
            "texts": self.texts,
            "videos": self.videos,
            "tie_rule": self.tie_rule,
        }


def retrieval_metrics(
    similarity: Tensor | np.ndarray,
    *,
    targets: Targets | None = None,
    tie_rule: str = "pessimistic",
    block_bytes: int = BLOCK_BYTES,
) -> RetrievalMetrics:
    """Metrics of a text x video matrix of scores, higher is better.

    Args:
        similarity: (texts, videos), a tensor (on any device) or an array.
        targets: (texts,), the index of each text's video; without it, text i belongs to video i.
        tie_rule: where a right item goes that ties with wrong ones: `pessimistic`, after them (constant scores give
            R@1 = 0), or `optimistic`, before them.
        block_bytes: about how much memory the comparisons of a block take.

    Raises:
        UsageError: the matrix is not two-dimensional and real, is empty, or holds NaN; targets do not fit it.
    """
    matrix = _real_matrix("similarity", similarity)
    indices = _targets(targets, texts=matrix.shape[0], videos=matrix.shape[1]).to(matrix.device)
    ranks = ranks_from_similarity(matrix, indices, tie_rule=tie_rule, block_bytes=block_bytes)
    return _metrics(ranks, len(matrix), matrix.shape[1], tie_rule)


def metrics_from_embeddings(
    texts: Tensor | np.ndarray,
    videos: Tensor | np.ndarray,
    *,
    targets: Targets | None = None,
    tie_rule: str = "pessimistic",
    block_bytes: int = BLOCK_BYTES,
) -> RetrievalMetrics:
    """Metrics of dot products between embeddings; never holds the text x video matrix.

    Args:
        texts: (texts, d).
        videos: (videos, d), on the same device.
        targets, tie_rule: as for `retrieval_metrics`.
        block_bytes: about how much memory the scores of a block take.

    Raises:
        UsageError: shapes, values or targets that do not fit each other.
    """
    texts, videos = _real_matrix("texts", texts), _real_matrix("videos", videos)
    if texts.shape[1] != videos.shape[1]:
        raise UsageError(
            f"texts have width {texts.shape[1]} and videos {videos.shape[1]}: embed both with the same model"
        )
    indices = _targets(targets, texts=len(texts), videos=len(videos)).to(texts.device)
    ranks = ranks_from_embeddings(texts, videos, indices, tie_rule=tie_rule, block_bytes=block_bytes)
    return _metrics(ranks, len(texts), len(videos), tie_rule)


def _metrics(ranks: Ranks, texts: int, videos: int, tie_rule: str) -> RetrievalMetrics:
    return RetrievalMetrics(
        t2v=DirectionMetrics.from_ranks(ranks.t2v.numpy(), gallery=videos),
        v2t=DirectionMetrics.from_ranks(ranks.v2t.numpy(), gallery=texts),
        texts=texts,
        videos=videos,
        tie_rule=tie_rule,
    )


def _real_matrix(name: str, matrix: Tensor | np.ndarray) -> Tensor:
    if isinstance(matrix, np.ndarray) and not (matrix.flags.writeable and min(matrix.strides, default=0) >= 0):
        matrix = matrix.copy()  # PyTorch shares only writeable memory with forward strides
    try:
        tensor = torch.as_tensor(matrix).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} is not a matrix of numbers: {error}") from error
    if tensor.ndim != 2 or tensor.is_complex():
        kind = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise UsageError(f"{name} is {kind}: give a real matrix with two dimensions")
    if tensor.numel() == 0:
        raise UsageError(f"{name} has shape {tuple(tensor.shape)}: at least one text and one video are needed")
    return tensor


def _targets(targets: Targets | None, *, texts: int, videos: int) -> Tensor:
    if targets is None:
        if texts != videos:
            raise UsageError(
                f"{count('text', texts)} and {count('video', videos)} are not pairs: say each text's video by targets="
            )
        return torch.arange(texts)
    plain = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    if plain.dtype.kind not in "iu":
        raise UsageError(f"targets are {plain.dtype}: give the index of each text's video, as integers")
    indices = torch.from_numpy(plain.astype(np.int64))  # a copy
    if tuple(indices.shape) != (texts,):
        raise UsageError(
            f"targets have shape {tuple(indices.shape)}: give one video index for each of {count('text', texts)}"
        )
    outside = indices[(indices < 0) | (indices >= videos)]
    if len(outside):
        raise UsageError(f"target {int(outside[0])} is not a video: allowed are 0 to {videos - 1}")
    return indices
