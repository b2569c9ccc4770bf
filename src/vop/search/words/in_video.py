"""The moments of one video by pictures and by words: every line that matches is one, or belongs to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from vop.search.results import SCORE, Moment, moment_of
from vop.search.schema import clip_of, video_of
from vop.search.video_moments import VideoMoments, in_video
from vop.search.words.fusion import Said, by_words, fuse, weighted
from vop.search.words.lines import Line
from vop.search.words.phrases import joined_lines, matches
from vop.search.words.query import ENOUGH, WordsQuery
from vop.search.words.searching import shared_seconds
from vop.search.words.table import FoundLine


def matching_lines(lines: Sequence[Line], query: WordsQuery) -> list[tuple[Line, float]]:
    """Return the lines of a video that match, or two lines across which a phrase runs, each with its coverage."""
    if query.phrases:
        found = [line for line in lines if matches(line.text, query.phrases)]
        return [(line, 1.0) for line in [*found, *joined_lines(lines, query.phrases)]]
    shares = ((line, query.coverage(line.text)) for line in lines)
    return [(line, share) for line, share in shares if share >= ENOUGH]


def with_words(
    rows: pa.Table, seen: Sequence[Moment], lines: Sequence[Line], query: WordsQuery, *, by_pictures: bool
) -> VideoMoments:
    """Return the moments of a video: those that are seen, with their lines, and the segments of other lines.

    Args:
        rows: the segments of the video with their scores; see `vop.search.video_moments.ScoredRows`.
        seen: the moments by pictures; none unless `by_pictures`.
        lines: all lines of the video.
        by_pictures: whether pictures count. Otherwise the score of a segment is the coverage of its best line.
    """
    matching = matching_lines(lines, query)
    if not by_pictures:
        rows = _scored_by_words(rows, matching)
    segments = rows.to_pylist()
    said = [
        Said(moment_of(row), FoundLine(video_of(row["segment"]), line, 0.0), share)
        for line, share in matching
        for row in [max(segments, key=lambda row: shared_seconds(row["segment"], line))]
    ]
    most = len(seen) + len(said)
    order = weighted if by_pictures else by_words
    only_words = bool(query.phrases) or not by_pictures
    moments = fuse(seen, said, k=most, per_video=most, order=order, only_words=only_words)
    found = in_video(rows, moments)
    return found if by_pictures else replace(found, floor=ENOUGH)


def _scored_by_words(rows: pa.Table, matching: Sequence[tuple[Line, float]]) -> pa.Table:
    scores = []
    for segment in rows.column("segment").to_pylist():
        start, end = clip_of(segment)
        shares = [share for line, share in matching if line.start_seconds < end and line.end_seconds > start]
        scores.append(max(shares, default=0.0))
    place = rows.schema.get_field_index(SCORE)
    return rows.set_column(place, SCORE, pa.array(np.array(scores, np.float32)))
