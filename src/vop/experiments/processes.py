"""Processes of this machine, which run the jobs of an experiment."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.managers import SyncManager
from queue import Empty, Queue
from types import TracebackType
from typing import Self

from vop.errors import UsageError, VopError
from vop.experiments.results import RunRecord, SearchRecord
from vop.experiments.work import Job, run_job
from vop.experiments.workers import QUIET_SECONDS, Ended, Message, sending
from vop.utils.parent import end_with_parent


@dataclass
class _Running:
    """A running job. Its pool has one process."""

    job: Job
    slot: int
    pool: ProcessPoolExecutor


class Processes:
    """Processes of this machine; see `vop.experiments.workers.Workers`.

    Args:
        count: the number of processes. On a CPU they share its cores. With several GPUs, each gets one.

    Raises:
        UsageError: `count` is less than 1.
    """

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise UsageError(f"jobs is {count}; give 1 or more")
        self.count = count
        self._gpus = _gpus()
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[Future[RunRecord | SearchRecord], _Running] = {}

    def __enter__(self) -> Self:
        manager = SyncManager(ctx=self._context)
        manager.start(end_with_parent)
        with ExitStack() as stack:
            self._messages: Queue[Message] = stack.enter_context(manager).Queue()
            stack.push(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._running.clear()

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            for running in self._running.values():
                for process in list((running.pool._processes or {}).values()):
                    process.terminate()
        for running in self._running.values():
            running.pool.shutdown(cancel_futures=True)

    def start(self, job: Job, slot: int) -> None:
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        placed = replace(job, gpu=gpu, side_by_side=self.count)
        pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=end_with_parent)
        self._running[pool.submit(_run_in_process, placed, self._messages, slot)] = _Running(job, slot, pool)

    def ended(self) -> Iterator[Ended]:
        finished, _ = wait(self._running, timeout=QUIET_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            running = self._running.pop(future)
            running.pool.shutdown()
            yield Ended(running.job, running.slot, partial(_result, future))

    def messages(self) -> Iterator[Message]:
        while True:
            try:
                yield self._messages.get_nowait()
            except Empty:
                return


def _result(future: Future[RunRecord | SearchRecord]) -> RunRecord | SearchRecord:
    try:
        return future.result()
    except BrokenProcessPool:
        raise VopError(
            "its process was killed, perhaps because there was not enough memory; try fewer --jobs or, with another "
            "--out, a smaller --batch-size"
        ) from None


def _run_in_process(job: Job, messages: Queue[Message], slot: int) -> RunRecord | SearchRecord:
    """Run the job in its own process, and send the progress to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends this one
    return run_job(job, sending(job.name, slot, messages.put))


def _gpus() -> list[str]:
    """Return the GPUs of this process, as CUDA_VISIBLE_DEVICES names them; empty if there are fewer than two."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    return found if len(found) > 1 else []
