"""Count frames as video editors do: the rate of a file, its start timecode, and timecodes (SMPTE ST 12-1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import ceil, floor
from pathlib import Path
from typing import Any

import av

from vop.video.completing import FrameCompleter
from vop.video.shape import display_matrix, display_size, sample_aspect
from vop.video.source import open_video, packets_of
from vop.video.timeline import DEFAULT_RATE, is_mp4

RATES = tuple(
    Fraction(*rate)
    for rate in [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1)]
)  # frames per second that every editor knows
_SAME_RATE = Fraction(1, 2500)  # relative; 24 and 23.976 differ by a thousandth
_NEAR = 0.05  # frames; times of segments, and those in Matroska, are rounded
_SAMPLE = 300  # packets that tell whether the rate varies, in files without an index
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d\d+)")
_SECONDS_PER_DAY = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Source:
    """A video file as editors see it.

    Attributes:
        path: its path or address in the library.
        url: its address in a list for editors.
        duration_seconds: of the whole video.
        rate: frames per second that times are counted in.
        average_rate: frames per second, if they vary; else None.
        start_frame: the number of its first frame, from its timecode.
        has_timecode: whether the file has one.
        drop_frame: whether its timecode skips numbers, so that it runs with the clock.
        width, height: the displayed size.
        channels, sample_rate: of its main audio; 0 if it is silent.
    """

    path: str
    url: str
    duration_seconds: float
    rate: Fraction
    average_rate: Fraction | None = None
    start_frame: int = 0
    has_timecode: bool = False
    drop_frame: bool = False
    reel: str | None = None
    width: int = 1920
    height: int = 1080
    channels: int = 0
    sample_rate: int = 0

    @property
    def num_frames(self) -> int:
        return max(ceil(self.duration_seconds * self.rate - _NEAR), 1)

    def frames(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """Return the first frame that is shown in a clip, and the number of its frames, at least 1."""
        first = min(max(floor(start_seconds * self.rate + _NEAR), 0), self.num_frames - 1)
        end = min(ceil(end_seconds * self.rate - _NEAR), self.num_frames)
        return first, max(end - first, 1)


def read_source(file: Path, *, path: str, url: str, duration_seconds: float) -> Source:
    """Describe a video file from its header, its first packets and its first frame.

    Args:
        file: the file on this machine.

    Raises:
        VideoError: the file cannot be read.
    """
    with open_video(file) as (container, stream):
        average = Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)
        tags = _tags(container, stream)
        audio = container.streams.best("audio")
        varies = _varies(container, stream, average)
        rate = nearest_rate(average) if varies else exact_rate(average)
        found: dict[str, Any] = {}
        timecode = parse_timecode(tags.get("timecode", ""), rate)
        if timecode:
            found = {"start_frame": timecode[0], "has_timecode": True, "drop_frame": timecode[1]}
        if isinstance(audio, av.AudioStream) and audio.codec_context is not None:
            found |= {"channels": audio.codec_context.channels, "sample_rate": audio.codec_context.sample_rate}
    width, height = _size(file)
    return Source(
        path=path,
        url=url,
        duration_seconds=duration_seconds,
        rate=rate,
        average_rate=average if varies else None,
        reel=tags.get("reel_name"),
        width=width,
        height=height,
        **found,
    )


def _tags(container: av.container.InputContainer, video: av.VideoStream) -> dict[str, str]:
    """Return the file's tags in small letters; those of its video come first, then those of timecode tracks."""
    found: dict[str, str] = {}
    for tags in (video.metadata, *(stream.metadata for stream in container.streams), container.metadata):
        for name, value in tags.items():
            found.setdefault(name.lower(), value)
    return found


def _size(file: Path) -> tuple[int, int]:
    with open_video(file) as (container, stream):
        width, height, matrix = stream.codec_context.width, stream.codec_context.height, None
        completer = FrameCompleter(stream)
        for packet in islice(packets_of(container, stream), _SAMPLE):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                continue
            if frames:
                frame = completer.complete(frames[0])
                width, height = frame.width, frame.height
                matrix = display_matrix(frame, stream.codec_context.name)
                break
        return display_size(width, height, aspect=sample_aspect(stream), matrix=matrix)


def _varies(container: av.container.InputContainer, stream: av.VideoStream, average: Fraction) -> bool:
    """Return whether frames are more than half a frame away from where a constant rate puts them."""
    if stream.time_base is None:
        return False
    if is_mp4(container) and len(stream.index_entries):
        stamps = [entry.timestamp for entry in stream.index_entries if entry.size]  # decoding times, in their order
    else:
        packets = islice(packets_of(container, stream), _SAMPLE)
        stamps = sorted(packet.pts for packet in packets if packet.size and packet.pts is not None)
    per_frame = 1 / (average * stream.time_base)
    if len(stamps) < 3 or not per_frame:
        return False
    off = [stamp - stamps[0] - place * per_frame for place, stamp in enumerate(stamps)]
    return max(off) - min(off) > per_frame


def exact_rate(rate: Fraction) -> Fraction:
    """Return the standard rate that a file's rate stands for, else the rate itself."""
    near = min(RATES, key=lambda known: abs(known - rate))
    return near if abs(near - rate) <= _SAME_RATE * near else rate.limit_denominator(1001)


def nearest_rate(rate: Fraction) -> Fraction:
    """Return the standard rate that is nearest."""
    return min(RATES, key=lambda known: abs(known - rate))


def sequence_rate(rate: Fraction) -> Fraction:
    """Return the standard rate of a timeline for a file: its own, a multiple, a part, or else the nearest."""
    for known in RATES:
        if (known / rate).denominator == 1:
            return known
    parts = [known for known in RATES if (rate / known).denominator == 1]
    return parts[-1] if parts else nearest_rate(rate)


def drops_frames(rate: Fraction) -> bool:
    """Return whether timecodes of this rate may be drop-frame: 29.97 and 59.94."""
    return rate.denominator == 1001 and round(rate) % 30 == 0


def parse_timecode(text: str, rate: Fraction) -> tuple[int, bool] | None:
    """Return the number of a timecode's frame, and whether it is drop-frame; None if it is not a timecode."""
    found = _TIMECODE.fullmatch(text.strip())
    if not found:
        return None
    hours, minutes, seconds, mark, frames = found.groups()
    drop = mark != ":" and drops_frames(rate)
    whole = 60 * int(hours) + int(minutes)
    number = (60 * whole + int(seconds)) * round(rate) + int(frames)
    return number - (_dropped(rate) * (whole - whole // 10) if drop else 0), drop


def timecode(frame: int, rate: Fraction, *, drop_frame: bool = False) -> str:
    """Format a frame's number as a timecode, with a semicolon before the frames if it is drop-frame."""
    whole = round(rate)
    if drop_frame:
        dropped = _dropped(rate)
        tens, rest = divmod(frame, 600 * whole - 9 * dropped)
        minutes = max(rest - dropped, 0) // (60 * whole - dropped)
        frame += dropped * (9 * tens + minutes)
    seconds, frames = divmod(frame, whole)
    minutes, seconds = divmod(seconds % _SECONDS_PER_DAY, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{';' if drop_frame else ':'}{frames:02d}"


def _dropped(rate: Fraction) -> int:
    """Return the numbers that each minute skips, except each tenth: 2 at 29.97."""
    return round(rate) // 15
