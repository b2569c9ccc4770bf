"""The processes of one job, which share its work: those that `torchrun` or `accelerate launch` starts.

Each process is a rank. All ranks run the same program, so that they reach the same exchanges in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

from vop.utils.progress import is_launched
from vop.utils.watch import watched

Item = TypeVar("Item")
Result = TypeVar("Result")

WAIT = timedelta(hours=2)  # for slower ranks. A rank that has ended is noticed in seconds (`vop.utils.watch`)


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of its job.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        local_rank, local_size: the same among the processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Return this process's place in the process group, or `ALONE` without one."""
        import torch.distributed as dist  # a second, which commands without PyTorch save

        if not (dist.is_available() and dist.is_initialized()):
            return ALONE
        rank, size = dist.get_rank(), dist.get_world_size()
        local = (int(os.environ.get(name, default)) for name, default in _LOCAL.items())
        return cls(rank, size, *local)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this rank: every `size`-th one."""
        return items[self.rank :: self.size]

    def local_part(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this rank if every machine does them all."""
        return items[self.local_rank :: self.local_size]

    def gather(self, value: Result) -> list[Result]:
        """Return the values of all ranks, in their order. Every rank calls this and waits for the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Result | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return cast(list[Result], values)

    def share(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
        """Return the results of `work` for all items, in their order. Each rank does its part of them."""
        results: list[Result | None] = [None] * len(items)
        for rank, part in enumerate(self.gather(work(self.part(items)))):
            results[rank :: self.size] = part
        return cast(list[Result], results)

    def estimate(self, show: Callable[[int, int], None], total: int) -> Callable[[int, int], None]:
        """Return a function of (done, total) of this rank's part, which shows the progress of the whole stage.

        It takes the other ranks to be as far as this one.
        """
        return lambda done, own: show(done if own == total else round(done * total / max(own, 1)), total)


ALONE = Ranks()
_LOCAL = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def join() -> Ranks:
    """Join the job that started this process, and take the device that it gives to this process.

    Call this before a model is loaded. Without a launcher, this process is the whole job.
    """
    from accelerate import PartialState

    from vop.utils.device import default_device

    PartialState(cpu=default_device().type == "cpu", timeout=WAIT)
    return Ranks.current()


def leave() -> None:
    """Leave the job before this process exits, because the threads of a process group can abort the exit."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


@contextmanager
def joined() -> Iterator[None]:
    """Join the job in this block, if a launcher started this process, and leave it at the end."""
    if not is_launched():
        yield
        return
    with watched():
        ranks = join()
        yield
        ranks.gather(None)  # none leaves while another may need it
    leave()
