"""Where a video was recorded: from the metadata of real files, and from texts that may be anything."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import grey_frames, write_clip
from vop.video.places import Place, parse_place, recording_place
from vop.video.probe import probe

APPLE = "com.apple.quicktime.location.ISO6709"
VIENNA = Place(latitude=48.2, longitude=16.4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("plain") / "plain.mp4", grey_frames(4))


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg command")
@pytest.mark.parametrize(
    ("name", "tag", "options"),
    [
        ("android.mp4", "location=+48.2+016.4/", ()),
        ("dji.mov", "location=+48.2000+016.4000/", ()),
        ("apple.mov", f"{APPLE}=+48.2000+016.4000+151.000/", ("-movflags", "use_metadata_tags")),
        ("apple.mp4", f"{APPLE}=+48.2000+016.4000+151.000/", ("-movflags", "use_metadata_tags")),
        ("phone.3gp", "location=+48.2+016.4/", ()),
        ("copied.mkv", "location=+48.2+016.4/", ()),
    ],
)
def test_places_in_files_that_ffmpeg_writes(plain, tmp_path, name, tag, options):
    command = ["ffmpeg", "-v", "error", "-i", plain, "-c", "copy", "-metadata", tag, *options, tmp_path / name]
    subprocess.run(command, check=True)
    place = probe(tmp_path / name).place
    assert (place.latitude, place.longitude) == pytest.approx((48.2, 16.4), abs=1e-3)


def test_a_file_without_a_place_has_none(plain):
    assert probe(plain).place is None


@pytest.mark.parametrize(
    ("text", "latitude", "longitude"),
    [
        ("+48.2+016.4/", 48.2, 16.4),
        ("-33.8568+151.2153+010.5/", -33.8568, 151.2153),
        ("+40-075CRSWGS_84/", 40, -75),
        ("+48.2082+16.3738", 48.2082, 16.3738),
        ("+4012.22-07500.25/", 40 + 12.22 / 60, -75 - 0.25 / 60),
        ("+401213.1-0750015.1+2.79/", 40 + 12 / 60 + 13.1 / 3600, -75 - 15.1 / 3600),
        ("-00.5+000.0/", -0.5, 0),
        ("+90+180/", 90, 180),
        (" 48.2, 16.4 \0", 48.2, 16.4),
    ],
)
def test_each_form_is_read(text, latitude, longitude):
    assert parse_place(text) == Place(latitude=pytest.approx(latitude), longitude=pytest.approx(longitude))


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "Vienna", "+48.2", "48.2", "+48.2+016.4+", "+91+000/", "+45+181/", "+0.0000+000.0000/", "0,0"),
        *(
            "+4860+01600/",
            "+123+016/",
            "+48.2+0164512345/",
            "nan,nan",
            "1e3,5",
            "+١٢+016/",
            "+48..2+016/",
            "+48.2+016.4//",
        ),
    ],
)
def test_malformed_places_are_none(text):
    assert parse_place(text) is None


@given(st.text(alphabet="+-0123456789./, CRS\0", max_size=40))
def test_any_text_gives_a_place_on_the_globe_or_none(text):
    place = parse_place(text)
    assert place is None or (abs(place.latitude) <= 90 and abs(place.longitude) <= 180)


def test_apples_tag_comes_first_and_a_malformed_one_is_passed_over():
    assert recording_place({"location": "+1+001/", APPLE: "+48.2+016.4/"}, {}) == VIENNA
    assert recording_place({"location": "+48.2+016.4/", APPLE: "unknown"}, {}) == VIENNA
    assert recording_place({}, {"LOCATION": "+48.2+016.4/"}) == VIENNA
    assert recording_place({"title": "+48.2+016.4/"}, {}) is None
