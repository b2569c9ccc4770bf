"""Read the subtitle tracks and the sound of a video, with times from its first frame.

A moment counts its seconds from the first frame of the video, but a file may begin with sound, or at another time than
0. Times in a track are those of the file; those in a file beside the video count from where a player starts.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.stream import Discard

from vop.errors import VideoError
from vop.search.words.lines import Line, plain
from vop.storage.address import Address
from vop.storage.objects import ObjectInfo, head, read_range
from vop.video.clock import Clock, may_jump
from vop.video.source import OPTIONS, open_video, packets_of
from vop.video.timeline import TimelineReader

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

READER_VERSION = "1"  # of this module; another one reads the tracks again
SAMPLE_RATE = 16_000
BLOCK_SECONDS = 10
_IMAGES = {
    "hdmv_pgs_subtitle": "PGS",
    "pgssub": "PGS",
    "dvd_subtitle": "VobSub",
    "dvdsub": "VobSub",
    "dvb_subtitle": "DVB",
    "dvbsub": "DVB",
    "xsub": "XSUB",
}
_FIRST_PACKETS = 64  # of a video; the first frame is among them, however frames are reordered
_PAUSE_SECONDS = 0.1  # in the sound; a shorter one is an inexact time
_LONGEST_PAUSE_SECONDS = 3600.0
_READ_BYTES = 2**20  # of one request to object storage


@dataclass(kw_only=True)
class Tracks:
    """The subtitle tracks of a video.

    Attributes:
        lines: those of the tracks with text.
        skipped: why tracks were not read, one reason for each.
        start_seconds: where a player starts, from the first frame: 0, or less if the sound begins earlier.
    """

    lines: list[Line] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    start_seconds: float = 0.0


class NoSound(VideoError):
    """A video has no audio track."""


def read_tracks(place: Path | str) -> Tracks:
    """Read the text of all subtitle tracks. Of an object, only the parts that this needs are read.

    Args:
        place: a file, or the address of an object as text.

    Raises:
        VideoError: the file cannot be opened.
        StorageError: the object cannot be read.
    """
    with _opened(place) as (container, video):
        first = _first_seconds(container, video)
        begin = 0.0 if container.start_time is None else container.start_time / 1_000_000
        found = Tracks(start_seconds=begin - first)
        readable = [stream for stream in container.streams.subtitles if _can_be_read(stream, found)]
        numbers = {stream.index for stream in readable}
    if numbers:
        with _opened(place) as (container, video):  # again, to read from the beginning
            found.lines = list(_lines(container, video, numbers, first))
    return found


def _can_be_read(stream: Stream, found: Tracks) -> bool:
    codec = stream.codec_context
    name = "unknown" if codec is None else codec.name
    if name in _IMAGES:
        found.skipped.append(f"{_name_of(stream)} has pictures of text ({_IMAGES[name]})")
    elif codec is None:
        found.skipped.append(f"{_name_of(stream)} has a format that FFmpeg does not read here")
    return name not in _IMAGES and codec is not None


def _name_of(stream: Stream) -> str:
    language = stream.metadata.get("language", "")
    return f"track {stream.index}" + (f" ({language})" if language not in ("", "und") else "")


def _lines(container: InputContainer, video: av.VideoStream, numbers: set[int], first_seconds: float) -> Iterator[Line]:
    clock, jumps = Clock(container), may_jump(container)
    for stream in container.streams:
        is_clock = jumps and stream.type in ("audio", "video")
        stream.discard = Discard.default if stream.index in numbers or is_clock else Discard.all
    streams = [stream for stream in container.streams if stream.discard is not Discard.all]
    for packet in packets_of(container, *streams):
        clock.set(packet)
        if packet.stream_index not in numbers or not packet.size or packet.pts is None:
            continue
        start = float(packet.pts * packet.time_base) - first_seconds
        seconds = float((packet.duration or 0) * packet.time_base)
        text = _text_of(packet)
        if text:
            yield Line(
                text=text,
                start_seconds=start,
                end_seconds=start + seconds,
                source=_name_of(packet.stream),
            )


def _text_of(packet: av.Packet[Stream]) -> str:
    """Return the text of a packet of subtitles; nothing of a damaged one."""
    try:
        parts = [part for part in packet.decode() if isinstance(part, av.subtitles.subtitle.AssSubtitle)]
    except (av.FFmpegError, ValueError):
        return ""
    texts = []
    for part in parts:
        # ASS as FFmpeg writes it: eight fields, and the text, which may have commas.
        raw = part.ass.decode("utf-8", "replace") if part.ass else part.text.decode("utf-8", "replace")
        body = raw.split(",", 8)[-1] if part.ass else raw
        if r"\p1" not in body:  # a drawing
            texts.append(plain(body))
    return " ".join(filter(None, texts))


def _first_seconds(container: InputContainer, video: av.VideoStream) -> float:
    """Return the time of the first frame in the file, as `vop.video.timeline` counts it."""
    reader, clock = TimelineReader(video), Clock(container)
    for number, packet in enumerate(packets_of(container, video)):
        clock.set(packet)
        reader.take(packet)
        if number >= _FIRST_PACKETS:
            break
    timeline = reader.timeline()
    if timeline is None:
        return 0.0
    return float(timeline.stamps[0] * timeline.time_base)


# -- sound


def read_sound(place: Path | str) -> Generator[np.ndarray, None, float]:
    """Yield the sound of a video in blocks of a few seconds, int16 (samples,): 16 kHz, mono.

    The first sample is at the first frame, so that a sample's position is its time in the video. Pauses are silent.

    Returns:
        the duration of the sound in seconds.

    Raises:
        NoSound: the video has no audio track.
        VideoError: it cannot be decoded at all. If it breaks off, the sound ends there.
    """
    with _opened(place) as (container, video):
        first = _first_seconds(container, video)
    with _opened(place) as (container, video):
        sounds = container.streams.audio
        if not sounds:
            raise NoSound(place, "it has no audio track")
        if sounds[0].codec_context is None:
            raise VideoError(place, "FFmpeg has no decoder for its audio track")
        blocks = _Blocks()
        for frame in _frames_of_sound(container, sounds[0], video):
            blocks.take(frame, first)
            yield from blocks.full()
        blocks.finish()
        if not blocks.has_sound:
            raise VideoError(place, "its audio track cannot be decoded")
        yield from blocks.full(all=True)
    return blocks.seconds


def _frames_of_sound(
    container: InputContainer, sound: av.AudioStream, video: av.VideoStream
) -> Iterator[av.AudioFrame]:
    clock, jumps = Clock(container), may_jump(container)
    streams: list[Stream] = [sound, video] if jumps else [sound]
    for stream in container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all
    for packet in packets_of(container, *streams):
        clock.set(packet)
        if packet.stream_index != sound.index:
            continue
        try:
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    yield frame
        except (av.FFmpegError, ValueError):
            continue  # a damaged packet


class _Blocks:
    """Collects frames of sound at their times, as blocks of samples."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self._parts: list[np.ndarray] = []
        self._length = 0  # of these
        self._position = 0  # of the next sample
        self.has_sound = False

    @property
    def seconds(self) -> float:
        return self._position / SAMPLE_RATE

    def take(self, frame: av.AudioFrame, first_seconds: float) -> None:
        if frame.pts is not None and frame.time_base is not None:
            due = float(frame.pts * frame.time_base) - first_seconds
            gap = due - self.seconds
            if abs(gap) > _PAUSE_SECONDS and gap < _LONGEST_PAUSE_SECONDS:
                self._move(round(gap * SAMPLE_RATE))
        frame.pts = None  # the resampler would fill pauses by its own rules
        for part in self._resampler.resample(frame):
            self._add(part.to_ndarray().reshape(-1))

    def _move(self, samples: int) -> None:
        """Add silence, or go back to before the first frame. Sound that is late keeps its place."""
        if samples > 0:
            self._append(np.zeros(samples, np.int16))
        elif not self._length and self._position <= 0:
            self._position += samples

    def _add(self, samples: np.ndarray) -> None:
        self.has_sound = True
        self._append(samples.astype(np.int16))

    def _append(self, samples: np.ndarray) -> None:
        early = min(max(-self._position, 0), len(samples))
        self._position += len(samples)
        if early < len(samples):
            self._parts.append(samples[early:])
            self._length += len(samples) - early

    def finish(self) -> None:
        for part in self._resampler.resample(None):
            self._add(part.to_ndarray().reshape(-1))

    def full(self, *, all: bool = False) -> Iterator[np.ndarray]:
        size = BLOCK_SECONDS * SAMPLE_RATE
        if self._length >= size or (all and self._length):
            yield np.concatenate(self._parts)
            self._parts, self._length = [], 0


# -- objects


@contextmanager
def _opened(place: Path | str) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    if isinstance(place, Path):
        with open_video(place) as opened:
            yield opened
        return
    file = io.BufferedReader(_ObjectFile(place), _READ_BYTES)
    try:
        container = av.open(file, "r", options=dict(OPTIONS), metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(place, getattr(error, "strerror", None) or str(error)) from error
    with container:
        videos = [stream for stream in container.streams.video if stream.codec_context is not None]
        if not videos:
            raise VideoError(place, "it contains no video")
        yield container, max(videos, key=lambda stream: stream.codec_context.width * stream.codec_context.height)


class _ObjectFile(io.RawIOBase):
    """An object as a file that is read in parts."""

    def __init__(self, address: str) -> None:
        from vop.storage.address import parse_address

        self._info: ObjectInfo = head(parse_address(address))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._info.size)
        if end <= self._position:
            return 0
        content = read_range(self._info, self._position, end)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def source_of(place: Path | Address) -> Path | str:
    """Return how to name a video to `read_tracks` and `read_sound`."""
    return place if isinstance(place, Path) else str(place)
