from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clips import damage, grey_frames, numbers, open_with_late_streams, packets_of, write_clip, write_tone
from hdr import COLOURS, HLG, PQ, centres, hdr_frame, patches, write_frames
from video.exported import appearances, duration, make, shown
from vop.errors import UsageError, VideoError, VopError
from vop.video.clip_export import export_clip, source
from vop.video.frames import read_frames, video_timeline
from vop.video.probe import probe

SHORT_GOPS = {"g": "6", "keyint_min": "6", "sc_threshold": "0"}
ONE_GOP = {"g": "1000", "keyint_min": "1000", "sc_threshold": "0"}
QUIET = {"x265-params": "log-level=none"}

SOURCES = [
    ("clip.mp4", "libx264", {}),
    ("sound.mp4", "libx264", {"audio": True}),
    ("clip.mkv", "libx264", {}),
    ("sound.mkv", "libx264", {"audio": True}),
    ("open-gop.mkv", "libx264", {"options": {"x264-params": "open-gop=1:keyint=6:min-keyint=1:bframes=2:b-adapt=0"}}),
    ("clip.ts", "libx264", {"options": SHORT_GOPS}),
    ("sound.ts", "libx264", {"audio": True}),
    ("clip.avi", "libx264", {}),  # no presentation times
    ("clip.h264", "libx264", {}),  # no times at all
    ("clip.flv", "libx264", {}),
    ("clip.avi", "mpeg4", {"options": {"g": "6"}}),
    ("sound.avi", "mpeg4", {"audio": True}),
    ("vp8.mkv", "libvpx", {"options": {"g": "6"}}),
    ("vp9.webm", "libvpx-vp9", {}),
    ("hevc.mkv", "libx265", {"options": QUIET, "pix_fmt": "yuv420p10le"}),
    ("444.mp4", "libx264", {"pix_fmt": "yuv444p"}),
    ("clip.wmv", "wmv2", {"options": {"g": "6"}}),
    ("clip.gif", "gif", {"pix_fmt": "rgb8"}),
]


@pytest.mark.parametrize(("name", "codec", "settings"), SOURCES)
def test_every_source_gives_a_clip_for_browsers(tmp_path, name, codec, settings):
    out = make(write_clip(tmp_path / name, grey_frames(24), codec=codec, **settings), 0.4, 0.8)
    assert shown(out, 10) == list(range(10, 20))
    assert duration(out) == pytest.approx(0.4, abs=0.01)
    assert probe(out).plays_in_browsers
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].start_time == 0
        assert bool(container.streams.audio) == bool(settings.get("audio"))
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a player can start before the whole file is loaded


def test_last_frames_are_kept_where_streams_appear_late(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24), codec="libx265", options=QUIET, pix_fmt="yuv420p10le")
    monkeypatch.setattr(source, "open_video", open_with_late_streams)
    assert shown(make(path, 0.6, 0.96), 9) == list(range(15, 24))


@pytest.mark.parametrize(
    ("kind", "audio"), [("ts", False), ("ts", True), ("mkv", False), ("mkv", True), ("webm", False)]
)
def test_clips_of_joined_recordings(tmp_path, kind, audio):
    """Time stamps restart in the middle of the file, so seeking fails."""
    codec = "libvpx" if kind == "webm" else "libx264"
    first, second = (
        write_clip(tmp_path / f"{place}.{kind}", grey_frames(24)[12 * place :][:12], codec=codec, rate=10, audio=audio)
        for place in range(2)
    )
    path = tmp_path / f"joined.{kind}"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert shown(make(path, 0.8, 1.6), 8) == list(range(8, 16))
    assert shown(make(path, 1.4, 2.2), 8) == list(range(14, 22))
    out = tmp_path / "known.mp4"
    export_clip(path, out, start_seconds=1.4, end_seconds=2.2, duration_seconds=2.4)
    assert shown(out, 8) == list(range(14, 22))


