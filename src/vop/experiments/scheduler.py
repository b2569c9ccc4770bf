"""Run an experiment's jobs: first the searches, then the trainings that need their rates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vop.datasets.types import Dataset
from vop.errors import UsageError, VopError
from vop.experiments.plan import Arm, Plan
from vop.experiments.results import RunRecord, SearchRecord, UnreadableVideo
from vop.experiments.source import code_of
from vop.experiments.work import Job
from vop.experiments.workers import Workers
from vop.utils.progress import Progress

log = logging.getLogger(__name__)
Record = RunRecord | SearchRecord


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


class Scheduler:
    """Runs a plan's jobs.

    Args:
        data: the fingerprint of each split's readable part.
        workers: run the jobs, one per slot at a time.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        out: Path,
        cache: Path,
        *,
        data: dict[str, str],
        workers: Workers,
        progress: Progress,
    ) -> None:
        self.plan, self.data, self.progress, self.workers = plan, data, progress, workers
        self.slots = list(range(workers.count))
        self.outcome = Outcome(runs={arm.name: [] for arm in plan.arms})
        self.jobs = {
            arm.name: Job(
                plan=plan,
                arm=arm,
                dataset=dataset,
                out=out,
                cache=cache,
                data=data,
                code=code_of(arm.method, arm.head),
            )
            for arm in plan.arms
        }
        self.waiting = self._first_jobs()
        self.running = 0
        self.done, self.total = 0, len(self._rate_arms()) + sum(len(self._seeds(arm)) for arm in plan.arms)

    def run(self) -> Outcome:
        """Run all jobs.

        Raises:
            UsageError: an earlier result was made with other videos than the readable ones.
        """
        self._reuse_results()
        with self.workers:  # if this fails, unfinished jobs are ended, and resume from their checkpoints
            while self.waiting or self.running:
                self._start()
                finished = list(self.workers.ended())
                self._show()
                for ended in finished:
                    self.running -= 1
                    self.slots.append(ended.slot)
                    self._finish(ended.job, ended.result)
                self._reuse_results()
        for runs in self.outcome.runs.values():
            runs.sort(key=lambda run: run.seed)
        return self.outcome

    def _start(self) -> None:
        while self.waiting and self.slots:
            self.workers.start(self.waiting.pop(0), self.slots.pop(0))
            self.running += 1

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
        except (Exception, SystemExit) as error:  # one failed job, even a crashed process, does not stop the others
            if not isinstance(error, VopError):
                log.error("%s failed", job.name, exc_info=error)
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

    def _show(self) -> None:
        for slot, name, step, done, total, note in self.workers.messages():
            self.progress(f"process {slot + 1}", done, total, ", ".join(part for part in (name, step, note) if part))


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, VopError) else f"{type(error).__name__}: {error}"
