"""Copied clips show what the file shows, although the pictures alone do not tell all of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import grey_frames, remux, write_clip
from hdr import write_frames
from video.exported import appearances, duration
from video.test_completing import pictures, show_only, whole
from vop.errors import VideoError
from vop.video.clip_export import export_clip, save_clip, saved_suffix
from vop.video.frames import read_frames
from vop.video.probe import probe

SHAPES = [
    ("vp9.mp4", {"codec": "libvpx-vp9"}, True),
    ("vp9.3gp", {"codec": "libvpx-vp9"}, False),  # becomes Matroska, into which PyAV cannot write the shape
    ("prores.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}, True),
    ("h264.mkv", {}, True),
]


def save(path: Path, *, exact: bool = False) -> tuple[Path, bool]:
    out = path.with_name(f"out{saved_suffix(path, exact=exact)}")
    return out, save_clip(path, out, start_seconds=0.0, end_seconds=0.4, exact=exact).copied


def shape(path: Path) -> float:
    info = probe(path)
    return info.width / info.height


def redeclared(path: Path, aspect: Fraction) -> Path:
    """A copy whose container gives another sample aspect ratio than the pictures."""
    out = path.with_name(f"redeclared{path.suffix}")
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = aspect
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return out


@pytest.mark.parametrize(("name", "settings", "copied"), SHAPES, ids=[name for name, *_ in SHAPES])
def test_copies_keep_the_shape_of_pixels(tmp_path, name, settings, copied):
    written = name.replace("3gp", "mp4")
    path = write_clip(tmp_path / written, grey_frames(8), sample_aspect_ratio=Fraction(2), **settings)
    path = path.rename(tmp_path / name)  # formats are detected by content
    out, was_copied = save(path)
    assert shape(path) == shape(out) == pytest.approx(128 / 48)
    assert was_copied == copied


@pytest.mark.parametrize(("name", "copied"), [("clip.mp4", True), ("clip.3gp", False)])
def test_the_container_decides_about_the_shape_of_pixels(tmp_path, name, copied):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(8), sample_aspect_ratio=Fraction(2))
    path = redeclared(path, Fraction(4, 3)).rename(tmp_path / name)
    out, was_copied = save(path)
    assert shape(path) == shape(out) == pytest.approx(85 / 48)
    assert was_copied == copied
    export_clip(path, out, start_seconds=0.0, end_seconds=0.3)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio in (None, 1)
        assert stream.width / stream.height == pytest.approx(85 / 48, rel=0.02)


def test_what_cannot_be_copied_into_webm_is_encoded(tmp_path):
    settings = {"codec": "libvpx-vp9", "sample_aspect_ratio": Fraction(2), "rotation": 90, "audio": True}
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), **settings).rename(tmp_path / "clip.webm")
    out = tmp_path / "out.webm"
    saved = save_clip(path, out, start_seconds=0.2, end_seconds=0.4)
    assert (saved.lead_seconds, saved.copied) == (0, False)
    times, shown = appearances(out)
    assert shown == list(range(5, 10))
    assert [float(time) for time in times] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=0.001)
    assert duration(out) == pytest.approx(0.2, abs=0.03)
    assert shape(path) == shape(out) == pytest.approx(48 / 128)
    with av.open(str(out)) as container:
        assert container.format.name == "matroska,webm"
        assert [stream.codec_context.name for stream in container.streams.video] == ["vp9"]
        assert [stream.codec_context.codec.canonical_name for stream in container.streams.audio] == ["opus"]


@pytest.mark.parametrize(("suffix", "codec"), [("webm", "libvpx"), ("webm", "libvpx-vp9"), ("mkv", "libvpx-vp9")])
def test_copies_keep_the_alpha_channel_of_vp8_and_vp9(tmp_path, suffix, codec):
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (30, 200, 40, 255), (255, 0, 255, 0)  # the magenta is transparent
    frames = [av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p") for _ in range(5)]
    path = write_frames(tmp_path / f"clip.{suffix}", frames, codec=codec, crf=4, b="2M", **{"auto-alt-ref": 0})
    out, was_copied = save(path)
    assert was_copied
    right = read_frames(out, num_frames=1, size=48, resize="squash").numpy()[0, :, 24, 40]
    assert np.abs(right.astype(int) - 128).max() <= 2


def test_copies_keep_the_variant_of_the_codec(tmp_path):
    settings = {"codec": "prores_ks", "pix_fmt": "yuva444p10le", "options": {"profile": "4"}}
    path = write_clip(tmp_path / "clip.mov", grey_frames(8), **settings)
    out, was_copied = save(path)
    assert was_copied
    for file in (path, out):
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.codec_tag == "ap4h"  # ProRes 4444
            assert next(container.decode(stream)).format.name == "yuva444p12le"


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_clips_are_cropped_as_the_container_asks_for(tmp_path, name):
    settings = {"codec": "prores_ks", "pix_fmt": "yuv422p10le"} if name.endswith("mov") else {"options": {"crf": "1"}}
    written = tmp_path / name.replace("mkv", "mp4")
    path = show_only(write_clip(written, pictures(12), **settings), width=48, height=80, right=8)
    if name.endswith("mkv"):
        path = remux(path, tmp_path / name)
    expected = pictures()[0][8:88, 32:80]
    for exact in (False, True):
        out, was_copied = save(path, exact=exact)
        assert was_copied != exact
        assert np.abs(whole(out)[0] - expected).mean() < 4
    export_clip(path, out, start_seconds=0.0, end_seconds=0.4)
    assert np.abs(whole(out)[0] - expected).mean() < 4
    with av.open(str(out)) as container:
        assert container.streams.video[0].width == 48  # browsers do not crop


def test_clips_are_turned_by_a_message_in_the_stream(tmp_path):
    """It comes with the first frame, which a copy does not have."""
    path = write_clip(tmp_path / "a.mp4", pictures(25, height=48), options={"crf": "1", "g": "5"})
    turned = remux(path, tmp_path / "b.mp4", "h264_metadata=display_orientation=insert:rotate=90")
    out, expected = tmp_path / "out.mp4", np.rot90(pictures(height=48)[0])
    for start in (0.0, 0.6):
        saved = save_clip(turned, out, start_seconds=start, end_seconds=start + 0.3)
        assert saved.copied == (start == 0)
        assert np.abs(whole(out)[0] - expected).mean() < 4
        export_clip(turned, out, start_seconds=start, end_seconds=start + 0.3)
        assert np.abs(whole(out)[0] - expected).mean() < 4


def test_clips_that_mpeg_ts_cannot_turn_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(12, height=48), options={"crf": "1"})
    turned = remux(path, tmp_path / "b.ts", "h264_metadata=display_orientation=insert:rotate=90")
    with pytest.raises(VideoError, match="mpegts.*exactly"):
        save(turned)
    assert np.abs(whole(save(turned, exact=True)[0])[0] - np.rot90(pictures(height=48)[0])).mean() < 4


@pytest.mark.parametrize("width", [36, 48])
def test_narrow_pictures_of_more_than_8_bits_are_cut_exactly(tmp_path, width):
    """x265 corrupted the memory of the process."""
    settings = {"codec": "ffv1", "pix_fmt": "yuv420p10le"}
    path = write_clip(tmp_path / "narrow.mkv", grey_frames(12, width=width, height=80), **settings)
    out, _ = save(path, exact=True)
    assert appearances(out)[1] == list(range(10))
