"""From the nearest segments to moments: the best segment of each video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pyarrow as pa

from vop.errors import UsageError
from vop.search.schema import LIGHT, METADATA, span_of, video_of

SCORE = "_score"

# The nearest `limit` segments, best first, with the light columns and SCORE; fewer only where there are no more.
Nearest = Callable[[int], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A stretch of a video that was found.

    Attributes:
        segment, video: ids in the library.
        score: cosine similarity with the query.
        duration_seconds: of the whole video.
        date: of the video, ISO 8601.
        columns: of the owner's metadata, those that the video has.
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

    def to_dict(self) -> dict:
        return asdict(self)


def best_of_videos(nearest: Nearest, k: int) -> list[Moment]:
    """The best segment of each of the k best videos.

    Segments of one video lie close together, so that k videos can take many more segments: more are asked for until
    there are enough.
    """
    if k < 1:
        raise UsageError(f"k is {k}; ask for 1 moment or more")
    limit = 4 * k + 16
    while True:
        found = nearest(limit)
        first: dict[str, int] = {}
        for place, segment in enumerate(found.column("segment").to_pylist()):
            first.setdefault(video_of(segment), place)
        if len(first) >= k or len(found) < limit:
            best = pa.array(list(first.values())[:k], pa.int64())
            return [moment_of(row) for row in found.take(best).to_pylist()]
        limit *= 4


def moment_of(row: dict) -> Moment:
    """A row of the light columns, with its score."""
    columns = {
        name.removeprefix(METADATA): value
        for name, value in row.items()
        if name.startswith(METADATA) and value is not None
    }
    start, end = span_of(row["segment"])
    return Moment(
        video=video_of(row["segment"]),
        start_seconds=start,
        end_seconds=end,
        score=float(row[SCORE]),
        columns=columns,
        **{name: row[name] for name in LIGHT},
    )
