from __future__ import annotations

import sys

import pysubs2
import pytest

from clips import grey_frames, write_clip
from export.found import a_moment, original
from video.exported import appearances
from vop.errors import UsageError, VopError
from vop.export import export_moments, format_of
from vop.export.names import clip_name, next_number, reel_names, reserved_number, safe
from vop.search.words.lines import Line

GOPS = {"g": "6", "keyint_min": "6", "sc_threshold": "0", "bf": "0"}
TALK = [
    Line(text="Hello", start_seconds=0.0, end_seconds=0.5, source="talk.srt"),
    Line(text="Grüße", start_seconds=0.6, end_seconds=0.9, source="talk.srt"),
]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("videos") / "a talk: part 1?.mp4", grey_frames(24), options=GOPS)


def talk(moment):
    return TALK


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_clips_are_named_by_rank_and_time(video, tmp_path):
    gone = a_moment(tmp_path / "gone.mp4", 1, 2)
    seen = []
    moments = [a_moment(video, 0.4, 0.8), gone, a_moment(video, 0.4, 0.8)]
    report = export_moments(
        moments,
        tmp_path / "clips",
        original=original,
        progress=lambda stage, done, total, note="": seen.append((stage, done, total)),
    )
    assert names_in(tmp_path / "clips") == [
        "001 a talk_ part 1_ 00.00.00-00.00.00.mp4",
        "003 a talk_ part 1_ 00.00.00-00.00.00.mp4",
    ]
    assert [(file.copied, file.lead_seconds) for file in report.files] == [(True, pytest.approx(0.16))] * 2
    assert [(failure.path, failure.reason) for failure in report.skipped] == [(gone.path, "the file does not exist")]
    assert seen == [("clips", 1, 3), ("clips", 2, 3), ("clips", 3, 3)]
    assert appearances(tmp_path / "clips" / names_in(tmp_path / "clips")[0])[1] == list(range(6, 20))


def test_numbers_continue_in_a_folder(video, tmp_path):
    out = tmp_path / "clips"
    assert next_number(out) == 1
    moments = [a_moment(video, 0.4, 0.8)] * 2
    export_moments(moments, out, original=original)
    (out / "2024 holiday.mp4").touch()  # no moment
    assert next_number(out) == 3
    report = export_moments(moments, out, original=original, first_number=1000)
    assert [file.path.rpartition("/")[2][:5] for file in report.files] == ["1000 ", "1001 "]
    assert next_number(out) == 1002


def test_numbers_are_reserved_until_the_clip_is_there(tmp_path):
    out = tmp_path / "new" / "clips"
    with reserved_number(out) as first, reserved_number(out) as second:
        (out / f"{second:03d} a 00.00.00-00.00.01.mp4").touch()
        with reserved_number(out) as third:
            assert (first, second, third) == (1, 2, 3)
    assert names_in(out) == ["002 a 00.00.00-00.00.01.mp4"]
    with reserved_number(out) as number:
        assert number == 3
    with pytest.raises(VopError, match="clips"), reserved_number(out / "002 a 00.00.00-00.00.01.mp4"):
        pass


def test_a_number_that_was_used_meanwhile_is_not_reserved(tmp_path, monkeypatch):
    """Another process finishes clip 1 after this one has looked which numbers are free."""
    looked = iter([1, 2])
    monkeypatch.setattr("vop.export.names.next_number", lambda folder: next(looked, 2))
    with reserved_number(tmp_path) as number:
        assert number == 2


def test_nothing_is_overwritten_unless_allowed(video, tmp_path):
    moments = [a_moment(video, 0.4, 0.8)]
    export_moments(moments, tmp_path, original=original)
    (file,) = tmp_path.iterdir()
    file.write_text("mine")
    with pytest.raises(UsageError, match=r"exists already(.|\n)*001 a talk"):
        export_moments(moments, tmp_path, original=original)
    assert file.read_text() == "mine"
    report = export_moments(moments, tmp_path, original=original, overwrite=True, exact=True)
    assert (report.files[0].copied, report.files[0].lead_seconds) == (False, 0)
    assert appearances(file)[1] == list(range(10, 20))
    table = tmp_path / "moments.csv"
    table.write_text("mine")
    with pytest.raises(UsageError, match=r"moments\.csv"):
        export_moments(moments, table, original=original)


def test_subtitles_are_cut_and_shifted(video, tmp_path):
    moments = [a_moment(video, 0.4, 0.8), a_moment(video, 0.92, 0.96)]
    report = export_moments(moments, tmp_path / "words", original=original, format="vtt", lines=talk)
    (file,) = (tmp_path / "words").iterdir()
    assert (file.suffix, len(report.files), len(report.skipped)) == (".vtt", 1, 1)
    events = pysubs2.load(str(file)).events
    assert [(event.start, event.end, event.plaintext) for event in events] == [(0, 100, "Hello"), (200, 400, "Grüße")]

    export_moments(moments[:1], tmp_path / "one.srt", original=original, lines=lambda moment: TALK[1:])
    (event,) = pysubs2.load(str(tmp_path / "one.srt")).events
    assert (event.start, event.end, event.text) == (200, 400, "Grüße")
    with pytest.raises(UsageError, match="2 moments"):
        export_moments(moments, tmp_path / "two.srt", original=original)


def test_subtitles_beside_a_copy_begin_with_the_copy(video, tmp_path):
    export_moments([a_moment(video, 0.4, 0.8)], tmp_path, original=original, subtitles=True, lines=talk)
    (file,) = tmp_path.glob("*.srt")
    events = pysubs2.load(str(file)).events
    assert [(event.start, event.end) for event in events] == [(0, 260), (360, 560)]  # the copy begins at 0.24 s


def test_formats_follow_the_suffix(tmp_path):
    paths = ["a.otio", "a.EDL", "clips", "v1.2/clips"]
    assert [format_of(tmp_path / path) for path in paths] == ["otio", "edl", "clips", "clips"]
    assert format_of(tmp_path, "srt") == "srt"
    for path, given in [("a.mp4", None), ("a.xml", None), (".", "edl"), ("a", "avi")]:
        with pytest.raises(UsageError):
            format_of(tmp_path / path, given)
    with pytest.raises(UsageError, match="no moments"):
        export_moments([], tmp_path / "a.csv", original=original)


def test_otio_needs_its_library(video, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(UsageError, match=r"vop\[export\]"):
        export_moments([a_moment(video, 0.4, 0.8)], tmp_path / "a.otio", original=original)
    assert export_moments([a_moment(video, 0.4, 0.8)], tmp_path / "a.fcpxml", original=original).files


def test_names_are_safe_everywhere():
    assert clip_name('/v/x/"CON": 5*2?\n.mp4', 3661.7, 3671, number=12) == "012 _CON__ 5_2__n 01.01.01-01.01.11"
    long = clip_name(f"/v/{'ü' * 200}.mp4", 0, 1)
    assert len(long.encode()) < 200
    assert safe("  ... ") == "video"
    assert safe("a\udcffb/c") == "a_xffb_c"
    assert clip_name("s3://bucket/films/lake.mp4", 0, 1) == "lake 00.00.00-00.00.01"


def test_reels_are_unique_and_short():
    paths = [
        "/a/Übung 1.mp4",
        "/b/übung1.mov",
        "/c/東京.mp4",
        "/d/ax.mp4",
        "/e/holiday in rome.mp4",
        "/f/holiday in.mp4",
    ]
    assert list(reel_names([*paths, *paths]).values()) == ["UBUNG1", "UBUNG12", "REEL", "AX2", "HOLIDAYI", "HOLIDAY2"]
