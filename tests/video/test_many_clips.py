from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clips import FILMS, damage, grey_frames, numbers, packets_of, watch_decoding, write_clip, write_film
from vop.errors import UsageError, VideoError
from vop.video import frames
from vop.video.clip import Clip
from vop.video.decode import VideoDecoder
from vop.video.frames import ClipFrames, read_frames, video_timeline
from vop.video.resizing import Resizing

ONE_GOP = {"g": "1000", "keyint_min": "1000", "sc_threshold": "0"}
SHORT_GOPS = {"g": "4", "keyint_min": "4", "sc_threshold": "0"}
INTRA = {"g": "1", "crf": "1"}
UNEVEN = [0, 40, 80, 1000, 1040, 1080, 1500, 2900, 2940, 3000, 3040, 3080, 3120, 3900]
OVERLAPPING = [(0.0, 1.0), (0.0, 0.4), (0.5, 1.5), (0.9, 1.1), (1.0, 2.0), (1.4, 2.4)]
LATE = [(1.6, 2.0), (2.1, 2.4), (2.35, 99.0)]


def decode_clips(path: Path, spans, **how):
    """Decode clips of a file, and close it after the last one."""
    with VideoDecoder(path) as video:
        yield from frames.decode_clips(video, [Clip(*span) for span in spans], **how)


def moving_frames(count: int, *, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Moving coloured noise: no two frames are equal."""
    random = np.random.default_rng(3)
    tile = np.kron(random.integers(0, 255, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return [np.roll(tile, 3 * number, axis=1) for number in range(count)]


def one_by_one(path: Path, spans, *, num_frames: int, size: int) -> list[torch.Tensor]:
    return [
        read_frames(path, num_frames=num_frames, size=size, start_seconds=start, end_seconds=end)
        for start, end in spans
    ]


def assert_values(error: object, *values: str) -> None:
    """Assert that the error's message contains these values."""
    assert isinstance(error, VideoError)
    assert all(value in str(error) for value in values), error


def assert_equal_to_one_by_one(path: Path, spans, *, num_frames: int = 5, size: int = 16) -> None:
    found = list(decode_clips(path, spans, num_frames=num_frames, resizing=Resizing(size)))
    expected = one_by_one(path, spans, num_frames=num_frames, size=size)
    assert len(found) == len(spans) > 0
    for span, clip, alone in zip(spans, found, expected, strict=True):
        assert np.array_equal(clip.frames, alone), span


@pytest.mark.parametrize("spans", [OVERLAPPING, LATE, [(0.3, 0.5), (2.3, 2.4)]], ids=["overlapping", "late", "apart"])
@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("one-gop.mp4", "libx264", {"options": ONE_GOP}),
        ("gops.mp4", "libx264", {"options": SHORT_GOPS}),
        ("open-gops.mp4", "libx264", {"options": {**SHORT_GOPS, "x264-params": "open-gop=1"}}),
        ("clip.mkv", "libx264", {"options": SHORT_GOPS}),
        ("clip.ts", "libx264", {"options": SHORT_GOPS}),
        ("hevc.mp4", "libx265", {"options": {"x265-params": "log-level=none:keyint=8"}}),
        ("clip.webm", "libvpx-vp9", {"options": {"g": "6"}}),
        ("clip.avi", "libx264", {}),  # no presentation times
        ("old.avi", "mpeg4", {"options": {"bf": "2"}}),
        ("clip.gif", "gif", {"pix_fmt": "rgb8"}),
        ("fields.mp4", "libx264", {"options": {"x264-params": "interlaced=1"}}),
        ("turned.mp4", "libx264", {"rotation": 90}),
    ],
)
def test_clips_equal_those_decoded_one_by_one(tmp_path, name, codec, settings, spans):
    path = write_clip(tmp_path / name, moving_frames(24), codec=codec, rate=10, **settings)
    assert_equal_to_one_by_one(path, spans)


def test_clips_are_equal_at_a_variable_frame_rate(tmp_path):
    path = write_clip(tmp_path / "vfr.mp4", moving_frames(14), stamps=UNEVEN, options=SHORT_GOPS)
    assert_equal_to_one_by_one(path, [(0.0, 1.05), (0.5, 3.1), (0.9, 1.0), (3.0, 3.9), (3.5, 3.6)])


