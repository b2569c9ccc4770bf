"""Clips to keep show the frames of the source at these times, read by PyAV and by FFmpeg's command."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from itertools import pairwise

import av
import pytest

from clips import damage, grey_frames, write_clip
from fields import write_fields
from hdr import BT2020, PQ
from video.exported import appearances, duration, make
from vop.errors import UsageError, VideoError
from vop.video.clip_export import save_clip, saved_suffix
from vop.video.probe import probe

GOPS = {"g": "6", "keyint_min": "6", "sc_threshold": "0"}
OPEN_GOPS = {"x264-params": "open-gop=1:keyint=6:min-keyint=1:bframes=2:b-adapt=0"}
HEVC = {"x265-params": "log-level=none:keyint=6:min-keyint=6"}
# The names of files, their settings, and the frames of a copy from 0.4 to 0.8 s: 10 to 19, and from the key frame on.
COPIED = [
    ("clip.mp4", {"options": GOPS | {"bf": "0"}, "audio": True}, range(6, 20)),
    ("open.mkv", {"options": OPEN_GOPS, "audio": True}, range(6, 22)),
    ("clip.ts", {"options": GOPS | {"bf": "0"}}, range(6, 20)),
    ("hevc.mov", {"codec": "libx265", "options": HEVC}, range(6, 20)),
    ("clip.webm", {"codec": "libvpx-vp9", "options": {"g": "6"}}, range(6, 20)),
]


@pytest.mark.parametrize(("name", "settings", "frames"), COPIED, ids=[name for name, *_ in COPIED])
def test_copies_begin_at_a_key_frame(tmp_path, name, settings, frames):
    path = write_clip(tmp_path / name, grey_frames(24), **settings)
    out = tmp_path / f"out{saved_suffix(path)}"
    saved = save_clip(path, out, start_seconds=0.4, end_seconds=0.8, duration_seconds=0.96)
    assert saved.copied
    assert (saved.start_seconds, saved.lead_seconds) == (pytest.approx(0.24), pytest.approx(0.16))
    times, shown = appearances(out)
    assert shown == list(frames)  # none is missing in between
    assert [time - times[0] for time in times] == pytest.approx([n / 25 for n in range(len(shown))], abs=0.002)
    with av.open(str(path)) as before, av.open(str(out)) as after:
        assert after.streams.video[0].codec_context.name == before.streams.video[0].codec_context.name
        assert len(after.streams.audio) == len(before.streams.audio)
        assert out.suffix == path.suffix


@pytest.mark.parametrize("name", ["refresh.mp4", "refresh.mkv", "refresh.flv"])
@pytest.mark.parametrize("start", [0.5, 1.2, 1.3, 2.2])
def test_copies_begin_with_a_whole_picture(tmp_path, name, start):
    """From a point of intra refresh, decoders return nothing until the picture has built up."""
    options = {"x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0"}
    path = write_clip(tmp_path / name, grey_frames(24), rate=10, options=options)
    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) > 1
    out = tmp_path / f"out{saved_suffix(path)}"
    saved = save_clip(path, out, start_seconds=start, end_seconds=2.4)
    assert saved.copied
    assert appearances(out)[1] == list(range(round(10 * saved.start_seconds), 24))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_copies_do_not_begin_in_the_middle_of_a_frame(tmp_path, suffix):
    """FFmpeg takes every field without references to others for a key frame. Half a frame cannot be decoded."""
    path = write_fields(tmp_path / f"clip.{suffix}", [20 + 8 * k for k in range(24)], keys=6)
    out = tmp_path / f"out.{suffix}"
    saved = save_clip(path, out, start_seconds=0.5, end_seconds=0.8, duration_seconds=0.96)
    assert (saved.start_seconds, saved.copied) == (pytest.approx(0.48), True)
    with av.open(str(out)) as container:
        levels = [frame.to_ndarray()[10, 10] for frame in container.decode(video=0)]
    assert levels == [20 + 8 * k for k in range(12, 20)]


def test_copies_do_not_begin_with_a_damaged_key_frame(tmp_path):
    options = {"g": "6", "sc_threshold": "1000000000"}
    path = write_clip(tmp_path / "clip.mp4", grey_frames(24), codec="mpeg4", rate=10, options=options)
    damage(path, [12])
    saved = save_clip(path, tmp_path / "out.mp4", start_seconds=1.4, end_seconds=2.4)
    assert (saved.start_seconds, saved.copied) == (pytest.approx(0.6, abs=0.001), True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sound.mp4", {"audio": True, "rotation": 90}),
        ("no-times.avi", {"codec": "libx264"}),
        ("clip.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("odd.mkv", {"codec": "libvpx", "options": {"g": "24"}}),
    ],
)
def test_exact_clips_have_the_wanted_frames_only(tmp_path, name, settings):
    size = {"width": 63, "height": 47} if name.startswith("odd") else {}
    path, out = write_clip(tmp_path / name, grey_frames(24, **size), **settings), tmp_path / "out.mp4"
    saved = save_clip(path, out, start_seconds=0.4, end_seconds=0.8, exact=True)
    assert (saved.start_seconds, saved.lead_seconds, saved.copied) == (pytest.approx(0.4), 0.0, False)
    times, shown = appearances(out)
    assert shown == list(range(10, 20))
    assert (times[0], duration(out)) == (0, pytest.approx(0.4, abs=0.001))
    before, after = probe(path), probe(out)
    assert (after.width, after.height, after.has_sound) == (before.width, before.height, before.has_sound)


def test_exact_clips_keep_a_variable_frame_rate(tmp_path):
    stamps = [0, 40, 100, 300, 340, 400, 450, 500, 600, 900, 1000, 1040]
    path = write_clip(tmp_path / "phone.mkv", grey_frames(12), stamps=stamps, options={"g": "4"})
    save_clip(path, tmp_path / "out.mp4", start_seconds=0.32, end_seconds=0.95, exact=True)
    times, shown = appearances(tmp_path / "out.mp4")
    assert shown == [3, 4, 5, 6, 7, 8, 9]
    assert [float(time) for time in times] == pytest.approx([0, 0.02, 0.08, 0.13, 0.18, 0.28, 0.58])
    assert duration(tmp_path / "out.mp4") == pytest.approx(0.63)


@pytest.mark.parametrize("audio_seconds", [1.2, 1.25])
def test_clips_across_the_join_of_recordings(tmp_path, audio_seconds):
    """The audio of the second recording begins before that of the first ends."""
    settings = {"rate": 10, "audio": True, "audio_seconds": audio_seconds}
    parts = [write_clip(tmp_path / f"{k}.ts", grey_frames(24)[12 * k :][:12], **settings) for k in range(2)]
    path, out = tmp_path / "joined.ts", tmp_path / "out.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    save_clip(path, out, start_seconds=0.6, end_seconds=1.8, exact=True)
    assert appearances(out)[1] == list(range(6, 18))
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        times = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.size]
        assert stream.codec_context.name == "aac"
    gaps = [after - before for before, after in pairwise(times)]
    assert (times[0], times[-1]) == (pytest.approx(0, abs=0.07), pytest.approx(1.2, abs=0.14))
    assert min(gaps) > 0.03
    assert max(gaps) < 0.13  # a packet lasts 0.064 s


def test_copies_do_not_show_what_an_edit_list_hides(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", grey_frames(24), options={"g": "24"})
    trimmed = make(whole, 0.4, 0.8)  # frames 0 to 9 are in the file, but hidden
    saved = save_clip(trimmed, tmp_path / "out.mp4", start_seconds=0.0, end_seconds=0.2, duration_seconds=0.4)
    assert not saved.copied
    assert appearances(tmp_path / "out.mp4")[1] == list(range(10, 15))


def test_hdr_stays_hdr(tmp_path):
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=900,300"
    colours = {"color_trc": PQ, "color_primaries": BT2020, "colorspace": 9}
    path = write_clip(
        tmp_path / "hdr.mkv",
        grey_frames(8),
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": f"log-level=none:hdr10=1:{display}"},
        **colours,
    )
    out = tmp_path / "out.mp4"
    save_clip(path, out, start_seconds=0.08, end_seconds=0.2, exact=True)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.codec_tag, frame.format.name) == ("hevc", "hvc1", "yuv420p10le")
        assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (PQ, BT2020, 9)
        found = {name: bytes(frame.side_data.get(name) or b"") for name in ("MASTERING_DISPLAY_METADATA",)}
        light = bytes(frame.side_data.get("CONTENT_LIGHT_LEVEL") or b"")
    with av.open(str(path)) as container:
        source = next(container.decode(video=0))
        assert bytes(source.side_data.get("CONTENT_LIGHT_LEVEL")) == light != b""
        assert bytes(source.side_data.get("MASTERING_DISPLAY_METADATA")) == found["MASTERING_DISPLAY_METADATA"]


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="needs FFmpeg's command")
@pytest.mark.parametrize("exact", [False, True])
def test_ffmpeg_reads_saved_clips(tmp_path, exact):
    path = write_clip(tmp_path / "ntsc.mp4", grey_frames(24), rate=Fraction(30000, 1001), options=GOPS, rotation=90)
    out = tmp_path / "out.mp4"
    saved = save_clip(path, out, start_seconds=10 * 1.001 / 30, end_seconds=20 * 1.001 / 30, exact=exact)
    wanted = "stream=nb_read_frames,avg_frame_rate:stream_side_data=rotation:format=duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", wanted, "-of", "json", str(out)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    (stream,) = found["streams"]
    assert int(stream["nb_read_frames"]) >= (10 if exact else 14)
    assert Fraction(stream["avg_frame_rate"]) == Fraction(30000, 1001)
    assert {abs(data["rotation"]) for data in stream["side_data_list"] if "rotation" in data} == {90}
    length = 10 * 1.001 / 30 + saved.lead_seconds
    assert length - 0.001 <= float(found["format"]["duration"]) <= length + (0.001 if exact else 0.11)


def test_what_cannot_be_saved_says_why(tmp_path):
    path, out = write_clip(tmp_path / "clip.mp4", grey_frames(8)), tmp_path / "out.mp4"
    with pytest.raises(UsageError, match=r"from 2\.0 to 1\.0"):
        save_clip(path, out, start_seconds=2.0, end_seconds=1.0)
    with pytest.raises(VideoError, match="nothing is shown 5"):
        save_clip(path, out, start_seconds=5.0, end_seconds=6.0)
    assert not out.exists()
    assert [saved_suffix(name) for name in ("a.M4V", "a.m2ts", "a.AVI", "a")] == [".mp4", ".ts", ".mkv", ".mkv"]
    assert saved_suffix("a.webm", exact=True) == ".mp4"
