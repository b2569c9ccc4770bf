"""Work ahead in threads, which compute the next results while the caller uses one.

    jobs -> worker threads -> a bounded queue -> the caller

A job that decodes a video usually waits in its thread for a process of `vop.video.isolated`. If a file crashes the
decoder, only its own job fails. An exception is returned as the result of its job, and the other jobs continue. Closing
the generator stops the threads; use `contextlib.closing`, so that an exception in the caller also closes it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Item = TypeVar("Item")
Result = TypeVar("Result")
Event = TypeVar("Event")

TICK_SECONDS = 0.5
_CLOSING_SECONDS = 2.0  # to wait for the threads; one that reads a large file may end later, which does no harm


@dataclass(frozen=True)
class Made(Generic[Job, Item]):
    """An item that a job has yielded. `place` is the job's position among the jobs, from 0."""

    place: int
    job: Job
    item: Item


@dataclass(frozen=True)
class Done(Generic[Job, Result]):
    """A job that has ended, with its result or the exception that ended it."""

    place: int
    job: Job
    result: Result | Exception


def iterate_ahead(
    jobs: Iterable[Job],
    work: Callable[[Job], Generator[Item, None, Result]],
    *,
    workers: int,
    ahead: int,
    tick_seconds: float = TICK_SECONDS,
) -> Generator[Made[Job, Item] | Done[Job, Result] | None, None, None]:
    """Yield the items of all jobs as soon as they are ready, and `Done` at the end of each job.

    The items of one job stay in order. After `tick_seconds` without an event, yield None.

    Args:
        work: yields the items of a job and returns its result. It is closed if the caller stops early.
        workers: the number of threads.
        ahead: maximum number of items in the queue. Each thread can hold one more.
    """
    queue = _Queue[Made[Job, Item] | Done[Job, Result]]()

    def run(place: int, job: Job) -> None:
        items = work(job)
        result: Result | Exception
        try:
            while True:
                queue.put(Made(place, job, next(items)), most=ahead)
        except StopIteration as end:
            result = end.value
        except Exception as error:
            result = error
        finally:
            items.close()
        queue.put(Done(place, job, result), most=ahead)

    yield from _events(queue, jobs, run, workers=workers, tick_seconds=tick_seconds)


def map_ahead(
    jobs: Iterable[Job], work: Callable[[Job], Result], *, workers: int, ahead: int, in_order: bool = True
) -> Generator[Done[Job, Result], None, None]:
    """Yield the results of `work(job)`, in the order of the jobs or, without `in_order`, as soon as they are ready.

    Args:
        workers: the number of threads.
        ahead: maximum number of started jobs, including the one whose result the caller uses.
    """
    queue = _Queue[Done[Job, Result]]()
    given = 0

    def run(place: int, job: Job) -> None:
        queue.wait(lambda: place < given + ahead)
        result: Result | Exception
        try:
            result = work(job)
        except Exception as error:
            result = error
        queue.put(Done(place, job, result))

    early: dict[int, Done[Job, Result]] = {}
    events = _events(queue, jobs, run, workers=workers, tick_seconds=TICK_SECONDS)
    with closing(events):
        for done in events:
            if done is not None:
                early[done.place if in_order else given] = done
            while given in early:
                yield early.pop(given)
                given += 1
                queue.notify()


class _Closed(BaseException):
    """The caller has stopped. This is not an Exception, so that jobs do not catch it."""


class _Queue(Generic[Event]):
    """Passes the events of the threads to the caller."""

    def __init__(self) -> None:
        self._events: deque[Event | BaseException] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = 0

    def start(self, work: Callable[[], None], *, name: str) -> threading.Thread:
        """Start a thread. If an exception ends it, `get` raises the exception."""

        def run() -> None:
            try:
                work()
            except _Closed:
                pass
            except BaseException as error:
                with self._changed:
                    self._events.append(error)
            finally:
                with self._changed:
                    self._threads -= 1
                    self._changed.notify_all()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads += 1
        thread.start()
        return thread

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; end the thread when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or condition())
            self.check()

    def check(self) -> None:
        """End the thread if the queue is closed."""
        if self._is_closed:
            raise _Closed

    def put(self, event: Event, *, most: int | None = None) -> None:
        """Add an event. With `most`, first wait until the queue has fewer events than that."""
        with self._changed:
            self.wait(lambda: most is None or len(self._events) < most)
            self._events.append(event)
            self._changed.notify_all()

    def get(self, seconds: float) -> Event | None:
        """Return the next event; None after `seconds` without an event, or when all threads have ended.

        On some systems Ctrl-C interrupts only a wait with a timeout.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or not self._threads, timeout=seconds)
            event = self._events.popleft() if self._events else None
            self._changed.notify_all()
        if isinstance(event, BaseException):
            raise event
        return event

    @property
    def is_over(self) -> bool:
        with self._changed:
            return not (self._events or self._threads)

    def notify(self) -> None:
        """Make waiting threads check their conditions."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End each thread when it next waits or adds an event."""
        self._is_closed = True
        self.notify()


def _events(
    queue: _Queue[Event],
    jobs: Iterable[Job],
    run: Callable[[int, Job], None],
    *,
    workers: int,
    tick_seconds: float,
) -> Generator[Event | None, None, None]:
    """Start the threads, yield their events, and stop them."""
    numbered, taking = enumerate(jobs), threading.Lock()

    def work() -> None:
        while True:
            with taking:
                numbered_job = next(numbered, None)
            if numbered_job is None:
                return
            queue.check()
            run(*numbered_job)

    threads: list[threading.Thread] = []
    try:
        for number in range(workers):
            threads.append(queue.start(work, name=f"decode-{number}"))
        while True:
            event = queue.get(tick_seconds)
            if event is None and queue.is_over:
                return
            yield event
    finally:
        queue.close()
        deadline = time.monotonic() + _CLOSING_SECONDS
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
