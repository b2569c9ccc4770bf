"""Times in every form that users type or the program prints."""

from __future__ import annotations

import json

import pytest

from search.owners_videos import write_video
from vop.cli import build_parser
from vop.cli.search import clock


def parse(*words: str):
    return build_parser().parse_args(["search", "library", "--video", "a.mp4", *words])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0", 0), ("62", 62), ("62.5", 62.5), (".5", 0.5), ("5.", 5), (" 7 ", 7), ("3725.25", 3725.25)),
        *(("32:14", 1934), ("1:02", 62), ("1:2.5", 62.5), ("0:00.4", 0.4), ("90:00", 5400)),
        *(("1:02:03", 3723), ("01:02:03.25", 3723.25), ("0:0:0", 0), ("100:00:00", 360000)),
    ],
)
def test_all_forms_of_times_are_parsed(text, value):
    assert parse("--start", text).start == value
    assert parse(f"--end={text}").end == value


@pytest.mark.parametrize("value", [0, 0.4, 59.9, 60, 61.2, 3599.9, 3600, 3723.5, 36000.1])
def test_printed_times_can_be_parsed(value):
    assert parse("--start", clock(value)).start == pytest.approx(value, abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "-0:05", "nan", "inf", "-inf", "1e999", "", ":", "1:", ":5", "1:60", "1:60:00", "1:-5", "1:2:3:4"),
        *("1.5:20", "5s", "1m5", "x", "1,5", "1:nan", "1:inf", "0:1e3"),
    ],
)
def test_other_text_is_refused(capsys, text):
    for option in ("--start", "--end"):
        with pytest.raises(SystemExit) as stop:
            parse(f"{option}={text}")
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert f"argument {option}: {text!r} is not a time of a video" in err
        assert all(form in err for form in ("seconds (92.5)", "mm:ss (1:32.5)", "h:mm:ss (0:01:32.5)"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--video a.mp4 --start 0:20 --end 10", "--start 0:20.0 --end 0:10.0"),
        ("--video a.mp4 --start 10 --end 10", "--start 0:10.0 --end 0:10.0"),
        ("--video a.mp4 --end 0", "--start 0:00.0 --end 0:00.0"),
        ("dog --start 3", "give --video FILE"),
        ("--picture a.jpg --end 3", "give --video FILE"),
    ],
)
def test_invalid_moments_are_refused_before_opening_the_library(vop, words, said):
    status, out, err = vop("search", "no library", *words.split())
    assert (status, out, said in err) == (2, "", True)


def test_moments_are_found_by_their_printed_times(vop, tiny_folder, tmp_path):
    video = write_video(tmp_path / "videos" / "long.mp4", seed=3, seconds=70)
    vop("index", tmp_path / "library", video, "--model", tiny_folder, "--num-frames", 2, "--precision", "fp32")
    search = ["search", tmp_path / "library", "--precision", "fp32", "--video", video]
    start, end = vop(*search, "--start", 60)[1].splitlines()[1].split()[2:4]
    assert (start, end) == ("1:00.0", "1:10.0")
    (pasted,) = json.loads(vop(*search, "--start", start, "--end", end, "--json")[1])["results"]
    assert (pasted["start_seconds"], pasted["score"]) == (60, pytest.approx(1, abs=1e-3))
