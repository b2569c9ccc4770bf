"""OpenTimelineIO reads what we wrote, and finds the frames that are shown at these times."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from fractions import Fraction
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import opentimelineio as otio
import pytest

from clips import grey_frames, numbers, write_clip
from export.found import a_moment, original
from vop.errors import UsageError
from vop.export import list_document
from vop.export.edl import edl
from vop.export.fcpxml import fcpxml
from vop.export.frames import Source
from vop.export.timeline import make_timeline, notes_of
from vop.search.words.lines import Line
from vop.video.frames import read_frames
from vop.video.places import Place

NTSC = Fraction(30000, 1001)
NAMES = ["lake.mp4", "Übung & <Spiel> 1.mp4", "it's a 'quote'.mp4"]


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Three videos of 25 frames per second, with names that are hard to write."""
    folder = tmp_path_factory.mktemp("my videos")
    paths = [write_clip(folder / name, grey_frames(24), audio=place == 0) for place, name in enumerate(NAMES)]
    times = [(0.4, 0.8), (0.0, 0.2), (0.5, 0.96)]
    return [a_moment(path, *time, author="bob") for path, time in zip(paths, times, strict=True)]


FRAMES = [(10, 10), (0, 5), (12, 12)]  # the first frame of each moment, and their number


def read_back(text: str, kind: str) -> otio.schema.Timeline:
    adapter = {"edl": "cmx_3600", "fcpxml": "fcpx_xml", "otio": "otio_json"}[kind]
    settings = {"rate": 25} if kind == "edl" else {}
    found = otio.adapters.read_from_string(text, adapter, **settings)
    return found[0] if kind == "fcpxml" else found  # FCPXML has an event with timelines


@pytest.mark.parametrize("kind", ["edl", "fcpxml", "otio"])
def test_opentimelineio_finds_the_frames(moments, kind):
    document = list_document(moments, kind, original=original, name="a dog runs")
    assert (document.moments, document.skipped, document.notes) == (3, (), ())
    timeline = read_back(document.text, kind)
    assert timeline.name == "a dog runs"
    video = next(track for track in timeline.tracks if track.kind == otio.schema.TrackKind.Video)
    clips = list(video.find_clips())
    assert [(clip.source_range.start_time.to_frames(), clip.source_range.duration.to_frames()) for clip in clips] == (
        FRAMES
    )
    assert {clip.source_range.duration.rate for clip in clips} == {25}
    places = [video.range_of_child(clip).start_time.to_frames() for clip in clips]
    assert [place - places[0] for place in places] == [0, 10, 15]
    assert [clip.name for clip in clips] == NAMES
    urls = [clip.media_reference.target_url for clip in clips]
    files = [url if kind == "edl" else unquote(urlparse(url).path) for url in urls]
    assert files == [moment.path for moment in moments]
    for clip, moment in zip(clips, moments, strict=True):  # the first frame is the one that is shown at this time
        middle = (clip.source_range.start_time.value + 0.5) / 25
        shown = read_frames(moment.path, num_frames=1, size=32, start_seconds=middle - 0.001, end_seconds=middle)
        assert numbers(shown) == [clip.source_range.start_time.value]


def test_otio_keeps_what_is_known_of_a_moment(moments):
    timeline = read_back(list_document(moments, "otio", original=original).text, "otio")
    video, audio = timeline.tracks
    assert video[0].metadata["vop"]["rank"] == 1
    assert video[0].metadata["vop"]["columns"]["author"] == "bob"
    assert video[0].media_reference.available_range.duration.to_frames() == 24
    assert [type(item) for item in audio] == [otio.schema.Clip, otio.schema.Gap, otio.schema.Gap]


def test_reels_and_channels_of_an_edl(moments):
    text = list_document(moments, "edl", original=original, name="a dog").text
    events = [line.split() for line in text.splitlines() if line[:3].isdigit()]
    assert [(event[1], event[2]) for event in events] == [("LAKE", "AA/V"), ("UBUNGSPI", "V"), ("ITSAQUOT", "V")]
    assert events[0][4:] == ["00:00:00:10", "00:00:00:20", "01:00:00:00", "01:00:00:10"]
    assert "FCM: NON-DROP FRAME" in text


def a_source(name: str, **settings) -> Source:
    return Source(path=f"/v/{name}", url=f"file:///v/{name}", duration_seconds=4000.0, **settings)


