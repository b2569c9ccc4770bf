"""The results of a library: moments found by a search, segments, videos, and its status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vop.errors import UsageError
from vop.search.filters import METADATA

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCORE = "_score"
LIGHT = ["segment", "path", "duration_seconds", "date", "plays_in_browsers"]  # the columns that make a moment

# Returns the nearest `limit` segments (fewer if the table has fewer), best first, with the light columns and SCORE.
NearestRows = Callable[[int], "pa.Table"]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A clip of a video that a search found.

    Attributes:
        segment: the segment's id in the library.
        video: the video's id in the library.
        path: the video's file.
        start_seconds, end_seconds: where the clip lies in the video, from its first frame.
        score: cosine similarity with the query.
        duration_seconds: duration of the whole video.
        date: when the video was recorded, ISO 8601.
        plays_in_browsers: whether a browser plays the file as it is.
        columns: the video's values in the columns of the owner's metadata, without empty ones.
        others: the number of further moments of the video that match and are not among the results; 0 if unknown.
        copies: the paths of near-duplicates that were found, too, and stand behind this moment.
        confidence: the share, from 0 to 1, of captions that describe nothing in the library and match their best moment
            less well (`vop.search.confidence`); None if unknown: if the query is not a sentence, or in a library that
            is not calibrated.
        is_weak: whether the confidence is below the divider "weaker matches".
    """

    segment: str
    video: str
    path: str
    start_seconds: float
    end_seconds: float
    score: float
    duration_seconds: float
    date: str
    plays_in_browsers: bool
    columns: dict[str, str]
    others: int = 0
    copies: tuple[str, ...] = ()
    confidence: float | None = None
    is_weak: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of a video, with its embeddings.

    Attributes:
        segment: its id in the library.
        video: the video's id in the library.
        strip: thumbnail strip, JPEG.
        embeddings: one for each of the library's models: float32 (e,), of unit length.
    """

    segment: str
    video: str
    path: str
    start_seconds: float
    end_seconds: float
    strip: bytes
    embeddings: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class IndexedVideo:
    """A video's file as it was when it was indexed, and how to play it."""

    path: str
    size: int
    mtime_ns: int
    duration_seconds: float
    plays_in_browsers: bool


@dataclass(frozen=True, kw_only=True)
class VideoRecord:
    """A video of a library, with the state of its file at the time of the indexing.

    Attributes:
        video: the video's id, a hash of the file's content.
        metadata: values by column of the owner's metadata; None if the video has no value.
        volume: the filesystem of the file, if known.
    """

    video: str
    path: str
    size: int
    mtime_ns: int
    metadata: dict[str, str | None]
    volume: str | None = None


@dataclass(frozen=True, kw_only=True)
class IndexingStatus:
    """The progress of a running indexing: files, hours of video, and its speed in hours of video per hour."""

    done: int = 0
    total: int = 0
    hours: float = 0.0
    hours_per_hour: float = 0.0
    seconds_left: float | None = None
    current: str = ""


@dataclass(frozen=True, kw_only=True)
class LibraryStatus:
    """The size and state of a library.

    Attributes:
        hours: the duration of all videos.
        outdated: videos that an earlier version of the decoder read.
        failures: files that are not, or only in part, in the library: unreadable and partial ones. Duplicates are
            counted separately.
        columns: the columns of the owner's metadata.
        index: the progress of an indexing; None if none is running.
    """

    segments: int
    videos: int
    hours: float
    outdated: int
    failures: int
    unreadable: int
    partial: int
    duplicates: int
    columns: list[str]
    index: IndexingStatus | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def best_of_videos(nearest: NearestRows, k: int) -> list[Moment]:
    """Return the best segment of each of the k best videos.

    Segments of one video are similar, so finding k videos can take many more than k rows: the search is repeated with
    a larger limit until it finds enough.
    """
    from vop.search.schema import video_of

    check_k(k)
    limit = 4 * k + 16
    while True:
        rows = nearest(limit)
        best: dict[str, int] = {}
        for row, segment in enumerate(rows.column("segment").to_pylist()):
            best.setdefault(video_of(segment), row)
        if len(best) >= k or len(rows) < limit:
            chosen = list(best.values())[:k]
            return [moment_of(row) for row in rows.take(chosen).to_pylist()] if chosen else []
        limit *= 4


def check_k(k: int) -> None:
    """Raise a UsageError if k is less than 1."""
    if k < 1:
        raise UsageError(f"k is {k}; ask for 1 moment or more")


def moment_of(row: Mapping[str, Any]) -> Moment:
    """Convert a row of the light columns, with its score."""
    from vop.search.schema import clip_of, video_of  # imports NumPy and Arrow, which the types above do not need

    start, end = clip_of(row["segment"])
    return Moment(
        segment=row["segment"],
        video=video_of(row["segment"]),
        path=row["path"],
        start_seconds=start,
        end_seconds=end,
        score=float(row[SCORE]),
        duration_seconds=row["duration_seconds"],
        date=row["date"],
        plays_in_browsers=row["plays_in_browsers"],
        columns={
            name.removeprefix(METADATA): value
            for name, value in row.items()
            if name.startswith(METADATA) and value is not None
        },
    )
