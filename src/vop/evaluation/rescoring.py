"""Rescore a similarity matrix with the help of other queries: dual softmax and QB-Norm.

Both use several queries at a time, which is another task than retrieval. Their results are shown beside the headline
metrics and never replace them. Choose `temperature` and `beta` on validation data.

Memory: both compute on whole matrices in float64, and need about 48 bytes x texts x videos besides the input (4.8 GB
for 10,000 x 10,000; measured with banks no larger than the matrix).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vop.errors import UsageError
from vop.evaluation.metrics import DirectionMetrics, RetrievalMetrics, Targets, retrieval_metrics
from vop.utils.text import count

_LARGEST_EXPONENT = 700.0  # exp(-700) is still a number in float64


def dual_softmax(similarity: Tensor, *, temperature: float = 0.01) -> Tensor:
    """Return `S * softmax(S / T, over queries) * N`, which lowers an item's scores except for its best queries.

    This is CAMoE's dual softmax at test time (Cheng et al., 2021, arXiv 2109.04290).

    Args:
        similarity: (queries N, gallery), cosines. Transpose a text x video matrix for v2t.
        temperature: T > 0, in units of the scores; the default is one over CLIP's logit scale.

    Returns:
        (queries, gallery) float64.

    Raises:
        UsageError: the scores are not finite, or T is not positive or so small that exponentials would underflow.
    """
    scores = _finite(similarity)
    if not temperature > 0:
        raise UsageError(f"temperature {temperature} is not allowed: give a positive number")
    span = float(scores.max() - scores.min())
    if span / temperature > _LARGEST_EXPONENT:
        least = span / _LARGEST_EXPONENT
        raise UsageError(
            f"temperature {temperature} is too small for scores that span {span:g}: use {least:.2g} or more"
        )
    return scores * torch.softmax(scores / temperature, dim=0) * len(scores)


def qb_norm(similarity: Tensor, bank: Tensor, *, beta: float = 20.0, top_k: int = 1) -> Tensor:
    """Apply QB-Norm's dynamic inverted softmax, which lowers the scores of hubs.

    Hubs are items among the `top_k` items of any query of the bank. If a query's best item is a hub, the query's row
    becomes `log(exp(beta S_ij) / sum_k exp(beta B_kj))`; other rows do not change. The logarithm ranks a row as the
    paper's quotient does, but neither overflows nor underflows. Bogolin et al., CVPR 2022, "Cross Modal Retrieval with
    Querybank Normalisation"; `beta = 20` and `top_k = 1` are its defaults.

    Args:
        similarity: (queries, gallery), cosines. Transpose a text x video matrix for v2t.
        bank: (bank queries, gallery), the scores of *training* queries against the same gallery.
        beta: the inverse temperature, positive.
        top_k: how many items of each query of the bank count as hubs.

    Returns:
        (queries, gallery) float64; rows are comparable within themselves only.

    Raises:
        UsageError: a value is not finite or not allowed, or the bank belongs to another gallery.
    """
    scores, bank = _finite(similarity), _finite(bank)
    if bank.shape[1] != scores.shape[1]:
        raise UsageError(
            f"the bank ranks {count('item', bank.shape[1])}, the queries {scores.shape[1]:,}: use the same gallery"
        )
    if not beta > 0:
        raise UsageError(f"beta {beta} is not allowed: give a positive number")
    if not 1 <= top_k <= bank.shape[1]:
        raise UsageError(f"top_k {top_k} is not allowed: give 1 to {bank.shape[1]}")
    is_hub = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
    is_hub[bank.topk(top_k, dim=1).indices.flatten()] = True
    active = is_hub[scores.argmax(dim=1)]  # (queries,)
    normalised = beta * scores - torch.logsumexp(beta * bank, dim=0)
    return torch.where(active[:, None], normalised, scores)


def dual_softmax_metrics(
    similarity: Tensor,
    *,
    targets: Targets | None = None,
    temperature: float = 0.01,
    tie_rule: str = "pessimistic",
) -> RetrievalMetrics:
    """Return the metrics of a (texts, videos) matrix after `dual_softmax`, applied to each direction separately.

    Videos without a text are not queries, so the softmax of v2t leaves them out.
    """
    plain = retrieval_metrics(similarity, targets=targets, tie_rule=tie_rule)
    queried = _queried_videos(similarity, targets)
    by_video = torch.zeros_like(similarity, dtype=torch.float64)
    by_video[:, queried] = dual_softmax(similarity[:, queried].T, temperature=temperature).T
    t2v = retrieval_metrics(dual_softmax(similarity, temperature=temperature), targets=targets, tie_rule=tie_rule).t2v
    v2t = retrieval_metrics(by_video, targets=targets, tie_rule=tie_rule).v2t
    return _joined(plain, t2v, v2t)


def qb_norm_metrics(
    similarity: Tensor,
    *,
    text_bank: Tensor,
    video_bank: Tensor,
    targets: Targets | None = None,
    beta: float = 20.0,
    top_k: int = 1,
    tie_rule: str = "pessimistic",
) -> RetrievalMetrics:
    """Return the metrics of a (texts, videos) matrix after `qb_norm`, each direction with its own bank.

    Args:
        similarity: (texts, videos).
        text_bank: (training texts, videos), for t2v.
        video_bank: (training videos, texts), for v2t.
        targets, tie_rule: as for `retrieval_metrics`.
        beta, top_k: as for `qb_norm`.
    """
    plain = retrieval_metrics(similarity, targets=targets, tie_rule=tie_rule)
    by_text = qb_norm(similarity, text_bank, beta=beta, top_k=top_k)
    by_video = qb_norm(similarity.T, video_bank, beta=beta, top_k=top_k).T
    t2v = retrieval_metrics(by_text, targets=targets, tie_rule=tie_rule).t2v
    v2t = retrieval_metrics(by_video, targets=targets, tie_rule=tie_rule).v2t
    return _joined(plain, t2v, v2t)


def _joined(plain: RetrievalMetrics, t2v: DirectionMetrics, v2t: DirectionMetrics) -> RetrievalMetrics:
    return RetrievalMetrics(t2v, v2t, texts=plain.texts, videos=plain.videos, tie_rule=plain.tie_rule)


def _queried_videos(similarity: Tensor, targets: Targets | None) -> Tensor:
    indices = torch.arange(len(similarity)) if targets is None else torch.as_tensor(targets)
    return torch.unique(indices).to(similarity.device)


def _finite(scores: Tensor) -> Tensor:
    if scores.ndim != 2 or scores.numel() == 0 or not scores.isfinite().all():
        raise UsageError(f"scores of shape {tuple(scores.shape)} cannot be rescored: give a finite, non-empty matrix")
    return scores.double()
