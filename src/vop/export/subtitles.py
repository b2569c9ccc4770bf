"""Cut the subtitles of a moment out of those of its video: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
from av.subtitles.subtitle import AssSubtitle

from vop.errors import VopError
from vop.export.moments import Line
from vop.utils.files import read_file

_SIDECARS = (".srt", ".vtt", ".ass", ".ssa")
_MOST_BYTES = 32 * 2**20
_TEXT_CODECS = {"subrip", "srt", "mov_text", "webvtt", "ass", "ssa", "text"}


@dataclass(frozen=True, kw_only=True)
class SubtitleLine:
    """A line of subtitles, with its times from the video's first frame."""

    text: str
    start_seconds: float
    end_seconds: float


def cut_subtitles(lines: Iterable[Line], *, start_seconds: float, end_seconds: float, format: str = "srt") -> str:
    """Return the lines that are shown in a clip, in a file's text whose time begins with the clip; "" if none is.

    Args:
        format: srt or vtt.
    """
    import pysubs2

    found = pysubs2.SSAFile()
    for line in lines:
        start, end = max(line.start_seconds, start_seconds), min(line.end_seconds, end_seconds)
        if start < end and line.text.strip():
            event = pysubs2.SSAEvent(round(1000 * (start - start_seconds)), round(1000 * (end - start_seconds)))
            event.plaintext = line.text
            found.append(event)
    found.sort()
    return found.to_string(format) if len(found) else ""


def read_lines(file: Path) -> Sequence[SubtitleLine]:
    """Return the subtitles of a video: of a file beside it, such as `talk.srt` or `talk.en.vtt`, or its first track.

    What cannot be read has no lines.
    """
    for sidecar in _beside(file):
        lines = _sidecar_lines(sidecar)
        if lines:
            return lines
    with suppress(av.FFmpegError, OSError, ValueError):
        return _track_lines(file)
    return []


def _beside(file: Path) -> list[Path]:
    """Return the files of subtitles beside a video, that without a language first."""
    try:
        names = [other for other in file.parent.iterdir() if other.suffix.lower() in _SIDECARS]
    except OSError:
        return []
    own = [other for other in names if other.stem == file.stem or other.stem.startswith(f"{file.stem}.")]
    return sorted(own, key=lambda other: (len(other.stem), _SIDECARS.index(other.suffix.lower()), other.name))


def _sidecar_lines(path: Path) -> list[SubtitleLine]:
    import pysubs2

    try:
        content = read_file(path, at_most=_MOST_BYTES)
    except VopError:
        return []
    try:
        events = pysubs2.SSAFile.from_string(_decoded(content)).events
    except Exception:  # its parsers raise whatever a broken file makes them raise
        return []
    return [
        SubtitleLine(text=event.plaintext, start_seconds=event.start / 1000, end_seconds=event.end / 1000)
        for event in events
        if event.is_text
    ]


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _track_lines(file: Path) -> list[SubtitleLine]:
    """Return the lines of the first track of text. Its times count from the first frame of the video."""
    with av.open(f"file:{file}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
        tracks = [
            stream
            for stream in container.streams.subtitles
            if stream.codec_context is not None and stream.codec_context.name in _TEXT_CODECS
        ]
        video = container.streams.video[0] if container.streams.video else None
        origin = float(video.start_time * video.time_base) if video and video.start_time and video.time_base else 0.0
        found = []
        for packet in container.demux(tracks[0]) if tracks else ():
            if packet.pts is None or not packet.duration:
                continue
            start = float(packet.pts * packet.time_base) - origin
            end = start + float(packet.duration * packet.time_base)
            texts = [_plain(part) for part in tracks[0].decode(packet) if isinstance(part, AssSubtitle)]
            found.append(SubtitleLine(text="\n".join(filter(None, texts)), start_seconds=start, end_seconds=end))
    return found


def _plain(part: AssSubtitle) -> str:
    """Return the text of a line of SubStation Alpha, as which FFmpeg decodes all subtitles: eight fields come first."""
    import pysubs2

    line = part.ass.decode("utf-8", "replace")
    return pysubs2.SSAEvent(text=line.split(",", 8)[-1]).plaintext.strip()
