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

_ROWS = 1024  # of the similarity matrix that are computed at a time

Neighbours = npt.NDArray[np.int64]


def nearest_videos(split: Split, captions: Tensor, *, most: int = 64) -> Neighbours:
    """Return the `most` videos whose captions are most alike, the nearest first, int64 (n, k).

    A video is compared by the mean of its captions' embeddings (t, d). Videos that have an equal caption are not
    neighbours: each would be a wrong negative of the other.
    """
    targets = torch.as_tensor(split.targets)
    videos = torch.zeros(len(split.videos), captions.shape[1]).index_add_(0, targets, F.normalize(captions, dim=1))
    videos = F.normalize(videos, dim=1)
    same = _videos_with_an_equal_caption(split)
    most = min(most, len(videos) - 1)
    nearest = []
    for start in range(0, len(videos), _ROWS):
        similarity = videos[start : start + _ROWS] @ videos.T
        for row, scores in enumerate(similarity, start=start):
            scores[[row, *same.get(row, ())]] = -torch.inf
        scores, found = similarity.topk(most, dim=1)
        nearest.append(found.masked_fill(scores == -torch.inf, -1))
    return torch.cat(nearest).numpy()


def _videos_with_an_equal_caption(split: Split) -> dict[int, set[int]]:
    by_caption: dict[str, set[int]] = {}
    for caption, video in zip(split.captions, split.targets, strict=True):
        by_caption.setdefault(caption, set()).add(video)
    same: dict[int, set[int]] = {}
    for videos in by_caption.values():
        if len(videos) > 1:
            for video in videos:
                same.setdefault(video, set()).update(videos)
    return same


def grouped_order(videos: Sequence[int], neighbours: Neighbours, *, size: int, key: Sequence[int]) -> list[int]:
    """Order items so that groups of `size` items of similar videos follow each other.

    Items are visited in random order. Each that is still free forms a group with the nearest videos of which an item is
    free. Whole groups come first, in random order. The rest follow: items whose neighbours all have their group.

    Args:
        videos: the video of each item.
        neighbours: from `nearest_videos`; -1 stands for none.
        key: of the random numbers, such as the seed and the epoch.
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
        near = [int(video) for video in neighbours[videos[item]] if video >= 0 and free.get(video)][: size - 1]
        group = [free[video].pop() for video in (videos[item], *near)]
        taken.update(group)
        if len(group) == size:
            whole.append(group)
        else:
            rest += group
    return [item for index in rng.permutation(len(whole)) for item in whole[index]] + rest
