"""Run an experiment's jobs in processes: first the searches, then the trainings that need their rates."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from queue import Empty, Queue

from vop.datasets.types import Dataset
from vop.errors import UsageError, VopError
from vop.experiments.plan import Arm, Plan
from vop.experiments.results import RunRecord, SearchRecord, UnreadableVideo
from vop.experiments.source import code_of
from vop.experiments.work import Job, run_job
from vop.utils.progress import Progress

Record = RunRecord | SearchRecord
Messages = Queue[tuple[int, str, str, int, int, str]]  # slot, job, stage, done, total, note

QUIET_SECONDS = 0.5  # minimum interval between two messages of a process


@dataclass
class Outcome:
    """The outcome of an experiment's jobs.

    Attributes:
        runs: each arm's runs, by seed.
        rates: the search results, by arm.
        failures: the failed jobs, each with its reason.
        left_out: videos of any split that could not be read.
    """

    runs: dict[str, list[RunRecord]] = field(default_factory=dict)
    rates: dict[str, SearchRecord] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: list[UnreadableVideo] = field(default_factory=list)


@dataclass
class _Running:
    """A running job. Its pool has one process, so that its memory is separate and a crash ends only this job."""

    job: Job
    slot: int
    pool: ProcessPoolExecutor


class Scheduler:
    """Runs a plan's jobs, one per slot at a time.

    Args:
        data: the fingerprint of each split's readable part.
        jobs: the number of slots.
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
        self.jobs = {
            arm.name: Job(
                plan=plan,
                arm=arm,
                dataset=dataset,
                out=out,
                cache=cache,
                data=data,
                code=code_of(arm.method, arm.head),
                side_by_side=jobs,
            )
            for arm in plan.arms
        }
        self.waiting = self._first_jobs()
        self.running: dict[Future[Record], _Running] = {}
        self.done, self.total = 0, len(self._rate_arms()) + sum(len(self._seeds(arm)) for arm in plan.arms)

    def run(self) -> Outcome:
        """Run all jobs.

        Raises:
            UsageError: an earlier result was made with other videos than the readable ones.
        """
        self._reuse_results()
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
                    self._reuse_results()
            except BaseException:  # unfinished jobs resume from their checkpoints
                self._end_processes()
                raise
            finally:
                for running in self.running.values():
                    running.pool.shutdown(cancel_futures=True)
        for runs in self.outcome.runs.values():
            runs.sort(key=lambda run: run.seed)
        return self.outcome

    def _end_processes(self) -> None:
        for running in self.running.values():
            for process in list((running.pool._processes or {}).values()):
                process.terminate()

    def _start(self, context: SpawnContext, messages: Messages) -> None:
        while self.waiting and self.slots:
            slot = self.slots.pop(0)
            gpu = self.gpus[slot % len(self.gpus)] if self.gpus else None
            job = replace(self.waiting.pop(0), gpu=gpu)
            pool = ProcessPoolExecutor(1, mp_context=context)
            self.running[pool.submit(_run_in_process, job, messages, slot)] = _Running(job, slot, pool)

    def _end(self, future: Future[Record]) -> None:
        running = self.running.pop(future)
        self.slots.append(running.slot)
        running.pool.shutdown()
        self._finish(running.job, future.result)

    def _reuse_results(self) -> None:
        """Reuse results of an earlier call, or of an arm with the same training."""
        while ready := [job for job in self.waiting if job.result_path.exists()]:
            for job in ready:
                self.waiting.remove(job)
                self._check_data(job)
                self._finish(job, job.existing_result)

    def _check_data(self, job: Job) -> None:
        record = job.result()
        made_from = record.data if record is not None else {}
        for name, fingerprint in self.data.items():
            if made_from.get(name) != fingerprint:
                raise UsageError(
                    f"{job.result_path} was made with other videos of the split {name!r} than the readable ones: "
                    "videos were added, deleted or changed since. Restore them, or delete the old results"
                )

    def _finish(self, job: Job, result: Callable[[], Record]) -> None:
        self.done += 1
        try:
            found = result()
        except Exception as error:  # one failed job, even a crashed process, does not stop the others
            self.outcome.failures.append(f"{job.arm.name}, {job.name}: {_reason(error)}")
            if job.is_search:
                self.done += sum(len(self._seeds(arm)) for arm in self._arms_waiting_for(job.arm))
        else:
            self._keep(job, found)
        self.progress("experiment", self.done, self.total, f"{job.name} done")

    def _keep(self, job: Job, found: Record) -> None:
        if isinstance(found, RunRecord):
            self.outcome.runs[job.arm.name].append(found)
            return
        self.outcome.rates[job.arm.name] = found
        for arm in self._arms_waiting_for(job.arm):
            self.waiting += self._runs(arm, found.learning_rate)

    def _first_jobs(self) -> list[Job]:
        if self.plan.search is None:
            rate = self.plan.recipe.learning_rate
            if rate is None:
                raise UsageError("the plan has neither a search nor a learning rate: give one of them")
            return [run for arm in self.plan.arms for run in self._runs(arm, rate)]
        searches = [self.jobs[arm.name] for arm in self._rate_arms()]
        return [*searches, *(run for arm in self.plan.arms if not arm.trains for run in self._runs(arm, 0.0))]

    def _rate_arms(self) -> list[Arm]:
        """Return the arms whose learning rate is searched."""
        if self.plan.search is None:
            return []
        return list({(rate := self.plan.rate_arm(arm)).name: rate for arm in self.plan.arms if arm.trains}.values())

    def _arms_waiting_for(self, searched: Arm) -> list[Arm]:
        return [arm for arm in self.plan.arms if arm.trains and self.plan.rate_arm(arm) == searched]

    def _seeds(self, arm: Arm) -> tuple[int, ...]:
        return self.plan.seeds if arm.trains else self.plan.seeds[:1]

    def _runs(self, arm: Arm, rate: float) -> list[Job]:
        return [replace(self.jobs[arm.name], rate=rate, seed=seed) for seed in self._seeds(arm)]

    def _show(self, messages: Messages) -> None:
        while True:
            try:
                slot, name, step, done, total, note = messages.get_nowait()
            except Empty:
                return
            self.progress(f"process {slot + 1}", done, total, ", ".join(part for part in (name, step, note) if part))


def _run_in_process(job: Job, messages: Messages, slot: int) -> Record:
    """Run the job in its own process, and send the progress to the parent process."""
    sent = 0.0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C and ends this one

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal sent
        if time.monotonic() - sent >= QUIET_SECONDS:
            _exit_without_parent()
            sent = time.monotonic()
            messages.put((slot, job.name, stage, done, total, note))

    return run_job(job, progress)


def _exit_without_parent() -> None:
    """End this process if its parent was killed, so that it does not run beside a resumed experiment."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, VopError) else f"{type(error).__name__}: {error}"


def _gpus() -> list[str]:
    """Return the GPUs of this process, as CUDA_VISIBLE_DEVICES names them; empty if there are fewer than two."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    return found if len(found) > 1 else []
