"""How videos are divided into windows and shots."""

from __future__ import annotations

import builtins
import math
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.errors import UsageError, VideoError
from vop.search import segmentation
from vop.search.segmentation import windows
from vop.video import decode, frames

TOLERANCE = 1e-6


def shots(path: Path, **lengths):
    with decode.VideoDecoder(path) as video:
        return segmentation.shots(video, **lengths)


RATE = 20


@pytest.mark.parametrize("duration", [0.04, 3.0, 10.0, 11.0])
def test_a_video_little_longer_than_a_window_is_one_segment(duration):
    assert windows(duration) == [(0.0, duration)]


def test_a_longer_video_has_several_windows():
    assert windows(12.0) == [(0.0, 10.0), (2.0, 12.0)]
    assert windows(18.0) == [(0.0, 10.0), (8.0, 18.0)]
    assert windows(19.0) == [(0.0, 10.0), (4.5, 14.5), (9.0, 19.0)]
    assert windows(30.0, overlap_seconds=0.0) == [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0)]
    assert len(windows(10 * 3600.0)) == 4500


@settings(deadline=None)
@given(st.floats(0.01, 1000), st.floats(0.5, 60), st.floats(0, 0.9))
def test_windows_are_even_and_as_few_as_possible(duration, window, share):
    overlap = share * window
    clips = windows(duration, window_seconds=window, overlap_seconds=overlap)
    assert clips[0][0] == 0.0
    assert clips[-1][1] == duration
    if duration <= 1.1 * window:
        assert len(clips) == 1
        return
    assert all(end - start == pytest.approx(window) for start, end in clips)
    starts = [start for start, _ in clips]
    steps = [late - early for early, late in pairwise(starts)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=TOLERANCE)
    assert 0 < steps[0] <= window - overlap + 2 * TOLERANCE * window  # they overlap enough, so they also cover
    fewer = len(clips) - 2
    assert fewer == 0 or (duration - window) / fewer > window - overlap  # fewer would overlap too little


@pytest.mark.parametrize(
    ("duration", "window", "overlap", "message"),
    [
        (0.0, 10.0, 2.0, r"duration_seconds is 0\.0"),
        (math.nan, 10.0, 2.0, "duration_seconds is nan"),
        (60.0, 0.0, 0.0, r"window_seconds is 0\.0"),
        (60.0, -5.0, 0.0, r"window_seconds is -5\.0"),
        (60.0, math.inf, 2.0, "window_seconds is inf"),
        (60.0, 10.0, -1.0, r"overlap_seconds is -1\.0"),
        (60.0, 10.0, 10.0, r"overlap_seconds is 10\.0; .* 10\.0"),
        (60.0, 10.0, math.nan, "overlap_seconds is nan"),
        (36000.0, 10.0, 9.999, r"overlap by 9\.999 s would cut 36000 s of video into 35990\d\d\d segments"),
    ],
)
def test_invalid_values_are_refused(duration, window, overlap, message):
    with pytest.raises(UsageError, match=message):
        windows(duration, window_seconds=window, overlap_seconds=overlap)


