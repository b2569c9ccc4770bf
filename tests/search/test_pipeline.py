"""Decoding beside embedding, with a decoder and an embedder that only pretend."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import numpy as np
import pytest
import torch

from vop.search import pipeline
from vop.search.pipeline import run
from vop.search.segmentation import DecodedSegment

BATCH = 4


class Broken(Exception):
    """Of one file."""


def a_piece(job: int, place: int, pieces: int) -> DecodedSegment:
    """Its frames say which one it is."""
    frames = torch.full((1, 3, 2, 2), 0, dtype=torch.uint8)
    frames[0, :, 0, 0] = torch.tensor([job // 200, job % 200, place])
    return DecodedSegment((float(place), place + 1.0), frames, b"%d-%d" % (job, place), 1 / pieces)


def decode(job: tuple[int, int]) -> Generator[DecodedSegment, None, str]:
    """A job is its number and how many pieces it has; below 0 it breaks after as many."""
    number, pieces = job
    for place in range(abs(pieces)):
        yield a_piece(number, place, abs(pieces))
    if pieces < 0:
        raise Broken(f"file {number}")
    return f"result {number}"


def embed(frames: torch.Tensor) -> list[torch.Tensor]:
    """Two models: the first gives the number and the place, the second something longer."""
    high, low, place = frames[:, 0, :, 0, 0].float().unbind(1)
    number = 200 * high + low
    return [torch.stack([number, place], 1), torch.stack([number, place, -number], 1)]


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode-")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert not decoders()
    yield
    assert not decoders()


def check(finished, job: tuple[int, int]) -> None:
    """A finished file has all of its own, in order, and nothing else."""
    number, pieces = job
    count = abs(pieces)
    assert finished.job == job
    assert finished.clips == [(float(place), place + 1.0) for place in range(count)]
    assert finished.strips == [b"%d-%d" % (number, place) for place in range(count)]
    expected = [[number, place] for place in range(count)]
    if count:
        first, second = finished.embeddings
        assert first.tolist() == expected
        assert second.tolist() == [[*row, -number] for row in expected]
        assert {vectors.dtype for vectors in finished.embeddings} == {np.dtype(np.float32)}
    if pieces < 0:
        assert isinstance(finished.result, Broken)
        assert str(finished.result) == f"file {number}"
    else:
        assert finished.result == f"result {number}"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_whole_files_come_out(workers, batch_size):
    jobs = [(number, pieces) for number, pieces in enumerate([3, 1, 0, 7, -2, 40, 1, 1, -1, 5, 12, 2])]
    found = {finished.job: finished for finished in run(jobs, decode, embed, workers=workers, batch_size=batch_size)}
    assert found.keys() == set(jobs)
    for job in jobs:
        check(found[job], job)


def test_one_thread_keeps_the_order_of_files():
    jobs = [(number, 2) for number in range(20)]
    assert [finished.job for finished in run(jobs, decode, embed, workers=1, batch_size=BATCH)] == jobs


def test_batches_go_across_files():
    sizes = []

    def counting(frames):
        sizes.append(len(frames))
        return embed(frames)

    jobs = [(number, 3) for number in range(10)]
    assert len(list(run(jobs, decode, counting, workers=1, batch_size=BATCH))) == 10
    assert sizes == [4, 4, 4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("workers", [1, 4])
def test_thousands_of_tiny_files(workers):
    jobs = [(number, 1) for number in range(5000)]
    found = list(run(iter(jobs), decode, embed, workers=workers, batch_size=64))
    assert sorted(finished.job for finished in found) == jobs
    for finished in found[::97]:
        check(finished, finished.job)


@pytest.mark.parametrize("workers", [1, 4])
def test_no_file(workers):
    assert list(run([], decode, embed, workers=workers, batch_size=BATCH)) == []


def test_a_slow_consumer_bounds_what_is_decoded():
    decoded, embedded = [], []

    def counting(job):
        for piece in decode(job):
            decoded.append(piece)
            yield piece
        return f"result {job[0]}"

    def slow(frames):
        embedded.extend(frames)
        time.sleep(0.01)
        ahead.append(len(decoded) - len(embedded))
        return embed(frames)

    ahead: list[int] = []
    workers = 3
    for finished in run([(number, 30) for number in range(10)], counting, slow, workers=workers, batch_size=BATCH):
        check(finished, finished.job)
    assert max(ahead) <= 2 * BATCH + workers  # the queue, and what each thread holds
    assert max(ahead) > BATCH  # they do work ahead


@pytest.mark.parametrize("workers", [1, 4])
def test_closing_early_stops_the_threads(workers):
    closed = []

    def endless(job):
        try:
            for place in range(10**9):
                yield a_piece(job[0], place % 200, 1)
        finally:
            closed.append(job)

    jobs = [(0, 1), *((number, 10**9) for number in range(1, 9))]
    finished = run(jobs, lambda job: (decode if job[0] == 0 else endless)(job), embed, workers=workers, batch_size=1)
    check(next(finished), jobs[0])
    assert len(decoders()) == workers
    finished.close()
    assert not decoders()
    assert len(closed) == workers  # their files too


@pytest.mark.parametrize("workers", [1, 4])
def test_jobs_that_fail(workers):
    def jobs():
        yield from [(0, 1), (1, 1)]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(run(jobs(), decode, embed, workers=workers, batch_size=BATCH))


@pytest.mark.parametrize("workers", [1, 4])
def test_an_embedding_that_fails(workers):
    def broken(frames):
        raise MemoryError(f"{len(frames)} pieces")

    with pytest.raises(MemoryError, match="4 pieces"):
        list(run([(number, 9) for number in range(50)], decode, broken, workers=workers, batch_size=BATCH))


def test_what_waits_is_embedded_when_nothing_comes():
    go_on = threading.Event()

    def pausing(job):
        result = yield from decode(job)
        if job[0] == 1:
            assert go_on.wait(20)
        return result

    ticks = []
    jobs = [(0, 2), (1, 1)]
    finished = run(jobs, pausing, embed, workers=1, batch_size=100, tick=lambda *said: ticks.append(said))
    check(next(finished), (0, 2))
    assert not go_on.is_set()  # the other one is still decoded
    go_on.set()
    check(next(finished), (1, 1))
    assert list(finished) == []
    assert [said for said in ticks if said[0]] == [((0, 2), 0.5), ((0, 2), 0.5), ((1, 1), 1.0)]
    assert (None, 0.0) in ticks


@pytest.mark.parametrize("workers", [1, 2])
def test_a_short_file_does_not_wait_until_a_batch_is_full_of_a_long_one(monkeypatch, workers):
    monkeypatch.setattr(pipeline, "_LATE_SECONDS", 0.2)
    enough, embedded = threading.Event(), []

    def steady(job):
        if job[0] == 0:
            return (yield from decode(job))
        for place in range(600):  # never a pause
            if enough.wait(0.01):
                break
            yield a_piece(1, place % 200, 600)
        return "the end"

    def counting(frames):
        embedded.append(len(frames))
        return embed(frames)

    finished = run([(0, 1), (1, 600)], steady, counting, workers=workers, batch_size=10_000)
    check(next(finished), (0, 1))
    assert embedded[0] < 600
    enough.set()
    assert next(finished).result == "the end"
    assert list(finished) == []
