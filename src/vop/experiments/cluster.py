"""Workers of a Ray cluster, which run the jobs of an experiment. A job whose worker is lost starts again elsewhere.

Only jobs, their results and their progress pass through Ray. All nodes need the experiment's folder, the frame cache
and the videos at the same paths: a job resumes from the checkpoint of a lost worker, and trains on the same frames.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vop.errors import VopError
from vop.experiments.workers import QUIET_SECONDS, Ended, Message, sending
from vop.utils.cluster import ATTEMPTS, Cluster, LostWorker, chosen_variables
from vop.utils.threads import sleep_while_waiting
from vop.version import VERSION

if TYPE_CHECKING:
    from vop.datasets.types import Dataset
    from vop.experiments.results import RunRecord, SearchRecord
    from vop.experiments.work import Job


class WrongNode(VopError):
    """A node of the cluster lacks files of an experiment, or would compute other results. This ends the experiment."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a node must have in common with the process that runs the experiment.

    Attributes:
        folder: the current folder, which relative paths start from.
        missing: the videos that do not exist.
        variables: environment variables.
    """

    folder: Path
    vop_version: str
    missing: frozenset[str]
    variables: dict[str, str]


@dataclass(frozen=True)
class _Running:
    job: Job
    slot: int
    attempt: int = 1


class RayWorkers:
    """Workers of a Ray cluster; see `vop.experiments.workers.Workers`.

    Args:
        jobs: the number of workers; by default one for each GPU or, without GPUs, for each node.
        gpus_per_worker: GPUs of each worker; a fraction shares one. By default 1 if the cluster has any.

    Raises:
        UsageError: no node has that many GPUs, or a number is not allowed.
        VopError: no node has a free CPU.
    """

    def __init__(self, cluster: Cluster, *, jobs: int | None = None, gpus_per_worker: float | None = None) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self._resources = cluster.resources(jobs=jobs, gpus_per_worker=gpus_per_worker)
        self._running: dict[Any, _Running] = {}  # by what Ray returns
        self._place: tuple[Dataset, Place] | None = None

    @property
    def count(self) -> int:
        return self._resources.jobs

    def __enter__(self) -> Self:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=True)
        self._mailbox = self._ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox).remote()
        # A job gets a process of its own, and no other attempts than those that are counted here.
        self._task = self._ray.remote(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            max_calls=1,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )(_work)
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.kill(self._mailbox)

    def start(self, job: Job, slot: int) -> None:
        self._submit(_Running(replace(job, out=Path.cwd() / job.out, cache=Path.cwd() / job.cache), slot))

    def _submit(self, running: _Running) -> None:
        named = self._task.options(name=running.job.name)  # as Ray's dashboard shows it
        place = self._place_of(running.job.dataset)
        reference = named.remote(pickle.dumps(running.job), running.slot, place, self._mailbox)
        self._running[reference] = running

    def _place_of(self, dataset: Dataset) -> Place:
        if self._place is None or self._place[0] is not dataset:
            place = Place(
                folder=Path.cwd(),
                vop_version=VERSION,
                missing=frozenset(str(video.path) for video in dataset.videos if not video.path.exists()),
                variables=chosen_variables(),
            )
            self._place = dataset, place
        return self._place[1]

    def ended(self) -> Iterator[Ended]:
        done, _ = self._ray.wait(list(self._running), timeout=QUIET_SECONDS)
        for reference in done:
            running = self._running.pop(reference)
            outcome: Future[RunRecord | SearchRecord] = Future()
            try:
                outcome.set_result(self._cluster.result(reference))
            except LostWorker as error:
                if running.attempt < ATTEMPTS:
                    self._submit(replace(running, attempt=running.attempt + 1))
                    continue
                outcome.set_exception(
                    VopError(
                        f"its worker was lost {ATTEMPTS} times ({error}), perhaps because there was not enough memory; "
                        "try fewer --jobs or, with another --out, a smaller --batch-size"
                    )
                )
            except WrongNode:
                raise
            except Exception as error:
                outcome.set_exception(error)
            yield Ended(running.job, running.slot, outcome.result)

    def messages(self) -> Sequence[Message]:
        try:
            messages: list[Message] = self._cluster.result(self._mailbox.take.remote())
        except LostWorker:  # only progress is lost with it
            return ()
        return messages


class _Mailbox:
    """An actor beside the process that runs the experiment. It keeps messages until they are taken."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def put(self, message: Message) -> None:
        self._messages.append(message)

    def take(self) -> list[Message]:
        messages, self._messages = self._messages, []
        return messages


# -- in the worker processes


def _work(pickled: bytes, slot: int, place: Place, mailbox: Any) -> RunRecord | SearchRecord:
    """Run a job, whose bytes are read once this process is prepared for PyTorch."""
    sleep_while_waiting()
    os.environ.update(place.variables)  # Ray has set OMP_NUM_THREADS to the number of the worker's CPUs
    if place.folder.is_dir():
        os.chdir(place.folder)
    job: Job = pickle.loads(pickled)
    check_node(job, place)
    from vop.experiments.work import run_job

    return run_job(job, sending(job.name, slot, lambda message: mailbox.put.remote(message)))


def check_node(job: Job, place: Place) -> None:
    """Check that this node has an experiment's files, and computes the same results as the other nodes.

    Raises:
        WrongNode: it has not, or does not.
    """
    from vop.backbones import find_backbone
    from vop.experiments.runner import MANIFEST
    from vop.utils.device import default_device, resolve_precision

    node, plan = f"node {platform.node()}", job.plan
    if place.vop_version != VERSION:
        raise WrongNode(f"{node}: vop is {VERSION}, and {place.vop_version} runs the experiment; install that version")
    found = {str(video.path) for video in job.dataset.videos if not video.path.exists()}
    absent = [str(path) for path in (job.out / MANIFEST, job.cache) if not path.exists()]
    for path in absent or sorted(found - place.missing):
        raise WrongNode(
            f"{node}: {path} does not exist here; all nodes need the folder of --out, the frame cache and the videos "
            "at the same paths, on a shared file system"
        )
    identity = json.loads((job.out / MANIFEST).read_text(encoding="utf-8"))["identity"]
    try:
        dtype = resolve_precision(plan.recipe.precision, default_device())
        weights = find_backbone(plan.backbone).content_hash()
    except VopError as error:
        raise WrongNode(f"{node}: {error}") from None
    precision = str(dtype).removeprefix("torch.")
    if precision != identity["precision"]:
        raise WrongNode(
            f"{node}: precision {plan.recipe.precision!r} is {precision} here, and {identity['precision']} where the "
            "experiment runs; give --precision fp32 or bf16"
        )
    if weights != identity["backbone"]:
        raise WrongNode(f"{node}: {plan.backbone} has other weights here; give all nodes the same files")
