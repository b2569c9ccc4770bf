"""Whether a browser plays a video file as it is, told by its header: no frame is decoded."""

from __future__ import annotations

from pathlib import Path

import av
from av.stream import Disposition

_EIGHT_BITS = {"yuv420p", "yuvj420p", "yuva420p"}
_TEN_BITS = {"yuv420p10le"}

# What Chromium, Firefox and Safari all play. HEVC is left out: it depends on the machine's hardware.
_MP4_VIDEO = {"h264": _EIGHT_BITS, "vp9": _EIGHT_BITS | _TEN_BITS, "av1": _EIGHT_BITS | _TEN_BITS}
_WEBM_VIDEO = {"vp8": _EIGHT_BITS, "vp9": _EIGHT_BITS | _TEN_BITS, "av1": _EIGHT_BITS | _TEN_BITS}
_MP4_AUDIO = {"aac", "mp3", "opus", "flac"}
_WEBM_AUDIO = {"opus", "vorbis"}


def plays_in_browsers(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether the browsers of today play this file, its picture and its sound, without conversion."""
    kind = _container_kind(path, container)
    covers = sum(bool(other.disposition & Disposition.attached_pic) for other in container.streams.video)
    if kind is None or len(container.streams.video) - covers > 1:  # of several streams it may choose another one
        return False
    videos, sounds = (_MP4_VIDEO, _MP4_AUDIO) if kind == "mp4" else (_WEBM_VIDEO, _WEBM_AUDIO)
    heard = container.streams.audio[:1]  # a browser plays the first track
    shown = stream.codec_context.pix_fmt in videos.get(codec_name(stream), ())
    return shown and all(codec_name(sound) in sounds for sound in heard)


def codec_name(stream: av.stream.Stream) -> str | None:
    """The name of a stream's format, whichever decoder reads it; None where FFmpeg has none for it."""
    return stream.codec_context and stream.codec_context.codec.canonical_name


def _container_kind(path: Path, container: av.container.InputContainer) -> str | None:
    """ "mp4", "webm", or None for what browsers do not open."""
    names = container.format.name.split(",")
    if "mp4" in names:
        return "mp4"
    if "webm" in names:  # FFmpeg has one name for WebM and Matroska; the file's first element tells them apart
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(64) else None
    return None
