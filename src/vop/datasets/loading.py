"""Batches for training. The seed determines them, not the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vop.datasets.frames import FrameSource
from vop.datasets.types import Split
from vop.errors import UsageError, VideoError
from vop.utils.text import count


class Item(TypedDict):
    """Captions of one video, its frames, uint8 (frames, 3, size, size), and its place in `split.videos`."""

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


class PairDataset(Dataset[Item | VideoError]):
    """The (captions, video) groups of a split; without `groups`, its pairs.

    Args:
        groups: the captions of each item, by their index; they are of the same video (see `caption_groups`).
    """

    def __init__(self, split: Split, store: FrameSource, groups: Sequence[Sequence[int]] | None = None) -> None:
        self.split, self.store = split, store
        self.groups = [[row] for row in range(len(split))] if groups is None else groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Item | VideoError:
        rows = self.groups[index]
        target = self.split.targets[rows[0]]
        frames = _load(self.store, self.split, target)
        if isinstance(frames, VideoError):
            return frames
        return {"captions": [self.split.captions[row] for row in rows], "frames": frames, "video": target}


def caption_groups(split: Split, *, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every caption of a split once, in groups of `size` captions of one video.

    Each epoch groups the captions anew. A video's last group is smaller if `size` does not divide its number of
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
    """How many groups `caption_groups` makes, in every epoch."""
    _check_group_size(split, size)
    return sum(-(-len(rows) // size) for rows in split.captions_of)


def _check_group_size(split: Split, size: int) -> None:
    most = max(map(len, split.captions_of))
    if size > most:
        raise UsageError(
            f"captions_per_video is {size}, but no video of {split.name} has more than {count('caption', most)}"
        )


class EpochSampler(Sampler[list[int]]):
    """Batches of indices for one epoch, shuffled by seed and epoch alone.

    `batch_size` is the global batch's: each of `world_size` ranks takes a slice of it, so that training sees the
    same batches on one process and on eight, and `start_batch` resumes an epoch exactly. A last, smaller batch is
    dropped.
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
    ) -> None:
        self.num_items, self.batch_size, self.seed, self.epoch = num_items, batch_size, seed, epoch
        self.rank, self.world_size, self.start_batch = rank, world_size, start_batch
        self._check()

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
        return max(self.num_items // self.batch_size - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items).tolist()
        share = self.batch_size // self.world_size
        for batch in range(self.start_batch, self.num_items // self.batch_size):
            first = batch * self.batch_size + self.rank * share
            yield order[first : first + share]


class FrameLoader:
    """Batches that `workers` processes decode ahead. A worker's VideoError keeps its path and reason.

    Args:
        batches: which items make up each batch.
        workers: processes that decode ahead; 0 decodes in this one.
        prefetch: batches that each worker keeps ready.
    """

    def __init__(self, pairs: PairDataset, *, batches: EpochSampler, workers: int = 0, prefetch: int = 2) -> None:
        self._loader: DataLoader[Item | VideoError] = DataLoader(
            pairs,
            batch_sampler=batches,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, VideoError):
                raise batch
            yield batch


def _collate(items: list[Item | VideoError]) -> Batch | VideoError:
    # An exception that a worker raises loses its attributes; one that it returns keeps them.
    kept: list[Item] = []
    for item in items:
        if isinstance(item, VideoError):
            return item
        kept.append(item)
    return {
        "captions": [caption for item in kept for caption in item["captions"]],
        "rows": torch.tensor([row for row, item in enumerate(kept) for _ in item["captions"]]),
        "frames": torch.stack([item["frames"] for item in kept]),
        "video": torch.tensor([item["video"] for item in kept]),
    }


def _load(store: FrameSource, split: Split, target: int) -> torch.Tensor | VideoError:
    try:
        return store.load(split.videos[target])
    except VideoError as error:
        return error
