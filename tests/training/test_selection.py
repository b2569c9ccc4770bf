from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from vop.evaluation.metrics import retrieval_metrics
from vop.training.selection import FEWEST, LEVEL, chance_of_gain, video_scores


def test_scores_are_mean_reciprocal_ranks_of_both_directions():
    similarity = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.8, 0.5]])  # the third caption is of video 1, and found second
    scores = video_scores(retrieval_metrics(similarity, targets=[0, 1, 1]), [0, 1, 1])
    assert scores == pytest.approx([1.0, ((1 + 1 / 2) / 2 + 1) / 2])


@pytest.mark.parametrize("seed", range(3))
def test_p_is_the_share_of_all_relabellings(seed):
    draw = np.random.default_rng(seed)
    tuned, untuned = draw.random((3, 8)), draw.random(8)
    gains = tuned - untuned
    for chosen in range(3):
        best = [(np.array(signs) * gains).sum(axis=1).max() for signs in product((-1, 1), repeat=8)]
        exact = np.mean(np.array(best) >= gains[chosen].sum() - 1e-9)
        assert chance_of_gain(tuned, untuned, chosen=chosen) == pytest.approx(exact, abs=0.015)


def test_enough_videos_prove_a_gain_on_all():
    for videos in (FEWEST - 1, FEWEST):
        p = chance_of_gain([[1.0] * videos], [0.5] * videos, chosen=0)
        assert (p < LEVEL) == (videos >= FEWEST)


def test_more_epochs_need_larger_gains():
    draw = np.random.default_rng(0)
    untuned = draw.random(30)
    many = untuned + draw.normal(0, 0.3, (20, 30))
    best = int(many.mean(axis=1).argmax())
    alone = chance_of_gain(many[best : best + 1], untuned, chosen=0)
    assert alone < chance_of_gain(many, untuned, chosen=best)


def test_false_gains_are_rare():
    found = []
    for seed in range(200):
        draw = np.random.default_rng(seed)
        untuned = draw.random(12)
        tuned = untuned + draw.normal(0, 0.3, (5, 12))
        found.append(chance_of_gain(tuned, untuned, chosen=int(tuned.mean(axis=1).argmax())) < LEVEL)
    assert np.mean(found) < 0.1


def test_equal_scores_are_no_gain():
    assert chance_of_gain([[0.5] * 20], [0.5] * 20, chosen=0) == 1
