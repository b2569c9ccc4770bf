"""Fuse what a query finds by pictures with what it finds by words.

A moment that is seen and a line that overlaps it in time are one moment. Two ways to order the moments were measured
(`bench/words.py`, docs/evaluation.md); `fuse` uses `weighted`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vop.search.results import Moment
from vop.search.words.lines import Line
from vop.search.words.table import FoundLine

SEEN = "seen"
WEIGHT = 8.0  # standard deviations of the pictures' scores that a line with all words is worth
RANK = 60  # of reciprocal rank fusion, by its authors
_LEAST_SPREAD = 0.005  # of cosines, in a library of a few similar videos


@dataclass(frozen=True)
class Said:
    """A moment with a matching line.

    Attributes:
        moment: the segment in which the line is; its score is its similarity with the query, if that has a vector.
        coverage: the share of the query's words that the line contains, in 0..1.
    """

    moment: Moment
    found: FoundLine
    coverage: float

    @property
    def merit(self) -> tuple[float, float]:
        return self.coverage, self.found.score


@dataclass(frozen=True)
class Candidate:
    """A moment, and what was said in it, if that matches the query."""

    moment: Moment
    said: Said | None = None


def candidates(seen: Sequence[Moment], said: Sequence[Said]) -> list[Candidate]:
    """Join moments that are seen with the lines that overlap them; the best line of each moment counts."""
    moments: dict[str, Moment] = {moment.segment: moment for moment in seen}
    best: dict[str, Said] = {}
    of_video: dict[str, list[Moment]] = defaultdict(list)
    for moment in seen:
        of_video[moment.video].append(moment)
    for one in said:
        line = one.found.line
        inside = (moment for moment in of_video[one.moment.video] if _overlap(moment, line))
        moment = next(inside, one.moment)
        moments.setdefault(moment.segment, moment)
        before = best.get(moment.segment)
        if before is None or one.merit > before.merit:
            best[moment.segment] = one
    return [Candidate(moment, best.get(segment)) for segment, moment in moments.items()]


def _overlap(moment: Moment, line: Line) -> bool:
    end = max(line.end_seconds, line.start_seconds + 1e-3)  # a line without a duration
    return line.start_seconds < moment.end_seconds and end > moment.start_seconds


def weighted(found: Sequence[Candidate], *, seen: Sequence[Moment], weight: float | None = None) -> list[float]:
    """Return for each candidate its similarity against the others that are seen, plus a weight for its words.

    The similarity counts in standard deviations from the mean of what the query finds by pictures, because its level
    and spread differ from model to model and from query to query. The share of words is squared: lines with half of the
    words are many.
    """
    weight = WEIGHT if weight is None else weight
    scores = np.array([moment.score for moment in seen], np.float64)
    mean = float(scores.mean()) if len(scores) else 0.0
    spread = max(float(scores.std()), _LEAST_SPREAD) if len(scores) else 1.0
    return [(one.moment.score - mean) / spread + (weight * one.said.coverage**2 if one.said else 0.0) for one in found]


def reciprocal_ranks(found: Sequence[Candidate], *, seen: Sequence[Moment]) -> list[float]:
    """Return for each candidate the sum of 1 / (60 + rank) over the ranks by pictures and by words.

    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009.
    """
    by_picture = sorted(range(len(found)), key=lambda place: -found[place].moment.score)
    by_words = [place for place, one in enumerate(found) if one.said is not None]
    by_words.sort(key=lambda place: _merit(found[place]), reverse=True)
    totals = [0.0] * len(found)
    for order in (by_picture, by_words):
        for rank, place in enumerate(order, start=1):
            totals[place] += 1 / (RANK + rank)
    return totals


def by_words(found: Sequence[Candidate], *, seen: Sequence[Moment]) -> list[float]:
    """Return for each candidate how well its line matches, for a search without pictures."""
    order = sorted({_merit(one) for one in found})
    return [float(order.index(_merit(one))) for one in found]


def _merit(one: Candidate) -> tuple[float, float]:
    return one.said.merit if one.said else (0.0, 0.0)


Order = Callable[..., list[float]]


def fuse(
    seen: Sequence[Moment],
    said: Sequence[Said],
    *,
    k: int,
    order: Order = weighted,
    only_words: bool = False,
    per_video: int = 1,
) -> list[Moment]:
    """Return the k best moments, best first.

    Args:
        seen: what the pictures find, best first.
        said: what the words find.
        order: scores the candidates.
        only_words: whether to leave out moments without a line.
        per_video: the most moments of one video.
    """
    found = [one for one in candidates(seen, said) if one.said or not only_words]
    totals = order(found, seen=seen)
    ranked = sorted(range(len(found)), key=lambda place: -totals[place])  # stable: `seen` is in its order
    pictured = {moment.segment for moment in seen}
    chosen: list[Moment] = []
    of_video: Counter[str] = Counter()
    for place in ranked:
        moment = found[place].moment
        of_video[moment.video] += 1
        if of_video[moment.video] <= per_video:
            chosen.append(_with_line(found[place], is_seen=moment.segment in pictured))
    return chosen[:k]


def _with_line(one: Candidate, *, is_seen: bool) -> Moment:
    if one.said is None:
        return one.moment
    line = one.said.found.line
    matched = (SEEN, line.matched) if is_seen else (line.matched,)
    return replace(one.moment, matched=matched, line=line)
