from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import opentimelineio as otio
import pytest

from clips import grey_frames, write_clip
from vop.export.frames import (
    RATES,
    Source,
    drops_frames,
    exact_rate,
    parse_timecode,
    read_source,
    sequence_rate,
    timecode,
)

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_timecodes_are_those_of_opentimelineio(rate):
    whole = round(rate)
    frames = [0, 1, whole, 60 * whole - 1, 60 * whole, 60 * whole + 2, 600 * whole - 20, 600 * whole, 107892, 2_000_000]
    for drop in {False, drops_frames(rate)}:
        for frame in frames:
            text = timecode(frame, rate, drop_frame=drop)
            time = otio.opentime.RationalTime(frame, float(rate))
            assert text == otio.opentime.to_timecode(time, float(rate), drop_frame=drop)
            assert parse_timecode(text, rate) == (frame, drop)


def test_an_hour_of_drop_frame_is_an_hour():
    assert timecode(107892, NTSC, drop_frame=True) == "01:00:00;00"
    assert timecode(108000, NTSC) == "01:00:00:00"
    assert parse_timecode("tomorrow", NTSC) is None


def test_rates():
    assert exact_rate(Fraction(2997, 100)) == NTSC
    assert exact_rate(Fraction(23976, 1000)) == Fraction(24000, 1001)
    assert exact_rate(Fraction(24)) == 24
    assert exact_rate(Fraction(15)) == 15
    rates = [Fraction(15), Fraction(25, 2), Fraction(120), Fraction(120000, 1001), Fraction(27)]
    assert [sequence_rate(rate) for rate in rates] == [30, 25, 60, Fraction(60000, 1001), 25]


def test_frames_of_a_clip():
    source = Source(path="a", url="a", duration_seconds=20, rate=NTSC)
    assert source.frames(10.0, 12.0) == (299, 61)  # frame 299 is on display at 10 s, frame 359 until 12 s
    assert source.frames(299 * 1.001 / 30, 12.0) == (299, 61)
    assert source.frames(19.0, 30.0) == (569, 31)  # up to frame 599, the last one
    assert source.frames(20.0, 20.1) == (599, 1)


def described(path: Path, seconds: float = 1.0) -> Source:
    return read_source(path, path=str(path), url=path.as_uri(), duration_seconds=seconds)


def test_a_file_is_described_as_editors_see_it(tmp_path):
    path = write_clip(tmp_path / "a.mov", grey_frames(12), rate=NTSC, rotation=90, audio=True)
    source = described(path)
    assert (source.rate, source.average_rate, source.has_timecode) == (NTSC, None, False)
    assert (source.width, source.height, source.channels, source.sample_rate) == (48, 64, 1, 16000)


def test_the_start_timecode_of_a_file(tmp_path):
    import av

    path = write_clip(tmp_path / "plain.mov", grey_frames(8), rate=NTSC)
    with av.open(str(path)) as before, av.open(str(tmp_path / "timed.mov"), "w") as after:
        after.metadata["timecode"] = "01:00:00;02"
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    source = described(tmp_path / "timed.mov")
    assert (source.start_frame, source.has_timecode, source.drop_frame) == (107894, True, True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_is_counted_at_the_nearest_standard_rate(tmp_path, suffix):
    stamps = [0, 30, 60, 90, 300, 330, 360, 390, 600, 630, 660, 690]
    source = described(write_clip(tmp_path / f"a{suffix}", grey_frames(12), stamps=stamps, rate=30))
    assert source.rate in RATES
    assert source.average_rate is not None
    steady = described(write_clip(tmp_path / f"b{suffix}", grey_frames(24), rate=NTSC, options={"bf": "3"}))
    assert (steady.rate, steady.average_rate) == (NTSC, None)
