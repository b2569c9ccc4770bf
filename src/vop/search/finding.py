"""Find moments in the table of segments: by a vector, by words, and in one video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vop.search.filters import quoted
from vop.search.manifest import LibraryModel
from vop.search.nearest import Nearest
from vop.search.refining import FrameScores, refined_moment
from vop.search.results import SCORE, Moment, best_of_videos, light_columns
from vop.search.rows import Rows
from vop.search.schema import matrix
from vop.search.video_moments import Span, VideoMoments, best_spans, check_per_video, in_video, spans_of
from vop.search.words.in_video import with_words
from vop.search.words.query import WordsQuery
from vop.search.words.searching import WordsSearch
from vop.search.words.table import Words

if TYPE_CHECKING:
    from lancedb.table import Table


@dataclass(frozen=True)
class Finder:
    """Finds moments in a library.

    Attributes:
        table: the segments.
        words: the lines.
        nearest: finds the rows nearest to a vector.
        marked: adds the owner's tags and favourites to moments.
    """

    table: Table
    rows: Rows
    words: Words
    nearest: Nearest
    marked: Callable[[Sequence[Moment]], list[Moment]]

    def search(
        self,
        vector: np.ndarray,
        *,
        k: int,
        where: str | None,
        model: LibraryModel,
        leave_out: str | Sequence[str] | None = None,
        refine: bool,
        per_video: int,
    ) -> list[Moment]:
        """Return the best moments by a vector; see `Store.search`. `where` is the condition of the filters."""
        if leave_out:
            left_out = [leave_out] if isinstance(leave_out, str) else leave_out
            others = f"video NOT IN ({', '.join(map(quoted, left_out))})"
            where = " AND ".join(filter(None, [where, others]))
        check_per_video(per_video)
        nearest = self.nearest.to(vector, where, model.column)
        spans = [Span(moment, 0, 0) for moment in best_of_videos(nearest, k)]
        if per_video > 1:
            best = [span.moment for span in spans]
            read = partial(self.scored, vector=vector, column=model.column, where=where)
            spans = best_spans(best, read, k=k, per_video=per_video)
        return self._moments(spans, vector, model, refine=refine)

    def search_words(
        self,
        vector: np.ndarray | None,
        words: WordsQuery,
        *,
        k: int,
        where: str | None,
        model: LibraryModel,
        refine: bool,
        per_video: int,
        only: bool,
    ) -> list[Moment]:
        """Return the best moments by a vector and by words; see `Store.search_words`."""
        refine_later = refine and per_video == 1  # the ends of a few moments, rather than those of all candidates

        def seen(k: int) -> list[Moment]:
            assert vector is not None
            refine_now = refine and not refine_later
            return self.search(vector, k=k, where=where, model=model, refine=refine_now, per_video=per_video)

        search = WordsSearch(
            table=self.table, words=self.words, where=where, column=model.column, vector=vector, seen=seen
        )
        moments = search.search(words, k=k, only=only, per_video=per_video)
        if vector is None or not refine_later:
            return self.marked(moments)
        spans = [Span(moment, 0, 0) for moment in moments if moment.line is None]
        refined = {moment.segment: moment for moment in self._moments(spans, vector, model, refine=True)}
        return self.marked([refined.get(moment.segment, moment) for moment in moments])

    def in_video(
        self, video: str, vector: np.ndarray | None, *, model: LibraryModel, refine: bool, words: WordsQuery | None
    ) -> VideoMoments:
        """Return all moments of a video that match, and the scores of its segments; see `Store.moments`."""
        self.rows.row("video", video, ["segment"])
        nothing = np.zeros(model.embed_dim, np.float32)
        rows = self.scored([video], vector=nothing if vector is None else vector, column=model.column)
        seen = [] if vector is None else self._moments(spans_of(rows), vector, model, refine=refine)
        if words is None:
            return in_video(rows, seen)
        found = with_words(rows, seen, self.words.lines(video), words, by_pictures=vector is not None)
        return replace(found, moments=self.marked(found.moments))

    def scored(self, videos: Sequence[str], *, vector: np.ndarray, column: str, where: str | None = None) -> pa.Table:
        """Return the segments of these videos, sorted by video, then by time, with the light columns and scores.

        Args:
            where: a condition that they meet; that of tags does not hold for all segments of a video.
        """
        light = light_columns(self.table.schema.names)
        rows = self.rows.of_videos(videos, columns=[*light, column], where=where)
        scores = pa.array(matrix(rows.column(column)) @ vector, pa.float32())
        return rows.select(light).append_column(SCORE, scores)

    def _moments(self, spans: Sequence[Span], vector: np.ndarray, model: LibraryModel, *, refine: bool) -> list[Moment]:
        """Return the moments, with refined ends if the library keeps the embeddings of frames."""
        if not refine or model.frame_column is None:
            return self.marked([span.moment for span in spans])
        return self.marked(refined_spans(self.table, spans, vector, model.frame_column))


def refined_spans(table: Table, spans: Sequence[Span], vector: np.ndarray, column: str) -> list[Moment]:
    """Return moments with refined ends. One whose rows were removed meanwhile stays as it is.

    Args:
        vector: the query (e,).
        column: the embeddings of frames.
    """
    if not spans:
        return []
    rows = _around(table, spans, column)
    scores = {
        (row["video"], row["place"]): FrameScores.of(
            row[column], vector, start=row["start_seconds"], end=row["end_seconds"]
        )
        for row in rows
    }
    places = {row["segment"]: (row["video"], row["place"]) for row in rows}
    refined_moments = []
    for span in spans:
        moment = span.moment
        video, place = places.get(moment.segment, ("", 0))
        first, last = place - span.before, place + span.after
        own = [scores[key] for key in ((video, near) for near in range(first, last + 1)) if key in scores]
        if len(own) == last - first + 1:
            neighbours = scores.get((video, first - 1)), scores.get((video, last + 1))
            start, end = refined_moment(own, span.before, *neighbours)
            moment = replace(moment, start_seconds=start, end_seconds=end)
        refined_moments.append(moment)
    return refined_moments


def _around(table: Table, spans: Sequence[Span], column: str) -> list[dict[str, Any]]:
    """Return the rows of the segments of moments and of their neighbours in their videos.

    The first query reads small columns of whole videos, the second one embeddings of frames of a few rows.
    """
    names = ["segment", "video", "place"]
    videos = ", ".join(quoted(span.moment.video) for span in spans)
    own = table.search().where(f"video IN ({videos})").select(names).with_row_id(True).to_arrow().to_pylist()
    segments = {span.moment.segment: span for span in spans}
    near = {
        (row["video"], row["place"] + step)
        for row in own
        if (span := segments.get(row["segment"]))
        for step in range(-span.before - 1, span.after + 2)
    }
    ids = [row["_rowid"] for row in own if (row["video"], row["place"]) in near]
    if not ids:
        return []
    # A writer may move rows in between. Then these are others, or the query fails and is repeated.
    rows: list[dict[str, Any]] = (
        table.take_row_ids(ids).select([*names, "start_seconds", "end_seconds", column]).to_arrow().to_pylist()
    )
    return rows
