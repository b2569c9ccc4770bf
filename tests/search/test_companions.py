"""Companions: previews that a camera writes beside a recording, and movies of Live Photos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from search.owners_videos import rows, write_video
from vop.video.find import find_videos
from vop.video.kinds import is_live_photo, previews_among

APPLE = "com.apple.quicktime."


@pytest.mark.parametrize(
    ("original", "preview"),
    [
        ("GX010001.MP4", "GX010001.LRV"),
        ("GX010001.MP4", "GL010001.LRV"),
        ("GH010001.MP4", "GL010001.LRV"),
        ("GX010001.MP4", "GX010001.THM"),
        ("GS010001.360", "GL010001.LRV"),
        ("GXAA0001.MP4", "GLAA0001.LRV"),
        ("GX010001.MP4", "GL010001.MP4"),
        ("GOPR0001.MP4", "GOPR0001.LRV"),
        ("GP010001.MP4", "gp010001.lrv"),
        ("DJI_0001.MP4", "DJI_0001.LRF"),
        ("DJI_20240101120000_0001_D.MP4", "DJI_20240101120000_0001_D.LRF"),
        ("VID_20240101_120000_00_001.insv", "LRV_20240101_120000_01_001.lrv"),
        ("MVI_0001.AVI", "MVI_0001.THM"),
    ],
)
def test_previews_are_found_beside_their_originals(original, preview):
    assert previews_among([original, preview, "other.mp4"]) == {preview}
    assert previews_among([preview, "other.mp4"]) == set()


@pytest.mark.parametrize(
    "names",
    [
        ["GX010001.MP4", "GX010002.LRV"],
        ["GX010001.MP4", "GL020001.LRV"],
        ["GX010001.MP4", "GH010001.MP4"],
        ["GX010001.JPG", "GX010001.LRV"],
        ["GOPR0001.LRV", "GOPR0001.THM"],
        ["a.mp4", "a.mov"],
        ["GLIDING.MP4", "GXIDING.MP4"],
    ],
)
def test_similar_names_are_not_previews(names):
    assert previews_among(names) == set()


def test_skipped_previews_and_pictures_are_counted(tmp_path):
    for name in ("GX010001.MP4", "GL010001.LRV", "GX010001.THM", "alone/GL010002.LRV", "alone/GX010003.THM"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    found = find_videos([tmp_path])
    assert [file.path.name for file in found.files] == ["GX010001.MP4", "GL010002.LRV"]
    assert found.skipped == {"a preview of another video": 2, "a picture": 1}
    given = find_videos([tmp_path / "GL010001.LRV"])
    assert [file.path.name for file in given.files] == ["GL010001.LRV"]
    without = find_videos([tmp_path], exclude=["GX*.MP4"])
    assert [file.path.name for file in without.files] == ["GL010001.LRV", "GL010002.LRV"]


def write_movie(path: Path, *, seconds: float, tags: dict[str, str]) -> Path:
    with av.open(str(path), "w", format="mov", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 250, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


IDENTIFIED = {f"{APPLE}content.identifier": "8D5C-11", f"{APPLE}make": "Apple"}


@pytest.mark.parametrize(
    ("picture", "seconds", "tags", "expected"),
    [
        ("IMG_1.HEIC", 3, IDENTIFIED, True),
        ("img_1.jpg", 3, IDENTIFIED, True),
        ("IMG_1.JPEG", 3, IDENTIFIED, True),
        ("IMG_1.HEIC", 3, {}, True),  # all tags were stripped
        ("IMG_1.HEIC", 3, {f"{APPLE}make": "Apple"}, False),
        ("IMG_1.JPG", 3, {}, False),  # a poster
        ("IMG_1.HEIC", 6, IDENTIFIED, False),
        ("IMG_2.HEIC", 3, IDENTIFIED, False),
        ("IMG_1.png", 3, IDENTIFIED, False),
    ],
)
def test_movies_of_live_photos_are_skipped(tmp_path, picture, seconds, tags, expected):
    movie = write_movie(tmp_path / "IMG_1.MOV", seconds=seconds, tags=tags)
    (tmp_path / picture).touch()
    found = find_videos([tmp_path])
    assert ([file.path for file in found.files] == []) == expected
    assert found.skipped["the movie of a Live Photo"] == expected
    assert found.skipped["a picture"] == 1
    assert [file.path for file in find_videos([tmp_path], live_photos=True).files] == [movie]


@pytest.mark.parametrize("content", [b"", b"moov", b"\0\0\0\1moov", b"\0\0\0\x10moovmvhd", b"\0\0\0\0" * 9])
def test_damaged_files_are_not_live_photos(tmp_path, content):
    (tmp_path / "IMG_1.MOV").write_bytes(content)
    assert not is_live_photo(str(tmp_path / "IMG_1.MOV"))
    assert not is_live_photo(str(tmp_path / "nothing.MOV"))


def test_a_library_keeps_the_setting_for_live_photos(index_videos, folder, videos):
    at = videos["a"].parent
    write_movie(at / "IMG_1.MOV", seconds=2, tags=IDENTIFIED)
    (at / "IMG_1.HEIC").touch()
    assert index_videos().added == 4
    assert index_videos(live_photos=True).added == 1
    assert index_videos().unchanged == 5
    report = index_videos(live_photos=False)
    assert (report.unchanged, report.excluded) == (4, 1)
    assert index_videos(prune=True).removed == 1


def test_prune_removes_previews_of_videos_added_later(index_videos, folder, videos):
    at = videos["a"].parent
    write_video(at / "x.mp4", seed=60).rename(at / "GL010001.LRV")
    index_videos()
    write_video(at / "GX010001.MP4", seed=61)
    report = index_videos()
    assert (report.added, report.excluded) == (1, 1)
    index_videos(prune=True)
    assert "GL010001.LRV" not in {name for name, _ in rows(folder)}
