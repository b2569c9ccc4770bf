"""Retrieval metrics in both directions, R@1, R@5, R@10, median and mean rank, and the ranks they come from.

The rank of a query is one plus the number of *wrong* items that rank before its best right item. Ties follow the
`pessimistic` rule by default: a right item that ties with wrong ones is placed after them, so that constant scores
give R@1 = 0; `optimistic` places it before them. Other right items of a query do not count as wrong. Ranks are
counted block by block, without a full matrix and without sorting.

With several captions per video, text-to-video (t2v) ranks every caption on its own, and video-to-text (v2t) uses
each video's best caption. Videos without a caption are wrong items for t2v, but not queries for v2t.

Shapes: `t` texts, `v` videos, `d` width, `q` queries of a block, `g` items of the gallery, `p` right pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from vop.errors import UsageError, unknown_name
from vop.utils.text import count

TIE_RULES = ("pessimistic", "optimistic")
BLOCK_BYTES = 32 * 2**20  # the scores of one block; a few of these buffers exist at a time
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
        queries, gallery: the number of queries, and of the items that each was ranked against.
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
        """Return the metrics of `ranks` (queries,), each from 1 to `gallery`."""
        r1, r5, r10 = (100.0 * int(np.sum(ranks <= k)) / len(ranks) for k in (1, 5, 10))
        mdr, mnr = float(np.median(ranks)), float(np.mean(ranks))
        return cls(r1, r5, r10, mdr, mnr, queries=len(ranks), gallery=gallery, ranks=ranks)

    def to_dict(self) -> DirectionDict:
        return {"r1": self.r1, "r5": self.r5, "r10": self.r10, "mdr": self.mdr, "mnr": self.mnr}


@dataclass(frozen=True)
class RetrievalMetrics:
    """Metrics of both directions, the numbers of texts and videos, and the tie rule."""

    t2v: DirectionMetrics
    v2t: DirectionMetrics
    texts: int
    videos: int
    tie_rule: str = "pessimistic"

    @property
    def rsum(self) -> float:
        """Sum of R@1, R@5 and R@10 of both directions."""
        return sum(way.r1 + way.r5 + way.r10 for way in (self.t2v, self.v2t))

    def to_dict(self) -> MetricsDict:
        """Return `{"t2v": {"r1", "r5", "r10", "mdr", "mnr"}, "v2t": {…}, "texts", "videos", "tie_rule"}`."""
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
    """Return the metrics of a text x video matrix of scores; higher is better.

    Args:
        similarity: (texts, videos), a tensor (on any device) or an array.
        targets: (texts,), the index of each text's video; without it, text i belongs to video i.
        tie_rule: the place of a right item that ties with wrong ones: `pessimistic`, after them (constant scores
            give R@1 = 0), or `optimistic`, before them.
        block_bytes: approximate memory for the comparisons of a block.

    Raises:
        UsageError: the matrix is not two-dimensional and real, is empty, or holds NaN; or the targets do not match it.
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
    """Return the metrics of dot products between embeddings, without the text x video matrix in memory.

    Args:
        texts: (texts, d).
        videos: (videos, d), on the same device.
        targets, tie_rule: as for `retrieval_metrics`.
        block_bytes: approximate memory for the scores of a block.

    Raises:
        UsageError: the shapes, values or targets do not match.
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
        raise UsageError(f"{name} has shape {tuple(tensor.shape)}: give at least one text and one video")
    return tensor


def _targets(targets: Targets | None, *, texts: int, videos: int) -> Tensor:
    if targets is None:
        if texts != videos:
            raise UsageError(
                f"{count('text', texts)} and {count('video', videos)} do not form pairs: give the index of each text's "
                "video as targets="
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
        raise UsageError(f"target {int(outside[0])} is not the index of a video: give 0 to {videos - 1}")
    return indices


# -- ranks


class Ranks(NamedTuple):
    """Ranks from 1 as int64 tensors on the CPU.

    Attributes:
        t2v: (t,), the rank of every text's video among all videos.
        v2t: (videos with a text,), the rank of each video's best-placed text among all texts.
        queried: (videos with a text,), the ascending indices of the videos in `v2t`.
    """

    t2v: Tensor
    v2t: Tensor
    queried: Tensor


class _Scores(NamedTuple):
    """Source of one direction's scores: `rows` turns ascending query indices (q,) into scores (q, g)."""

    rows: Callable[[Tensor], Tensor]
    scratch: bool  # whether a block's scores may be overwritten


