"""What becomes of one file in an indexing: known content, a copy, or segments that are cut out and decoded."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from vop.errors import UsageError, VideoError
from vop.search.about import BY_SHOTS
from vop.search.frames import SegmentFrames
from vop.search.library import Known, Library
from vop.search.metadata import Metadata
from vop.search.pipeline import Piece
from vop.search.rows import VideoFile, in_milliseconds, segment_id
from vop.search.segments import Span, shots, windows
from vop.search.strip import film_strip_jpeg
from vop.search.walk import FoundFile
from vop.video.decode import open_video, video_timeline
from vop.video.playable import plays_in_browsers
from vop.video.stretches import decode_stretches
from vop.video.timeline import Timeline

T = TypeVar("T")
_SAME_SECONDS = 0.1


@dataclass(frozen=True)
class KnownContent:
    """A file whose content is in the library already: as `video`, so far at the path `before`."""

    video: str
    before: str


@dataclass(frozen=True)
class Copy:
    """A file with the content of another one."""

    of: str


@dataclass(frozen=True)
class Decoded:
    """A file that was decoded."""

    file: VideoFile
    damaged: int  # segments
    segments: int


class Reader:
    """Reads files for a library; safe from several threads.

    Args:
        known: what the library had before, by path.
    """

    def __init__(self, library: Library, known: Mapping[str, Known], metadata: Metadata) -> None:
        self._about = library.about
        self._known, self._metadata = known, metadata
        self._by_video = {video.video: video for video in known.values()}
        self._sizes = {video.size for video in known.values()}
        self._claimed: dict[str, str] = {}
        self._claiming, self._counting = threading.Lock(), threading.Lock()
        self.seconds = 0.0  # of video that was decoded so far
        self._frames = SegmentFrames.of(library.about, library.path)

    def is_new(self, video: str) -> bool:
        """Whether the library had no such content."""
        return video not in self._by_video

    def decode(self, file: FoundFile) -> Generator[Piece, None, KnownContent | Copy | Decoded]:
        try:
            # What is no video is told from its beginning, and two copies of it are no copies of a video.
            timeline = None if file.size in self._sizes else video_timeline(file.path)
            video = content_id(file.path)
            if timeline is None and video not in self._by_video:
                timeline = video_timeline(file.path)
            found = self._claim(file, video)
            if found is not None:
                return found
            return (yield from self._segments(file, video, timeline or video_timeline(file.path)))
        except FileNotFoundError:
            raise VideoError(file.path, "it was removed during the indexing") from None
        except PermissionError:
            raise VideoError(file.path, "permission denied") from None

    def _claim(self, file: FoundFile, video: str) -> KnownContent | Copy | None:
        """What is known of a file's content; None if it is this file's to bring in."""
        path = str(file.path)
        with self._claiming:
            first = self._claimed.setdefault(video, path)
        if first != path:
            return Copy(first)
        known = self._by_video.get(video)
        if known is None:
            return None
        if known.path == path or not os.path.lexists(known.path):
            return KnownContent(video, known.path)
        return Copy(known.path) if is_as_it_was(known) else None

    def _segments(self, file: FoundFile, video: str, timeline: Timeline) -> Generator[Piece, None, Decoded]:
        about = self._about
        spans = [in_milliseconds(span) for span in self._cut(file.path, timeline.duration_seconds)]
        sizes = {"num_frames": about.num_frames, "size": about.image_size}
        damaged = 0
        stretches = decode_stretches(file.path, spans, timeline=timeline, **sizes)
        for span, stretch in zip(spans, stretches, strict=True):
            if isinstance(stretch, VideoError):
                damaged += 1
                continue
            with self._counting:
                self.seconds += timeline.duration_seconds / len(spans)
            if self._frames:
                self._frames.write(segment_id(video, span), stretch.frames)
            yield Piece(span, stretch.frames, film_strip_jpeg(stretch.pictures), 1 / len(spans))
        if damaged == len(spans):
            raise VideoError(file.path, "more than half of the wanted frames of every segment are damaged")
        read = VideoFile(
            video=video,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            duration_seconds=timeline.duration_seconds,
            date=recorded_at(file),
            plays_in_browsers=plays_in_browsers(file.path) and _begins_at_zero(timeline),
            metadata=self.metadata_of(file),
        )
        return Decoded(read, damaged, len(spans))

    def _cut(self, path: Path, duration_seconds: float) -> list[Span]:
        cutting = self._about.cutting
        lengths = {"window_seconds": cutting.window_seconds, "overlap_seconds": cutting.overlap_seconds}
        if cutting.by == BY_SHOTS:
            return shots(path, **lengths)
        try:
            return windows(duration_seconds, **lengths)
        except UsageError as error:  # of a duration that only a broken file has
            raise VideoError(path, str(error)) from None

    def metadata_of(self, file: FoundFile) -> dict[str, str]:
        """What the table says now, or else what was known at this path."""
        known = self._known.get(str(file.path))
        before = {} if known is None else {name: value for name, value in known.metadata.items() if value is not None}
        return before | dict(self._metadata.of(file.path))


def _begins_at_zero(timeline: Timeline) -> bool:
    """Whether a player's clock, which starts at 0, and ours, which starts with the first frame, say the same."""
    return timeline.ordinal or abs(timeline.stamps[0] * timeline.time_base) < _SAME_SECONDS


def content_id(path: Path) -> str:
    """SHA-256 of a file's content, its first 32 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def recorded_at(file: FoundFile) -> str:
    """When a video was recorded if its header says so, else when the file was changed; ISO 8601, UTC."""
    with open_video(file.path) as (container, _):
        said = container.metadata.get("creation_time", "")
    recorded = _in_utc(datetime.fromisoformat, said)
    if recorded is None or recorded.year < 1980:  # cameras without a clock, and files that count from 1904
        recorded = _in_utc(datetime.fromtimestamp, file.mtime_ns / 1e9) or datetime.fromtimestamp(0, UTC)
    return recorded.isoformat(timespec="seconds")


def _in_utc(read: Callable[[T], datetime], value: T) -> datetime | None:
    """A moment; None where it is none, or in a year that Python does not know."""
    try:
        return read(value).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def is_as_it_was(known: Known) -> bool:
    """Whether a video's file has the size and time of change that it had."""
    try:
        state = os.stat(known.path)
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (known.size, known.mtime_ns)