@pytest.mark.parametrize("start", [0.0, 0.9, 1.6, 2.0])
def test_intra_refresh_points_are_not_key_frames(tmp_path, start):
    """A player that started at one would show a picture that builds up."""
    options = {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
    path = write_clip(tmp_path / "refresh.mp4", grey_frames(24), rate=10, options=options)
    assert shown(make(path, start, start + 0.4), 4) == [round(10 * start) + k for k in range(4)]


def test_clips_keep_the_shape_of_non_square_pixels(tmp_path):
    for name, codec in (("copied.mp4", "libx264"), ("encoded.avi", "mpeg4")):
        path = write_clip(tmp_path / name, grey_frames(12), codec=codec, sample_aspect_ratio=Fraction(2))
        info = probe(make(path, 0.1, 0.3))
        assert info.width / info.height == pytest.approx(128 / 48, rel=0.03)


@pytest.mark.parametrize(("name", "codec", "settings"), SOURCES)
@pytest.mark.parametrize(("start", "end", "expected"), [(0, 1.5, [0, 1, 2]), (3.5, 5, [7, 8, 9]), (11, 40, [22, 23])])
def test_clips_from_anywhere_in_a_long_video(tmp_path, name, codec, settings, start, end, expected):
    options = settings.get("options", SHORT_GOPS if codec == "libx264" else {})
    settings = {**settings, "options": options, "audio": False}
    out = make(write_clip(tmp_path / name, grey_frames(24), codec=codec, rate=2, **settings), start, end)
    assert shown(out, len(expected)) == expected
    assert duration(out) == pytest.approx(len(expected) / 2, abs=0.01)


def _payloads(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_h264_packets_are_copied(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24), rate=2, options=SHORT_GOPS)
    copied = _payloads(make(path, 7.0, 9.0))
    assert len(copied) >= 4
    assert set(copied) <= set(_payloads(path))


def test_a_copied_clip_can_start_between_frames(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24), rate=2, options=SHORT_GOPS)
    times, found = appearances(out := make(path, 10.7, 11.5))
    assert found[:2] == [21, 22]
    assert [float(time) for time in times[:2]] == pytest.approx([0, 0.3], abs=0.002)
    assert shown(out, 8) == [21, 21, 21, 22, 22, 22, 22, 22]


def test_a_clip_is_encoded_if_its_key_frame_is_far_away(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24), rate=1, options=ONE_GOP)
    near, far = _payloads(make(path, 3, 5)), _payloads(out := make(path, 20, 22))
    assert set(near) <= set(_payloads(path))
    assert not set(far) & set(_payloads(path))
    assert shown(out, 2) == [20, 21]


def test_a_video_may_start_at_another_time_than_zero(tmp_path):
    for codec in ("libx264", "libvpx"):
        stamps = [5000 + 500 * number for number in range(24)]
        path = write_clip(tmp_path / f"{codec}.mkv", grey_frames(24), stamps=stamps, codec=codec)
        assert shown(make(path, 8, 9.5), 3) == [16, 17, 18]


def test_a_variable_frame_rate_becomes_constant(tmp_path):
    stamps = [0, 40, 80, 1000, 1040, 3000, 3040, 3080, 3120, 3900]
    path = write_clip(tmp_path / "vfr.mkv", grey_frames(10), stamps=stamps, codec="libvpx")
    assert shown(make(path, 0.5, 3.5), 6) == [2, 4, 4, 4, 4, 8]