class _Pairs(NamedTuple):
    """Right pairs, sorted by query: item `items[n]` is right for the query at place `places[n]`."""

    places: Tensor  # (p,)
    items: Tensor  # (p,)

    def of_block(self, start: int, stop: int) -> _Pairs:
        bounds = torch.tensor([start, stop], device=self.places.device)
        first, last = torch.searchsorted(self.places, bounds).tolist()
        return _Pairs(self.places[first:last] - start, self.items[first:last])


def ranks_from_similarity(
    similarity: Tensor, targets: Tensor, *, tie_rule: str = "pessimistic", block_bytes: int = BLOCK_BYTES
) -> Ranks:
    """Return the ranks in both directions from a text x video matrix.

    Args:
        similarity: (t, v), higher is better; of any real type.
        targets: (t,) int64, the index of each text's video.
        tie_rule: one of `TIE_RULES`.
        block_bytes: approximate memory for the scores of a block.

    Raises:
        UsageError: a score is not a number, or the tie rule is unknown.
    """

    def text_rows(texts: Tensor) -> Tensor:
        return similarity[texts[0] : texts[-1] + 1]  # every text is a query, so a block is a view

    def video_rows(videos: Tensor) -> Tensor:
        return _columns(similarity, videos).T

    by_text, by_video = _Scores(text_rows, scratch=False), _Scores(video_rows, scratch=False)
    return _both_directions(by_text, by_video, similarity.shape, targets, tie_rule, block_bytes)


def ranks_from_embeddings(
    texts: Tensor,
    videos: Tensor,
    targets: Tensor,
    *,
    tie_rule: str = "pessimistic",
    block_bytes: int = BLOCK_BYTES,
) -> Ranks:
    """Return the ranks in both directions by dot products, in blocks: memory grows with t + v, not with t x v.

    Embeddings below float32 are multiplied in float32. Items with equal embeddings tie exactly: each distinct one
    is multiplied once and its score is shared, since the last bits of a matrix product depend on an item's position.

    Args:
        texts: (t, d).
        videos: (v, d), on the same device.
        targets: (t,) int64, the index of each text's video.
        tie_rule: one of `TIE_RULES`.
        block_bytes: approximate memory for the scores of a block.

    Raises:
        UsageError: an embedding is not finite, or the tie rule is unknown.
    """
    dtype = torch.float64 if torch.float64 in (texts.dtype, videos.dtype) else torch.float32
    texts, videos = texts.detach().to(dtype), videos.detach().to(dtype)
    for name, embeddings in (("texts", texts), ("videos", videos)):
        if not embeddings.isfinite().all():
            row = int((~embeddings.isfinite().all(dim=1)).nonzero()[0])
            raise UsageError(f"the embedding in row {row} of {name} is not finite: give finite embeddings")
    shape = torch.Size((len(texts), len(videos)))
    # Autocast would silently multiply in 16 bits.
    with torch.autocast(texts.device.type, enabled=False):
        by_text, by_video = _products(texts, videos, block_bytes), _products(videos, texts, block_bytes)
        return _both_directions(by_text, by_video, shape, targets, tie_rule, block_bytes)


def similarity_matrix(texts: Tensor, videos: Tensor) -> Tensor:
    """Return the (t, v) matrix of dot products, float32, in which equal embeddings have exactly equal scores."""
    texts, row = torch.unique(texts.detach().float(), dim=0, return_inverse=True)
    videos, column = torch.unique(videos.detach().float(), dim=0, return_inverse=True)
    with torch.autocast(texts.device.type, enabled=False):
        return (texts @ videos.T)[row][:, column]


