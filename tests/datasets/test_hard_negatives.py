from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vop.datasets import hard_negatives
from vop.datasets.hard_negatives import captions_by_video, grouped_order, nearest_videos
from vop.datasets.types import Split, Video
from vop.utils.ranks import Ranks


def split_of(captions_of: list[list[str]]) -> Split:
    videos = tuple(Video(id=f"v{n}", path=None) for n in range(len(captions_of)))
    targets = [video for video, captions in enumerate(captions_of) for _ in captions]
    return Split("train", videos, tuple(text for captions in captions_of for text in captions), tuple(targets))


def some_captions(*, videos: int, seed: int = 0) -> tuple[Split, torch.Tensor]:
    """Return videos with one to three captions each, and random embeddings of these."""
    rng = np.random.default_rng(seed)
    split = split_of([[f"{video}-{n}" for n in range(rng.integers(1, 4))] for video in range(videos)])
    return split, torch.randn(len(split), 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("videos", [2, 7, 1500])  # more than a block of rows
def test_neighbours_are_those_of_a_plain_search(videos):
    split, embedded = some_captions(videos=videos)
    found = nearest_videos(split, embedded, most=3)
    unit = F.normalize(embedded, dim=1)
    means = torch.stack([unit[list(rows)].mean(dim=0) for rows in split.captions_of])
    for video in range(0, videos, max(1, videos // 20)):
        scores = F.cosine_similarity(means, means[video : video + 1])
        by_score = [other for other in scores.argsort(descending=True).tolist() if other != video]
        assert found[video].tolist() == by_score[:3]


def test_videos_with_an_equal_caption_are_no_neighbours():
    split = split_of([["a cat", "a pet"], ["a dog", "a pet"], ["a bus"]])
    found = nearest_videos(split, torch.ones(5, 4), most=2).tolist()
    assert found == [[2, -1], [2, -1], [0, 1]] or found == [[2, -1], [2, -1], [1, 0]]


def test_captions_that_differ_only_in_case_or_spaces_are_equal():
    """CLIP's tokenizer reads them as the same caption, so the videos would be wrong negatives of each other."""
    split = split_of([["A red  ball"], ["a red ball "], ["a bus"]])
    assert nearest_videos(split, torch.ones(3, 4), most=2).tolist() == [[2, -1], [2, -1], [0, 1]]
    assert captions_by_video(split) == [{"a red ball"}, {"a red ball"}, {"a bus"}]


def test_an_order_holds_every_item_once_and_groups_different_videos():
    split, embedded = some_captions(videos=90)
    neighbours = nearest_videos(split, embedded)
    videos = list(split.targets)
    order = grouped_order(videos, neighbours, size=4, batch_size=32, key=[1, 0])
    assert sorted(order) == list(range(len(videos)))
    groups = [[videos[item] for item in order[start : start + 4]] for start in range(0, len(order), 4)]
    whole = [group for group in groups if len(set(group)) == 4]
    assert len(whole) > 0.8 * len(groups)
    ranks = [neighbours[group[0]].tolist().index(other) for group in whole for other in group[1:]]
    assert np.mean(ranks) < 20  # of 64 neighbours that are tried; random groups have 44 on average


def test_pairs_of_alike_videos_share_a_group_in_every_epoch():
    videos = list(range(40))
    twins = np.array([[video ^ 1] for video in videos])
    orders = [grouped_order(videos, twins, size=2, batch_size=4, key=[5, epoch]) for epoch in range(2)]
    for order in orders:
        assert all(order[start] ^ 1 == order[start + 1] for start in range(0, 40, 2))
    assert orders[0] != orders[1]
    assert orders[0] == grouped_order(videos, twins, size=2, batch_size=4, key=[5, 0])


def test_items_without_free_neighbours_come_last():
    neighbours = np.array([[1], [0], [-1]])
    order = grouped_order([0, 1, 2, 0], neighbours, size=2, batch_size=4, key=[0])
    assert {order[0], order[1]} in ({0, 1}, {1, 3})
    assert set(order[2:]) == {0, 1, 2, 3} - set(order[:2])


@pytest.mark.parametrize(("size", "batch_size"), [(4, 31), (4, 6), (3, 8), (3, 2), (4, 32)])
@pytest.mark.parametrize("alone", [0, 9])
def test_no_group_is_split_between_batches(size, batch_size, alone):
    """Videos of a group have equal numbers modulo 24; the last `alone` have no neighbours."""
    grouped = 8 * size * 3
    near = [
        [other for other in range(grouped) if other != video and other % 24 == video % 24] for video in range(grouped)
    ]
    neighbours = np.array(near + [[-1] * (size - 1)] * alone)
    order = grouped_order(range(grouped + alone), neighbours, size=size, batch_size=batch_size, key=[3])
    assert sorted(order) == list(range(grouped + alone))
    fitting = batch_size // size
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    wholes = []
    for batch in batches:
        kinds = Counter(item % 24 for item in batch if item < grouped)
        wholes.append(sum(number == size for number in kinds.values()))
    filled = [whole == fitting for whole in wholes]
    assert filled == sorted(filled, reverse=True)  # all batches with as many whole groups as fit come first
    assert sum(wholes) >= 24 - (len(batches) if batch_size % size else 0)


def test_whole_batches_of_groups_keep_their_order():
    """Published results were measured with it."""
    near = np.array([[video ^ 1] for video in range(10)] + [[-1]] * 2)
    assert grouped_order(range(12), near, size=2, batch_size=4, key=[0]) == [4, 5, 7, 6, 9, 8, 2, 3, 0, 1, 11, 10]


def test_no_group_has_two_videos_with_an_equal_caption():
    """Two videos with an equal caption are alike, so a third one has both among its neighbours."""
    captions = captions_by_video(split_of([["a red ball"], ["a blue ball"], ["a blue ball"], ["a ball"]]))
    neighbours = np.array([[1, 2, 3], [0, 3, -1], [0, 3, -1], [1, 2, 0]])
    orders = [
        grouped_order(range(4), neighbours, size=3, batch_size=3, key=[seed], captions=captions) for seed in range(10)
    ]
    assert {frozenset(order[:3]) for order in orders} == {frozenset({0, 1, 3}), frozenset({0, 2, 3})}


class Second(Ranks):
    """The second of two processes. The first one rounds differently: it finds other neighbours."""

    def gather(self, value):
        return [[np.full_like(block, 5) for block in value], value]


def test_all_processes_have_the_same_neighbours(monkeypatch):
    """Each computes its part of the rows, and takes the others' from them."""
    monkeypatch.setattr(hard_negatives, "_ROWS", 3)
    split, embedded = some_captions(videos=12)
    alone = nearest_videos(split, embedded, most=2)
    found = nearest_videos(split, embedded, most=2, ranks=Second(rank=1, size=2))
    assert found.dtype == alone.dtype
    for start in range(0, 12, 3):
        rows = slice(start, start + 3)
        assert (found[rows] == (alone[rows] if start in (3, 9) else 5)).all()
