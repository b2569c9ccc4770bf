"""Runs a study: searches rates, trains and ranks, over processes; what is done already is used again.

A study's folder:

study.json     what it was started with
search/        a JSON file for each searched learning rate, and Optuna's journal
runs/          a run's folder for each training, with its result.json
cache/         decoded frames, unless they are kept elsewhere
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, Queue

from vop.data.frames import FrameStore
from vop.data.loading import count_groups
from vop.data.screening import cache_dataset
from vop.data.types import Dataset
from vop.errors import UsageError, VopError
from vop.files import atomic_write
from vop.progress import Progress, silent, stage
from vop.studies.plan import Arm, Plan, check_same
from vop.studies.work import Job, run_job

STUDY, LOCK = "study.json", ".lock"
QUIET_SECONDS = 0.5  # between two messages of a process


@dataclass
class Outcome:
    """What a study found.

    Attributes:
        runs: each arm's results, by seed; see `vop.studies.work`.
        rates: each searched arm's `{"learning_rate", "trials"}`.
        failures: what could not be done, and why.
        seconds: of this call; what an earlier one did is not in it.
    """

    runs: dict[str, list[dict]] = field(default_factory=dict)
    rates: dict[str, dict] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run_study(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    cache: Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> Outcome:
    """Does what is left to do of `plan` in the folder `out`.

    A run that fails is reported, and the others go on.

    Args:
        jobs: processes side by side. On a CPU they share its cores, on several GPUs each has one.

    Raises:
        UsageError: a method, setting or split that is not there.
        VopError: `out` holds another study, or nothing could be done.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; give 1 or more")
    started = time.monotonic()
    frames = _check(plan, dataset)
    with _alone_in(out):
        _claim(plan, dataset, out)
        cache = cache or out / "cache"
        cache_dataset(dataset, FrameStore(*frames, cache=cache), progress=stage(progress, "decoding"))
        outcome = _Work(plan, dataset, out, cache, jobs, progress).run()
    for runs in outcome.runs.values():
        runs.sort(key=lambda run: run["seed"])
    outcome.seconds = time.monotonic() - started
    if not any(outcome.runs.values()):
        raise VopError("nothing could be compared:\n" + "\n".join(f"  {line}" for line in outcome.failures))
    return outcome


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Holds the study's folder; the lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    for path in (out, *out.parents):
        if path.is_file():
            raise UsageError(f"{path} is a file; --out {out} is to be a folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise VopError(
            f"{out}: another process is at work on this study; wait for it, or choose another --out"
        ) from None


def _check(plan: Plan, dataset: Dataset) -> tuple[int, int]:
    """Every arm can be built, and the data has what it takes; gives the number and the size of frames."""
    import torch

    from vop import heads, methods
    from vop.backbone import find_backbone
    from vop.model import split_settings

    for split in ("train", plan.split):
        dataset.split(split)
    count_groups(dataset.split("train"), size=plan.recipe.captions_per_video)
    if plan.search and "val" not in dataset.splits and not plan.recipe.validation:
        raise UsageError("validation is 0: a learning rate is searched on validation videos, so hold some out")
    sizes = find_backbone(plan.backbone).sizes
    frames = set()
    for arm in plan.arms:
        of_method, of_head = split_settings(arm.settings)
        with torch.device("meta"):
            method = methods.create(arm.method, sizes, **of_method)
            heads.create(arm.head, sizes, num_frames=method.num_frames, **of_head)
        frames.add(method.num_frames)
    if len(frames) > 1:
        raise UsageError(f"the arms take {' and '.join(map(str, sorted(frames)))} frames; a study has one number")
    return frames.pop(), sizes.image_size


def _claim(plan: Plan, dataset: Dataset, out: Path) -> None:
    """Makes `out` this study's folder, or checks that it is already."""
    from vop.backbone import find_backbone

    path = out / STUDY
    splits = {name: split.fingerprint for name, split in dataset.splits.items()}
    identity = plan.identity(splits=splits, backbone=find_backbone(plan.backbone).content_hash())
    arms = {arm.name: json.loads(json.dumps(_facts(arm))) for arm in plan.arms}
    if path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            known, there = saved["identity"], saved["arms"]
        except (ValueError, KeyError, TypeError) as error:
            raise VopError(f"{path}: damaged ({error!r}); choose another --out") from None
        both = there.keys() & arms.keys()
        check_same(
            known | {name: there[name] for name in both}, identity | {name: arms[name] for name in both}, out=out
        )
        arms = there | arms
    elif {entry.name for entry in out.iterdir()} - {LOCK}:
        raise UsageError(f"{out} is not empty, and holds no study: choose another --out")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"identity": identity, "arms": arms}, indent=1) + "\n", encoding="utf-8")