def picture(seed: int, *, width: int = 96, height: int = 64) -> np.ndarray:
    tiles = np.random.default_rng(seed).integers(0, 255, (height // 16, width // 16, 3))
    return np.kron(tiles, np.ones((16, 16, 1))).astype(np.uint8)


def write_shots(
    path: Path, lengths: list[float], *, codec: str = "libx264", stamps: bool = False, size: tuple[int, int] = (96, 64)
) -> Path:
    """Write shots of these lengths in seconds, each a slowly sliding picture.

    With `stamps`, every other frame is missing in the second half of a shot.
    """
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        position = 0
        for seed, seconds in enumerate(lengths):
            pixels = picture(seed, width=width, height=height)
            count = round(seconds * RATE)
            for number in range(count):
                if not stamps or number < count / 2 or number % 2:
                    frame = av.VideoFrame.from_ndarray(np.roll(pixels, number // 4, axis=1), format="rgb24")
                    frame.pts = position + number
                    container.mux(stream.encode(frame))
            position += count
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("clip.mp4", "libx264"), ("clip.mkv", "libx264"), ("clip.avi", "libx264"), ("clip.webm", "libvpx-vp9")],
)
def test_cuts_are_found_in_every_format(tmp_path, name, codec):
    path = write_shots(tmp_path / name, [2.0, 1.5, 3.0, 0.75], codec=codec)
    found = shots(path)
    assert np.allclose(found, [(0.0, 2.0), (2.0, 3.5), (3.5, 6.5), (6.5, 7.25)], atol=0.001)


def test_cuts_are_found_at_a_variable_frame_rate(tmp_path):
    path = write_shots(tmp_path / "vfr.mkv", [2.0, 2.0, 2.0], stamps=True)
    assert len(set(np.diff(frames.video_timeline(path).stamps))) > 1
    clips = shots(path)
    assert np.allclose([start for start, _ in clips], [0.0, 2.0, 4.0], atol=0.001)


def test_cuts_are_found_in_large_frames(tmp_path):
    path = write_shots(tmp_path / "large.mp4", [1.0, 1.0], size=(640, 480))
    assert np.allclose(shots(path), [(0.0, 1.0), (1.0, 2.0)], atol=0.001)


def test_a_clip_without_a_cut_is_one_shot(tmp_path):
    path = write_shots(tmp_path / "one.mp4", [3.0])
    assert shots(path) == [(0.0, 3.0)]


def test_a_long_shot_is_divided_into_windows(tmp_path):
    path = write_shots(tmp_path / "long.mp4", [1.0, 3.0, 1.0])
    clips = shots(path, window_seconds=2.0, overlap_seconds=0.5)
    assert np.allclose(clips, [(0.0, 1.0), (1.0, 3.0), (2.0, 4.0), (4.0, 5.0)], atol=0.001)


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ([2.0, 0.25, 2.0], [(0.0, 2.0), (2.0, 4.25)]),
        ([0.25, 2.0], [(0.0, 2.25)]),
        ([2.0, 2.0, 0.25], [(0.0, 2.0), (2.0, 4.25)]),
        ([1.0, 0.2, 0.2, 0.2, 1.0], [(0.0, 1.0), (1.0, 1.6), (1.6, 2.6)]),
    ],
)
def test_short_shots_join_their_neighbours(tmp_path, lengths, kept):
    path = write_shots(tmp_path / "short.mp4", lengths)
    assert np.allclose(shots(path), kept, atol=0.001)


def test_damaged_files_give_their_readable_shots(tmp_path):
    path = write_shots(tmp_path / "part.mkv", [2.0, 2.0, 2.0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clips = shots(path)
    assert clips[0][0] == 0.0
    assert clips[-1][1] == frames.video_timeline(path).duration_seconds < 6.0
    assert all(early[1] == late[0] for early, late in pairwise(clips))


def test_files_that_are_not_videos_are_refused(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match=r"list\.m3u8"):
        shots(tmp_path / "list.m3u8")
    with pytest.raises(VideoError, match=r"nowhere\.mp4: the file does not exist"):
        shots(tmp_path / "nowhere.mp4")


def test_invalid_lengths_are_refused_before_decoding(tmp_path):
    path = write_shots(tmp_path / "clip.mp4", [1.0])
    with pytest.raises(UsageError, match=r"overlap_seconds is 3\.0"):
        shots(path, window_seconds=2.0, overlap_seconds=3.0)


def test_missing_pyscenedetect_is_reported(tmp_path, monkeypatch):
    whole = builtins.__import__

    def without(name, *args, **settings):
        if name.startswith("scenedetect"):
            raise ModuleNotFoundError("No module named 'scenedetect'", name="scenedetect")
        return whole(name, *args, **settings)

    path = write_shots(tmp_path / "clip.mp4", [1.0])
    for name in [name for name in sys.modules if name.startswith("scenedetect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"No module named 'scenedetect'.*pip install 'vop\[shots\]'"):
        shots(path)
