"""Ranks in blocks against loops over every query."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vop.errors import UsageError
from vop.evaluation.metrics import ranks_from_embeddings, ranks_from_similarity, similarity_matrix


def naive_ranks(scores, targets, tie_rule="pessimistic"):
    """For each text: 1 + wrong videos before its own. For each video: 1 + wrong texts before its best one."""
    before = (
        (lambda wrong, right: wrong >= right) if tie_rule == "pessimistic" else (lambda wrong, right: wrong > right)
    )
    texts, videos = range(len(scores)), range(len(scores[0]))
    t2v = [1 + sum(before(scores[t][v], scores[t][targets[t]]) for v in videos if v != targets[t]) for t in texts]
    v2t = []
    for v in videos:
        own = [scores[t][v] for t in texts if targets[t] == v]
        if own:
            v2t.append(1 + sum(before(scores[t][v], max(own)) for t in texts if targets[t] != v))
    return t2v, v2t


@st.composite
def problems(draw):
    """A score matrix with many ties, several texts per video, videos without a text, and an uneven block size."""
    texts, videos = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    row = st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.5, 0.75]), min_size=videos, max_size=videos)
    scores = draw(st.lists(row, min_size=texts, max_size=texts))
    targets = draw(st.lists(st.integers(0, videos - 1), min_size=texts, max_size=texts))
    return scores, targets, draw(st.sampled_from(["pessimistic", "optimistic"])), draw(st.integers(1, 400))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_matrix_ranks_equal_loops(problem):
    scores, targets, tie_rule, block_bytes = problem
    matrix = torch.tensor(scores)
    ranks = ranks_from_similarity(matrix, torch.tensor(targets), tie_rule=tie_rule, block_bytes=block_bytes)
    t2v, v2t = naive_ranks(scores, targets, tie_rule)
    assert ranks.t2v.tolist() == t2v
    assert ranks.v2t.tolist() == v2t
    assert ranks.queried.tolist() == sorted(set(targets))
    assert matrix.tolist() == scores  # the input is not changed


@settings(max_examples=200, deadline=None)
@given(problems(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_embedding_ranks_equal_loops(problem, width, random):
    """Dot products of small integers are exact, so ties are the same in the loops."""
    scores, targets, tie_rule, block_bytes = problem
    texts = [[random.randint(-2, 2) for _ in range(width)] for _ in scores]
    videos = [[random.randint(-2, 2) for _ in range(width)] for _ in scores[0]]
    products = [[sum(a * b for a, b in zip(text, video, strict=True)) for video in videos] for text in texts]
    ranks = ranks_from_embeddings(
        torch.tensor(texts).float(),
        torch.tensor(videos).float(),
        torch.tensor(targets),
        tie_rule=tie_rule,
        block_bytes=block_bytes,
    )
    t2v, v2t = naive_ranks(products, targets, tie_rule)
    assert ranks.t2v.tolist() == t2v
    assert ranks.v2t.tolist() == v2t


@pytest.mark.parametrize("block_bytes", [1, 4 * 211 * 7, 2**20])
def test_uneven_blocks_agree_with_a_full_argsort(block_bytes):
    generator = torch.Generator().manual_seed(3)
    texts = normalize(torch.randn(211, 16, generator=generator), dim=1)
    videos = normalize(texts + 0.4 * torch.randn(211, 16, generator=generator), dim=1)
    scores = (texts.double() @ videos.double().T).numpy()
    ranks = ranks_from_embeddings(texts.double(), videos.double(), torch.arange(211), block_bytes=block_bytes)
    for found, matrix in ((ranks.t2v, scores), (ranks.v2t, scores.T)):
        order = np.argsort(-matrix, axis=1)
        expected = np.argwhere(order == np.arange(211)[:, None])[:, 1] + 1
        assert len(set(expected)) > 10
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("block_bytes", [1, 4 * 300 * 7, 2**25])
def test_equal_captions_tie_exactly_in_every_block_shape(block_bytes):
    """As in MSR-VTT 1k-A, some captions occur twice: in v2t each of their videos has exactly one more tie."""
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(300, 512, generator=generator), dim=1)
    videos = texts.clone()
    texts[295:] = texts[:5]
    videos[295:] = texts[:5]
    kwargs = {"block_bytes": block_bytes}
    worst = ranks_from_embeddings(texts, videos, torch.arange(300), **kwargs)
    best = ranks_from_embeddings(texts, videos, torch.arange(300), tie_rule="optimistic", **kwargs)
    twice = [*range(5), *range(295, 300)]
    expected = torch.ones(300, dtype=torch.int64)
    assert torch.equal(best.v2t, expected)
    assert torch.equal(best.t2v, expected)
    expected[twice] = 2
    assert torch.equal(worst.v2t, expected)
    assert torch.equal(worst.t2v, expected)


def test_similarity_matrix_gives_equal_embeddings_equal_scores():
    generator = torch.Generator().manual_seed(1)
    texts, videos = torch.randn(33, 512, generator=generator), torch.randn(37, 512, generator=generator)
    texts[32], videos[36] = texts[0], videos[1]
    scores = similarity_matrix(texts, videos)
    torch.testing.assert_close(scores, texts @ videos.T)
    assert torch.equal(scores[32], scores[0])
    assert torch.equal(scores[:, 36], scores[:, 1])


def test_equal_embeddings_put_the_right_item_last():
    ones = torch.full((7, 48), 0.1)
    ranks = ranks_from_embeddings(ones, ones, torch.arange(7), block_bytes=60)
    assert ranks.t2v.tolist() == ranks.v2t.tolist() == [7] * 7


def test_half_precision_embeddings_are_multiplied_in_float32():
    texts = normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(0)), dim=1).bfloat16()
    videos = normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(1)), dim=1).bfloat16()
    targets = torch.arange(50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ranks = ranks_from_embeddings(texts, videos, targets)
    assert ranks.t2v.tolist() == ranks_from_embeddings(texts.double(), videos.double(), targets).t2v.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_embeddings_are_named(value):
    texts = torch.ones(4, 2)
    videos = torch.ones(4, 2)
    videos[2, 1] = value
    with pytest.raises(UsageError, match="row 2 of videos"):
        ranks_from_embeddings(texts, videos, torch.arange(4))


def test_unknown_tie_rule_offers_the_nearest():
    with pytest.raises(UsageError, match="'pesimistic'.*did you mean pessimistic"):
        ranks_from_similarity(torch.eye(2), torch.arange(2), tie_rule="pesimistic")


MEMORY_CHECK = """
import resource, torch
from vop.evaluation.metrics import ranks_from_embeddings
torch.set_num_threads(1)
texts = torch.randn(20_000, 8)
ranks_from_embeddings(texts[:64], texts[:64], torch.arange(64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ranks = ranks_from_embeddings(texts, texts, torch.arange(20_000))
assert len(ranks.t2v) == len(ranks.v2t) == 20_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
def test_memory_stays_far_below_the_full_matrix():
    """20,000 x 20,000 scores take 1,526 MiB; the blocks may add 200."""
    run = subprocess.run([sys.executable, "-c", MEMORY_CHECK], capture_output=True, text=True, check=True)
    assert int(run.stdout) / 1024 < 200
