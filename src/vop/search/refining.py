"""Refine the ends of a found segment by the embeddings of its frames.

A segment's ends come from the segmentation, not from what happens in the video. A library that keeps the embeddings of
frames can move them. Let s(t) be the cosine similarity of the query and the frame that is seen at time t, m the
similarity of the query and the mean of all frames of the video, and b the similarity of the segment's best frame. The
refined clip is the one that maximises

    integral of (s(t) - threshold) dt,    threshold = m + 0.4 (b - m)

among the clips that overlap the segment and reach at most half of its length beyond it, on either side. A clip begins
and ends where a frame's interval does, in milliseconds. The segment stays as it is if b <= m, or if it is the only one
of its video: then nothing shows which frames are not part of the moment.

`docs/evaluation.md` has the measurement from which the constants come.

Shapes: `n` segments, `f` frames of a segment, `e` width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.4
BEYOND = 0.5  # of the segment's length

_SCALE_BYTES = 4
_MOST = 127  # the largest int8
_TOUCHING = 0.002  # seconds; ends of segments are rounded to milliseconds

Floats = NDArray[np.float32]


# -- embeddings of frames, as bytes


def pack(embeddings: np.ndarray) -> NDArray[np.uint8]:
    """Convert embeddings (…, e) to bytes (…, e + 4): a float32, and e int8 that are to be multiplied by it."""
    scales = np.abs(embeddings).max(axis=-1, keepdims=True).astype("<f4") / _MOST
    numbers = np.rint(embeddings / np.where(scales > 0, scales, 1)).astype(np.int8)
    return np.concatenate([np.ascontiguousarray(scales).view(np.uint8), numbers.view(np.uint8)], axis=-1)


def unpack(packed: NDArray[np.uint8]) -> Floats:
    """Convert bytes (…, e + 4) to embeddings (…, e)."""
    scales = np.ascontiguousarray(packed[..., :_SCALE_BYTES]).view("<f4")
    return scales * packed[..., _SCALE_BYTES:].view(np.int8).astype(np.float32)


def values_of(packed: NDArray[np.uint8]) -> list[bytes]:
    """Return the values of a library's column for all segments of one video, given their packed frames (n, f, e + 4).

    A value has the mean of the frames of the whole video, and then the frames of the segment.
    """
    mean = pack(unpack(packed).mean(axis=(0, 1)))
    return [mean.tobytes() + frames.tobytes() for frames in packed]


# -- one clip


@dataclass(frozen=True)
class FrameScores:
    """A segment, and the similarities of the query with its frames and with the mean of the frames of its video."""

    start: float
    end: float
    frames: Floats
    of_video: float

    @classmethod
    def of(cls, value: bytes, query: np.ndarray, *, start: float, end: float) -> FrameScores:
        """Compare a query (e,) with a value of a library's column."""
        scores = unpack(np.frombuffer(value, np.uint8).reshape(-1, len(query) + _SCALE_BYTES)) @ query
        return cls(start, end, scores[1:], float(scores[0]))


def refined(
    found: FrameScores, before: FrameScores | None = None, after: FrameScores | None = None
) -> tuple[float, float]:
    """Return the start and end of the moment in a segment that was found.

    Args:
        before, after: its neighbours in the video, of which the nearer parts may be included.
    """
    return refined_moment([found], 0, before, after)


def refined_moment(
    segments: Sequence[FrameScores], best: int, before: FrameScores | None = None, after: FrameScores | None = None
) -> tuple[float, float]:
    """Return the start and end of a moment of several segments. It overlaps the best one.

    Args:
        segments: the moment's segments, in order of time. Where two overlap, the frames of the first one count.
        best: the place of the segment that matches best. Its length says how far the moment may reach beyond its
            first and last segment.
        before, after: their neighbours in the video, of which the nearer parts may be included.
    """
    found, start, end = segments[best], segments[0].start, segments[-1].end
    highest = float(found.frames.max())
    if highest <= found.of_video or (len(segments) == 1 and before is None and after is None):
        return start, end
    beyond = BEYOND * (found.end - found.start)
    own = [_part(segments[0], start, segments[0].end)]
    own += [_part(segment, max(segment.start, earlier.end), segment.end) for earlier, segment in pairwise(segments)]
    parts = [
        _part(before, start - beyond, start) if before and before.end >= start - _TOUCHING else None,
        *own,
        _part(after, end, end + beyond) if after and after.start <= end + _TOUCHING else None,
    ]
    edges = np.concatenate([part[0] for part in parts if part])  # (c, 2)
    scores = np.concatenate([part[1] for part in parts if part])
    threshold = found.of_video + THRESHOLD * (highest - found.of_video)
    first = sum(len(part[1]) for part in parts[: 1 + best] if part)
    run_start, run_end = _best_run(
        (scores - threshold) * (edges[:, 1] - edges[:, 0]), first=first, last=first + len(own[best][1]) - 1
    )
    refined_start = round(float(edges[run_start, 0]), 3)
    return refined_start, max(round(float(edges[run_end, 1]), 3), round(refined_start + 0.001, 3))


def _part(segment: FrameScores, start: float, end: float) -> tuple[np.ndarray, Floats]:
    """Return the frames' intervals (c, 2) between two times, and their scores (c,)."""
    edges = np.linspace(segment.start, segment.end, len(segment.frames) + 1)
    intervals = np.clip(np.stack([edges[:-1], edges[1:]], axis=1), start, end)
    kept = intervals[:, 1] > intervals[:, 0]
    return intervals[kept], segment.frames[kept]


def _best_run(gains: np.ndarray, *, first: int, last: int) -> tuple[int, int]:
    """Return the first and last place of the run with the largest sum that has a place from `first` to `last`.

    Of several such runs, it is the one that begins, and then ends, first.
    """
    sums = np.concatenate([[0.0], np.cumsum(gains, dtype=np.float64)])
    begins, ends = np.arange(last + 1), np.arange(first, len(gains))
    totals = np.where(ends >= begins[:, None], sums[ends + 1] - sums[begins][:, None], -np.inf)
    begin, end = np.unravel_index(int(totals.argmax()), totals.shape)
    return int(begin), first + int(end)
