"""The jobs of a study over processes: searches first, then the runs that wait for their rates."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Queue

from vop.datasets.types import Dataset
from vop.errors import FileFailure, UsageError, VopError
from vop.experiments.plan import Arm, Plan
from vop.experiments.source import code_of
from vop.experiments.work import Job, run_job
from vop.heads import MEAN
from vop.utils.progress import Progress

QUIET_SECONDS = 0.5  # between two messages of a process


@dataclass
class Outcome:
    """What a study found.

    Attributes:
        runs: each arm's results, by seed; see `vop.experiments.work`.
        rates: each searched arm's `{"learning_rate", "trials"}`.
        failures: what could not be done, and why.
        left_out: videos of any split that could not be read.
    """

    runs: dict[str, list[dict]] = field(default_factory=dict)
    rates: dict[str, dict] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: tuple[FileFailure, ...] = ()


@dataclass
class _Running:
    """A job under way, in the only process of its pool, so that its memory and its end are its own."""

    job: Job
    slot: int
    pool: ProcessPoolExecutor


class Scheduler:
    """Runs a plan's jobs, as many side by side as there are slots.

    Args:
        data: the fingerprint of each split's readable part.
        jobs: the slots.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        out: Path,
        cache: Path,
        *,
        data: dict[str, str],
        jobs: int,
        progress: Progress,
    ) -> None:
        self.plan, self.data, self.progress, self.slots = plan, data, progress, list(range(jobs))
        self.outcome = Outcome(runs={arm.name: [] for arm in plan.arms})
        self.gpus = _gpus()
        self.common = {"plan": plan, "dataset": dataset, "out": out, "cache": cache, "data": data}
        self.common["side_by_side"] = jobs
        self.code = {arm.name: code_of(arm.method, arm.head) for arm in plan.arms}
        self.waiting = self._first_jobs()
        self.running: dict[Future, _Running] = {}
        self.done, self.total = 0, len(self._rate_arms()) + sum(len(self._seeds(arm)) for arm in plan.arms)

    def run(self) -> Outcome:
        """Does all of them.

        Raises:
            UsageError: an earlier result is of other videos than can be read now.
        """
        self._take_what_is_done()
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            messages = manager.Queue()
            try:
                while self.waiting or self.running:
                    self._start(context, messages)
                    finished, _ = wait(self.running, timeout=QUIET_SECONDS, return_when=FIRST_COMPLETED)
                    self._show(messages)
                    for future in finished:
                        self._end(future)
                    self._take_what_is_done()
            except BaseException:  # nobody waits any more for what is half done: checkpoints keep it
                self._end_processes()
                raise
            finally:
                for running in self.running.values():
                    running.pool.shutdown(cancel_futures=True)
        for runs in self.outcome.runs.values():
            runs.sort(key=lambda run: run["seed"])
        return self.outcome

    def _end_processes(self) -> None:
        for running in self.running.values():
            for process in list((running.pool._processes or {}).values()):
                process.terminate()

    def _start(self, context, messages: Queue) -> None:
        while self.waiting and self.slots:
            slot = self.slots.pop(0)
            gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
            job = replace(self.waiting.pop(0), gpu=gpu)
            pool = ProcessPoolExecutor(1, mp_context=context)
            self.running[pool.submit(_in_process, job, messages, slot)] = _Running(job, slot, pool)

    def _end(self, future: Future) -> None:
        running = self.running.pop(future)
        self.slots.append(running.slot)
        running.pool.shutdown()
        self._finish(running.job, future.result)

    def _take_what_is_done(self) -> None:
        """Jobs of which a result lies there, from an earlier call or from an arm that trains the same."""
        while ready := [job for job in self.waiting if job.result_path.exists()]:
            for job in ready:
                self.waiting.remove(job)
                self._check_data(job)
                self._finish(job, job.result)

    def _check_data(self, job: Job) -> None:
        made_from = job.result()["data"]
        for name, fingerprint in self.data.items():
            if made_from.get(name) != fingerprint:
                raise UsageError(
                    f"{job.result_path} was made from other videos of the split {name!r} than can be read now: one has "
                    "come, gone or changed. Put them back, or delete the results that were made without them"
                )

    def _finish(self, job: Job, result: Callable[[], dict]) -> None:
        self.done += 1
        try:
            found = result()
        except Exception as error:  # of one job, a crash of its process included; the others go on
            self.outcome.failures.append(f"{job.arm.name}, {job.name}: {_reason(error)}")
            if job.is_search:
                self.done += sum(len(self._seeds(arm)) for arm in self._that_wait_for(job.arm))
        else:
            self._keep(job, found)
        self.progress("study", self.done, self.total, f"{job.name} done")

    def _keep(self, job: Job, found: dict) -> None:
        if not job.is_search:
            self.outcome.runs[job.arm.name].append(found)
            return
        self.outcome.rates[job.arm.name] = found
        for arm in self._that_wait_for(job.arm):
            self.waiting += self._runs(arm, found["learning_rate"])

    def _first_jobs(self) -> list[Job]:
        if self.plan.search is None:
            rate = self.plan.recipe.learning_rate
            return [run for arm in self.plan.arms for run in self._runs(arm, rate)]
        searches = [Job(**self.common, arm=arm, code=self.code[arm.name]) for arm in self._rate_arms()]
        return [*searches, *(run for arm in self.plan.arms if not _trains(arm) for run in self._runs(arm, 0.0))]

    def _rate_arms(self) -> list[Arm]:
        """Those whose learning rate is searched."""
        if self.plan.search is None:
            return []
        return list({arm.name: arm for arm in map(self.plan.rate_arm, filter(_trains, self.plan.arms))}.values())

    def _that_wait_for(self, searched: Arm) -> list[Arm]:
        return [arm for arm in self.plan.arms if _trains(arm) and self.plan.rate_arm(arm) == searched]

    def _seeds(self, arm: Arm) -> tuple[int, ...]:
        return self.plan.seeds if _trains(arm) else self.plan.seeds[:1]

    def _runs(self, arm: Arm, rate: float) -> list[Job]:
        common = self.common | {"arm": arm, "code": self.code[arm.name]}
        return [Job(**common, rate=rate, seed=seed) for seed in self._seeds(arm)]

    def _show(self, messages: Queue) -> None:
        while True:
            try:
                slot, name, step, done, total, note = messages.get_nowait()
            except Empty:
                return
            self.progress(f"process {slot + 1}", done, total, ", ".join(part for part in (name, step, note) if part))


def _in_process(job: Job, messages: Queue, slot: int) -> dict:
    """In a process of its own: the job, with its progress sent home now and then."""
    sent = 0.0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which ends it

    def progress(step: str, done: int, total: int, note: str = "") -> None:
        nonlocal sent
        if time.monotonic() - sent >= QUIET_SECONDS:
            _end_with_the_parent()
            sent = time.monotonic()
            messages.put((slot, job.name, step, done, total, note))

    return run_job(job, progress)


def _end_with_the_parent() -> None:
    """A study that was killed must not go on in its processes, beside the one that goes on with it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, VopError) else f"{type(error).__name__}: {error}"


def _trains(arm: Arm) -> bool:
    return not (arm.method == "zero-shot" and arm.head == MEAN)


def _gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no choice."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    return found if len(found) > 1 else []