def test_rotation_and_colours_are_kept(tmp_path):
    corners = np.zeros((48, 64, 3), np.uint8)
    corners[:24, :32], corners[24:, 32:] = (220, 30, 30), (30, 60, 220)
    corners[:24, 32:] = 255
    sources = [
        ("copied.mp4", "libx264", {"rotation": 90}),
        ("encoded.mp4", "libx264", {"rotation": 90, "pix_fmt": "yuv444p"}),
        ("full-range.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("rgb.avi", "rawvideo", {"pix_fmt": "bgr24"}),
        ("tagged.mkv", "libvpx-vp9", {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}),
    ]
    for name, codec, settings in sources:
        path = write_clip(tmp_path / name, [corners] * 5, codec=codec, **settings)
        expected, found = (
            read_frames(file, num_frames=1, size=48)[0, :, 12::24, 12::24].int() for file in (path, make(path, 0, 0.2))
        )
        assert (expected - found).abs().max() <= 10, name
        assert (expected.amax() - expected.amin()) > 150


def _is_bt709(path: Path) -> bool:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return {frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range} == {1}


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_is_converted_to_sdr(tmp_path, transfer):
    frames = [hdr_frame(patches(32), transfer) for _ in range(5)]  # libx265 corrupts memory on less than 64 pixels
    out = make(write_frames(tmp_path / "hdr.mkv", frames, codec="libx265", crf=4, **QUIET), 0, 0.5)
    with av.open(str(out)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(centres(pixels) - COLOURS).max() <= 14
    assert _is_bt709(out)


def test_transparent_pixels_are_blended_with_grey(tmp_path):
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (30, 200, 40, 255), (255, 0, 255, 0)  # the magenta is transparent
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva444p")
    out = make(write_frames(tmp_path / "alpha.mkv", [frame] * 5), 0, 0.5)
    with av.open(str(out)) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown[24, 8] - (30, 200, 40)).max() <= 6
    assert np.abs(shown[24, 50] - 128).max() <= 4
    assert (shown[..., 0] - shown[..., 1]).max() <= 12
    assert _is_bt709(out)


@pytest.mark.parametrize(
    ("width", "height", "aspect", "expected"),
    [(1920, 1080, 1, (1280, 720)), (1080, 1920, 1, (720, 1280)), (98, 46, 1, (98, 46)), (180, 144, 2, (360, 144))],
)
def test_clips_have_at_most_720_lines(tmp_path, width, height, aspect, expected):
    frames = grey_frames(2, width=width, height=height)
    path = write_clip(tmp_path / "clip.avi", frames, codec="mpeg4", sample_aspect_ratio=Fraction(aspect))
    with av.open(str(make(path, 0, 0.08))) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.width, codec.height) == expected


def test_clips_end_after_max_seconds(tmp_path):
    for name, codec in (("copied.mkv", "libx264"), ("encoded.mkv", "libvpx")):
        path = write_clip(tmp_path / name, grey_frames(24), rate=2, codec=codec, options={"g": "6"})
        export_clip(path, tmp_path / "out.mp4", start_seconds=2, end_seconds=1e9, max_seconds=3)
        assert duration(tmp_path / "out.mp4") == pytest.approx(3, abs=0.05)
        assert shown(tmp_path / "out.mp4", 6) == [4, 5, 6, 7, 8, 9]


