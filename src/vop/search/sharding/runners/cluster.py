"""Workers as actors of a Ray cluster. They keep their models loaded; a lost one is replaced, and its shard repeated.

Only the numbers of shards pass through Ray: a worker reads videos and writes rows on a file system of all nodes, or in
object storage with the credentials of its node.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from vop.errors import VopError
from vop.search.sharding.plan import Plan
from vop.search.sharding.runners import open_worker
from vop.storage.address import location
from vop.storage.errors import StorageError
from vop.utils.cluster import ATTEMPTS, Cluster, LostWorker, Resources, chosen_variables
from vop.utils.text import count
from vop.utils.threads import sleep_while_waiting, use_threads

_WAIT_SECONDS = 1.0


class ShardCluster(Cluster):
    """A Ray cluster whose workers do shards."""

    def run(
        self,
        plan: Plan,
        numbers: Iterable[int],
        *,
        resources: Resources,
        workers: int | None,
        batch_size: int,
        compile: bool = False,
    ) -> Generator[int | None, None, None]:
        """Work on shards, and yield the number of each one that is finished, and None once a second.

        Args:
            workers: decoding processes of each worker; by default as many as its CPUs.
            batch_size, compile: see `Worker`.

        Raises:
            VopError: a shard's worker was lost repeatedly.
            Exception: any error of a worker.
        """
        job = _Job(self, plan, list(numbers), resources, (workers or resources.cpus, batch_size, compile))
        try:
            yield from job.run()
        finally:
            job.end()


class _Job:
    """The shards that wait, and the actors that work. A new actor gets a shard only once it runs."""

    def __init__(
        self,
        cluster: Cluster,
        plan: Plan,
        numbers: list[int],
        resources: Resources,
        settings: tuple[int, int, bool],
    ) -> None:
        self._cluster, self._ray, self._plan, self._waiting = cluster, cluster.ray, plan, numbers
        self._left = len(numbers)
        self._attempts = dict.fromkeys(numbers, 0)
        self._actor = self._ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(_Actor)
        variables = {"OMP_NUM_THREADS": str(resources.cpus), **chosen_variables()}
        self._arguments = (str(plan.folder), variables, *settings)
        self._busy: dict[Any, tuple[Any, int | None]] = {}  # by what Ray returns: the actor, and its shard
        self._idle: list[Any] = []
        for _ in range(min(resources.jobs, self._left)):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._busy[actor.ready.remote()] = (actor, None)

    def run(self) -> Generator[int | None, None, None]:
        while self._left:
            done, _ = self._ray.wait(list(self._busy), timeout=_WAIT_SECONDS)
            if not done:
                yield None
            for reference in done:
                actor, number = self._busy.pop(reference)
                try:
                    self._cluster.result(reference)
                except LostWorker as error:
                    self._lost(actor, number, error)
                else:
                    self._idle.append(actor)
                    if number is not None:
                        self._left -= 1
                        yield number
                self._assign()

    def _lost(self, actor: Any, number: int | None, error: LostWorker) -> None:
        self._ray.kill(actor)  # it may only be out of reach
        self._start()  # it waits until the cluster has room for it
        if number is None:
            return
        if self._attempts[number] == ATTEMPTS:
            files = self._plan.files(number)
            raise VopError(
                f"{self._plan.library}: the worker of shard {number} was lost {ATTEMPTS} times "
                f"({error}), perhaps because there was not enough memory; try a smaller --batch-size. "
                f"The shard has {count('file', len(files))}, such as {files[0].location}"
            ) from error
        self._waiting.insert(0, number)

    def _assign(self) -> None:
        while self._waiting and self._idle:
            actor, number = self._idle.pop(), self._waiting.pop(0)
            self._attempts[number] += 1
            named = actor.work.options(name=f"shard {number} of {self._plan.num_shards}")  # as Ray's dashboard shows it
            self._busy[named.remote(number)] = (actor, number)

    def end(self) -> None:
        for actor in [*(actor for actor, _ in self._busy.values()), *self._idle]:
            self._ray.kill(actor)


class _Actor:
    """A worker on a node of the cluster."""

    def __init__(self, folder: str, variables: dict[str, str], workers: int, batch_size: int, compile: bool) -> None:
        sleep_while_waiting()
        self._folder, self._workers, self._batch_size, self._compile = location(folder), workers, batch_size, compile
        os.environ.update(variables)
        self._worker: Any = None

    def ready(self) -> None:
        """Return once the actor runs."""

    def work(self, number: int) -> None:
        from vop.search.sharding.work import name  # imports PyTorch

        try:
            if self._worker is None:
                if isinstance(self._folder, Path) and not self._folder.exists():
                    raise VopError(
                        f"{name()}: {self._folder.parents[1]} does not exist here; all nodes need the library and the "
                        "videos at the same paths, on a shared file system or in object storage"
                    )
                use_threads()
                self._worker = open_worker(
                    Plan.read(self._folder), workers=self._workers, batch_size=self._batch_size, compile=self._compile
                )
            self._worker.work(number)
        except StorageError as error:  # its node may have other settings
            raise StorageError(f"{name()}: {error}") from None
