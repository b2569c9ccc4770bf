"""Batches for training: the same ones for a seed, however many processes share them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vop.data.frames import FrameStore
from vop.data.types import Split
from vop.errors import UsageError, VideoError


class PairDataset(Dataset):
    """The (caption, video) pairs of a split.

    An item is `{"caption": str, "frames": uint8 (frames, 3, size, size), "video": int}`, the last being the video's
    place in `split.videos`.
    """

    def __init__(self, split: Split, store: FrameStore) -> None:
        self.split, self.store = split, store

    def __len__(self) -> int:
        return len(self.split.captions)

    def __getitem__(self, index: int) -> dict | VideoError:
        target = self.split.targets[index]
        frames = _load(self.store, self.split, target)
        if isinstance(frames, VideoError):
            return frames
        return {"caption": self.split.captions[index], "frames": frames, "video": target}


class EpochSampler(Sampler):
    """Batches of indices for one epoch, shuffled by seed and epoch alone.

    `batch_size` is the global batch's: each of `world_size` ranks takes its stretch of it, so that training sees the
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
                f"batch_size is {self.batch_size}; it must divide evenly among {self.world_size} processes"
            )
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank is {self.rank}; it must be from 0 to {self.world_size - 1}")
        if self.num_items < self.batch_size:
            raise UsageError(
                f"batch_size is {self.batch_size}, but there are only {self.num_items} captions; make it smaller"
            )

    def __len__(self) -> int:
        return max(self.num_items // self.batch_size - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items).tolist()
        share = self.batch_size // self.world_size
        for batch in range(self.start_batch, self.num_items // self.batch_size):
            first = batch * self.batch_size + self.rank * share
            yield order[first : first + share]


class FrameLoader(DataLoader):
    """A DataLoader that raises a worker's VideoError as it was, with its path and reason."""

    def __iter__(self) -> Iterator[dict]:
        for batch in super().__iter__():
            if isinstance(batch, VideoError):
                raise batch
            yield batch


def frame_loader(pairs: PairDataset, *, batches: EpochSampler, workers: int = 0, prefetch: int = 2) -> FrameLoader:
    """A loader of `{"caption": list of str, "frames": uint8 (b, frames, 3, size, size), "video": int64 (b,)}`.

    Args:
        batches: which pairs make up each batch.
        workers: processes that decode ahead; 0 decodes in this one.
        prefetch: batches that each worker keeps ready.
    """
    return FrameLoader(
        pairs,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


def _collate(items: list[dict | VideoError]) -> dict | VideoError:
    # An exception that crosses from a worker loses its attributes; as a value it does not.
    for item in items:
        if isinstance(item, VideoError):
            return item
    return {
        "caption": [item["caption"] for item in items],
        "frames": torch.stack([item["frames"] for item in items]),
        "video": torch.tensor([item["video"] for item in items]),
    }


def _load(store: FrameStore, split: Split, target: int) -> torch.Tensor | VideoError:
    try:
        return store.load(split.videos[target])
    except VideoError as error:
        return error
