"""Ranks of the right items, counted block by block: no full matrix is made and nothing is sorted.

The rank of a query is one plus the number of *wrong* items placed before its best-placed right item. Ties follow
the `pessimistic` rule by default: a right item that ties with wrong ones is placed after them, so that constant
scores give R@1 = 0; `optimistic` places it before them. A query's other right items are never wrong ones.

Shapes: `t` texts, `v` videos, `d` width, `q` queries of a block, `g` items of the gallery, `p` right pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vop.errors import UsageError, unknown_name

TIE_RULES = ("pessimistic", "optimistic")
BLOCK_BYTES = 32 * 2**20  # the scores of one block; a few such buffers live at a time


class Ranks(NamedTuple):
    """Ranks from 1 as int64 tensors on the CPU.

    Attributes:
        t2v: (t,), the rank of every text's video among all videos.
        v2t: (videos with a text,), the rank of each video's best-placed text among all texts.
        queried: (videos with a text,), the ascending indices of the videos that `v2t` is about.
    """

    t2v: Tensor
    v2t: Tensor
    queried: Tensor


class _Scores(NamedTuple):
    """Where one direction's scores come from: `rows` turns ascending query indices (q,) into scores (q, g)."""

    rows: Callable[[Tensor], Tensor]
    scratch: bool  # a block's scores are of no use to anyone else, and may be overwritten


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
    """Ranks in both directions from a text x video matrix.

    Args:
        similarity: (t, v), higher is better; any real type, compared as it is.
        targets: (t,) int64, the index of each text's video.
        tie_rule: one of `TIE_RULES`.
        block_bytes: about how much memory the scores of a block take.

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
    """Ranks in both directions by dot products, in blocks: memory grows with t + v, not with t x v.

    Embeddings below float32 are multiplied in float32. Items with equal embeddings tie exactly: each distinct one
    is multiplied once and its score is shared, since the last bits of a matrix product depend on an item's place.

    Args:
        texts: (t, d).
        videos: (v, d), on the same device.
        targets: (t,) int64, the index of each text's video.
        tie_rule: one of `TIE_RULES`.
        block_bytes: about how much memory the scores of a block take.

    Raises:
        UsageError: an embedding is not finite, or the tie rule is unknown.
    """
    dtype = torch.float64 if torch.float64 in (texts.dtype, videos.dtype) else torch.float32
    texts, videos = texts.detach().to(dtype), videos.detach().to(dtype)
    for name, embeddings in (("texts", texts), ("videos", videos)):
        if not embeddings.isfinite().all():
            row = int((~embeddings.isfinite().all(dim=1)).nonzero()[0])
            raise UsageError(f"the embedding of row {row} of {name} is not finite: rank finite embeddings only")
    shape = torch.Size((len(texts), len(videos)))
    # Autocast would silently multiply in 16 bits.
    with torch.autocast(texts.device.type, enabled=False):
        by_text, by_video = _products(texts, videos, block_bytes), _products(videos, texts, block_bytes)
        return _both_directions(by_text, by_video, shape, targets, tie_rule, block_bytes)


def similarity_matrix(texts: Tensor, videos: Tensor) -> Tensor:
    """The whole (t, v) matrix of dot products, float32, in which equal embeddings have exactly equal scores."""
    texts, row = torch.unique(texts.detach().float(), dim=0, return_inverse=True)
    videos, column = torch.unique(videos.detach().float(), dim=0, return_inverse=True)
    with torch.autocast(texts.device.type, enabled=False):
        return (texts @ videos.T)[row][:, column]


def _columns(matrix: Tensor, indices: Tensor) -> Tensor:
    """The columns at ascending `indices`; a view where they follow one another."""
    first, last = int(indices[0]), int(indices[-1])
    return matrix[:, first : last + 1] if last - first + 1 == len(indices) else matrix[:, indices]


def _products(queries: Tensor, gallery: Tensor, block_bytes: int) -> _Scores:
    """Scores by dot products, equal for equal items of the gallery; a buffer is filled again for every block."""
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
    """Ranks of `queries`, ascending indices."""
    # Filled in place: small tensors that outlive their block would keep the heap from reusing the block's memory.
    ranks = torch.empty_like(queries)
    for start in range(0, len(queries), block_rows):
        stop = min(start + block_rows, len(queries))
        scores = source.rows(queries[start:stop])
        if not scores.is_floating_point():
            scores = scores.double()
        if scores.amax().isnan():  # amax passes a NaN on, and makes no copy
            raise UsageError("a score is NaN: rank real scores only, and look for the model or video behind it")
        ranks[start:stop] = _rank_block(scores, pairs.of_block(start, stop), tie_rule, scratch=source.scratch)
    return ranks


def _rank_block(scores: Tensor, pairs: _Pairs, tie_rule: str, *, scratch: bool) -> Tensor:
    """1 + the number of wrong items that come before the best right one; scores (q, g) -> (q,) int64.

    The right items' scores are read out of the same block as their competitors', so that equal stays equal.
    """
    before = torch.ge if tie_rule == "pessimistic" else torch.gt
    right = scores[pairs.places, pairs.items]  # (p,)
    best = scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, pairs.places, right, "amax")
    right_before = torch.zeros_like(best, dtype=torch.int64)
    right_before.index_add_(0, pairs.places, before(right, best[pairs.places]).long())
    # A comparison written as floats is summed more than twice as fast as booleans are, and as exactly.
    marks = scores if scratch else torch.empty_like(scores, dtype=torch.float32)
    before(scores, best[:, None], out=marks)
    exact = torch.float32 if scores.shape[1] < 2**24 else torch.float64
    return 1 + marks.sum(dim=1, dtype=exact).long() - right_before
