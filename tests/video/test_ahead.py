"""Working ahead gives the results of a plain loop, keeps to its limits, and stops when it is closed."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vop.video.ahead import Done, Made, iterate_ahead, map_ahead

JOBS = st.lists(st.integers(-4, 6), max_size=25)  # A job makes abs(job) items; a negative one then fails.
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Broken(Exception):
    """The failure of one job."""


def make(job: int):
    for number in range(abs(job)):
        yield job, number
    if job < 0:
        raise Broken(job)
    return f"made {job}"


def square(job: int) -> int:
    if job < 0:
        raise Broken(job)
    return job * job


def plain(result: object) -> object:
    return repr(result) if isinstance(result, Exception) else result


def one_by_one(jobs: list[int]) -> list[tuple[int, int, list, object]]:
    """The naive loop: each job's place, the job, its items, and its result."""
    found = []
    for place, job in enumerate(jobs):
        items, result, steps = [], None, make(job)
        try:
            while True:
                items.append(next(steps))
        except StopIteration as end:
            result = end.value
        except Broken as error:
            result = repr(error)
        found.append((place, job, items, result))
    return found


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert not threads()
    yield
    assert not threads()


@FEW
@given(jobs=JOBS, workers=st.integers(1, 5), ahead=st.integers(1, 6))
def test_items_and_results_equal_those_of_a_plain_loop(jobs, workers, ahead):
    items: dict[int, list] = {place: [] for place in range(len(jobs))}
    results = {}
    for event in iterate_ahead(jobs, make, workers=workers, ahead=ahead):
        if isinstance(event, Made):
            assert event.place not in results
            assert event.job == jobs[event.place]
            items[event.place].append(event.item)
        elif isinstance(event, Done):
            results[event.place] = plain(event.result)
    assert [(place, job, items[place], results[place]) for place, job in enumerate(jobs)] == one_by_one(jobs)


@FEW
@given(jobs=JOBS, workers=st.integers(1, 5), ahead=st.integers(1, 6))
def test_results_come_in_the_order_of_the_jobs(jobs, workers, ahead):
    found = list(map_ahead(jobs, square, workers=workers, ahead=ahead))
    assert [(done.place, done.job) for done in found] == list(enumerate(jobs))
    assert [plain(done.result) for done in found] == [repr(Broken(job)) if job < 0 else job * job for job in jobs]


@FEW
@given(jobs=JOBS, workers=st.integers(1, 5), ahead=st.integers(1, 6))
def test_unordered_results_are_the_same(jobs, workers, ahead):
    found = sorted(map_ahead(jobs, square, workers=workers, ahead=ahead, in_order=False), key=lambda done: done.place)
    assert [(done.place, done.job) for done in found] == list(enumerate(jobs))


@pytest.mark.parametrize("in_order", [True, False])
def test_a_quick_job_overtakes_a_slow_one_only_if_unordered(in_order):
    quick_was_given = threading.Event()

    def work(job):
        if job == 0:
            quick_was_given.wait(0.3 if in_order else 20)
        return job

    order = []
    for done in map_ahead([0, 1], work, workers=2, ahead=2, in_order=in_order):
        order.append(done.job)
        if done.job == 1:
            quick_was_given.set()
    assert order == ([0, 1] if in_order else [1, 0])


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 5), (8, 2)])
def test_jobs_started_ahead_stay_within_the_limit(workers, ahead):
    started, returned, most = [], 0, 0

    def work(job):
        started.append(job)
        return job

    for _ in map_ahead(range(60), work, workers=workers, ahead=ahead):
        time.sleep(0.002)
        most = max(most, len(started) - returned)
        returned += 1
    assert returned == 60
    assert most <= ahead


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 5)])
def test_waiting_items_stay_within_the_limit(workers, ahead):
    made, taken, most = [], 0, 0

    def work(job):
        for number in range(10):
            made.append(number)
            yield number

    for event in iterate_ahead(range(8), work, workers=workers, ahead=ahead):
        time.sleep(0.001)
        taken += isinstance(event, Made)
        most = max(most, len(made) - taken)
    assert taken == 80
    assert most <= ahead + workers


def test_a_slow_job_gives_ticks():
    release = threading.Event()

    def work(job):
        assert release.wait(20)
        yield job

    found = iterate_ahead([7], work, workers=1, ahead=1, tick_seconds=0.01)
    assert next(found) is None
    release.set()
    rest = [event for event in found if event is not None]
    assert rest == [Made(0, 7, 7), Done(0, 7, None)]


@pytest.mark.parametrize("workers", [1, 4])
def test_closing_closes_the_jobs(workers):
    closed = []

    def endless(job):
        try:
            while True:
                yield job
        finally:
            closed.append(job)

    with closing(iterate_ahead(range(100), endless, workers=workers, ahead=2)) as found:
        next(found)
    assert sorted(closed) == list(range(workers))


@pytest.mark.parametrize("workers", [1, 4])
def test_no_job_starts_after_an_exception_in_the_caller(workers):
    started = []
    with closing(map_ahead(range(100), started.append, workers=workers, ahead=5)) as found, pytest.raises(KeyError):
        raise KeyError(next(found))
    assert len(started) <= 5


def test_closing_does_not_wait_for_a_job_that_hangs(monkeypatch):
    monkeypatch.setattr("vop.video.ahead._CLOSING_SECONDS", 0.05)
    hang = threading.Event()

    def work(job):
        if job:
            hang.wait(60)

    found = map_ahead(range(3), work, workers=3, ahead=3)
    next(found)
    found.close()
    assert threads()  # close() returned while these jobs still ran
    hang.set()
    for thread in threads():
        thread.join(20)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_error_while_listing_jobs_is_raised(workers, error):
    def jobs():
        yield from [1, 2]
        raise error

    with pytest.raises(type(error)):
        list(map_ahead(jobs(), square, workers=workers, ahead=4))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_system_exit_and_ctrl_c_in_a_job_reach_the_caller(error):
    def work(job):
        raise error

    with pytest.raises(type(error)):
        list(map_ahead([1], work, workers=2, ahead=2))
