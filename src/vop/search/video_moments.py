"""All moments of a video: which of its segments match a query, and which of these belong together.

Let x be the scores of the video's segments in order of time, m their mean and b the best one.

- A segment matches if x >= m + 0.5 (b - m). The best segment always matches.
- Matching segments that overlap or touch form a run.
- A run is divided at a valley: at its segment that lies deepest below the lower one of the peaks before and after it,
  if it lies more than 0.2 (b - m) below. The segment of the valley stays with the peak whose side is less steep.
- Each part of a run is a moment: from the start of its first segment to the end of its last one, with the score, the id
  and the thumbnail strip of its best segment. In a library that keeps the embeddings of frames, its ends are refined.

`docs/evaluation.md` has the measurement from which the rule and the constants come (`bench/video_moments.py`).

Shapes: `n` segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vop.errors import UsageError
from vop.search.results import SCORE, Moment, moment_of
from vop.search.schema import clip_of, video_of

FLOOR = 0.5  # of the way from the mean score to the best one
DEPTH = 0.2  # of a valley, in the same unit
TOUCHING = 0.002  # seconds; ends of segments are rounded to milliseconds

_VIDEOS = 16  # whose segments are read at a time

Numbers = NDArray[np.float64]

# Returns all segments of these videos, in their order in the video, with the light columns and SCORE.
ScoredRows = Callable[[Sequence[str]], pa.Table]


@dataclass(frozen=True, kw_only=True)
class ScoredSegment:
    """A segment of a video, and its score for a query."""

    segment: str
    start_seconds: float
    end_seconds: float
    score: float


@dataclass(frozen=True, kw_only=True)
class VideoMoments:
    """What a query finds in one video.

    Attributes:
        moments: the moments that match, best first.
        segments: all segments of the video with their scores, in order of time.
        floor: the score from which on a segment matches.
    """

    moments: list[Moment]
    segments: list[ScoredSegment]
    floor: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """The segments of one moment, by their places in the video: the first, the last, and the best one."""

    first: int
    last: int
    best: int


def floor_of(scores: Numbers) -> float:
    """Return the score from which on a segment matches."""
    best, mean = float(scores.max()), float(scores.mean())
    return min(best, mean + FLOOR * (best - mean))


def parts_of(starts: Numbers, ends: Numbers, scores: Numbers) -> list[Part]:
    """Return the moments of one video, best first; of equal scores, the earlier one.

    Args:
        starts, ends, scores: (n,) of the video's segments, in order of time.
    """
    if not len(scores):
        return []
    matches = scores >= floor_of(scores)
    depth = DEPTH * max(0.0, float(scores.max() - scores.mean()))
    parts = [
        part
        for first, last in _runs(matches, starts, ends)
        for part in _divided(scores[first : last + 1], depth, offset=first)
    ]
    return sorted(parts, key=lambda part: -scores[part.best])


def _runs(matches: NDArray[np.bool_], starts: Numbers, ends: Numbers) -> Iterator[tuple[int, int]]:
    """Yield the first and last place of each run of matching segments that overlap or touch."""
    places: list[int] = np.flatnonzero(matches).tolist()
    first = places[0]
    for place, following in pairwise(places):
        if following > place + 1 or starts[following] > ends[place] + TOUCHING:
            yield first, place
            first = following
    yield first, places[-1]


def _divided(scores: Numbers, depth: float, *, offset: int) -> Iterator[Part]:
    """Yield the parts of a run, divided at its valleys."""
    valley = _deepest_valley(scores, depth)
    if valley is None:
        yield Part(offset, offset + len(scores) - 1, offset + int(scores.argmax()))
        return
    belongs_left = scores[valley - 1] - scores[valley] <= scores[valley + 1] - scores[valley]
    cut = valley + 1 if belongs_left else valley
    yield from _divided(scores[:cut], depth, offset=offset)
    yield from _divided(scores[cut:], depth, offset=offset + cut)


def _deepest_valley(scores: Numbers, depth: float) -> int | None:
    """Return the place of the segment that lies deepest below the highest ones before and after it."""
    if len(scores) < 3:
        return None
    before, after = np.maximum.accumulate(scores)[:-2], np.maximum.accumulate(scores[::-1])[::-1][2:]
    depths = np.minimum(before, after) - scores[1:-1]
    deepest = int(depths.argmax())
    return 1 + deepest if depths[deepest] > depth else None


# -- moments of a library


@dataclass(frozen=True)
class Span:
    """A moment, and the number of its segments before and after the best one."""

    moment: Moment
    before: int
    after: int


def spans_of(rows: pa.Table) -> list[Span]:
    """Return the moments of one video, best first, given all of its rows as `ScoredRows` returns them."""
    clips = np.array([clip_of(segment) for segment in rows.column("segment").to_pylist()]).reshape(-1, 2)
    spans = []
    for part in parts_of(clips[:, 0], clips[:, 1], scores_of(rows)):
        (row,) = rows.slice(part.best, 1).to_pylist()
        start, end = float(clips[part.first, 0]), float(clips[part.last, 1])
        moment = replace(moment_of(row), start_seconds=start, end_seconds=end)
        spans.append(Span(moment, part.best - part.first, part.last - part.best))
    return spans


def in_video(rows: pa.Table, moments: list[Moment]) -> VideoMoments:
    """Return the moments of a video together with its segments, given all of its rows as `ScoredRows` returns them."""
    scores = scores_of(rows)
    segments = []
    for segment, score in zip(rows.column("segment").to_pylist(), scores.tolist(), strict=True):
        start, end = clip_of(segment)
        segments.append(ScoredSegment(segment=segment, start_seconds=start, end_seconds=end, score=score))
    return VideoMoments(moments=moments, segments=segments, floor=floor_of(scores))


def scores_of(rows: pa.Table) -> Numbers:
    return rows.column(SCORE).to_numpy().astype(np.float64)


def by_video(rows: pa.Table) -> dict[str, pa.Table]:
    """Divide rows that are sorted by video."""
    videos = np.array([video_of(segment) for segment in rows.column("segment").to_pylist()], dtype=object)
    firsts = [0, *(1 + np.flatnonzero(videos[1:] != videos[:-1])).tolist(), len(videos)]
    return {videos[first]: rows.slice(first, last - first) for first, last in pairwise(firsts) if last > first}


def best_spans(best: Sequence[Moment], read: ScoredRows, *, k: int, per_video: int) -> list[Span]:
    """Return the k best moments, up to `per_video` of each video, best first.

    Args:
        best: the best segments of the k best videos, best first. Other videos have no moment that is among the k best.

    Returns:
        moments; `others` is the number of further moments of the video that are not among them.
    """
    found: list[Span] = []
    counts: dict[str, int] = {}
    for start in range(0, len(best), _VIDEOS):
        if len(found) >= k and found[k - 1].moment.score >= best[start].score:
            break
        rows = by_video(read([moment.video for moment in best[start : start + _VIDEOS]]))
        for video, own in rows.items():
            spans = spans_of(own)
            counts[video] = len(spans)
            found += spans[:per_video]
        found.sort(key=lambda span: -span.moment.score)
    return with_others(found[:k], counts)


def with_others(spans: Sequence[Span], counts: Mapping[str, int]) -> list[Span]:
    """Return the moments with the number of further ones of their videos, of which there are `counts`."""
    shown = Counter(span.moment.video for span in spans)
    return [
        replace(span, moment=replace(span.moment, others=counts[span.moment.video] - shown[span.moment.video]))
        for span in spans
    ]


def check_per_video(per_video: int) -> None:
    """Raise a UsageError if `per_video` is less than 1."""
    if per_video < 1:
        raise UsageError(f"per_video is {per_video}; ask for 1 moment of each video or more")
