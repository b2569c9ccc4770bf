"""Decoding only the needed frames gives the same bits as decoding the whole file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clips import damage, grey_frames, numbers, write_clip
from vop.video import decode, source
from vop.video.clip import Clip
from vop.video.decode import VideoDecoder
from vop.video.frames import decode_frames, read_frames, wanted_stamps
from vop.video.resizing import Resizing

RATE = 10
FRAMES = 70
X265 = "log-level=none:pools=1:frame-threads=1"

KINDS = {
    "one.mp4": ("libx264", {"g": "1000", "keyint_min": "1000", "sc_threshold": "0"}),
    "closed.mp4": ("libx264", {"g": "8", "keyint_min": "8", "sc_threshold": "0", "bf": "3"}),
    "open.mp4": ("libx264", {"x264-params": "keyint=8:min-keyint=8:scenecut=0:open-gop=1:bframes=3:ref=4"}),
    "pyramid.mkv": ("libx264", {"x264-params": "keyint=12:min-keyint=3:bframes=5:b-pyramid=normal:open-gop=1"}),
    "intra.ts": ("libx264", {"g": "1"}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}),
    "refresh.ts": ("libx264", {"x264-params": "intra-refresh=1:keyint=15:bframes=0"}),
    "closed.ts": ("libx264", {"g": "8", "bf": "2", "sc_threshold": "0"}),
    "fields.ts": ("libx264", {"x264-params": "interlaced=1:keyint=10"}),
    "clip.avi": ("libx264", {"g": "8"}),
    "clip.flv": ("libx264", {"g": "8", "bf": "2"}),
    "hevc.mp4": ("libx265", {"x265-params": f"{X265}:keyint=9:min-keyint=9"}),
    "hevc-open.mkv": ("libx265", {"x265-params": f"{X265}:keyint=9:min-keyint=9:open-gop=1:bframes=4"}),
    "vp9.webm": ("libvpx-vp9", {"g": "9", "deadline": "realtime", "cpu-used": "8", "lag-in-frames": "8"}),
    "vp8.webm": (
        "libvpx",
        {"g": "9", "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"},
    ),
    "mpeg2.ts": ("mpeg2video", {"g": "9", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "9", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "9", "bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"g": "9"}),
    "old.wmv": ("wmv2", {"g": "9"}),
    "motion.mov": ("mjpeg", {}),
    "moving.gif": ("gif", {}),
}
PIX_FMT = {"motion.mov": "yuvj420p", "moving.gif": "rgb8"}


def moving_frames() -> list[np.ndarray]:
    """Moving noise with a cut in the middle."""
    random = np.random.default_rng(5)
    tiles = [np.kron(random.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    return [np.roll(tiles[number > FRAMES // 2], 3 * number, axis=1) for number in range(FRAMES)]


@cache
def clip(name: str) -> Path:
    codec, options = KINDS[name]
    rate = 25 if name.endswith(".mpg") else RATE
    path = Path(mkdtemp(prefix="vop-sparse-"), name)
    return write_clip(
        path, moving_frames(), codec=codec, options=options, rate=rate, pix_fmt=PIX_FMT.get(name, "yuv420p")
    )


@cache
def in_one_pass(name: str) -> tuple[list[int], dict[int, np.ndarray]]:
    """The stamps and pixels of all frames, from a decode of the whole file."""
    with VideoDecoder(clip(name)) as video:
        converter = video.converter(resizing=Resizing(16))
        return list(video.timeline.stamps), {stamp: converter.square(frame) for stamp, frame in video.shown()}


seconds = st.floats(0, 0.95).flatmap(lambda start: st.tuples(st.just(start), st.floats(0.02, 1) | st.none()))


@pytest.mark.parametrize("from_file", [False, True], ids=["held", "from the file"])
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None)
@given(span=seconds, num_frames=st.integers(1, 14))
def test_frames_equal_those_of_one_pass(name, from_file, span, num_frames):
    stamps, pixels = in_one_pass(name)
    with VideoDecoder(clip(name)) as video:
        duration = video.timeline.duration_seconds
    start = span[0] * duration
    end = None if span[1] is None else start + span[1] * duration
    with pytest.MonkeyPatch.context() as patch:
        if from_file:
            patch.setattr(decode, "_HELD_BYTES", 0)
            patch.setattr(source, "_SEEK_BYTES", 0)
        frames = decode_frames(
            clip(name), num_frames=num_frames, resizing=Resizing(16), start_seconds=start, end_seconds=end
        )
    with VideoDecoder(clip(name)) as video:
        wanted = wanted_stamps(clip(name), video.timeline, Clip(start, end), num_frames=num_frames)
    for stamp, frame in zip(wanted, frames, strict=True):
        nearest = min(pixels, key=lambda other: (abs(other - stamp), -other))
        assert np.array_equal(frame, pixels[nearest]), (stamp, stamps.index(stamp))


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith(".avi")])  # AVI has no presentation times
def test_one_pass_equals_pyav(name):
    stamps, pixels = in_one_pass(name)
    with av.open(str(clip(name))) as container:
        decoded = [frame.pts for frame in container.decode(video=0) if not frame.is_corrupt]
    assert list(pixels) == sorted(decoded)
    assert set(decoded) <= set(stamps)


@pytest.mark.parametrize("name", [name for name in KINDS if name.endswith((".mp4", ".mov"))])
@settings(max_examples=15, deadline=None)
@given(span=seconds, num_frames=st.integers(1, 14))
def test_looking_up_frames_of_long_mp4_files(name, span, num_frames):
    start = span[0] * FRAMES / RATE
    clip_of = {"start_seconds": start, "end_seconds": None if span[1] is None else start + span[1] * FRAMES / RATE}
    expected = decode_frames(clip(name), num_frames=num_frames, resizing=Resizing(16), **clip_of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "FEW_PACKETS", 2)
        found = decode_frames(clip(name), num_frames=num_frames, resizing=Resizing(16), **clip_of)
    assert np.array_equal(found, expected)


def test_only_part_of_the_timeline_is_looked_up(monkeypatch):
    monkeypatch.setattr(source, "FEW_PACKETS", 2)
    with VideoDecoder(clip("closed.mp4")) as video:
        video.look_up(Clip(2.5, 3.5), 3)
        assert video.timeline.duration_seconds == FRAMES / RATE
        assert len(video.timeline.stamps) < FRAMES / 2


def test_a_truncated_file_with_a_complete_index(tmp_path, monkeypatch):
    settings = {"options": {"g": "1"}, "container_options": {"movflags": "faststart"}, "rate": RATE}
    path = write_clip(tmp_path / "cut.mp4", grey_frames(24), **settings)
    with av.open(str(path)) as container:
        position = [packet.pos for packet in container.demux(video=0) if packet.size][12]
    path.write_bytes(path.read_bytes()[:position])
    monkeypatch.setattr(source, "FEW_PACKETS", 2)
    assert numbers(read_frames(path, num_frames=3, size=8)) == [2, 6, 10]


@pytest.mark.parametrize("few", [2, 10**6], ids=["looked up", "read"])
def test_damaged_frames_are_replaced_by_their_neighbours(tmp_path, monkeypatch, few):
    monkeypatch.setattr(source, "FEW_PACKETS", few)
    path = write_clip(tmp_path / "spots.mp4", grey_frames(24), options={"g": "1", "crf": "1"}, rate=RATE)
    damage(path, [10, 14])
    chosen = numbers(read_frames(path, num_frames=6, size=8))
    assert chosen[:2] + chosen[4:] == [2, 6, 18, 22]
    assert {chosen[2], chosen[3]} <= {9, 11, 13, 15}


def test_many_damaged_frames_are_replaced_in_one_pass(tmp_path):
    """Decoding does not seek back for each lost frame."""
    path = write_clip(tmp_path / "wreck.mp4", grey_frames(24), options={"g": "1", "crf": "1"}, rate=RATE)
    damage(path, [2, 4, 6, 8, 10, 12, 14, 16])
    assert set(numbers(read_frames(path, num_frames=12, size=8))) <= set(range(24)) - {2, 4, 6, 8, 10, 12, 14, 16}