@pytest.mark.parametrize("name", FILMS)
def test_clips_are_equal_on_longer_videos(tmp_path, name):
    path = write_film(tmp_path, name)
    assert_equal_to_one_by_one(path, [(0.0, 1.5), (1.0, 2.5), (1.25, 1.5), (3.0, 4.0)], num_frames=6, size=64)


def test_clips_are_equal_where_frames_are_damaged(tmp_path):
    path = write_clip(tmp_path / "spots.mp4", grey_frames(24), options=INTRA, rate=10)
    damage(path, [7, 10, 14])
    assert_equal_to_one_by_one(path, [(0.0, 2.4), (0.4, 1.6), (1.0, 2.0)], num_frames=4)


def test_a_mostly_damaged_clip_is_an_error_in_its_place(tmp_path):
    path = write_clip(tmp_path / "hole.mp4", grey_frames(24), options=INTRA, rate=10)
    damage(path, range(8, 17))
    before, hole, after = decode_clips(
        path, [(0.0, 0.85), (0.85, 1.6), (1.65, 2.4)], num_frames=4, resizing=Resizing(8)
    )
    assert numbers(before.frames) == [1, 3, 5, 7]
    assert isinstance(hole, VideoError)
    assert_values(hole, str(path), "4 of 4")
    assert numbers(after.frames) == [17, 19, 21, 23]


def test_a_clip_after_the_end_is_an_error_in_its_place(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), rate=10)
    found, late = decode_clips(path, [(1.0, 2.0), (2.5, 3.0)], num_frames=2, resizing=Resizing(8))
    assert numbers(found.frames) == [12, 17]
    assert_values(late, "2.400 s", "2.5 s")
    (alone,) = decode_clips(path, [(9.0, 10.0)], num_frames=2, resizing=Resizing(8))
    assert_values(alone, "2.400 s", "9.0 s")


def test_a_truncated_file_gives_its_remaining_frames(tmp_path):
    path = write_clip(tmp_path / "part.mkv", grey_frames(24), options=INTRA, rate=10)
    position, _ = packets_of(path)[12]
    path.write_bytes(path.read_bytes()[:position])
    spans = [(0.0, 0.85), (0.65, 1.4)]
    first, second = decode_clips(path, spans, num_frames=3, resizing=Resizing(8))
    assert numbers(first.frames) == [1, 4, 7]
    assert numbers(second.frames) == [7, 9, 11]


def test_a_truncated_file_with_a_complete_index(tmp_path):
    path = write_clip(
        tmp_path / "stopped.mp4",
        grey_frames(24),
        options=INTRA,
        rate=10,
        container_options={"movflags": "faststart"},
    )
    position, _ = packets_of(path)[12]
    path.write_bytes(path.read_bytes()[:position])
    first, second, third = decode_clips(
        path, [(0.0, 0.85), (0.65, 1.4), (1.65, 2.4)], num_frames=4, resizing=Resizing(8)
    )
    assert numbers(first.frames) == [1, 3, 5, 7]
    assert numbers(second.frames) == [7, 8, 9, 11]
    assert_values(third, "1.200 s", "1.65 s")


def test_unreadable_files_are_refused(tmp_path):
    path = write_clip(tmp_path / "noise.mp4", grey_frames(24), options=INTRA)
    damage(path, range(24))
    with pytest.raises(VideoError, match=r"noise\.mp4: none"):
        list(decode_clips(path, [(0.2, 0.4)], num_frames=2, resizing=Resizing(8)))
    with pytest.raises(VideoError, match=r"nowhere\.mp4"):
        list(decode_clips(tmp_path / "nowhere.mp4", [(0.0, 1.0)], num_frames=2, resizing=Resizing(8)))


def test_no_spans_give_no_clips(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(4))
    assert list(decode_clips(path, [], num_frames=2, resizing=Resizing(8))) == []


