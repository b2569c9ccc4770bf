"""Batches with hard negatives: videos whose captions are alike share a batch.

In a batch of random videos nearly every negative is easy, because videos that differ in one respect rarely meet.
NegCLIP (Yuksekgonul et al., ICLR 2023, arXiv 2210.01936) puts similar pictures into one batch instead. Here similarity
is that of the captions, embedded by the untuned model, so that nothing is computed twice and no video is decoded.

Shapes: `n` videos, `k` neighbours, `d` the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vop.datasets.types import Split
from vop.utils.ranks import ALONE, Ranks
from vop.utils.text import as_tokenized

_ROWS = 1024  # of the similarity matrix that are computed at a time

Neighbours = npt.NDArray[np.int64]


def nearest_videos(split: Split, captions: Tensor, *, most: int = 64, ranks: Ranks = ALONE) -> Neighbours:
    """Return the `most` videos whose captions are most alike, the nearest first, int64 (n, k).

    A video is compared by the mean of its captions' embeddings (t, d). Videos that have an equal caption are not
    neighbours: each would be a wrong negative of the other.

    Args:
        ranks: each computes a part. So all have the same neighbours, even if their machines round differently.
    """
    targets = torch.as_tensor(split.targets)
    videos = torch.zeros(len(split.videos), captions.shape[1]).index_add_(0, targets, F.normalize(captions, dim=1))
    videos = F.normalize(videos, dim=1)
    captions_of = captions_by_video(split)
    videos_with = _videos_by_caption(captions_of)
    most = min(most, len(videos) - 1)

    def nearest(starts: Sequence[int]) -> list[Neighbours]:
        blocks = []
        for start in starts:
            similarity = videos[start : start + _ROWS] @ videos.T
            for row, scores in enumerate(similarity, start=start):
                same = {video for caption in captions_of[row] for video in videos_with[caption]}
                scores[[row, *same]] = -torch.inf
            scores, found = similarity.topk(most, dim=1)
            blocks.append(found.masked_fill(scores == -torch.inf, -1).numpy())
        return blocks

    return np.concatenate(ranks.share(range(0, len(videos), _ROWS), nearest))


def captions_by_video(split: Split) -> list[frozenset[str]]:
    """Return the captions of each video, so that those are equal which the model cannot tell apart."""
    return [frozenset(as_tokenized(split.captions[row]) for row in rows) for rows in split.captions_of]


def _videos_by_caption(captions_of: Sequence[frozenset[str]]) -> dict[str, list[int]]:
    videos: dict[str, list[int]] = {}
    for video, captions in enumerate(captions_of):
        for caption in captions:
            videos.setdefault(caption, []).append(video)
    return videos


def grouped_order(
    videos: Sequence[int],
    neighbours: Neighbours,
    *,
    size: int,
    batch_size: int,
    key: Sequence[int],
    captions: Sequence[frozenset[str]] | None = None,
) -> list[int]:
    """Order items so that groups of `size` items of similar videos follow each other, each within one batch.

    Items are visited in random order. Each that is still free forms a group with the nearest videos of which an item is
    free. Whole groups come first, in random order. The rest follow: items whose neighbours all have their group.
    If `size` does not divide `batch_size`, each batch has as many whole groups as fit, and is filled from the rest, or
    else from a group that is broken up.

    Args:
        videos: the video of each item.
        neighbours: from `nearest_videos`; -1 stands for none.
        batch_size: items that are taken from the order at a time.
        key: of the random numbers, such as the seed and the epoch.
        captions: of each video. No two videos of a group have an equal one; by default all captions differ.
    """
    rng = np.random.default_rng(key)
    free: dict[int, list[int]] = {}
    order: list[int] = rng.permutation(len(videos)).tolist()
    for item in reversed(order):
        free.setdefault(videos[item], []).append(item)  # `pop` takes a video's items in the order of `order`
    whole: list[list[int]] = []
    rest: list[int] = []
    taken: set[int] = set()
    for item in order:
        if item in taken:
            continue
        near, said = [videos[item]], set(captions[videos[item]] if captions else ())
        for video in neighbours[videos[item]].tolist():
            own = captions[video] if captions and video >= 0 else frozenset()
            if len(near) < size and video >= 0 and free.get(video) and said.isdisjoint(own):
                near.append(video)
                said |= own
        group = [free[video].pop() for video in near]
        taken.update(group)
        if len(group) == size:
            whole.append(group)
        else:
            rest += group
    shuffled = [whole[index] for index in rng.permutation(len(whole))]
    fitting, room = divmod(batch_size, size)
    filled: list[int] = []
    while shuffled:
        filled += [item for group in shuffled[:fitting] for item in group]
        del shuffled[:fitting]
        if len(rest) < room and shuffled:
            rest += shuffled.pop()  # has more items than there is room for
        filled += rest[:room]
        del rest[:room]
    return filled + rest
