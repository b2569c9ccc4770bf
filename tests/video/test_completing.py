from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from clips import remux, watch_decoding, write_clip
from vop import probe, read_frames
from vop.export.frames import read_source

CODECS = {
    "clap.mp4": {"codec": "libx264"},
    "clap.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "v210.mov": {"codec": "v210", "pix_fmt": "yuv422p10le"},
}
EXACT = {"options": {"crf": "1", "g": "5"}}


def pictures(count: int = 1, *, width: int = 96, height: int = 96) -> list[np.ndarray]:
    """Smooth pictures, different in every part."""
    down, across = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return [np.uint8(255 * np.stack([across, down, (across + down) / 2], axis=2))] * count


def show_only(path: Path, *, width: int, height: int, right: int = 0, down: int = 0) -> Path:
    """Insert a clean aperture (the box clap) into a file: this part of the picture, off its middle by `right, down`."""
    data = bytearray(path.read_bytes())
    box = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 1, down, 1)
    places = [data.rindex(b"moov") - 4]
    for kind in (b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        places.append(data.index(kind, places[-1]) - 4)
    places.append(places[-1] + 16)  # the description of the first codec
    for place in places:
        (size,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, size + len(box))
    data[place + size : place + size] = box
    path.write_bytes(data)
    return path


def whole(path: Path, num_frames: int = 1, **settings) -> np.ndarray:
    """Whole frames in their stored size, float (num_frames, h, w, 3)."""
    shorter = min(probe(path).width, probe(path).height)
    frames = read_frames(path, num_frames, shorter, resize="whole", **settings)
    return frames.numpy().transpose(0, 2, 3, 1).astype(float)


def assert_shows(path: Path, expected: np.ndarray) -> None:
    height, width = expected.shape[:2]
    assert (probe(path).width, probe(path).height) == (width, height)
    source = read_source(path, path="", url="", duration_seconds=1)
    assert (source.width, source.height) == (width, height)
    assert np.abs(whole(path)[0] - expected).mean() < 3


@pytest.mark.parametrize("name", CODECS)
def test_the_clean_aperture_is_applied(tmp_path, name):
    path = write_clip(tmp_path / name, pictures(3), **CODECS[name])
    assert_shows(show_only(path, width=48, height=80, right=8), pictures()[0][8:88, 32:80])


def test_the_cropping_of_matroska_is_applied(tmp_path):
    path = show_only(write_clip(tmp_path / "a.mp4", pictures(3)), width=48, height=80, right=8)
    assert_shows(remux(path, tmp_path / "a.mkv"), pictures()[0][8:88, 32:80])


def test_the_clean_aperture_is_applied_before_rotation(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(3), rotation=90)
    assert_shows(show_only(path, width=48, height=80, right=8), np.rot90(pictures()[0][8:88, 32:80]))


def test_a_clean_aperture_larger_than_the_picture_is_ignored(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(3))
    assert_shows(show_only(path, width=200, height=200), pictures()[0])


def test_a_tag_is_not_taken_for_a_clean_aperture(tmp_path):
    path = write_clip(tmp_path / "plain.mkv", pictures(3))
    with av.open(str(path)) as given, av.open(str(tmp_path / "tag.mkv"), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        container.metadata["Frame Cropping"] = stream.metadata["Frame Cropping"] = "8/8/8/8"
        stream.metadata["title"] = "a\n      Frame Cropping: 8/8/8/8"
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    assert_shows(tmp_path / "tag.mkv", pictures()[0])


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libx265", "mkv")])
@pytest.mark.parametrize("crop", [(32, 0, 0, 0), (8, 8, 10, 10), (2, 0, 0, 2)])
def test_a_crop_in_the_bitstream_is_exact(tmp_path, codec, suffix, crop):
    """The decoder rounds the left side unless it may return unaligned pixels."""
    left, right, top, bottom = crop
    metadata = {"libx264": "h264_metadata", "libx265": "hevc_metadata"}[codec]
    sides = f"crop_left={left}:crop_right={right}:crop_top={top}:crop_bottom={bottom}"
    options = {"crf": "1", "x265-params": "log-level=none"} if codec == "libx265" else {"crf": "1"}
    path = write_clip(tmp_path / "whole.mp4", pictures(3), codec=codec, options=options)
    cropped = remux(path, tmp_path / f"cropped.{suffix}", f"{metadata}={sides}")
    assert_shows(cropped, pictures()[0][top : 96 - bottom, left : 96 - right])


@pytest.mark.parametrize("most", [None, 1])
@pytest.mark.parametrize(
    ("turn", "expected"), [("rotate=90", np.rot90), ("flip=horizontal", np.fliplr), ("flip=vertical", np.flipud)]
)
def test_a_message_in_the_stream_turns_all_frames(tmp_path, turn, expected, most):
    """It comes with each key frame, or only with the first."""
    path = write_clip(tmp_path / "a.mp4", pictures(25), **EXACT)
    turned = remux(path, tmp_path / "b.mp4", f"h264_metadata=display_orientation=insert:{turn}", most=most)
    for settings in ({}, {"start_seconds": 0.6}):
        for frame in whole(turned, 6, **settings):
            assert np.abs(frame - expected(pictures()[0])).mean() < 3


def test_the_first_frame_is_decoded_once_to_know_the_rotation(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", pictures(25), **EXACT)
    decoded, _ = watch_decoding(monkeypatch)
    read_frames(path, 2, 32, start_seconds=0.6)
    assert decoded.count(0) == 1
    assert len(decoded) <= 1 + 10
