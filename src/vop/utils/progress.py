"""Show the progress of long jobs on standard error: bars with estimates on a terminal, occasional lines elsewhere.

A long job calls `progress(stage, done, total, note="")`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from vop.utils.text import visible

if TYPE_CHECKING:
    from rich.progress import TaskID

SPEED_WINDOW_SECONDS = 600.0


class Progress(Protocol):
    """Called with the name of a stage, the number of finished steps, and their total number."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Progress that shows nothing."""


class Lines:
    """Progress for files and pipes: a line at a stage's start and end, and one every `interval_seconds` in between."""

    def __init__(self, *, interval_seconds: float = 30.0) -> None:
        self.interval_seconds = interval_seconds
        self._shown: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage not in self._started or done < self._done[stage]:  # another job may have a stage of the same name
            self._started[stage] = (now, done)
        self._done[stage] = done
        if done >= total or now - self._shown.get(stage, -1e9) >= self.interval_seconds:
            self._shown[stage] = now
            parts = [f"{stage}: {done}/{total}", self._left(stage, done, total, now), note]
            print(visible(", ".join(part for part in parts if part)), file=sys.stderr, flush=True)

    def _left(self, stage: str, done: int, total: int, now: float) -> str:
        started, before = self._started[stage]
        if done >= total or done == before:
            return ""
        seconds = (now - started) / (done - before) * (total - done)
        return f"{timedelta(seconds=round(seconds))} left"


class Bars:
    """Progress for terminals: a bar for each stage, with the remaining time."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        def whole() -> Column:
            return Column(no_wrap=True)

        columns = [
            TextColumn("{task.description}", markup=False, table_column=whole()),
            BarColumn(bar_width=30),  # shrinks on a narrow terminal
            MofNCompleteColumn(table_column=whole()),
            TimeRemainingColumn(compact=True, table_column=whole()),
            TextColumn("left", table_column=whole()),
            TextColumn("{task.fields[note]}", markup=False, table_column=whole()),
        ]
        # By default Rich estimates the speed from 30 s, but one step of a large model on a CPU takes longer.
        self._bars = Progress(*columns, console=Console(stderr=True), speed_estimate_period=SPEED_WINDOW_SECONDS)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        note = visible(note)
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(visible(stage), total=total, note=note)
        elif done < self._bars.tasks[self._bars.task_ids.index(self._tasks[stage])].completed:
            self._bars.reset(self._tasks[stage])
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)


def is_first_process() -> bool:
    """Return whether this is the process that prints for all processes of a distributed run."""
    return os.environ.get("RANK", "0") == "0"


def is_launched() -> bool:
    """Return whether `accelerate launch` or `torchrun` started this process."""
    return "RANK" in os.environ


def show() -> AbstractContextManager[Progress]:
    """Show bars if standard error is a terminal, else lines."""
    if not is_first_process():
        return nullcontext(silent)
    return Bars() if sys.stderr.isatty() else Lines()


def stage(progress: Progress, name: str) -> Callable[[int, int], None]:
    """Return a function of (done, total) that reports the progress of one stage."""
    return lambda done, total: progress(name, done, total)
