"""Rescoring against loops that follow the formulas literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vop.errors import UsageError
from vop.evaluation.metrics import retrieval_metrics
from vop.evaluation.rescoring import dual_softmax, dual_softmax_metrics, qb_norm, qb_norm_metrics


def cosines(rows, columns, seed):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.6 - 0.8


def naive_dual_softmax(scores, temperature):
    result = np.zeros_like(scores)
    for j in range(scores.shape[1]):
        total = sum(math.exp(scores[k, j] / temperature) for k in range(len(scores)))
        for i in range(len(scores)):
            result[i, j] = scores[i, j] * math.exp(scores[i, j] / temperature) / total * len(scores)
    return result


def naive_qb_norm(scores, bank, beta, top_k):
    """As published: the quotient, for the rows whose best item is a hub."""
    hubs = {item for row in bank for item in np.argsort(-row)[:top_k]}
    result, active = scores.copy(), []
    for i, row in enumerate(scores):
        if np.argmax(row) in hubs:
            active.append(i)
            for j in range(len(row)):
                result[i, j] = math.exp(beta * row[j]) / sum(math.exp(beta * query[j]) for query in bank)
    return result, active


@pytest.mark.parametrize("temperature", [0.05, 1.0, 1000.0])
def test_dual_softmax_equals_its_formula(temperature):
    scores = cosines(7, 5, seed=0)
    expected = naive_dual_softmax(scores.numpy(), temperature)
    np.testing.assert_allclose(dual_softmax(scores, temperature=temperature).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("top_k", [1, 2])
def test_qb_norm_equals_its_formula(top_k):
    scores, bank = cosines(12, 9, seed=1), cosines(4, 9, seed=2)
    expected, active = naive_qb_norm(scores.numpy(), bank.numpy(), beta=20.0, top_k=top_k)
    assert 0 < len(active) < 12  # some rows change, some stay
    found = qb_norm(scores, bank, top_k=top_k).numpy()
    found[active] = np.exp(found[active])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_dual_softmax_resolves_hubs():
    """Video 0 is the best of two wrong texts, but prefers its own text, so they find their own videos again."""
    scores = torch.tensor([[0.9, 0.1, 0.1], [0.7, 0.6, 0.1], [0.7, 0.1, 0.6]])
    assert retrieval_metrics(scores).t2v.r1 == pytest.approx(100 / 3)
    assert dual_softmax_metrics(scores, temperature=0.05).t2v.r1 == 100.0


def test_qb_norm_resolves_hubs():
    scores = torch.tensor([[0.9, 0.1, 0.1], [0.7, 0.6, 0.1], [0.7, 0.1, 0.6]])
    bank = torch.tensor([[0.8, 0.1, 0.1], [0.8, 0.3, 0.2]])
    rescored = qb_norm_metrics(scores, text_bank=bank, video_bank=torch.zeros(1, 3))
    assert rescored.t2v.ranks.tolist() == [1, 1, 1]
    assert rescored.v2t.ranks.tolist() == retrieval_metrics(scores).v2t.ranks.tolist()  # a flat bank changes nothing


def test_each_direction_has_its_own_queries():
    """Equals loops over the transposed matrix, with several texts per video and a video without a text."""
    scores, targets = cosines(6, 5, seed=3), [0, 0, 1, 3, 4, 4]
    text_bank, video_bank = cosines(3, 5, seed=4), cosines(3, 6, seed=5)
    soft = dual_softmax_metrics(scores, targets=targets, temperature=0.1)
    by_text = naive_dual_softmax(scores.numpy(), 0.1)
    by_video = np.zeros((5, 6))
    by_video[[0, 1, 3, 4]] = naive_dual_softmax(scores.numpy().T[[0, 1, 3, 4]], 0.1)
    assert soft.t2v == retrieval_metrics(by_text, targets=targets).t2v
    assert soft.v2t == retrieval_metrics(by_video.T.copy(), targets=targets).v2t
    normed = qb_norm_metrics(scores, text_bank=text_bank, video_bank=video_bank, targets=targets)
    by_text, _ = naive_qb_norm(scores.numpy(), text_bank.numpy(), 20.0, 1)
    by_video, _ = naive_qb_norm(scores.numpy().T, video_bank.numpy(), 20.0, 1)
    assert normed.t2v == retrieval_metrics(by_text, targets=targets).t2v
    assert normed.v2t == retrieval_metrics(by_video.T.copy(), targets=targets).v2t


def test_large_scores_stay_finite():
    """Scores times CLIP's logit scale: exp(20 * 100) overflows, its logarithm does not."""
    scores, bank = 100 * cosines(5, 4, seed=6), 100 * cosines(5, 4, seed=7)
    assert qb_norm(scores, bank).isfinite().all()
    assert dual_softmax(scores, temperature=1.0).isfinite().all()


def test_inputs_are_not_changed():
    scores, bank = cosines(5, 4, seed=8), cosines(3, 4, seed=9)
    copies = scores.clone(), bank.clone()
    qb_norm_metrics(scores, text_bank=bank, video_bank=cosines(3, 5, seed=1), targets=[0, 1, 2, 3, 3])
    dual_softmax_metrics(scores, targets=[0, 1, 2, 3, 3], temperature=0.1)
    assert torch.equal(scores, copies[0])
    assert torch.equal(bank, copies[1])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(UsageError, match=f"temperature {temperature}"):
        dual_softmax(torch.eye(2), temperature=temperature)


def test_a_temperature_that_makes_scores_vanish_is_refused():
    with pytest.raises(UsageError, match=r"0\.001 is too small .* 0\.0014 or more"):
        dual_softmax(torch.eye(2), temperature=0.001)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta": 0.0}, r"beta 0\.0"),
        ({"top_k": 0}, "top_k 0 .* 1 to 3"),
        ({"top_k": 4}, "top_k 4 .* 1 to 3"),
        ({"bank": torch.zeros(2, 4)}, "4 items, the queries 3"),
        ({"bank": torch.full((2, 3), torch.nan)}, r"shape \(2, 3\)"),
    ],
)
def test_invalid_qb_norm_settings_are_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        qb_norm(torch.eye(3), **{"bank": torch.zeros(2, 3), **kwargs})
