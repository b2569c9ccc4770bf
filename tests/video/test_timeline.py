from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import naive_choice
from vop.video.clip import Clip
from vop.video.timeline import Timeline, read_timeline


def timeline(stamps, last=1, time_base=Fraction(1, 1000)) -> Timeline:
    return Timeline(tuple(stamps), stamps[-1] + last, time_base)


gaps = st.lists(st.integers(0, 200), min_size=0, max_size=30)


@given(st.integers(-500, 500), gaps, st.integers(1, 300), st.integers(1, 40))
def test_midpoints_equal_a_naive_choice(first, gaps, last, num_frames):
    stamps = [first]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    chosen = timeline(stamps, last).midpoints(num_frames)
    expected = naive_choice([Fraction(stamp) for stamp in stamps], Fraction(stamps[-1] + last), num_frames)
    assert chosen == [stamps[k] for k in expected]


@given(gaps, st.floats(0, 2), st.floats(0.01, 9), st.integers(1, 12))
def test_midpoints_of_clips_equal_a_naive_choice(gaps, start, length, num_frames):
    stamps = [7]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    whole = timeline(stamps, 40)
    if start >= whole.duration_seconds:
        return
    chosen = whole.midpoints(num_frames, Clip(start, start + length))
    times = [Fraction(stamp - 7, 1000) for stamp in stamps]
    end = min(Fraction(start + length), Fraction(whole.end - 7, 1000))
    assert chosen == [stamps[k] for k in naive_choice(times, end, num_frames, start=Fraction(start))]


def packet(pts, dts=None, *, duration=0, key=False, discard=False, size=1):
    return SimpleNamespace(pts=pts, dts=dts, duration=duration, is_keyframe=key, is_discard=discard, size=size)


def stream(*, reorders=0, rate=None):
    return SimpleNamespace(
        time_base=Fraction(1, 100),
        guessed_rate=rate,
        average_rate=None,
        container=SimpleNamespace(format=SimpleNamespace(flags=0)),
        codec_context=SimpleNamespace(has_b_frames=bool(reorders), reorder_depth=reorders),
    )


def test_stamps_are_sorted_by_presentation():
    packets = [packet(0, -1, key=True), packet(12, 0), packet(4, 1), packet(8, 2, duration=4)]
    read = read_timeline(packets, stream(reorders=1))
    assert read.stamps == (0, 4, 8, 12)
    assert read.end == 16  # the last frame has no duration; the usual gap is added
    assert read.duration_seconds == pytest.approx(0.16)
    assert not read.ordinal


def test_the_last_presented_frame_sets_the_end():
    packets = [packet(0, key=True, duration=4), packet(8, duration=50), packet(4, duration=4)]
    assert read_timeline(packets, stream(reorders=1)).end == 58


def test_discarded_and_empty_packets_are_not_shown():
    packets = [packet(-4, discard=True), packet(0), packet(4), packet(None, size=0)]
    assert read_timeline(packets, stream()).stamps == (0, 4)


def test_without_packets_there_is_no_timeline():
    assert read_timeline([packet(None, size=0)], stream()) is None


@pytest.mark.parametrize(
    ("packets", "settings", "stamps", "time_base"),
    [
        ([packet(None, k) for k in (0, 4, 12)], {}, (0, 4, 12), Fraction(1, 100)),  # AVI with a dropped frame
        ([packet(None) for _ in range(3)], {"rate": 50}, (0, 1, 2), Fraction(1, 50)),
        ([packet(None) for _ in range(3)], {}, (0, 1, 2), Fraction(1, 25)),
        # Frames are reordered, but these stamps are not: they are decoding times.
        ([packet(k + 1, k) for k in range(3)], {"reorders": 1}, (1, 2, 3), Fraction(1, 100)),
    ],
)
def test_without_presentation_times_frames_are_counted(packets, settings, stamps, time_base):
    read = read_timeline(packets, stream(**settings))
    assert read.ordinal
    assert read.stamps == stamps
    assert read.time_base == time_base
    assert read.packets.keys == ()


def test_packets_are_kept_in_file_order():
    packets = [packet(0, -1, key=True, size=5), packet(8, 0, size=2), packet(4, 1), packet(12, 2, key=True, size=3)]
    found = read_timeline([*packets[:1], packet(-4, discard=True), *packets[1:]], stream(reorders=1)).packets
    assert found.stamps == (0, -4, 8, 4, 12)
    assert found.shown == (True, False, True, True, True)
    assert found.ends == (5, 6, 8, 9, 12)
    assert (found.keys, found.decoded) == ((0, 4), (-1, 2))
    assert not found.corrected
