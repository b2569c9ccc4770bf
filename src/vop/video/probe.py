"""Describe a video file: duration, size, recording date, streams, and whether browsers play it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import av
from av.stream import Disposition

from vop.errors import VideoError
from vop.video.dates import recording_date
from vop.video.decode import VideoDecoder
from vop.video.shape import display_matrix, display_size, sample_aspect

_SAME_SECONDS = 0.1

_EIGHT_BITS = {"yuv420p", "yuvj420p", "yuva420p"}
_TEN_BITS = {"yuv420p10le"}

# Formats that Chromium, Firefox and Safari all play. HEVC is not among them: it needs support by the hardware.
_MP4_VIDEO = {"h264": _EIGHT_BITS, "vp9": _EIGHT_BITS | _TEN_BITS, "av1": _EIGHT_BITS | _TEN_BITS}
_WEBM_VIDEO = {"vp8": _EIGHT_BITS, "vp9": _EIGHT_BITS | _TEN_BITS, "av1": _EIGHT_BITS | _TEN_BITS}
_MP4_AUDIO = {"aac", "mp3", "opus", "flac"}
_WEBM_AUDIO = {"opus", "vorbis"}


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A video file as players show it.

    Attributes:
        duration_seconds: the time from the first frame to the end. The last picture is shown until the sound ends.
        num_frames: the number of frames that are shown.
        frame_rate: frames per second, on average.
        width, height: the displayed size in pixels: upright, and with square pixels.
        recorded_at: when the video was recorded, with a time zone.
        recorded_at_source: where this date was found; see `vop.video.dates`.
        codec, pixel_format: FFmpeg's names.
        hdr: "pq", "hlg" or None.
        has_sound: whether the file has an audio stream.
        stream: the number of the video stream, one of `streams`.
        streams: the numbers of all video streams.
        plays_in_browsers: whether a browser plays the file without conversion, and at the same times.
    """

    path: Path
    duration_seconds: float
    num_frames: int
    frame_rate: float
    width: int
    height: int
    recorded_at: datetime
    recorded_at_source: str
    codec: str
    pixel_format: str | None
    hdr: str | None
    has_sound: bool
    stream: int
    streams: tuple[int, ...]
    plays_in_browsers: bool


def probe(path: str | Path, *, stream: int | None = None) -> VideoInfo:
    """Describe a video file. Reads the whole file and decodes its first frame.

    Args:
        stream: the number of a video stream in the file; by default the one that FFmpeg's command takes.

    Raises:
        VideoError: the file does not exist, or is not a video.
        UsageError: `stream` is not one of its video streams.
    """
    with VideoDecoder(path, stream=stream) as video:
        return describe(video)


def stored_size(path: str | Path) -> tuple[int, int]:
    """Return the width and height of the stored pictures, in pixels. Reads only the beginning of the file.

    Raises:
        VideoError: the file does not exist, or is not a video.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or not stream.width:
                raise VideoError(path, "no video in it")
            return stream.width, stream.height
    except (av.FFmpegError, OSError) as error:
        raise VideoError(path, str(error)) from None


def describe(video: VideoDecoder) -> VideoInfo:
    """Describe an open video like `probe`.

    Raises:
        VideoError: none of its frames can be decoded.
    """
    timeline, container, stream = video.timeline, video.container, video.stream
    _, frame = next(video.nearest(timeline.stamps[:1]))
    matrix = display_matrix(frame, stream.codec_context.name)
    width, height = display_size(frame.width, frame.height, aspect=sample_aspect(stream), matrix=matrix)
    moment = recording_date(container.metadata, stream.metadata, video.path, _changed(video.path))
    return VideoInfo(
        path=video.path,
        duration_seconds=timeline.duration_seconds,
        num_frames=len(timeline.stamps),
        frame_rate=len(timeline.stamps) / timeline.duration_seconds,
        width=width,
        height=height,
        recorded_at=moment.at,
        recorded_at_source=moment.source,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=frame.format.name,
        hdr=video.colours.hdr(frame),
        has_sound=bool(container.streams.audio),
        stream=stream.index,
        streams=tuple(other.index for other in container.streams.video),
        plays_in_browsers=plays_in_browsers(video.path, container, stream) and _keeps_time(video),
    )


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise VideoError(path, "it was deleted while it was read") from error


def _keeps_time(video: VideoDecoder) -> bool:
    """Return whether a player's clock, which starts at 0, agrees with ours, which starts at the first frame."""
    timeline = video.timeline
    begins = timeline.stamps[0] * timeline.time_base
    return not timeline.packets.corrected and (timeline.ordinal or abs(begins) < _SAME_SECONDS)


def plays_in_browsers(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Return whether current browsers play picture and sound of this file without conversion."""
    kind = _container_kind(path, container)
    covers = sum(bool(other.disposition & Disposition.attached_pic) for other in container.streams.video)
    if kind is None or len(container.streams.video) - covers > 1:  # a browser may choose another stream
        return False
    videos, sounds = (_MP4_VIDEO, _MP4_AUDIO) if kind == "mp4" else (_WEBM_VIDEO, _WEBM_AUDIO)
    heard = container.streams.audio[:1]  # a browser plays the first track
    shown = stream.codec_context.pix_fmt in videos.get(codec_name(stream) or "", ())
    return shown and all(codec_name(sound) in sounds for sound in heard)


def codec_name(stream: av.stream.Stream) -> str | None:
    """Return the name of a stream's format, independent of its decoder; None if FFmpeg has no decoder for it."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else None


def _container_kind(path: Path, container: av.container.InputContainer) -> str | None:
    """Return "mp4" or "webm"; None for a container that browsers do not open."""
    names = container.format.name.split(",")
    if "mp4" in names:
        return "mp4"
    if "webm" in names:  # FFmpeg has one name for WebM and Matroska; the file's first element tells them apart
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(64) else None
    return None
