"""Decoding and embedding in parallel, with a fake decoder and a fake embedder."""

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
    """The error of one file."""


def a_segment(job: int, place: int, segments: int) -> DecodedSegment:
    """Return a segment whose frames hold its job and its place."""
    frames = torch.full((1, 3, 2, 2), 0, dtype=torch.uint8)
    frames[0, :, 0, 0] = torch.tensor([job // 200, job % 200, place])
    return DecodedSegment((float(place), place + 1.0), frames, b"%d-%d" % (job, place), 1 / segments)


def decode(job: tuple[int, int]) -> Generator[DecodedSegment, None, str]:
    """Decode a job: its number, and how many segments it has. A negative count fails after that many."""
    number, segments = job
    for place in range(abs(segments)):
        yield a_segment(number, place, abs(segments))
    if segments < 0:
        raise Broken(f"file {number}")
    return f"result {number}"


def embed(frames: torch.Tensor) -> list[torch.Tensor]:
    """Embed with two models: the first returns (number, place), the second (number, place, -number)."""
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
    """Check that a finished file has exactly its own segments, in order."""
    number, segments = job
    count = abs(segments)
    assert finished.job == job
    assert finished.clips == [(float(place), place + 1.0) for place in range(count)]
    assert finished.strips == [b"%d-%d" % (number, place) for place in range(count)]
    expected = [[number, place] for place in range(count)]
    if count:
        first, second = finished.embeddings
        assert first.tolist() == expected
        assert second.tolist() == [[*row, -number] for row in expected]
        assert {vectors.dtype for vectors in finished.embeddings} == {np.dtype(np.float32)}
    if segments < 0:
        assert isinstance(finished.result, Broken)
        assert str(finished.result) == f"file {number}"
    else:
        assert finished.result == f"result {number}"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_file_gets_its_own_embeddings(workers, batch_size):
    jobs = [(number, segments) for number, segments in enumerate([3, 1, 0, 7, -2, 40, 1, 1, -1, 5, 12, 2])]
    found = {finished.job: finished for finished in run(jobs, decode, embed, workers=workers, batch_size=batch_size)}
    assert found.keys() == set(jobs)
    for job in jobs:
        check(found[job], job)


def test_one_thread_keeps_the_order_of_files():
    jobs = [(number, 2) for number in range(20)]
    assert [finished.job for finished in run(jobs, decode, embed, workers=1, batch_size=BATCH)] == jobs


def test_batches_span_files():
    sizes = []

    def counting(frames):
        sizes.append(len(frames))
        return embed(frames)

    jobs = [(number, 3) for number in range(10)]
    assert len(list(run(jobs, decode, counting, workers=1, batch_size=BATCH))) == 10
    assert sizes == [4, 4, 4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("workers", [1, 4])
def test_thousands_of_small_files_are_embedded(workers):
    jobs = [(number, 1) for number in range(5000)]
    found = list(run(iter(jobs), decode, embed, workers=workers, batch_size=64))
    assert sorted(finished.job for finished in found) == jobs
    for finished in found[::97]:
        check(finished, finished.job)


@pytest.mark.parametrize("workers", [1, 4])
def test_no_files_give_no_results(workers):
    assert list(run([], decode, embed, workers=workers, batch_size=BATCH)) == []


def test_decoding_waits_for_a_slow_embedder():
    decoded, embedded = [], []

    def counting(job):
        for segment in decode(job):
            decoded.append(segment)
            yield segment
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
    assert max(ahead) <= 2 * BATCH + workers  # the queue, and one for each thread
    assert max(ahead) > BATCH  # decoding does run ahead


@pytest.mark.parametrize("workers", [1, 4])
def test_closing_early_stops_the_threads(workers):
    closed = []

    def endless(job):
        try:
            for place in range(10**9):
                yield a_segment(job[0], place % 200, 1)
        finally:
            closed.append(job)

    jobs = [(0, 1), *((number, 10**9) for number in range(1, 9))]
    finished = run(jobs, lambda job: (decode if job[0] == 0 else endless)(job), embed, workers=workers, batch_size=1)
    check(next(finished), jobs[0])
    assert len(decoders()) == workers
    finished.close()
    assert not decoders()
    assert len(closed) == workers  # and so are their files


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_of_the_job_iterator_is_raised(workers):
    def jobs():
        yield from [(0, 1), (1, 1)]
        raise OSError("the disk is unavailable")

    with pytest.raises(OSError, match="the disk is unavailable"):
        list(run(jobs(), decode, embed, workers=workers, batch_size=BATCH))


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_of_the_embedder_is_raised(workers):
    def broken(frames):
        raise MemoryError(f"{len(frames)} segments")

    with pytest.raises(MemoryError, match="4 segments"):
        list(run([(number, 9) for number in range(50)], decode, broken, workers=workers, batch_size=BATCH))


def test_waiting_segments_are_embedded_if_no_more_arrive():
    resume = threading.Event()

    def pausing(job):
        result = yield from decode(job)
        if job[0] == 1:
            assert resume.wait(20)
        return result

    ticks = []
    jobs = [(0, 2), (1, 1)]
    finished = run(jobs, pausing, embed, workers=1, batch_size=100, tick=lambda *arguments: ticks.append(arguments))
    check(next(finished), (0, 2))
    assert not resume.is_set()  # the other file is still being decoded
    resume.set()
    check(next(finished), (1, 1))
    assert list(finished) == []
    assert [tick for tick in ticks if tick[0]] == [((0, 2), 0.5), ((0, 2), 0.5), ((1, 1), 1.0)]
    assert (None, 0.0) in ticks


@pytest.mark.parametrize("workers", [1, 2])
def test_a_short_file_does_not_wait_for_a_full_batch(monkeypatch, workers):
    monkeypatch.setattr(pipeline, "_LATE_SECONDS", 0.2)
    enough, embedded = threading.Event(), []

    def steady(job):
        if job[0] == 0:
            return (yield from decode(job))
        for place in range(600):  # without a pause
            if enough.wait(0.01):
                break
            yield a_segment(1, place % 200, 600)
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