def test_clips_come_as_soon_as_they_are_decoded(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", moving_frames(200), rate=10, options={**SHORT_GOPS, "bf": "0"})
    stamps = video_timeline(path).stamps
    spans = [(float(start), start + 2.0) for start in range(19)]
    decoded, converted = watch_decoding(monkeypatch)
    found = decode_clips(path, spans, num_frames=4, resizing=Resizing(8))
    for number, _ in enumerate(found):
        assert max(decoded) <= stamps[min(10 * number + 20, 199)]
        assert len(converted) <= 2 * number + 4
    assert len(decoded) <= 200  # one pass
    assert len(converted) == len(set(converted)) == 2 * 18 + 4  # neighbouring windows share half of their frames


def test_frames_are_released_after_their_last_clip(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", moving_frames(200), rate=10)
    held = []

    class Watched(frames._Pass):
        def _fill(self, plan):
            clip = super()._fill(plan)
            held.append(len(self.converted))
            return clip

    monkeypatch.setattr(frames, "_Pass", Watched)
    spans = [(float(start), start + 2.0) for start in range(19)]
    for clip in decode_clips(path, spans, num_frames=4, resizing=Resizing(8)):
        assert isinstance(clip, ClipFrames)
    assert held == [2] * 18 + [0]


def test_decoding_starts_at_the_key_frame_before_the_first_clip(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", moving_frames(60), rate=10, options=SHORT_GOPS)
    decoded, _ = watch_decoding(monkeypatch)
    list(decode_clips(path, [(5.0, 5.5)], num_frames=5, resizing=Resizing(8)))
    first, *others = decoded  # the first frame may have a rotation that applies to all
    assert first == video_timeline(path).stamps[0]
    assert min(others) >= video_timeline(path).stamps[44]


def test_pictures_are_evenly_spaced_uncropped_frames(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", grey_frames(24, width=320, height=96), rate=10)
    (clip,) = decode_clips(path, [(0.01, 2.4)], num_frames=12, resizing=Resizing(16), picture_size=80)
    assert repr(clip) == "ClipFrames((12, 3, 16, 16), 4 pictures)"
    assert [picture.shape for picture in clip.pictures] == [(24, 80, 3)] * 4
    assert [round(float(picture.mean()) / 10) for picture in clip.pictures] == [3, 9, 15, 21]
    assert all(picture.dtype == np.uint8 for picture in clip.pictures)


@pytest.mark.parametrize(("wanted", "given"), [(0, 0), (1, 1), (3, 3), (9, 3)])
def test_there_is_at_most_one_picture_per_frame(tmp_path, wanted, given):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(12))
    (clip,) = decode_clips(path, [(0.0, 1.0)], num_frames=3, resizing=Resizing(8), num_pictures=wanted)
    assert len(clip.pictures) == given


def test_pictures_are_upright(tmp_path):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, :48] = 250
    path = write_clip(tmp_path / "turned.mp4", [picture] * 4, rotation=90)
    (clip,) = decode_clips(path, [(0.0, 1.0)], num_frames=1, resizing=Resizing(8), num_pictures=1, picture_size=40)
    assert clip.pictures[0].shape == (40, 20, 3)
    whole = read_frames(path, num_frames=1, size=8)[0].float().mean(dim=(0, 2))
    assert (whole[0] > whole[-1]) == (clip.pictures[0][:4].mean() > clip.pictures[0][-4:].mean())


@pytest.mark.parametrize(("width", "height"), [(1, 1000), (1000, 1), (1, 1), (65, 33)])
def test_pictures_of_unusual_frame_sizes(tmp_path, width, height):
    path = write_clip(tmp_path / "odd.mov", grey_frames(4, width=width, height=height), codec="png", pix_fmt="rgb24")
    (clip,) = decode_clips(path, [(0.0, 1.0)], num_frames=4, resizing=Resizing(8), picture_size=32)
    assert [max(picture.shape[:2]) for picture in clip.pictures] == [32] * 4
    assert [round(float(picture.mean()) / 10) for picture in clip.pictures] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("spans", "arguments", "message"),
    [
        ([(0.0, 1.0)], {"num_frames": 0}, "num_frames is 0"),
        ([(0.0, 1.0)], {"num_pictures": -1}, "num_pictures is -1"),
        ([(0.0, 1.0)], {"picture_size": 0}, "picture_size is 0"),
        ([(-2.0, 1.0)], {}, r"start_seconds is -2\.0"),
        ([(0.0, 1.0), (3.0, 2.5)], {}, r"end_seconds is 2\.5"),
        ([(4.0, 5.0), (3.0, 9.0)], {}, r"a clip starts at 3\.0 s after one at 4\.0 s"),
    ],
)
def test_arguments_out_of_range(tmp_path, spans, arguments, message):
    path = write_clip(tmp_path / "any.mp4", grey_frames(2))
    with pytest.raises(UsageError, match=message):
        list(decode_clips(path, spans, **{"num_frames": 2, "resizing": Resizing(8), **arguments}))
