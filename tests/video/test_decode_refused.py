"""Files without a readable frame, and their error messages."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from clips import grey_frames, write_clip, write_tone
from vop.errors import VideoError
from vop.video.frames import read_frames


def _truncated(folder: Path) -> Path:
    path = write_clip(folder / "truncated.mp4", grey_frames(24))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _text(name: str):
    def make(folder: Path) -> Path:
        (folder / name).write_text("<html>404</html>\n" * 50)
        return folder / name

    return make


def _empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def _audio_only(folder: Path) -> Path:
    with av.open(str(folder / "sound.m4a"), "w") as container:
        write_tone(container)
    return folder / "sound.m4a"


def _song_with_a_cover(folder: Path) -> Path:
    with av.open(str(folder / "song.mp3"), "w") as container:
        sound = container.add_stream("libmp3lame", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture) + cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(sound.encode(silence) + sound.encode())
    return folder / "song.mp3"


def _huge(folder: Path) -> Path:
    path = write_clip(folder / "huge.avi", grey_frames(2), codec="rawvideo", pix_fmt="bgr24")
    data = bytearray(path.read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 12, 12000, 8000)
    path.write_bytes(data)
    return path


def _playlist(folder: Path) -> Path:
    inner = write_clip(folder / "inner.ts", grey_frames(4))
    path = folder / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inner}\n#EXT-X-ENDLIST\n")
    return path


BAD = [
    (lambda folder: folder, "this is a folder"),
    (lambda folder: folder / "nowhere.mp4", "the file does not exist"),
    (_empty, r"empty \(0 bytes\)"),
    (_truncated, r"cut short: its index \(moov\) is missing"),
    (_text("page.mp4"), "not a video that FFmpeg can read"),
    (_text("page.txt"), "this is a text file"),
    (_audio_only, "no video, only audio"),
    (_song_with_a_cover, "no video, only a cover picture and audio"),
    (_huge, "frames of more than 64 megapixels"),
    (_playlist, "not a video that FFmpeg can read"),
]


@pytest.mark.parametrize(("make", "reason"), BAD)
def test_unreadable_files_are_refused_with_the_reason(tmp_path, capfd, make, reason):
    path = make(tmp_path)
    with pytest.raises(VideoError, match=reason) as caught:
        read_frames(path, num_frames=4, size=8)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")
