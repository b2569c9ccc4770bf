from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from clips import (
    FILMS,
    damage,
    grey_frames,
    naive_choice,
    naive_square,
    numbers,
    open_with_late_streams,
    packets_of,
    watch_decoding,
    write_clip,
    write_film,
)
from vop.errors import UsageError, VideoError
from vop.video import decode
from vop.video.frames import read_frames, video_timeline

ONE_GOP = {"g": "1000", "keyint_min": "1000", "sc_threshold": "0"}
SHORT_GOPS = {"g": "4", "keyint_min": "4", "sc_threshold": "0"}
INTRA = {"g": "1", "crf": "1"}


def noise_frames(count: int, *, width: int = 64, height: int = 48) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [
        np.kron(random.integers(0, 255, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("clip.mp4", "libx264", {"options": ONE_GOP}),
        ("gops.mp4", "libx264", {"options": SHORT_GOPS}),
        ("flat.mp4", "libx264", {"options": {"bf": "0"}}),
        ("clip.mkv", "libx264", {}),
        ("clip.ts", "libx264", {}),
        ("clip.avi", "libx264", {}),  # AVI has no presentation times, and FFmpeg guesses them wrong
        ("one-b.avi", "libx264", {"options": {"bf": "1", "b_pyramid": "none"}}),
        ("clip.h264", "libx264", {}),  # no times at all
        ("old.avi", "mpeg4", {"options": {"bf": "2"}}),
        ("clip.mp4", "libx265", {"options": {"x265-params": "log-level=none"}}),
        ("clip.webm", "libvpx-vp9", {}),
        ("live.webm", "libvpx-vp9", {"container_options": {"live": "1"}}),  # no duration in the header
        ("clip.gif", "gif", {"pix_fmt": "rgb8"}),
        ("sound.mp4", "libx264", {"audio": True}),
        ("fields.mp4", "libx264", {"options": {"x264-params": "interlaced=1"}}),
    ],
)
def test_midpoints_in_every_container(tmp_path, name, codec, settings):
    path = write_clip(tmp_path / name, grey_frames(24), codec=codec, **settings)
    frames = read_frames(path, num_frames=6, size=16)
    assert frames.shape == (6, 3, 16, 16)
    assert frames.dtype == torch.uint8
    assert numbers(frames) == [2, 6, 10, 14, 18, 22]


def test_midpoints_go_by_time_at_a_variable_frame_rate(tmp_path):
    stamps = [0, 40, 80, 1000, 1040, 3000, 3040, 3080, 3120, 3900]
    path = write_clip(tmp_path / "vfr.mp4", grey_frames(10), stamps=stamps)
    timeline = video_timeline(path)
    times = [Fraction(stamp, 1000) for stamp in stamps]
    end = timeline.end * timeline.time_base - timeline.stamps[0] * timeline.time_base
    for count in (1, 4, 7, 12):
        assert numbers(read_frames(path, num_frames=count, size=8)) == naive_choice(times, end, count)
    assert naive_choice(times, end, 4) != naive_choice(range(10), Fraction(10), 4)  # choosing by index would differ


def test_the_last_gif_frame_lasts_for_its_delay(tmp_path):
    path = write_clip(tmp_path / "slow.gif", grey_frames(3), codec="gif", pix_fmt="rgb8", rate=10)
    assert numbers(read_frames(path, num_frames=3, size=8)) == [0, 1, 2]
    data = path.read_bytes()
    control = data.rfind(b"\x21\xf9\x04")  # graphic control extension: its delay is at offset 4
    path.write_bytes(data[: control + 4] + struct.pack("<H", 500) + data[control + 6 :])
    assert numbers(read_frames(path, num_frames=3, size=8)) == [2, 2, 2]


def _shorten_mp4(data: bytearray) -> None:
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = data.index(box) + offset
        (duration,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, duration // 10)


def _lengthen_mkv(data: bytearray) -> None:
    struct.pack_into(">d", data, data.index(b"\x44\x89\x88") + 3, 30_000.0)


@pytest.mark.parametrize(("name", "change_duration"), [("clip.mp4", _shorten_mp4), ("clip.mkv", _lengthen_mkv)])
def test_a_wrong_duration_in_the_header_is_ignored(tmp_path, name, change_duration):
    path = write_clip(tmp_path / name, grey_frames(24))
    data = bytearray(path.read_bytes())
    change_duration(data)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert abs(container.duration / 1e6 - 0.96) > 0.5  # the header is wrong
    assert numbers(read_frames(path, num_frames=6, size=8)) == [2, 6, 10, 14, 18, 22]


def test_short_videos_repeat_frames(tmp_path):
    path = write_clip(tmp_path / "short.mp4", grey_frames(3))
    assert numbers(read_frames(path, num_frames=8, size=8)) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_video_of_one_frame(tmp_path):
    path = write_clip(tmp_path / "one.mp4", grey_frames(8)[7:])
    assert numbers(read_frames(path, num_frames=5, size=8)) == [7] * 5


def test_a_video_may_start_at_another_time_than_zero(tmp_path):
    stamps = [5000 + 40 * k for k in range(12)]
    path = write_clip(tmp_path / "late.mkv", grey_frames(12), stamps=stamps)
    assert video_timeline(path).stamps[0] == 5000
    assert numbers(read_frames(path, num_frames=4, size=8)) == [1, 4, 7, 10]
    assert numbers(read_frames(path, num_frames=2, size=8, start_seconds=0.24)) == [7, 10]


def test_frames_outside_the_edit_list_are_not_shown(tmp_path):
    stamps = [40 * k - 240 for k in range(24)]  # the muxer writes an edit list that starts at 0
    path = write_clip(
        tmp_path / "cut.mp4",
        grey_frames(24),
        stamps=stamps,
        options=ONE_GOP,
        container_options={"avoid_negative_ts": "disabled"},
    )
    assert len(packets_of(path)) == 24
    assert len(video_timeline(path).stamps) == 18
    assert numbers(read_frames(path, num_frames=6, size=8)) == [7, 10, 13, 16, 19, 22]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_midpoints_of_clips(tmp_path, name):
    path = write_clip(tmp_path / name, grey_frames(24), options=SHORT_GOPS, rate=10)
    times = [Fraction(k, 10) for k in range(24)]
    for start, end in [(0, 1), (0.3, 0.9), (1.1, 1.2), (1.5, 2.4), (1.5, 99), (2.35, None)]:
        stop = Fraction(24, 10) if end is None else min(Fraction(end), Fraction(24, 10))
        expected = naive_choice(times, stop, 5, start=Fraction(start))
        chosen = read_frames(path, num_frames=5, size=8, start_seconds=start, end_seconds=end)
        assert numbers(chosen) == expected, (start, end)


def test_a_clip_is_decoded_from_its_key_frame(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", noise_frames(60), options=SHORT_GOPS, rate=10)
    whole = read_frames(path, num_frames=60, size=32)
    decoded, _ = watch_decoding(monkeypatch)
    part = read_frames(path, num_frames=5, size=32, start_seconds=5.0, end_seconds=5.5)
    assert torch.equal(part, whole[50:55])
    first, *others = decoded  # the first frame may have a rotation that applies to all
    assert first == video_timeline(path).stamps[0]
    assert min(others) >= video_timeline(path).stamps[44]


def test_only_chosen_frames_are_converted(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", noise_frames(60), options=ONE_GOP)
    decoded, converted = watch_decoding(monkeypatch)
    read_frames(path, num_frames=2, size=8)
    assert len(converted) == 2
    assert max(decoded) == video_timeline(path).stamps[45]


def test_groups_without_a_chosen_frame_are_not_decoded(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mp4", noise_frames(96), options={**SHORT_GOPS, "bf": "0"}, rate=10)
    decoded, _ = watch_decoding(monkeypatch)
    read_frames(path, num_frames=4, size=8)
    assert len(decoded) <= 4 * 4


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_skipping_frames_does_not_change_the_others(tmp_path, monkeypatch, codec):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else ONE_GOP
    path = write_clip(tmp_path / "clip.mp4", noise_frames(40), codec=codec, options=options)
    fast = read_frames(path, num_frames=7, size=32)
    monkeypatch.setattr(decode, "_SKIPPING_CODECS", ())
    assert torch.equal(fast, read_frames(path, num_frames=7, size=32))
    assert torch.equal(fast, read_frames(path, num_frames=7, size=32, threads=2))


def test_a_few_damaged_frames_are_replaced_by_their_neighbours(tmp_path, capfd):
    path = write_clip(tmp_path / "spots.mp4", grey_frames(24), options=INTRA)
    damage(path, [10, 14])
    chosen = numbers(read_frames(path, num_frames=6, size=8))
    assert chosen[:2] == [2, 6]
    assert chosen[4:] == [18, 22]
    assert {chosen[2], chosen[3]} <= {9, 11, 13, 15}
    assert capfd.readouterr() == ("", "")


def test_a_mostly_damaged_video_is_refused(tmp_path):
    path = write_clip(tmp_path / "wreck.mp4", grey_frames(24), options=INTRA)
    damage(path, range(4, 24))
    with pytest.raises(VideoError, match=r"wreck\.mp4: [45] of 6 .*damaged"):
        read_frames(path, num_frames=6, size=8)


def test_a_wholly_damaged_video_is_refused(tmp_path):
    path = write_clip(tmp_path / "noise.mp4", grey_frames(24), options=INTRA)
    damage(path, range(24))
    with pytest.raises(VideoError, match=r"noise\.mp4: none"):
        read_frames(path, num_frames=6, size=8)


def test_a_truncated_file_gives_its_remaining_frames(tmp_path):
    path = write_clip(tmp_path / "part.mkv", grey_frames(24), options=INTRA)
    position, _ = packets_of(path)[12]
    path.write_bytes(path.read_bytes()[:position])
    assert numbers(read_frames(path, num_frames=3, size=8)) == [2, 6, 10]


def test_late_streams_do_not_lose_frames(tmp_path, monkeypatch):
    """PyAV then fails at the end of the file, before the decoder returns its last frames."""
    path = write_clip(tmp_path / "clip.ts", grey_frames(24))
    whole = read_frames(path, num_frames=24, size=8)

    monkeypatch.setattr(decode, "open_video", open_with_late_streams)
    assert numbers(whole) == list(range(24))
    assert torch.equal(read_frames(path, num_frames=24, size=8), whole)


def test_a_clip_after_the_end_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24))
    with pytest.raises(VideoError, match=r"0\.960 s.* 1\.5 s"):
        read_frames(path, num_frames=2, size=8, start_seconds=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0"),
        ({"size": 0}, "size is 0"),
        ({"start_seconds": -1.0}, r"start_seconds is -1\.0"),
        ({"start_seconds": float("nan")}, "start_seconds is nan"),
        ({"start_seconds": 2.0, "end_seconds": 1.5}, r"end_seconds is 1\.5"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        read_frames(tmp_path / "any.mp4", **{"num_frames": 2, "size": 8, **arguments})


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "spaced name %d.mp4", "ünï文.mp4"])
def test_unusual_file_names(tmp_path, name):
    path = write_clip(tmp_path / "plain.mp4", grey_frames(4)).rename(tmp_path / name)
    assert numbers(read_frames(path, num_frames=4, size=8)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("width", "height"), [(1, 1000), (1000, 1), (3, 5), (1, 1), (65, 33)])
def test_unusual_frame_sizes(tmp_path, width, height):
    path = write_clip(tmp_path / "odd.mov", grey_frames(4, width=width, height=height), codec="png", pix_fmt="rgb24")
    frames = read_frames(path, num_frames=4, size=32)
    assert frames.shape == (4, 3, 32, 32)
    assert numbers(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    picture = noise_frames(1, width=64, height=64)[0]
    settings = {"options": {"crf": "1"}, "pix_fmt": "yuv444p"}
    upright = np.ascontiguousarray(np.rot90(picture, rotation // 90))
    turned = write_clip(tmp_path / "turned.mp4", [picture], rotation=rotation, **settings)
    expected = write_clip(tmp_path / "upright.mp4", [upright], **settings)
    difference = _difference(read_frames(turned, num_frames=1, size=64), read_frames(expected, num_frames=1, size=64))
    assert difference.mean() < 3


def test_mirroring_is_applied(tmp_path):
    picture = noise_frames(1, width=64, height=64)[0]
    settings = {"options": {"crf": "1"}, "pix_fmt": "yuv444p"}
    matrix = [-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30]
    mirrored = write_clip(tmp_path / "mirrored.mp4", [picture], matrix=matrix, **settings)
    expected = write_clip(tmp_path / "expected.mp4", [picture[:, ::-1]], **settings)
    difference = _difference(read_frames(mirrored, num_frames=1, size=64), read_frames(expected, num_frames=1, size=64))
    assert difference.mean() < 3


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
def test_both_colour_ranges_reach_black_and_white(tmp_path, pix_fmt):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 255
    path = write_clip(tmp_path / "range.mp4", [picture], pix_fmt=pix_fmt, options={"crf": "1"})
    frames = read_frames(path, num_frames=1, size=48)
    assert frames[..., 0].max() <= 3
    assert frames[..., -1].min() >= 252


def _difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.int() - other.int()).abs().float()


@pytest.mark.parametrize("name", FILMS)
def test_chosen_frames_equal_those_of_a_full_decode(tmp_path, name):
    path = write_film(tmp_path, name, seconds=3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        everything = list(container.decode(stream))
        times = [frame.pts * stream.time_base for frame in everything]
    end = times[-1] + (times[-1] - times[-2])
    frames = read_frames(path, num_frames=12, size=64, aspect="stored")
    expected = [everything[k].to_image() for k in naive_choice(times, end, 12)]
    wanted = np.stack([naive_square(image, 64) for image in expected]).transpose(0, 3, 1, 2)
    difference = np.abs(frames.numpy().astype(int) - wanted)
    assert difference.max() <= 3
    assert difference.mean() < 0.5


def test_video_errors_can_be_pickled(tmp_path):
    with pytest.raises(VideoError) as caught:
        read_frames(tmp_path / "nowhere.mp4", num_frames=1, size=8)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.path, copy.reason) == (tmp_path / "nowhere.mp4", "the file does not exist")


def write_png_capture(path, *, count: int = 20):
    """A screen capture of PNG pictures with a colour profile, as `ffmpeg -i fr%02d.png -c copy capture.mov` makes."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number, pixels in enumerate(grey_frames(count)):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", icc_profile=profile)
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.pts, packet.dts, packet.duration = stream, number, number, 1
            packet.time_base = Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    return path


def test_frames_with_a_colour_profile_do_not_crash(tmp_path):
    """PyAV 18.1 crashes at the next garbage collection after a read of their side data."""
    path = write_png_capture(tmp_path / "capture.mov")
    code = f"""
import gc, vop
from vop.video.frames import decode_frames
from vop.video.resizing import Resizing
for _ in range(3):
    frames = decode_frames({str(path)!r}, num_frames=10, resizing=Resizing(8))
    gc.collect()
print([round(float(frame.mean()) / 10) for frame in frames], vop.probe({str(path)!r}).num_frames)
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[1, 3, 5, 7, 9, 11, 13, 15, 17, 19] 20\n")


def test_an_animated_webp_is_named_in_the_error(tmp_path):
    first, *others = [Image.fromarray(pixels) for pixels in grey_frames(3)]
    first.save(tmp_path / "moving.webp", save_all=True, append_images=others, duration=100)
    with pytest.raises(VideoError, match="animated WebP"):
        read_frames(tmp_path / "moving.webp")