def _facts(arm: Arm) -> dict:
    facts = asdict(arm)
    return {name: facts[name] for name in ("method", "head", "settings")}


class _Work:
    """The jobs of a study: searches first, then the runs that wait for them."""

    def __init__(self, plan: Plan, dataset: Dataset, out: Path, cache: Path, jobs: int, progress: Progress) -> None:
        self.plan, self.progress, self.slots = plan, progress, list(range(jobs))
        self.outcome = Outcome(runs={arm.name: [] for arm in plan.arms})
        self.threads = _threads(jobs)
        self.gpus = _gpus()
        self.common = {"plan": plan, "dataset": dataset, "out": out, "cache": cache}
        self.results: dict[Path, dict] = {}
        self.waiting = self._first_jobs()
        self.total = len(self._rate_arms()) + sum(len(self._seeds(arm)) for arm in plan.arms)
        self.done = 0

    def run(self) -> Outcome:
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            messages = manager.Queue()
            # A process for each job: memory that it took is its own, and what it leaves behind goes with it.
            pool = ProcessPoolExecutor(len(self.slots), mp_context=context, max_tasks_per_child=1)
            try:
                self._loop(pool, messages)
            finally:
                pool.shutdown(cancel_futures=True)
        return self.outcome

    def _loop(self, pool: ProcessPoolExecutor, messages: Queue) -> None:
        running: dict[Future, tuple[Job, int]] = {}
        self._take_what_is_done()
        while self.waiting or running:
            while self.waiting and self.slots:
                job, slot = self.waiting.pop(0), self.slots.pop(0)
                running[pool.submit(_in_process, job, messages, slot)] = job, slot
            finished, _ = wait(running, timeout=QUIET_SECONDS, return_when=FIRST_COMPLETED)
            self._show(messages)
            for future in finished:
                job, slot = running.pop(future)
                self.slots.append(slot)
                self._finish(job, future.result)
            self._take_what_is_done()

    def _take_what_is_done(self) -> None:
        """Jobs of which a result lies there, from an earlier call or from an arm that trains the same."""
        while ready := [job for job in self.waiting if job.result_path.exists()]:
            for job in ready:
                self.waiting.remove(job)
                self._finish(job, job.result)

    def _finish(self, job: Job, result: Callable[[], dict]) -> None:
        self.done += 1
        try:
            found = result()
        except VopError as error:
            self.outcome.failures.append(f"{job.arm.name}, {job.name}: {error}")
            if job.is_search:
                self.done += sum(len(self._seeds(arm)) for arm in self._that_wait_for(job.arm))
        else:
            if job.is_search:
                self.outcome.rates[job.arm.name] = found
                self.waiting += [
                    run for arm in self._that_wait_for(job.arm) for run in self._runs(arm, found["learning_rate"])
                ]
            else:
                self.outcome.runs[job.arm.name].append(found)
        self.progress("study", self.done, self.total, f"{job.name} done")

    def _first_jobs(self) -> list[Job]:
        if self.plan.search is None:
            rate = self.plan.recipe.learning_rate
            return [run for arm in self.plan.arms for run in self._runs(arm, rate)]
        searches = [self._job(arm, threads=self.threads) for arm in self._rate_arms()]
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
        return [self._job(arm, rate=rate, seed=seed) for seed in self._seeds(arm)]

    def _job(self, arm: Arm, **facts) -> Job:
        self.counted = getattr(self, "counted", -1) + 1
        gpu = self.gpus[self.counted % len(self.gpus)] if len(self.gpus) > 1 else None
        return Job(**self.common, arm=arm, gpu=gpu, **{"threads": self.threads, **facts})

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


def _trains(arm: Arm) -> bool:
    from vop.heads import MEAN

    return not (arm.method == "zero-shot" and arm.head == MEAN)


def _threads(jobs: int) -> int:
    """For each of several processes its part of the cores; one alone takes what PyTorch takes."""
    return max(1, len(os.sched_getaffinity(0)) // jobs) if jobs > 1 else 0


def _gpus() -> list[int]:
    import torch

    return list(range(torch.cuda.device_count()))
