"""Which video stream of a file is read, and what `probe` reports about it."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

import vop
from clips import grey_frames, numbers, write_clip
from vop.errors import UsageError, VideoError
from vop.video.decode import VideoDecoder
from vop.video.resizing import Resizing


def write_tracks(path: Path, *tracks: dict) -> Path:
    """Write video tracks to one file. Each has `frames`, a `size`, a grey `level`, and may be `default`."""
    with av.open(str(path), "w") as container:
        streams = []
        for track in tracks:
            stream = container.add_stream(track.get("codec", "libx264"), rate=10)
            stream.width, stream.height = track["size"]
            stream.pix_fmt = "yuvj420p" if track.get("codec") == "mjpeg" else "yuv420p"
            stream.disposition = Disposition.default if track.get("default") else Disposition(0)
            streams.append(stream)
        for track, stream in zip(tracks, streams, strict=True):
            width, height = track["size"]
            for _ in range(track["frames"]):
                pixels = np.full((height, width, 3), 10 * track["level"], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    return path


MAIN = {"frames": 20, "size": (96, 64), "level": 20}
PREVIEW = {"frames": 20, "size": (24, 16), "level": 5}
PICTURE = {"frames": 1, "size": (320, 240), "level": 10, "codec": "mjpeg"}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ((PICTURE, MAIN | {"default": True}), 1),
        ((PICTURE, MAIN), 1),
        ((PREVIEW, MAIN | {"default": True}), 1),
        ((PREVIEW, MAIN), 1),
        ((MAIN, PREVIEW, PICTURE), 0),
        ((MAIN | {"level": 15}, MAIN | {"default": True}), 1),
    ],
    ids=["picture first", "picture, no default", "preview first", "the largest", "main first", "two alike"],
)
def test_the_default_stream_is_read_or_else_the_largest(tmp_path, suffix, tracks, expected):
    path = write_tracks(tmp_path / f"tracks.{suffix}", *tracks)
    info = vop.probe(path)
    assert (info.stream, info.streams) == (expected, tuple(range(len(tracks))))
    assert (info.width, info.height, info.num_frames) == (96, 64, 20)
    assert numbers(vop.read_frames(path, num_frames=2, size=16)) == [20, 20]


def test_a_cover_picture_is_not_read_even_as_default(tmp_path):
    path = write_tracks(tmp_path / "tracks.mkv", PICTURE | {"default": True}, MAIN)
    assert vop.probe(path).stream == 1


def test_a_stream_can_be_chosen_by_number(tmp_path):
    path = write_tracks(tmp_path / "tracks.mp4", PREVIEW, MAIN)
    assert numbers(vop.read_frames(path, num_frames=2, size=16, stream=0)) == [5, 5]
    assert vop.probe(path, stream=0).width == 24
    with pytest.raises(UsageError, match=r"stream is 7.*: 0, 1"):
        vop.read_frames(path, stream=7)


def test_a_cover_picture_is_read_if_it_is_alone(tmp_path):
    path = write_tracks(tmp_path / "one.mkv", PICTURE)
    assert numbers(vop.read_frames(path, num_frames=3, size=16)) == [10] * 3


@pytest.mark.parametrize("aspect", [Fraction(64, 27), Fraction(2), Fraction(1, 2)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_non_square_pixels_keep_their_display_shape(tmp_path, aspect, suffix):
    """The left half of the displayed picture is dark."""
    pixels = np.zeros((96, 72, 3), np.uint8)
    pixels[:, 36:] = 250
    path = write_clip(tmp_path / f"wide.{suffix}", [pixels] * 4, sample_aspect_ratio=aspect)
    info = vop.probe(path)
    assert info.width / info.height == pytest.approx(72 * aspect / 96, rel=0.01)
    with VideoDecoder(path) as video:
        converter = video.converter(resizing=Resizing(48), picture_size=160)
        _, frame = next(video.nearest(video.timeline.stamps[:1]))
        height, width, _ = converter.picture(frame).shape
    assert width / height == pytest.approx(72 * aspect / 96, rel=0.03)
    shown, stored = (vop.read_frames(path, num_frames=1, size=48, aspect=aspect) for aspect in ("display", "stored"))
    assert shown[0, 0, 24, 22] < 30 < 220 < shown[0, 0, 24, 26]
    assert shown.shape == stored.shape
    ramp = np.tile(np.linspace(0, 250, 72).astype(np.uint8)[None, :, None], (96, 1, 3))
    path = write_clip(tmp_path / f"ramp.{suffix}", [ramp] * 4, sample_aspect_ratio=aspect, options={"crf": "1"})
    row = vop.read_frames(path, num_frames=1, size=48)[0, 0, 24].float()
    share = min(float(1 / (72 * aspect / 96)), 1.0)  # of the width that is left after cropping
    assert float(row[-1] - row[0]) == pytest.approx(250 * share, abs=14)


def test_an_unknown_aspect_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"unknown aspect 'square': .*display, stored"):
        vop.read_frames(write_clip(tmp_path / "a.mp4", grey_frames(2)), aspect="square")


def test_rotation_and_pixel_shape_together(tmp_path):
    path = write_clip(tmp_path / "turned.mp4", [grey_frames(2)[1]] * 4, sample_aspect_ratio=Fraction(2), rotation=90)
    info = vop.probe(path)
    assert (info.width, info.height) == (48, 128)


def test_probe_reports_codec_sound_and_date(tmp_path):
    path = write_clip(tmp_path / "IMG_20190714_201500.mp4", grey_frames(24), audio=True)
    info = vop.probe(str(path))
    assert (info.duration_seconds, info.num_frames, info.frame_rate) == (pytest.approx(0.96), 24, pytest.approx(25))
    assert (info.codec, info.pixel_format, info.hdr, info.has_sound) == ("h264", "yuv420p", None, True)
    assert (info.recorded_at.replace(tzinfo=None), info.recorded_at_source) == (datetime(2019, 7, 14, 20, 15), "name")
    assert info.recorded_at.utcoffset() is not None
    assert info.plays_in_browsers
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        vop.probe(tmp_path / "missing.mp4")


def test_apples_date_wins_over_that_of_the_export(tmp_path):
    path = tmp_path / "exported.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["com.apple.quicktime.creationdate"] = "2019-07-14T20:15:00+0200"
        container.metadata["creation_time"] = "2026-01-05T10:00:00Z"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in grey_frames(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    info = vop.probe(path)
    assert info.recorded_at.isoformat() == "2019-07-14T20:15:00+02:00"
    assert info.recorded_at.utcoffset() == timedelta(hours=2)
    assert info.recorded_at_source == "creationdate"
