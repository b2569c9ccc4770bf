"""Ray clusters: connect to one, and divide it among workers.

Ray is imported only where it is used: it is an extra, and large.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

from vop.errors import UsageError, VopError

AUTO, LOCAL = "auto", "local"
ATTEMPTS = 3  # for each piece of work, if its worker is lost
_CONNECT_SECONDS = 10.0
_CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VOP_DEVICE")  # what --threads and --device set


def chosen_variables() -> dict[str, str]:
    """Return the environment variables with the user's choice of threads and device, for workers on other nodes."""
    return {name: os.environ[name] for name in _CHOSEN if os.environ.get(name)}


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
    """What a cluster gives to a job.

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
        # The quotient of floats such as 1 and 0.2 may be a little too small.
        places = [int(node["GPU"] / gpus + 1e-6) if gpus else 1 for node in usable]
        jobs = jobs or sum(places)
        most_on_each = places if gpus else [jobs] * len(usable)
        level = 1  # the greatest number of workers on a node, if Ray spreads them
        while sum(min(level, most) for most in most_on_each) < jobs and level < max(most_on_each):
            level += 1
        cpus = min(int(node["CPU"]) // min(level, most) for node, most in zip(usable, most_on_each, strict=True))
        return cls(jobs=jobs, gpus=gpus, cpus=max(1, cpus))


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
            with _own_sigterm():
                self.ray.init(address=address, logging_level="error", log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:  # a ConnectionError is an OSError
            where = "on this machine" if address == AUTO else f"at {address}"
            raise VopError(
                f"no Ray cluster answers {where} ({error}); start one: ray start --head; or use --ray local"
            ) from error

    def __enter__(self) -> Self:
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

    def result(self, reference: Any) -> Any:
        """Return the result of work that has ended.

        Raises:
            LostWorker: its worker was lost.
            Exception: any error of the work.
        """
        exceptions = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except exceptions.RayError as error:
            raise LostWorker(type(error).__name__) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM, in whose place Ray would end the process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class LostWorker(Exception):
    """A worker ended without a result: its process was killed, or its node was lost."""
