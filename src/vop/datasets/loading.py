"""Batches for training. They depend on the seed, not on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TypedDict

import numpy as np
import torch

from vop.datasets.frames import FrameSource
from vop.datasets.types import Split
from vop.datasets.views import RandomViews
from vop.errors import UsageError
from vop.utils.text import count
from vop.video.ahead import map_ahead


class Item(TypedDict):
    """Captions of one video, its frames, uint8 (frames, 3, size, size), and its index in `split.videos`."""

    captions: list[str]
    frames: torch.Tensor
    video: int


class Batch(TypedDict):
    """Several items. `rows` maps each caption to its video. There may be more captions than videos.

    Shapes: captions t, rows int64 (t,), frames uint8 (b, frames, 3, size, size), video int64 (b,).
    """

    captions: list[str]
    rows: torch.Tensor
    frames: torch.Tensor
    video: torch.Tensor


class PairDataset:
    """The items of a split: each group of captions with its video. Without `groups`, each caption is an item.

    Args:
        groups: the caption indices of each item, all of the same video (see `caption_groups`).
        views: loads random views in place of the frames of `store`, other ones in each epoch.
    """

    def __init__(
        self,
        split: Split,
        store: FrameSource,
        groups: Sequence[Sequence[int]] | None = None,
        *,
        views: RandomViews | None = None,
        epoch: int = 0,
    ) -> None:
        self.split, self.store, self.views, self.epoch = split, store, views, epoch
        self.groups = [[row] for row in range(len(split))] if groups is None else groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Item:
        """Load one item.

        Raises:
            VideoError: the video cannot be read.
        """
        rows = self.groups[index]
        target = self.split.targets[rows[0]]
        captions = [self.split.captions[row] for row in rows]
        return {"captions": captions, "frames": self._frames(index, target), "video": target}

    def _frames(self, index: int, target: int) -> torch.Tensor:
        video = self.split.videos[target]
        if self.views is None:
            return self.store.load(video)
        captions = [self.split.captions[row] for row in self.split.captions_of[target]]
        return self.views.load(video, captions=captions, key=(self.epoch, index))


def caption_groups(split: Split, *, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Divide the captions of a split into groups of `size` captions of one video.

    Every epoch has other groups. A video's last group is smaller if `size` does not divide its number of
    captions.

    Raises:
        UsageError: no video has `size` captions.
    """
    _check_group_size(split, size)
    if size == 1:
        return [[row] for row in range(len(split))]
    rng = np.random.default_rng([seed, epoch, size])
    groups = []
    for rows in split.captions_of:
        shuffled = rng.permutation(rows).tolist()
        groups += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return groups


def count_groups(split: Split, *, size: int) -> int:
    """Return the number of groups that `caption_groups` makes, the same in every epoch."""
    _check_group_size(split, size)
    return sum(-(-len(rows) // size) for rows in split.captions_of)


def _check_group_size(split: Split, size: int) -> None:
    most = max(map(len, split.captions_of))
    if size > most:
        raise UsageError(
            f"captions_per_video is {size}, but no video of {split.name} has more than {count('caption', most)}"
        )


class EpochSampler:
    """Batches of indices for one epoch. The order depends only on seed and epoch, or is given.

    `batch_size` is the size of the global batch. Each of `world_size` ranks takes a slice of it, so the batches are the
    same on one process and on eight, and `start_batch` resumes an epoch exactly. A smaller last batch is dropped.

    With `chunk_size`, each slice is yielded in `chunks` parts of at most that size.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        chunk_size: int | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        self.num_items, self.batch_size, self.seed, self.epoch = num_items, batch_size, seed, epoch
        self.order = order
        self.rank, self.world_size, self.start_batch = rank, world_size, start_batch
        self._check()
        self.share = batch_size // world_size
        self.chunk_size = min(chunk_size or self.share, self.share)

    @property
    def chunks(self) -> int:
        """The number of parts of a rank's slice."""
        return -(-self.share // self.chunk_size)

    def _check(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise UsageError(
                f"batch_size is {self.batch_size}; it must divide evenly among {count('process', self.world_size)}"
            )
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank is {self.rank}; it must be from 0 to {self.world_size - 1}")
        if self.num_items < self.batch_size:
            are = "is" if self.num_items == 1 else "are"
            raise UsageError(
                f"batch_size is {self.batch_size}, but there {are} only {count('item', self.num_items)}; "
                "make it smaller"
            )

    def __len__(self) -> int:
        return max(self.num_items // self.batch_size - self.start_batch, 0) * self.chunks

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order
        if order is None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items).tolist()
        for batch in range(self.start_batch, self.num_items // self.batch_size):
            first = batch * self.batch_size + self.rank * self.share
            for start in range(0, self.share, self.chunk_size):
                yield list(order[first + start : first + min(start + self.chunk_size, self.share)])


class FrameLoader:
    """Loads batches ahead in threads while the model computes.

    Forked processes would be unsafe beside the threads of LanceDB and FFmpeg, and spawned ones would import the user's
    program again. Reading and decoding frames releases the GIL.

    Args:
        batches: the items of each batch.
        workers: the number of threads; 0 loads each batch when it is requested.
        prefetch: the number of batches that each thread keeps ready.
    """

    def __init__(self, pairs: PairDataset, *, batches: EpochSampler, workers: int = 0, prefetch: int = 2) -> None:
        self.pairs, self.batches, self.workers, self.prefetch = pairs, batches, workers, prefetch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            VideoError: a video of the next batch cannot be read.
        """
        if not self.workers:
            yield from map(self._load, self.batches)
            return
        ahead = self.workers * self.prefetch
        with closing(map_ahead(self.batches, self._load, workers=self.workers, ahead=ahead)) as loaded:
            for done in loaded:
                if isinstance(done.result, Exception):
                    raise done.result
                yield done.result

    def _load(self, indices: Sequence[int]) -> Batch:
        items = [self.pairs[index] for index in indices]
        frames = torch.stack([item["frames"] for item in items])
        return {
            "captions": [caption for item in items for caption in item["captions"]],
            "rows": torch.tensor([row for row, item in enumerate(items) for _ in item["captions"]]),
            "frames": frames.pin_memory() if torch.cuda.is_available() else frames,
            "video": torch.tensor([item["video"] for item in items]),
        }
