"""Batches for training and evaluation: the same ones for a seed, however many processes share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vop.data.frames import FrameStore
from vop.data.types import Split
from vop.errors import UsageError, VideoError

_LOOKAHEAD = 256  # groups that are tried for the last places of a batch before one is cut in two


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


class VideoDataset(Dataset):
    """The videos of a split, each once, for evaluation: `{"frames": …, "video": int}`."""

    def __init__(self, split: Split, store: FrameStore) -> None:
        self.split, self.store = split, store

    def __len__(self) -> int:
        return len(self.split.videos)

    def __getitem__(self, index: int) -> dict | VideoError:
        frames = _load(self.store, self.split, index)
        return frames if isinstance(frames, VideoError) else {"frames": frames, "video": index}


class EpochSampler(Sampler):
    """Batches of indices for one epoch, shuffled by seed and epoch alone.

    `batch_size` is the global batch's: each of `world_size` ranks takes its stretch of it, so that training sees the
    same batches on one process and on eight, and `start_batch` resumes an epoch exactly. The last, smaller batch is
    dropped; one process may keep it.

    Args:
        groups: sets of indices that belong in one batch (a video and its mirrored twin). Each index is in at most
            one. A group is cut in two only where nothing else fits the end of a batch.
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
        drop_last: bool = True,
        start_batch: int = 0,
        groups: Sequence[Sequence[int]] = (),
    ) -> None:
        self.num_items, self.batch_size, self.seed, self.epoch = num_items, batch_size, seed, epoch
        self.rank, self.world_size, self.drop_last, self.start_batch = rank, world_size, drop_last, start_batch
        self.groups = [list(group) for group in groups]
        self._check()

    def _check(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise UsageError(
                f"batch_size is {self.batch_size}; it must divide evenly among {self.world_size} processes"
            )
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank is {self.rank}; it must be from 0 to {self.world_size - 1}")
        if self.world_size > 1 and not self.drop_last:
            raise UsageError("drop_last is False; several processes need batches that divide evenly")
        if self.drop_last and self.num_items < self.batch_size:
            raise UsageError(
                f"batch_size is {self.batch_size}, but there are only {self.num_items} captions; make it smaller"
            )
        grouped = [index for group in self.groups for index in group]
        if len(set(grouped)) != len(grouped):
            raise UsageError("groups share an index; each index may be in one group")
        if any(len(group) > self.batch_size for group in self.groups):
            raise UsageError(f"a group is larger than a batch of {self.batch_size}")

    @property
    def num_batches(self) -> int:
        """Batches in the whole epoch, also those before `start_batch`."""
        full, rest = divmod(self.num_items, self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __len__(self) -> int:
        return max(self.num_batches - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world_size
        for batch in islice(self._global_batches(), self.start_batch, self.num_batches):
            yield batch[self.rank * share : (self.rank + 1) * share]

    def _global_batches(self) -> Iterator[list[int]]:
        grouped = {index for group in self.groups for index in group}
        units = [*self.groups, *([index] for index in range(self.num_items) if index not in grouped)]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(units))
        waiting = deque(units[place] for place in order)
        while waiting:
            yield _fill(waiting, self.batch_size)


def _fill(waiting: deque[list[int]], size: int) -> list[int]:
    """Take the next batch from the front of `waiting`, whole groups as far as they fit."""
    batch: list[int] = []
    passed: list[list[int]] = []
    while waiting and len(batch) < size and len(passed) < _LOOKAHEAD:
        unit = waiting.popleft()
        if len(batch) + len(unit) <= size:
            batch += unit
        else:
            passed.append(unit)
    room = size - len(batch)
    if room and passed:
        batch += passed[0][:room]
        passed[0] = passed[0][room:]
    waiting.extendleft(reversed(passed))
    return batch


class FrameLoader(DataLoader):
    """A DataLoader that raises a worker's VideoError as it was, with its path and reason."""

    def __iter__(self) -> Iterator[dict]:
        for batch in super().__iter__():
            if isinstance(batch, VideoError):
                raise batch
            yield batch


def frame_loader(
    items: PairDataset | VideoDataset,
    *,
    batches: EpochSampler | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    prefetch: int = 2,
) -> FrameLoader:
    """A loader of `{"caption": list of str, "frames": uint8 (b, frames, 3, size, size), "video": int64 (b,)}`.

    Args:
        batches: which items make up each batch (training); or `batch_size` for all of them in order.
        workers: processes that decode ahead; 0 decodes in this one.
        prefetch: batches that each worker keeps ready.
    """
    if (batches is None) == (batch_size is None):
        raise UsageError("give frame_loader either batches or batch_size")
    chosen = {"batch_size": batch_size} if batches is None else {"batch_sampler": batches}
    return FrameLoader(
        items,
        **chosen,
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
    batch = {
        "frames": torch.stack([item["frames"] for item in items]),
        "video": torch.tensor([item["video"] for item in items]),
    }
    if "caption" in items[0]:
        batch["caption"] = [item["caption"] for item in items]
    return batch


def _load(store: FrameStore, split: Split, target: int) -> torch.Tensor | VideoError:
    try:
        return store.load(split.videos[target])
    except VideoError as error:
        return error
