from __future__ import annotations

import av
import pytest

from clips import grey_frames, write_clip, write_tone
from vop.errors import VideoError
from vop.video.probe import probe

QUIET = {"options": {"x265-params": "log-level=none"}}


@pytest.mark.parametrize(
    ("name", "codec", "settings", "plays"),
    [
        ("plain.mp4", "libx264", {}, True),
        ("sound.mp4", "libx264", {"audio": True}, True),
        ("phone.mov", "libx264", {"audio": True}, True),
        ("full-range.mp4", "libx264", {"pix_fmt": "yuvj420p"}, True),
        ("vp9.mp4", "libvpx-vp9", {}, True),
        ("vp8.webm", "libvpx", {}, True),
        ("vp9.webm", "libvpx-vp9", {}, True),
        ("444.mp4", "libx264", {"pix_fmt": "yuv444p"}, False),
        ("ten-bits.mp4", "libx264", {"pix_fmt": "yuv420p10le"}, False),
        ("hevc.mp4", "libx265", QUIET, False),
        ("mpeg4.mp4", "mpeg4", {}, False),
        ("h264.mkv", "libx264", {"audio": True}, False),
        ("vp8.mkv", "libvpx", {}, False),
        ("h264.ts", "libx264", {}, False),
        ("h264.flv", "libx264", {}, False),
        ("mpeg4.avi", "mpeg4", {}, False),
        ("old.wmv", "wmv2", {}, False),
        ("moving.gif", "gif", {"pix_fmt": "rgb8"}, False),
    ],
)
def test_plays_in_browsers_by_container_and_codec(tmp_path, name, codec, settings, plays):
    path = write_clip(tmp_path / name, grey_frames(4), codec=codec, **settings)
    assert probe(path).plays_in_browsers is plays


def test_av1_plays_in_browsers(tmp_path):
    """The name of PyAV's AV1 decoder differs from the name of the format."""
    with av.open(str(tmp_path / "av1.mp4"), "w") as container:
        stream = container.add_stream("libaom-av1" if "libaom-av1" in av.codecs_available else "libsvtav1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for pixels in grey_frames(2, width=64, height=64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert probe(tmp_path / "av1.mp4").plays_in_browsers


@pytest.mark.parametrize(
    ("name", "picture", "sound", "plays"),
    [
        ("a.mp4", "libx264", "mp3", True),
        ("b.mp4", "libx264", "libopus", True),
        ("c.mp4", "libx264", "flac", True),
        ("d.mp4", "libx264", "ac3", False),
        ("e.mov", "libx264", "pcm_s16le", False),
        ("f.webm", "libvpx", "libopus", True),
        ("g.webm", "libvpx", "vorbis", True),
    ],
)
def test_plays_in_browsers_by_audio_codec(tmp_path, name, picture, sound, plays):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(picture, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(sound, rate=48000, layout="stereo", options={"strict": "experimental"})
        for pixels in grey_frames(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=9600)
        frame.sample_rate = 48000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        packets = [*stream.encode(), *audio.encode(frame), *audio.encode()]
        container.mux([packet for packet in packets if packet.size])  # FLAC ends with an empty packet
    assert probe(tmp_path / name).plays_in_browsers is plays


def test_files_without_video_are_refused(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        write_tone(container)
    for name, reason in (("page.mp4", "not a video"), ("song.mp4", "only audio"), ("missing.mp4", "not exist")):
        with pytest.raises(VideoError, match=f"{name}.*{reason}"):
            probe(tmp_path / name)
