"""The stage of a search that adds words: find lines, the segments in which they are, and fuse both with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vop.errors import UsageError
from vop.search.filters import METADATA, quoted
from vop.search.results import LIGHT, SCORE, Moment, moment_of
from vop.search.schema import clip_of, matrix, video_of
from vop.search.words import fusion
from vop.search.words.fusion import Order, Said, fuse
from vop.search.words.lines import Line
from vop.search.words.phrases import across_lines
from vop.search.words.query import ENOUGH, WordsQuery
from vop.search.words.table import FoundLine, Words

if TYPE_CHECKING:
    from lancedb.table import Table

WordsMode = bool | Literal["only"]
MODES: dict[str, WordsMode] = {"both": True, "only": "only", "none": False}  # as the command and the API name them

_LEAST_SEEN = 100  # moments by pictures that the words are fused with
_MOST_LINES = 10_000  # to look through for videos that pass a filter
_LINES_OF_VIDEO = 3  # that are looked at, for each moment of a video
_AT_ONCE = 100  # lines in one condition


def check_mode(words: object) -> None:
    """Raise a UsageError if `words` is not True, False or "only"."""
    if not (isinstance(words, bool) or words == "only"):
        raise UsageError(f"words is {words!r}; known: True, False, 'only'")


@dataclass(frozen=True)
class WordsSearch:
    """Searches the words of a library.

    Attributes:
        table: the segments.
        where: the condition of the filters; None for all videos.
        column, vector: the embeddings, and the query's (e,); None for a query without pictures.
        seen: returns the best moments by pictures of that many videos.
    """

    table: Table
    words: Words
    where: str | None
    column: str
    vector: np.ndarray | None
    seen: Callable[[int], list[Moment]]

    def search(
        self, query: WordsQuery, *, k: int, only: bool = False, per_video: int = 1, order: Order | None = None
    ) -> list[Moment]:
        """Return the k best moments, best first.

        Args:
            only: whether pictures do not count.
            per_video: the number of moments that one video may have.
            order: how to fuse; see `vop.search.words.fusion`.
        """
        said = self._said(query, videos=k + 10, lines=_LINES_OF_VIDEO * per_video)
        has_pictures = self.vector is not None and not only
        if has_pictures and not query.phrases and not said:
            return self.seen(k)
        if not has_pictures:
            said = [replace(one, moment=replace(one.moment, score=one.coverage)) for one in said]
            return fuse([], said, k=k, order=order or fusion.by_words, only_words=True, per_video=per_video)
        seen = self.seen(max(_LEAST_SEEN, 4 * k))
        return fuse(
            seen,
            said,
            k=k,
            order=order or fusion.weighted,
            only_words=bool(query.phrases),
            per_video=per_video,
        )

    def _said(self, query: WordsQuery, *, videos: int, lines: int) -> list[Said]:
        """Return the best lines of the library's videos that pass the filters, each with its segment."""
        limit = 4 * videos + 100
        while True:
            found = self.words.search(query, limit=limit)
            is_all = len(found) < limit or limit >= _MOST_LINES
            if is_all:  # otherwise single lines suffice
                found += across_lines(self.words, query)
            best = sorted(
                ((coverage, line) for line in found if (coverage := query.coverage(line.line.text)) >= ENOUGH),
                key=lambda one: (one[0], one[1].score),
                reverse=True,
            )
            said = list(self._with_segments(best, most=lines))
            passed = {one.moment.video for one in said}
            if len(passed) >= videos or is_all:
                return said
            limit *= 4

    def _with_segments(self, lines: Sequence[tuple[float, FoundLine]], *, most: int) -> Iterator[Said]:
        count: Counter[str] = Counter()
        kept = []
        for coverage, line in lines:
            count[line.video] += 1
            if count[line.video] <= most:
                kept.append((coverage, line))
        for start in range(0, len(kept), _AT_ONCE):
            batch = kept[start : start + _AT_ONCE]
            rows = self._rows([line for _, line in batch])
            for coverage, line in batch:
                own = [row for row in rows if video_of(row["segment"]) == line.video]
                if own:
                    row = max(own, key=lambda row: shared_seconds(row["segment"], line.line))
                    yield Said(moment_of(row), line, coverage)

    def _rows(self, lines: Sequence[FoundLine]) -> list[dict[str, Any]]:
        """Return the light columns of the segments in which these lines are."""
        videos = ", ".join(sorted({quoted(line.video) for line in lines}))
        places = " OR ".join(
            f"(video = {quoted(found.video)} AND start_seconds <= {found.line.end_seconds!r} "
            f"AND end_seconds >= {found.line.start_seconds!r})"
            for found in lines
        )
        condition = f"video IN ({videos}) AND ({places})" + (f" AND {self.where}" if self.where else "")
        light = LIGHT + [name for name in self.table.schema.names if name.startswith(METADATA)]
        columns = light if self.vector is None else [*light, self.column]
        rows = self.table.search().where(condition).select(columns).to_arrow()
        scores = np.zeros(len(rows)) if self.vector is None else matrix(rows.column(self.column)) @ self.vector
        found = rows.select(light).to_pylist()
        return [row | {SCORE: float(score)} for row, score in zip(found, scores, strict=True)]


def shared_seconds(segment: str, line: Line) -> float:
    """Return how many seconds of a line are in a segment; of equal ones, the earlier segment counts."""
    start, end = clip_of(segment)
    shared = min(end, line.end_seconds) - max(start, line.start_seconds)
    return round(shared, 3) - start / 1e9
