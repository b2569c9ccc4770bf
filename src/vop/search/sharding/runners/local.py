"""Workers as processes of this machine: one for each device, or several that share the cores of a CPU."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

from vop.errors import VopError
from vop.search.sharding.plan import Plan
from vop.search.sharding.runners import open_worker
from vop.storage.address import Location
from vop.utils.device import gpus_to_share
from vop.utils.isolation import Crashed, Ended, Processes
from vop.utils.text import count
from vop.utils.threads import use_threads

if TYPE_CHECKING:
    from vop.search.sharding.moving import Mover
    from vop.search.sharding.vectors import Indexer
    from vop.search.sharding.work import Worker

ATTEMPTS = 3  # for each shard, if its worker is killed
_WAIT_SECONDS = 1.0


def run(
    plan: Plan, numbers: Iterable[int], *, jobs: int, workers: int, batch_size: int, compile: bool = False
) -> Generator[int | None, None, None]:
    """Work on shards in processes, and yield the number of each one that is finished, and None once a second.

    A shard whose process was killed is worked on again.

    Args:
        jobs: the number of processes. With several GPUs, each gets one.
        workers: decoding processes of each.
        batch_size, compile: see `Worker`.

    Raises:
        VopError: a shard's process was killed repeatedly.
        Exception: any error of a worker.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    left = 0
    for number in numbers:
        waiting.put(number)
        left += 1
    attempts: dict[int, int] = {}
    devices = gpus_to_share()

    def serve(processes: Processes, gpu: str | None) -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            attempts[number] = attempts.get(number, 0) + 1
            try:
                processes.call(_work, plan.folder, number, workers, batch_size, compile, jobs, gpu)
                done.put(number)
            except Ended:
                return
            except Crashed as error:
                if attempts[number] < ATTEMPTS:
                    waiting.put(number)
                else:
                    done.put(_crashed(plan, number, error))
            except Exception as error:
                done.put(error)
                return

    with ExitStack() as stack:
        threads = []
        for slot in range(min(jobs, left)):
            processes = stack.enter_context(Processes())
            gpu = devices[slot % len(devices)] if len(devices) > 1 else None
            threads.append(threading.Thread(target=serve, args=(processes, gpu), daemon=True))
            threads[-1].start()
        while left:
            try:
                outcome = done.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(outcome, Exception):
                raise outcome
            left -= 1
            yield outcome


def _crashed(plan: Plan, number: int, error: Crashed) -> VopError:
    files = [file.location for file in plan.files(number)]
    return VopError(
        f"{plan.library}: the worker of shard {number} ended {ATTEMPTS} times ({error.how}), perhaps because there was "
        "not enough memory; try fewer --jobs or a smaller --batch-size. The shard has "
        f"{count('file', len(files))}, such as {', '.join(files[:3])}"
    )


# -- in the worker processes


def _work(
    folder: Location, number: int, workers: int, batch_size: int, compile: bool, jobs: int, gpu: str | None
) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _worker(folder, workers, batch_size, compile, jobs).work(number)


@cache
def _worker(folder: Location, workers: int, batch_size: int, compile: bool, jobs: int) -> Worker | Mover | Indexer:
    """Return this process's worker, whose models stay loaded."""
    plan = Plan.read(folder)
    if not plan.builds_index:
        use_threads(processes=jobs)
    return open_worker(plan, workers=workers, batch_size=batch_size, compile=compile)
