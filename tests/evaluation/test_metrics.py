"""Metrics computed by hand and against each other, and refused input."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import vop
from vop.errors import UsageError
from vop.evaluation.metrics import metrics_from_embeddings, retrieval_metrics

# Text 0 finds its video first, text 1 third, text 2 second.
SCORES = [[0.9, 0.1, 0.2], [0.8, 0.1, 0.3], [0.1, 0.6, 0.5]]


def test_a_small_matrix_by_hand():
    metrics = retrieval_metrics(torch.tensor(SCORES))
    assert metrics.t2v.ranks.tolist() == [1, 3, 2]
    assert metrics.v2t.ranks.tolist() == [1, 3, 1]  # video 1's own text ties with text 0
    assert metrics.t2v.r1 == pytest.approx(100 / 3)
    assert metrics.t2v.r5 == metrics.t2v.r10 == 100.0
    assert (metrics.t2v.mdr, metrics.t2v.mnr) == (2.0, 2.0)
    assert metrics.v2t.r1 == pytest.approx(200 / 3)
    assert (metrics.v2t.mdr, metrics.v2t.mnr) == (1.0, pytest.approx(5 / 3))


def test_to_dict_is_plain_and_complete():
    found = json.loads(json.dumps(retrieval_metrics(np.array(SCORES)).to_dict()))
    assert set(found) == {"t2v", "v2t", "texts", "videos", "tie_rule"}
    assert set(found["t2v"]) == set(found["v2t"]) == {"r1", "r5", "r10", "mdr", "mnr"}
    assert (found["texts"], found["videos"], found["tie_rule"]) == (3, 3, "pessimistic")


def test_metrics_are_public_and_frozen():
    metrics = vop.retrieval_metrics(np.eye(4))
    assert metrics.t2v.r1 == metrics.v2t.r1 == 100.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.t2v.r1 = 0.0
    assert "array" not in repr(metrics)
    assert metrics == vop.retrieval_metrics(np.eye(4))


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_constant_scores_find_nothing(n):
    metrics = retrieval_metrics(np.full((n, n), 0.25))
    assert metrics.t2v.r1 == metrics.v2t.r1 == 0.0
    assert metrics.t2v.mnr == metrics.v2t.mnr == n
    assert retrieval_metrics(np.full((n, n), 0.25), tie_rule="optimistic").t2v.r1 == 100.0


def test_one_pair_alone_is_found():
    assert retrieval_metrics(np.zeros((1, 1))).t2v.r1 == 100.0


def test_several_captions_and_a_video_without_one():
    """v2t uses the best caption of a video, ignores its other captions, and skips video 1, which has none."""
    scores = [[0.9, 0.9, 0.0], [0.2, 0.1, 0.0], [0.5, 0.0, 0.4]]
    metrics = retrieval_metrics(np.array(scores), targets=[0, 0, 2])
    assert metrics.t2v.ranks.tolist() == [2, 1, 2]  # text 0 ties with video 1
    assert metrics.v2t.ranks.tolist() == [1, 1]
    assert (metrics.v2t.queries, metrics.v2t.gallery) == (2, 3)
    assert (metrics.t2v.queries, metrics.t2v.gallery) == (3, 3)


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor])
def test_targets_of_every_kind(convert):
    metrics = retrieval_metrics(torch.eye(3)[[2, 0, 1]], targets=convert([2, 0, 1]))
    assert metrics.t2v.r1 == metrics.v2t.r1 == 100.0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_scores_of_every_type(dtype):
    scores = np.array([[9, 1, 2], [8, 1, 3], [1, 6, 5]]).astype(dtype)
    assert retrieval_metrics(scores).t2v.ranks.tolist() == [1, 3, 2]


def test_views_and_read_only_arrays():
    scores = np.array(SCORES, dtype=np.float32)
    frozen = scores.copy()
    frozen.flags.writeable = False
    expected = retrieval_metrics(scores)
    assert retrieval_metrics(frozen) == expected
    backwards = retrieval_metrics(scores[::-1, ::-1])
    assert backwards.t2v.ranks.tolist() == expected.t2v.ranks.tolist()[::-1]
    transposed = retrieval_metrics(scores.T)
    assert (transposed.t2v, transposed.v2t) == (expected.v2t, expected.t2v)


def test_minus_infinity_is_a_score():
    """A masked pair is ranked last."""
    scores = torch.eye(3)
    scores[0] = -torch.inf
    assert retrieval_metrics(scores).t2v.ranks.tolist() == [3, 1, 1]


def test_embeddings_give_the_numbers_of_their_matrix():
    generator = torch.Generator().manual_seed(0)
    videos = normalize(torch.randn(40, 24, generator=generator, dtype=torch.float64), dim=1)
    targets = torch.randint(0, 40, (90,), generator=generator)
    texts = normalize(videos[targets] + 0.3 * torch.randn(90, 24, generator=generator).double(), dim=1)
    direct = metrics_from_embeddings(texts, videos, targets=targets)
    assert 10 < direct.t2v.r1 < 90
    assert direct == retrieval_metrics(texts @ videos.T, targets=targets)


@pytest.mark.parametrize(
    ("similarity", "targets", "message"),
    [
        (np.zeros(3), None, r"shape \(3,\)"),
        (np.zeros((2, 2, 2)), None, r"shape \(2, 2, 2\)"),
        (np.zeros((0, 0)), None, r"shape \(0, 0\)"),
        (np.zeros((4, 5)), None, "4 texts and 5 videos"),
        (np.eye(2, dtype=complex), None, "complex"),
        (np.array([["a", "b"]]), None, "not a matrix of numbers"),
        (np.eye(3), [0, 1], r"shape \(2,\).*3 texts"),
        (np.eye(3), [0, 1, 3], "target 3 .* 0 to 2"),
        (np.eye(3), [0, -1, 2], "target -1 "),
        (np.eye(3), [0.0, 1.0, 2.0], "float64"),
        (np.eye(3), [True, False, True], "bool"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), None, "NaN"),
    ],
)
def test_mismatched_inputs_are_named(similarity, targets, message):
    with pytest.raises(UsageError, match=message):
        retrieval_metrics(similarity, targets=targets)


def test_different_widths_are_named():
    with pytest.raises(UsageError, match="width 4 and videos 5"):
        metrics_from_embeddings(torch.zeros(2, 4), torch.zeros(2, 5))
