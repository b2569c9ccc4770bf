"""The recording date of a video: from its metadata, from its name, or from the file system."""

from __future__ import annotations

import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.video.dates import RecordingDate, date_after_change, recording_date

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CHANGED = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
APPLE = "com.apple.quicktime.creationdate"
IN_SUMMER = datetime(2019, 7, 14, 18, 15, tzinfo=UTC)  # 20:15 in Berlin


@pytest.fixture(autouse=True, params=["Europe/Berlin", "America/New_York"])
def zone(request, monkeypatch) -> str:
    """Run every test in two time zones: no date may depend on the machine's zone by accident."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def local(*parts: int) -> datetime:
    return datetime(*parts).astimezone()


def date_of(container=(), stream=(), name: str = "clip.mp4", changed: datetime = CHANGED):
    mtime_ns = int(changed.timestamp()) * 10**9 + 123_456_789
    return recording_date(dict(container), dict(stream), Path("/v") / name, mtime_ns, now=NOW)


def write(path: Path, *, codec: str = "mpeg4", stream: dict | None = None, **tags: str) -> Path:
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mov" else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags)
        video = container.add_stream(codec, rate=5)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        video.metadata.update(stream or {})
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


def date_in(path: Path):
    with av.open(str(path)) as container:
        return date_of(container.metadata, container.streams.video[0].metadata, path.name)


class TestFiles:
    def test_apples_date_wins_over_creation_time(self, tmp_path):
        tags = {APPLE: "2019-07-14T20:15:00+0200", "creation_time": "2026-01-05T10:00:00Z"}
        at, source = date_in(write(tmp_path / "a.mov", **tags))
        assert (at, source) == (IN_SUMMER, "creationdate")
        assert at.utcoffset() == timedelta(hours=2)

    @pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.flv"])
    def test_creation_time_is_read(self, tmp_path, name):
        codec = "flv" if name == "a.flv" else "mpeg4"
        path = write(tmp_path / name, codec=codec, creation_time="2019-07-14T20:15:00+02:00")
        assert date_in(path) == (IN_SUMMER, "creation_time")

    @pytest.mark.parametrize("tag", ["DATE_RECORDED", "DATE_DIGITIZED", "DATE_ENCODED", "DATE"])
    @pytest.mark.parametrize("of_stream", [False, True])
    def test_dates_of_matroska_are_read(self, tmp_path, tag, of_stream):
        tags = {tag: "2019-07-14 20:15:00.250"}
        path = write(tmp_path / "a.mkv", **({"stream": tags} if of_stream else tags))
        assert date_in(path) == (local(2019, 7, 14, 20, 15), "date")

    def test_the_date_of_an_mp4_is_read(self, tmp_path):
        assert date_in(write(tmp_path / "a.mp4", date="2019-07-14")) == (local(2019, 7, 14), "date")

    @pytest.mark.parametrize("text", ["Sun Jul 14 20:15:00 2019", "2019:07:14 20:15:00", "2019-07-14"])
    def test_the_date_of_an_avi_is_read(self, tmp_path, text):
        wanted = local(2019, 7, 14) if text == "2019-07-14" else local(2019, 7, 14, 20, 15)
        assert date_in(write(tmp_path / "a.avi", date=text)) == (wanted, "date")

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            (b"Sun Jul 14 20:15:00 2019\n\0", (2019, 7, 14, 20, 15)),
            (b"SUN JUL  4 08:05:09 2019\n\0", (2019, 7, 4, 8, 5, 9)),
            (b"2005/08/17/ 11:42\0", (2005, 8, 17, 11, 42)),
        ],
    )
    def test_the_recording_time_of_a_cameras_avi_is_read(self, tmp_path, text, wanted):
        path = write(tmp_path / "a.avi")
        path.write_bytes(with_idit(path.read_bytes(), text))
        assert date_in(path) == (local(*wanted), "creation_time")

    def test_without_metadata_the_files_own_time_counts(self, tmp_path):
        at, source = date_in(write(tmp_path / "a.webm", codec="libvpx"))
        assert (at, source) == (CHANGED, "file")
        assert at.utcoffset() == local(2025, 3, 4).utcoffset()


def with_idit(avi: bytes, text: bytes) -> bytes:
    """An AVI file with the chunk IDIT at the end of its header list."""
    chunk = b"IDIT" + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    riff, header = (struct.unpack_from("<I", avi, place)[0] for place in (4, 16))
    end = 20 + header
    sizes = [struct.pack("<I", size + len(chunk)) for size in (riff, header)]
    return avi[:4] + sizes[0] + avi[8:16] + sizes[1] + avi[20:end] + chunk + avi[end:]


class TestTags:
    def test_sources_are_tried_in_order(self):
        tags = {
            APPLE: "2011-01-01T00:00:00Z",
            "DATE_RECORDED": "2012-01-01",
            "creation_time": "2013-01-01T00:00:00Z",
            "DATE_DIGITIZED": "2014-01-01",
            "date": "2015-01-01",
        }
        years = []
        while tags:
            years.append(date_of(tags, name="2016-01-01.mp4").at.year)
            del tags[next(iter(tags))]
        years += [date_of(name="2016-01-01.mp4").at.year, date_of().at.year]
        assert years == [2011, 2012, 2013, 2014, 2015, 2016, 2025]

    def test_the_container_wins_over_the_stream(self):
        container, stream = {"creation_time": "2019-01-01T00:00:00Z"}, {"creation_time": "2018-01-01T00:00:00Z"}
        assert date_of(container, stream).at.year == 2019
        assert date_of({}, stream).at.year == 2018
        assert date_of({"creation_time": "0000-00-00"}, stream).at.year == 2018

    @pytest.mark.parametrize(
        "text",
        [
            *("2019-07-14T18:15:00.999999Z", "2019-07-14 18:15:00 UTC", "2019-07-14T20:15:00+0200"),
            *("2019-07-14T20:15:00+02", "2019:07:14 14:15:00-04:00", "20190714T181500Z", "  2019-07-14T18:15Z\n\0"),
            *("Sun, 14 Jul 2019 20:15:00 +0200", "Sun Jul 14 18:15:00 UTC 2019"),
        ],
    )
    def test_dates_with_a_zone(self, text):
        assert date_of({"date": text}) == (IN_SUMMER, "date")

    @pytest.mark.parametrize(
        "text",
        [
            *("1904-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "1979-12-31T23:59:59Z", "2026-05-02T00:00:01Z"),
            *("", "2019", "2019-07", "2019-02-29", "2019-07-14T25:00:00Z", "yesterday", "99999-01-01", "0000-00-00"),
            *("2019-07-14T20:15:00+99:00", "Sun Jul 34 20:15:00 2019", "٢٠١٩-٠٧-١٤", "x" * 10_000),
        ],
    )
    def test_invalid_dates_are_ignored(self, text):
        tags = {APPLE: text, "creation_time": text, "date": text}
        assert date_of(tags, tags) == (CHANGED, "file")
        assert date_of({"creation_time": text, "date": "2018-01-02"}) == (local(2018, 1, 2), "date")

    def test_a_clock_may_be_up_to_a_day_ahead(self):
        assert date_of({"creation_time": "2026-05-01T23:59:59Z"}).source == "creation_time"

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(st.text(max_size=30) | st.text("0123456789-:/. TZ+SunJl", max_size=30))
    def test_any_text_gives_a_date(self, text):
        at, source = date_of({"date": text}, name=f"{text}.mp4".replace("/", "-"))
        assert at.tzinfo
        assert source in ("date", "name", "file")


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            *(
                "IMG_20190714_201500.mp4",
                "VID_20190714_201500",
                "VID_20190714_201500_HSR_120.mp4",
                "20190714_201500.mp4",
            ),
            *("VID20190714201500.mp4", "20190714201500.mp4", "DJI_20190714201500_0001_D.MP4", "20190714T201500.mkv"),
            *(
                "2019-07-14 20.15.00.mov",
                "2019-07-14 20-15-00.mkv",
                "2019-07-14_20-15-00.mkv",
                "2019-07-14T20:15:00.mp4",
            ),
            *("Screen Recording 2019-07-14 at 20.15.00.mov", "Screen Recording 2019-07-14 at 8.15.00 PM.mov"),
            *("Screen Recording 2019-07-14 at 8.15.00\u202fPM.mov", "WhatsApp Video 2019-07-14 at 20.15.00.mp4"),
            *("Bildschirmaufnahme 2019-07-14 um 20.15.00.mov", "Enregistrement 2019-07-14 à 20.15.00.mov"),
            *("signal-2019-07-14-201500.mp4", "signal-2019-07-14-20-15-00-123.mp4", "WIN_20190714_20_15_00_Pro.mp4"),
            *("Screen_Recording_20190714-201500_App.mp4", "video_2019-07-14_20-15-00.mp4", "2019.07.14, 20.15.00.avi"),
            *("Birthday 2019-07-14 - 20.15.00 (2).mp4", "clip 1234 20190714_201500123.mp4", "20190714_201500~2.mp4"),
        ],
    )
    def test_names_with_day_and_time(self, name):
        assert date_of(name=name) == (local(2019, 7, 14, 20, 15), "name")

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "VID-20190714-WA0001.mp4",
                "2019-07-14.mp4",
                "2019-07-14 Lake.mp4",
                "lake_2019_07_14.mp4",
                "20190714.avi",
            ),
            *(
                "2019-07-14 10 children.mp4",
                "20190714_1.mp4",
                "20190714_0001.mp4",
                "20190714_20150012.mp4",
                "2019.07.14",
            ),
            *("20191301_120000 or 2019-07-14.mp4", "1999-01-32 2019-07-14.mp4"),
        ],
    )
    def test_names_with_a_day(self, name):
        assert date_of(name=name) == (local(2019, 7, 14), "name")

    def test_names_with_am_and_pm(self):
        hours = {"12.00.00 AM": 0, "1.00.00 am": 1, "12.00.00 pm": 12, "11.00.00 PM": 23}
        for text, hour in hours.items():
            assert date_of(name=f"2019-07-14 at {text}.mov") == (local(2019, 7, 14, hour), "name")

    @pytest.mark.parametrize(
        "name", ["PXL_20210101_101112345.mp4", "PXL_20210101_101112345.TS.mp4", "GMT20210101-101112_Recording.mp4"]
    )
    def test_names_with_utc_times(self, name):
        assert date_of(name=name) == (datetime(2021, 1, 1, 10, 11, 12, tzinfo=UTC), "name")
        assert date_of(name="2021-01-01T10:11:12Z.mp4") == date_of(name=name)

    @pytest.mark.parametrize(
        "name",
        [
            *("clip.mp4", "MVI_0001.MOV", "GX010123.MP4", "1920x1080.mp4", "2019.mp4", "2019-07.mp4", "14-07-2019.mp4"),
            *("20191301.mp4", "20190732.mp4", "20190229.mp4", "2019-0714.mp4", "20190714_990000.mp4"),
            *("20190714_206000.mp4", "2019-07-14 at 13.00.00 PM.mov", "2019-07-14 at 0.00.00 AM.mov"),
            *("120190714.mp4", "201907141.mp4", "1563128100000.mp4", "2019071420150.mp4", "2019071420150012.mp4"),
            *("19790714_201500.mp4", "20260714_201500.mp4", "10000101_000000.mp4", "٢٠١٩٠٧١٤.mp4"),
        ],
    )
    def test_names_without_a_date(self, name):
        assert date_of(name=name) == (CHANGED, "file")

    def test_names_of_folders_are_ignored(self):
        assert recording_date({}, {}, Path("/v/2019-07-14/clip.mp4"), 10**18).source == "file"


@pytest.mark.parametrize("mtime_ns", [0, -1, 2**63 - 1, -(2**63)])
def test_any_modification_time_gives_a_date(mtime_ns):
    at, source = recording_date({}, {}, Path("/v/a.mp4"), mtime_ns)
    assert source == "file"
    assert at.tzinfo


@pytest.mark.parametrize(
    ("source", "name", "mtime_ns", "expected"),
    [
        ("creation_time", "2019-07-14.mp4", 0, 2010),  # metadata come first
        ("file", "2019-07-14.mp4", 0, 2019),
        ("file", "a.mp4", 10**18, 2001),  # earlier
        ("file", "a.mp4", 2 * 10**18, 2010),
        ("file", "a.mp4", 0, 2010),  # not plausible
        ("file", "a.mp4", None, 2010),
        ("name", "a.mp4", 10**18, 2010),
    ],
)
def test_a_date_after_a_change_of_the_file(source, name, mtime_ns, expected):
    before = RecordingDate(datetime(2010, 5, 1, tzinfo=UTC), source)
    assert date_after_change(before, name, mtime_ns).at.year == expected
