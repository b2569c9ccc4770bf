"""Recall of moments, against a naive reference."""

from __future__ import annotations

import numpy as np
import pytest

from vop.datasets.moments import MomentQuery
from vop.errors import DataError
from vop.evaluation import moments as module
from vop.evaluation.moments import IOUS, RECALLS, EmbeddedClips, agreed_iou, iou, moment_recall
from vop.video.clip import Clip


def naive_iou(a, b):
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return common / (max(a[1], b[1]) - min(a[0], b[0])) if common else 0.0


def naive_recall(texts, clips, queries, *, within, k, threshold):
    """Rank the clips of each query with a sort in which clips that do not match win ties."""
    hits = []
    for text, query in zip(texts, queries, strict=True):
        ranked = []
        for n in range(len(clips.videos)):
            if within and clips.videos[n] != query.video:
                continue
            overlaps = [
                naive_iou((clips.starts[n], clips.ends[n]), (clip.start_seconds, clip.end_seconds))
                for clip in query.clips
            ]
            agreed = sum(overlap >= threshold for overlap in overlaps) >= query.agreeing
            ranked.append((-float(clips.embeddings[n] @ text), agreed and clips.videos[n] == query.video))
        hits.append(any(matches for _, matches in sorted(ranked)[:k]))
    return 100 * sum(hits) / len(hits)


@pytest.fixture(scope="module")
def world():
    """Four videos of ten clips, some with the same embedding, and 40 queries."""
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-1, 2, (40, 3)).astype(np.float32)  # small integers: many ties
    starts = np.tile(np.arange(10) * 3.0, 4)
    clips = EmbeddedClips(embeddings, np.repeat(np.arange(4), 10), starts, starts + 5)
    queries = []
    for number in range(40):
        begins = rng.uniform(0, 25, rng.integers(1, 4))
        right = tuple(Clip(begin, begin + rng.uniform(1, 8)) for begin in begins)
        queries.append(MomentQuery(f"query {number}", int(rng.integers(4)), right, agreeing=min(len(right), 2)))
    return rng.integers(-1, 2, (40, 3)).astype(np.float32), clips, queries


@pytest.mark.parametrize("block", [7, 256])
def test_recall_equals_a_naive_ranking(world, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    for found, within in zip(moment_recall(*world), (True, False), strict=True):
        for k in RECALLS:
            for threshold in IOUS:
                expected = naive_recall(*world, within=within, k=k, threshold=threshold)
                assert found.recall[k][threshold] == pytest.approx(expected)
        assert found.recall[5][0.5] <= found.reachable[0.5]
        assert found.reachable[0.5] == pytest.approx(naive_recall(*world, within=True, k=40, threshold=0.5))


def test_intersection_over_union():
    starts, ends = np.array([0.0, 5, 10, 2]), np.array([10.0, 15, 20, 4])
    assert iou(starts, ends, start=0, end=10).tolist() == pytest.approx([1, 1 / 3, 0, 0.2])


def test_any_right_clip_counts():
    clips = (Clip(0, 10), Clip(0, 5), Clip(50, 60))
    starts, ends = np.array([0.0]), np.array([10.0])
    assert agreed_iou(starts, ends, MomentQuery("", 0, clips, agreeing=1))[0] == 1
    assert agreed_iou(starts, ends, MomentQuery("", 0, clips, agreeing=2))[0] == 0.5
    assert agreed_iou(starts, ends, MomentQuery("", 0, clips, agreeing=3))[0] == 0


def test_clips_need_an_end():
    query = MomentQuery("", 0, (Clip(5, None),))
    with pytest.raises(DataError, match="no end"):
        agreed_iou(np.array([0.0]), np.array([10.0]), query)


def test_moment_recall_needs_queries(world):
    with pytest.raises(DataError, match="no queries"):
        moment_recall(world[0], world[1], [])
