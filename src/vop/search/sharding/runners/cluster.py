"""Workers as actors of a Ray cluster. They keep their models loaded; a lost one is replaced, and its shard repeated.

Only the numbers of shards pass through Ray: a worker reads videos and writes rows on a file system of all nodes, or in
object storage with the credentials of its node.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Generator, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vop.errors import UsageError, VopError
from vop.search.sharding.plan import Plan
from vop.search.sharding.runners import open_worker
from vop.storage.address import location
from vop.storage.errors import StorageError
from vop.utils.text import count
from vop.utils.threads import sleep_while_waiting, use_threads

AUTO, LOCAL = "auto", "local"
ATTEMPTS = 3  # for each shard, if its worker is lost
_WAIT_SECONDS, _CONNECT_SECONDS = 1.0, 10.0


def import_ray() -> ModuleType:
    """Import Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UsageError("--ray needs Ray: pip install 'vop[cluster]'") from None
    module: ModuleType = ray
    return module


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cluster gives to an indexing.

    Attributes:
        jobs: the number of workers.
        gpus, cpus: of each worker.
    """

    jobs: int
    gpus: float
    cpus: int

    @classmethod
    def of(cls, nodes: Iterable[dict[str, Any]], *, jobs: int | None, gpus_per_worker: float | None) -> Resources:
        """Divide a cluster: by default one worker for each GPU or, without GPUs, for each node.

        Args:
            nodes: as `ray.nodes()` returns them.

        Raises:
            UsageError: no node has that many GPUs, or a number is not allowed.
        """
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs is {jobs}; give 1 or more")
        if gpus_per_worker is not None and gpus_per_worker < 0:
            raise UsageError(f"gpus_per_worker is {gpus_per_worker}; give 0 or more")
        found = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not found:
            raise VopError("no node of the Ray cluster has a free CPU for workers; add nodes: ray start --address …")
        most = max(node.get("GPU", 0.0) for node in found)
        gpus = float(most >= 1) if gpus_per_worker is None else gpus_per_worker
        if gpus > most:
            raise UsageError(f"gpus_per_worker is {gpus:g}, but no node of the Ray cluster has more than {most:g}")
        usable = [node for node in found if node.get("GPU", 0.0) >= gpus]
        places = sum(int(node["GPU"] // gpus) for node in usable) if gpus else len(usable)
        jobs = jobs or places
        on_a_node = -(-jobs // len(usable))
        return cls(jobs=jobs, gpus=gpus, cpus=max(1, int(min(node["CPU"] for node in usable)) // on_a_node))


class Cluster:
    """A connection to a Ray cluster, which stays as it is if this process was connected before. A context manager.

    Args:
        address: host:port; "auto" for the cluster of this machine, "local" to start one here for this job.

    Raises:
        UsageError: Ray is not installed.
        VopError: no cluster runs there.
    """

    def __init__(self, address: str = AUTO) -> None:
        self.ray = import_ray()
        self._connected_before = self.ray.is_initialized()
        if not self._connected_before:
            self._connect(address)

    def _connect(self, address: str) -> None:
        host, colon, port = address.rpartition(":")
        try:
            if colon and port.isdecimal() and "://" not in address:
                socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()  # Ray waits for minutes
            self.ray.init(address=address, logging_level="error", log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:  # a ConnectionError is an OSError
            where = "on this machine" if address == AUTO else f"at {address}"
            raise VopError(
                f"no Ray cluster answers {where} ({error}); start one: ray start --head; or use --ray local"
            ) from error

    def __enter__(self) -> Cluster:
        self._output = redirect_stdout(sys.stderr)  # Ray prints that a node is lost, even without logs
        self._output.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._connected_before:
                self.ray.shutdown()
        finally:
            self._output.__exit__(None, None, None)

    def resources(self, *, jobs: int | None, gpus_per_worker: float | None) -> Resources:
        """Divide the cluster; see `Resources.of`."""
        return Resources.of(self.ray.nodes(), jobs=jobs, gpus_per_worker=gpus_per_worker)

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
        job = _Job(self.ray, plan, list(numbers), resources, (workers or resources.cpus, batch_size, compile))
        try:
            yield from job.run()
        finally:
            job.end()


class _Job:
    """The shards that wait, and the actors that work. A new actor gets a shard only once it runs."""

    def __init__(
        self,
        ray: ModuleType,
        plan: Plan,
        numbers: list[int],
        resources: Resources,
        settings: tuple[int, int, bool],
    ) -> None:
        self._ray, self._plan, self._waiting = ray, plan, numbers
        self._left = len(numbers)
        self._attempts = dict.fromkeys(numbers, 0)
        self._actor = ray.remote(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(_Actor)
        self._arguments = (str(plan.folder), resources.cpus, *settings)
        self._busy: dict[Any, tuple[Any, int | None]] = {}  # by what Ray returns: the actor, and its shard
        self._idle: list[Any] = []
        for _ in range(min(resources.jobs, self._left)):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._busy[actor.ready.remote()] = (actor, None)

    def run(self) -> Generator[int | None, None, None]:
        exceptions = self._ray.exceptions
        while self._left:
            done, _ = self._ray.wait(list(self._busy), timeout=_WAIT_SECONDS)
            if not done:
                yield None
            for reference in done:
                actor, number = self._busy.pop(reference)
                try:
                    self._ray.get(reference)
                except exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, Exception) else error from None
                except exceptions.RayError as error:
                    self._lost(actor, number, error)
                else:
                    self._idle.append(actor)
                    if number is not None:
                        self._left -= 1
                        yield number
                self._assign()

    def _lost(self, actor: Any, number: int | None, error: Exception) -> None:
        self._ray.kill(actor)  # it may only be out of reach
        self._start()  # it waits until the cluster has room for it
        if number is None:
            return
        if self._attempts[number] == ATTEMPTS:
            files = self._plan.files(number)
            raise VopError(
                f"{self._plan.library}: the worker of shard {number} was lost {ATTEMPTS} times "
                f"({type(error).__name__}), perhaps because there was not enough memory; try a smaller --batch-size. "
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

    def __init__(self, folder: str, cpus: int, workers: int, batch_size: int, compile: bool) -> None:
        sleep_while_waiting()
        self._folder, self._workers, self._batch_size, self._compile = location(folder), workers, batch_size, compile
        os.environ["OMP_NUM_THREADS"] = str(cpus)
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