def _write_beep(path: Path, *, picture: str, sound: str, layout: str, rate: int = 48000, frame_rate: int = 4) -> Path:
    """Six seconds, by default at four frames a second, with a tone from second 2 to 3."""
    seconds = np.arange(6 * rate) / rate
    beep = np.sin(2 * np.pi * 440 * seconds) * ((seconds >= 2) & (seconds < 3)) / 2
    channels = 2 if layout == "stereo" else 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream(picture, rate=frame_rate, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(sound, rate=rate, layout=layout)
        for number in range(6 * frame_rate):
            pixels = grey_frames(24)[number * 4 // frame_rate]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            begin, end = number * rate // frame_rate, (number + 1) * rate // frame_rate
            part = beep[begin:end].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.tile(part, (channels, 1)), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(audio.encode(frame))
        container.mux(stream.encode())
        container.mux([packet for packet in audio.encode() if packet.size])
    return path


def _loud_seconds(path: Path) -> tuple[float, float]:
    """When a file's tone starts and ends, in seconds from its first frame."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        loud = [
            float(frame.pts * frame.time_base) + place / frame.sample_rate
            for frame in container.decode(stream)
            for place in np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
        ]
    return loud[0], loud[-1]


@pytest.mark.parametrize(
    ("name", "picture", "sound"),
    [
        ("a.ts", "libx264", "mp2"),
        ("b.ts", "libx264", "aac"),
        ("c.vob", "mpeg2video", "ac3"),
        ("d.mkv", "libx264", "aac"),
        ("e.webm", "libvpx", "libopus"),
    ],
)
def test_sound_of_joined_recordings_stays_in_sync(tmp_path, name, picture, sound):
    rate = 25 if picture == "mpeg2video" else 4
    part = _write_beep(tmp_path / name, picture=picture, sound=sound, layout="stereo", frame_rate=rate)
    path = tmp_path / f"joined-{name}"
    path.write_bytes(part.read_bytes() * 2)
    assert video_timeline(path).duration_seconds == pytest.approx(12)
    for start in (1.5, 7.5):
        assert _loud_seconds(make(path, start, start + 2)) == pytest.approx((0.5, 1.5), abs=0.1)
    assert _loud_seconds(make(path, 2.5, 8.5)) == pytest.approx((0, 6), abs=0.1)


@pytest.mark.parametrize(
    ("name", "picture", "sound", "layout"),
    [
        ("a.mkv", "libx264", "aac", "stereo"),
        ("b.ts", "libx264", "aac", "stereo"),
        ("c.mkv", "libx264", "ac3", "stereo"),
        ("d.mp4", "libx264", "aac", "mono"),
        ("e.avi", "mpeg4", "pcm_s16le", "mono"),
        ("f.avi", "mpeg4", "aac", "stereo"),
        ("g.webm", "libvpx", "libopus", "stereo"),
        ("h.mkv", "libx264", "flac", "stereo"),
    ],
)
def test_sound_stays_in_sync(tmp_path, name, picture, sound, layout):
    path = _write_beep(tmp_path / name, picture=picture, sound=sound, layout=layout)
    out = make(path, 1.5, 3.5)
    assert shown(out, 8) == numbers(read_frames(path, num_frames=8, size=8, start_seconds=1.5, end_seconds=3.5))
    assert _loud_seconds(out) == pytest.approx((0.5, 1.5), abs=0.03)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.audio[0].codec_context.layout.name == layout


def test_damaged_sound_is_left_out(tmp_path):
    path = _write_beep(tmp_path / "a.mp4", picture="libvpx-vp9", sound="ac3", layout="mono")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    assert shown(make(path, 1.5, 3.5), 8) == list(range(6, 14))


def test_damaged_frames_do_not_shorten_a_clip(tmp_path):
    path = write_clip(tmp_path / "clip.avi", grey_frames(24), codec="mpeg4", options={"g": "1"})
    damage(path, [12, 13])
    assert duration(make(path, 0.4, 0.8)) == pytest.approx(0.4, abs=0.05)


def test_clips_of_a_truncated_file(tmp_path):
    for codec in ("libx264", "libvpx"):
        path = write_clip(tmp_path / f"{codec}.mkv", grey_frames(24), rate=2, codec=codec, options={"g": "2"})
        position, _ = packets_of(path)[16]
        path.write_bytes(path.read_bytes()[:position])
        assert shown(make(path, 2, 4), 4) == [4, 5, 6, 7]
        with pytest.raises(VideoError, match=r"11\.000 s"):
            make(path, 11, 12)


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_a_clip_after_the_end_is_refused(tmp_path, codec):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(10), codec=codec)
    for start in (0.4, 7.5):
        with pytest.raises(VideoError, match=f"clip.mkv: .*{start:.3f} s"):
            make(path, start, start + 1)


def test_files_without_video_are_refused(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    (tmp_path / "empty.mkv").touch()
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        write_tone(container)
    for name, reason in (("page.mp4", "not a video"), ("empty.mkv", "0 bytes"), ("song.mp4", "only audio")):
        with pytest.raises(VideoError, match=f"{name}.*{reason}"):
            make(tmp_path / name, 0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mkv", "page.mp4", "song.mp4"]


def test_arguments_out_of_range(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(2))
    for start, end, complaint in [(-1, 1, "start_seconds is -1"), (2, 1, "end_seconds is 1"), (0, float("nan"), "nan")]:
        with pytest.raises(UsageError, match=complaint):
            make(path, start, end)
    with pytest.raises(UsageError, match="max_seconds is 0"):
        export_clip(path, tmp_path / "a.mp4", start_seconds=0, end_seconds=1, max_seconds=0)
    with pytest.raises(VopError, match="clip.mkv: .*folder"):
        export_clip(path, path / "a.mp4", start_seconds=0, end_seconds=1)
