"""What runs the jobs of an experiment: processes of this machine, or a Ray cluster. Imports no PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from vop.utils.progress import Progress

if TYPE_CHECKING:
    from vop.experiments.results import RunRecord, SearchRecord
    from vop.experiments.work import Job

Message = tuple[int, str, str, int, int, str]  # slot, job, stage, done, total, note

QUIET_SECONDS = 0.5  # minimum interval between two messages of a job


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        slot: where it ran.
        result: returns its record, or raises the error that ended it.
    """

    job: Job
    slot: int
    result: Callable[[], RunRecord | SearchRecord]


class Workers(Protocol):
    """Run jobs, each in a process of its own: its memory is separate, and a crash ends only this job.

    A context manager. At its end, jobs that still run are ended; they resume from their checkpoints.
    """

    @property
    def count(self) -> int:
        """The number of jobs that run at the same time."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, job: Job, slot: int) -> None:
        """Start a job. There is one at a time for each slot, a number from 0."""

    def ended(self) -> Iterable[Ended]:
        """Wait until jobs end, at most `QUIET_SECONDS`, and return them."""

    def messages(self) -> Iterable[Message]:
        """Return the progress that was sent since the last call."""


def sending(job: str, slot: int, send: Callable[[Message], None]) -> Progress:
    """Return progress that sends messages, at most one in `QUIET_SECONDS`."""
    sent = 0.0

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal sent
        if time.monotonic() - sent >= QUIET_SECONDS:
            sent = time.monotonic()
            send((slot, job, stage, done, total, note))

    return progress
