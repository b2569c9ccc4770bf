"""The public functions for video files."""

from __future__ import annotations

import numpy as np
import torch

import vop
from clips import grey_frames, numbers, write_clip


def test_read_frames_of_a_video_and_of_a_clip(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10)
    frames = vop.read_frames(str(path))
    assert (frames.shape, frames.dtype) == ((12, 3, 224, 224), torch.uint8)
    assert numbers(frames) == list(range(1, 24, 2))
    some = vop.read_frames(path, num_frames=2, size=32, start_seconds=1.0, end_seconds=None)
    assert some.shape == (2, 3, 32, 32)
    assert numbers(some) == [13, 20]
    assert numbers(vop.read_frames(path, num_frames=2, size=32, start_seconds=0.0, end_seconds=1.0)) == [2, 7]


def test_numbers_of_numpy_are_taken(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10)
    clip = {"start_seconds": np.float32(0.5), "end_seconds": np.int64(1)}
    assert vop.read_frames(path, num_frames=np.int64(2), size=np.int32(32), **clip).shape == (2, 3, 32, 32)


def test_probe_describes_a_video(tmp_path):
    path = write_clip(tmp_path / "VID_20190714_201500.mp4", grey_frames(24, width=96, height=32), rate=10, rotation=90)
    info = vop.probe(str(path))
    assert isinstance(info, vop.VideoInfo)
    assert (info.duration_seconds, info.num_frames, info.frame_rate) == (2.4, 24, 10)
    assert (info.width, info.height) == (32, 96)  # as displayed
    assert (info.recorded_at.isoformat()[:19], info.recorded_at_source) == ("2019-07-14T20:15:00", "name")
