"""The ends of a moment, refined by the frames of its segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.search.refining import BEYOND, THRESHOLD, FrameScores, pack, refined, unpack, values_of

scores = st.floats(-1, 1, width=32)
frames = st.lists(scores, min_size=1, max_size=5)


def a_segment(start, end, values, of_video=0.0):
    return FrameScores(start, end, np.array(values, np.float32), of_video)


def naive(found, before, after):
    """All runs of frames' intervals; the integral of each."""
    beyond = BEYOND * (found.end - found.start)
    pieces = []
    for segment, least, most in (
        (before, found.start - beyond, found.start),
        (found, found.start, found.end),
        (after, found.end, found.end + beyond),
    ):
        for place, score in enumerate(segment.frames if segment else ()):
            length = (segment.end - segment.start) / len(segment.frames)
            start = max(least, segment.start + place * length)
            end = min(most, segment.start + (place + 1) * length)
            if end - start > 1e-9:
                pieces.append((start, end, float(score)))
    best = max(found.frames)
    threshold = found.of_video + THRESHOLD * (best - found.of_video)
    runs = {}
    for i in range(len(pieces)):
        for j in range(i, len(pieces)):
            if pieces[i][0] < found.end - 1e-9 and pieces[j][1] > found.start + 1e-9:
                runs[pieces[i][0], pieces[j][1]] = sum((b - a) * (s - threshold) for a, b, s in pieces[i : j + 1])
    return runs


@settings(deadline=None, derandomize=True)
@given(before=st.none() | frames, own=frames, after=st.none() | frames, overlap=st.sampled_from([0.0, 1.0, 3.0]))
def test_no_other_run_of_frames_is_better(before, own, after, overlap):
    found = a_segment(10, 14, own)
    before = before and a_segment(6 + overlap, 10 + overlap, before)
    after = after and a_segment(14 - overlap, 18 - overlap, after)
    start, end = refined(found, before, after)
    if max(found.frames) <= 0 or not (before or after):
        assert (start, end) == (10, 14)
        return
    runs = naive(found, before, after)
    nearest = min(runs, key=lambda run: abs(run[0] - start) + abs(run[1] - end))
    assert nearest == pytest.approx((start, end), abs=0.0006)
    assert runs[nearest] == pytest.approx(max(runs.values()), abs=1e-5)
    assert 8 <= start < end <= 16


def test_what_is_inside():
    other = a_segment(4, 8, [0, 0, 0, 0])
    assert refined(a_segment(0, 4, [0.1, 0.5, 0.6, 0.0]), None, other) == (1.0, 3.0)
    assert refined(a_segment(0, 4, [0.1, 0.3, 0.0, 0.6]), None, other) == (3.0, 4.0)


def test_what_goes_on_in_the_next_segment():
    found = a_segment(0, 4, [0.0, 0.0, 0.5, 0.5])
    assert refined(found, None, a_segment(4, 8, [0.5, 0.0, 0.0, 0.0])) == (2.0, 5.0)
    assert refined(found, None, a_segment(4, 8, [0.5, 0.5, 0.5, 0.5])) == (2.0, 6.0)  # half of a segment
    assert refined(found, None, a_segment(5, 9, [0.5, 0.5, 0.5, 0.5])) == (2.0, 4.0)  # not the next one


def test_what_cannot_be_refined():
    other = a_segment(4, 8, [0.1])
    assert refined(a_segment(0, 4, [0.1, 0.9])) == (0, 4)  # the only segment
    assert refined(a_segment(0, 4, [0.25, 0.25], of_video=0.25), None, other) == (0, 4)


def test_bytes():
    vectors = np.random.default_rng(0).normal(size=(3, 4, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[1, 2] = 0
    packed = pack(vectors)
    assert (packed.shape, packed.dtype) == ((3, 4, 68), np.uint8)
    step = np.abs(vectors).max(axis=-1, keepdims=True) / 127
    assert (np.abs(unpack(packed) - vectors) <= step / 2 + 1e-7).all()
    assert not unpack(packed)[1, 2].any()


def test_values_of_a_video():
    vectors = np.random.default_rng(0).normal(size=(3, 4, 64)).astype(np.float32)
    values = values_of(pack(vectors))
    assert [len(value) for value in values] == [5 * 68] * 3
    query = np.eye(64, dtype=np.float32)[7]
    found = FrameScores.of(values[1], query, start=2, end=4)
    assert (found.start, found.end) == (2, 4)
    assert found.frames == pytest.approx(vectors[1, :, 7], abs=0.02)
    assert found.of_video == pytest.approx(vectors[..., 7].mean(), abs=0.02)