def test_drop_frame_in_an_edl():
    tape = a_source("tape.mov", rate=NTSC, start_frame=107892, has_timecode=True, drop_frame=True)
    moments = [(a_moment("/v/tape.mov", 60.0, 62.0, seconds=4000), tape)] * 2
    text = edl(make_timeline(moments, name="tape"))
    assert "FCM: DROP FRAME" in text
    events = [line.split()[4:] for line in text.splitlines() if line[:3].isdigit()]
    assert events[0][2:] == ["01:00:00;00", "01:00:02;01"]
    clips = list(otio.adapters.read_from_string(text, "cmx_3600", rate=float(NTSC)).find_clips())
    start = clips[0].source_range.start_time
    assert start.to_frames() == 107892 + 1798  # frame 1798 is on display at 60 s
    assert clips[0].source_range.duration.to_frames() == 61
    assert clips[1].source_range == clips[0].source_range


def test_fcpxml_counts_exactly_at_ntsc_rates():
    source = a_source("a.mov", rate=NTSC, start_frame=107892, has_timecode=True, drop_frame=True, channels=2)
    moments = [(a_moment("/v/a.mov", 10.0, 12.0, seconds=4000), source)] * 3
    root = ElementTree.fromstring(fcpxml(make_timeline(moments, name="a")))
    sequence = root.find("library/event/project/sequence")
    assert (sequence.get("tcFormat"), sequence.get("tcStart")) == ("DF", f"{107892 / NTSC}s")
    for place, clip in enumerate(sequence.iter("asset-clip")):
        offset, start, duration = (Fraction(clip.get(name)[:-1]) * NTSC for name in ("offset", "start", "duration"))
        assert (offset, start, duration) == (107892 + 61 * place, 107892 + 299, 61)
    formats = {one.get("id"): one.get("frameDuration") for one in root.iter("format")}
    assert set(formats.values()) == {"1001/30000s"}
    assert {clip.get("format") for clip in sequence.iter("asset-clip")} <= set(formats)


def test_mixed_rates_are_counted_at_the_most_common_one():
    slow, fast = a_source("slow.mp4", rate=Fraction(25)), a_source("fast.mp4", rate=Fraction(60))
    phone = a_source("phone.mp4", rate=Fraction(25), average_rate=Fraction(249, 10))
    times = {"start_seconds": 2.0, "end_seconds": 4.0}
    moments = [(a_moment(source.path, *times.values(), seconds=4000), source) for source in (slow, phone, fast)]
    timeline = make_timeline(moments, name="mixed")
    assert [(event.first, event.frames, event.offset, event.length) for event in timeline.events] == [
        (50, 50, 0, 50),
        (50, 50, 50, 50),
        (120, 120, 100, 50),
    ]
    clips = list(otio.adapters.read_from_string(edl(timeline), "cmx_3600", rate=25).find_clips())
    assert [clip.source_range.start_time.to_frames() for clip in clips] == [50, 50, 50]
    notes = notes_of(timeline)
    assert len(notes) == 2
    assert "24.90 on average" in notes[0]
    assert "60 frames" in notes[1]


def test_missing_files_are_left_out_of_lists_for_editors(moments):
    gone = a_moment("/nowhere/gone.mp4", 1.0, 2.0)
    document = list_document([moments[0], gone, gone], "edl", original=original)
    assert document.moments == 1
    assert [failure.path for failure in document.skipped] == ["/nowhere/gone.mp4"] * 2
    with pytest.raises(UsageError, match="999"):
        edl(make_timeline([(moments[0], a_source("a.mp4", rate=Fraction(25)))] * 1000, name="many"))


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(50)])
def test_clips_end_within_files_of_another_rate(rate):
    """In FCPXML and OTIO they have the length of the timeline's frames."""
    slow = Source(path="/v/a.mkv", url="file:///v/a.mkv", duration_seconds=1001 / 60, rate=rate)
    fast = a_source("b.mp4", rate=NTSC)
    clips = [(a_moment("/v/b.mp4", 0, 1), fast)] * 2 + [
        (a_moment("/v/a.mkv", 11 + n / 50, 16.7), slow) for n in range(50)
    ]
    timeline = make_timeline(clips, name="mixed")
    for event in timeline.events[2:]:
        assert event.first / rate + event.length / timeline.rate <= slow.num_frames / rate


def test_a_table_has_all_fields_and_columns():
    moments = [a_moment("/v/a.mp4", 1.5, 2.0, author="=1+1", date="x"), a_moment("/v/b \udcff.mp4", 0, 1)]
    rows = list(csv.DictReader(io.StringIO(list_document(moments, "csv", original=original).text)))
    assert [(row["rank"], row["path"], row["start_seconds"], row["score"]) for row in rows] == [
        ("1", "/v/a.mp4", "1.5", "0.25"),
        ("2", r"/v/b \udcff.mp4", "0", "0.25"),
    ]
    nested = {f"{name}.{field.name}" for name, kind in (("line", Line), ("place", Place)) for field in fields(kind)}
    assert nested < rows[0].keys()
    assert not {"line", "place"} & rows[0].keys()
    assert (rows[0]["author"], rows[0]["columns.date"], rows[1]["author"]) == ("'=1+1", "x", "")