def _columns(matrix: Tensor, indices: Tensor) -> Tensor:
    """Return the columns at ascending `indices`, as a view if they are adjacent."""
    first, last = int(indices[0]), int(indices[-1])
    return matrix[:, first : last + 1] if last - first + 1 == len(indices) else matrix[:, indices]


def _products(queries: Tensor, gallery: Tensor, block_bytes: int) -> _Scores:
    """Return scores by dot products, equal for equal items of the gallery. All blocks share one buffer."""
    distinct, place = torch.unique(gallery, dim=0, return_inverse=True)
    buffer = queries.new_empty(min(len(queries), _block_rows(len(gallery), block_bytes)), len(gallery))

    def rows(block: Tensor) -> Tensor:
        out = buffer[: len(block)]
        if len(distinct) == len(gallery):
            return torch.mm(queries[block], gallery.T, out=out)
        return torch.index_select(queries[block] @ distinct.T, 1, place, out=out)

    return _Scores(rows, scratch=True)


def _both_directions(
    by_text: _Scores,
    by_video: _Scores,
    shape: torch.Size,
    targets: Tensor,
    tie_rule: str,
    block_bytes: int,
) -> Ranks:
    if tie_rule not in TIE_RULES:
        raise unknown_name("tie rule", tie_rule, TIE_RULES)
    texts = torch.arange(shape[0], device=targets.device)
    ordered = torch.argsort(targets, stable=True)  # texts, by their video
    queried, places = torch.unique(targets[ordered], return_inverse=True)
    t2v = _rank(by_text, texts, _Pairs(texts, targets), tie_rule, _block_rows(shape[1], block_bytes))
    v2t = _rank(by_video, queried, _Pairs(places, ordered), tie_rule, _block_rows(shape[0], block_bytes))
    return Ranks(t2v.cpu(), v2t.cpu(), queried.cpu())


def _block_rows(gallery: int, block_bytes: int) -> int:
    return max(1, block_bytes // (4 * gallery))


def _rank(source: _Scores, queries: Tensor, pairs: _Pairs, tie_rule: str, block_rows: int) -> Tensor:
    """Return the ranks of `queries`, which are ascending indices."""
    # Filled in place: small tensors that outlive their block would keep the heap from reusing the block's memory.
    ranks = torch.empty_like(queries)
    for start in range(0, len(queries), block_rows):
        stop = min(start + block_rows, len(queries))
        scores = source.rows(queries[start:stop])
        if not scores.is_floating_point():
            scores = scores.double()
        if scores.amax().isnan():  # amax propagates NaN, and makes no copy
            raise UsageError(
                "a score is NaN: give real scores only, and look for the model or the video that causes it"
            )
        ranks[start:stop] = _rank_block(scores, pairs.of_block(start, stop), tie_rule, scratch=source.scratch)
    return ranks


def _rank_block(scores: Tensor, pairs: _Pairs, tie_rule: str, *, scratch: bool) -> Tensor:
    """Return 1 + the number of wrong items before the best right one; scores (q, g) -> (q,) int64.

    The right items' scores are read from the same block as those of the wrong items, so that equal scores stay equal.
    """
    before = torch.ge if tie_rule == "pessimistic" else torch.gt
    right = scores[pairs.places, pairs.items]  # (p,)
    best = scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, pairs.places, right, "amax")
    right_before = torch.zeros_like(best, dtype=torch.int64)
    right_before.index_add_(0, pairs.places, before(right, best[pairs.places]).long())
    # Comparison results as floats are summed more than twice as fast as booleans, and as exactly.
    marks = scores if scratch else torch.empty_like(scores, dtype=torch.float32)
    before(scores, best[:, None], out=marks)
    exact = torch.float32 if scores.shape[1] < 2**24 else torch.float64
    return 1 + marks.sum(dim=1, dtype=exact).long() - right_before
