"""Quoted phrases that run across two lines, such as the end of a subtitle and the beginning of the next one.

The full-text index knows single lines. A phrase of n words that two lines share has at least half of its words in one
of them: either the first line ends with its first words, or the second one begins with its last words. Lines with one
of these halves come from the index; then the lines beside them are read, and the words are compared. A search looks for
such phrases only if too few single lines have them.

Lines are neighbours if one follows the other in the same source, after a pause of at most `LONGEST_PAUSE_SECONDS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery, sequence
from vop.search.words.table import FoundLine, Words, line_of

LONGEST_PAUSE_SECONDS = 5.0
Candidate: TypeAlias = tuple[str, str, float, bool]  # video, source, start; whether it has the first half of a phrase
MOST_CANDIDATES = 2000  # lines of the index that are looked at, for each half of a phrase


def contains(text: Sequence[str], phrase: Sequence[str]) -> bool:
    """Return whether a phrase is in a text, both as `sequence` returns them."""
    return any(list(text[start : start + len(phrase)]) == list(phrase) for start in range(len(text) - len(phrase) + 1))


def matches(text: str, phrases: Iterable[str]) -> bool:
    """Return whether a text contains all phrases."""
    words = sequence(text)
    return all(contains(words, sequence(phrase)) for phrase in phrases)


def joined_lines(lines: Iterable[Line], phrases: Sequence[str]) -> Iterator[Line]:
    """Yield pairs of neighbouring lines of one video, as one line, that contain all phrases, one across both lines."""
    wanted = [sequence(phrase) for phrase in phrases]
    of_source: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        of_source[line.source].append(line)
    for own in of_source.values():
        own.sort(key=lambda line: (line.start_seconds, line.end_seconds))
        for first, second in pairwise(own):
            joined = _joined(first, second, wanted)
            if joined is not None:
                yield joined


def _joined(first: Line, second: Line, wanted: Sequence[Sequence[str]]) -> Line | None:
    """Return two neighbouring lines as one, if they contain all phrases, and one of them across both."""
    if second.start_seconds - first.end_seconds > LONGEST_PAUSE_SECONDS:
        return None
    before, after = sequence(first.text), sequence(second.text)
    if not all(contains(before + after, phrase) for phrase in wanted):
        return None
    if all(contains(before, phrase) or contains(after, phrase) for phrase in wanted):
        return None
    ends = max(first.end_seconds, second.end_seconds)
    return replace(first, text=f"{first.text} {second.text}", end_seconds=ends)


def across_lines(words: Words, query: WordsQuery, *, limit: int = MOST_CANDIDATES) -> list[FoundLine]:
    """Return what a query's phrases find across two lines, as lines with the text of both.

    Args:
        limit: how many lines of the index to look at, for each half of a phrase. If both halves are more frequent, some
            are not found.
    """
    candidates: dict[Candidate, float] = {}  # the best score of a half
    for phrase in query.phrases:
        wanted, most = sequence(phrase), len(phrase.split())
        for half, is_first in _halves(phrase):
            for one in words.search(WordsQuery(phrases=(half,)), limit=limit):
                if _may_go_on(one.line.text, wanted, ends=is_first, most=most):
                    key = one.video, one.line.source, one.line.start_seconds, is_first
                    candidates[key] = max(candidates.get(key, 0.0), one.score)
    phrases = [sequence(phrase) for phrase in query.phrases]
    pairs = ((one, _joined(one.first, one.second, phrases)) for one in _pairs_with(words, candidates))
    return [FoundLine(one.video, line, one.score) for one, line in pairs if line is not None]


@dataclass(frozen=True)
class _Pair:
    """Two lines of a video, one after the other in a source, of which one has half of a phrase with this score."""

    video: str
    first: Line
    second: Line
    score: float


def _pairs_with(words: Words, candidates: Mapping[Candidate, float]) -> Iterator[_Pair]:
    """Yield each pair of lines with a candidate."""
    rows = words.rows_of(sorted({video for video, *_ in candidates}))
    rows = rows.sort_by([(name, "ascending") for name in ("video", "source", "start_seconds", "end_seconds")])
    keys = list(zip(*(rows.column(name).to_pylist() for name in ("video", "source", "start_seconds")), strict=True))
    for place, (key, following) in enumerate(pairwise(keys)):
        if key[:2] != following[:2]:
            continue
        halves = candidates.get((*key, True)), candidates.get((*following, False))
        if scores := [score for score in halves if score is not None]:
            first, second = (line_of(row) for row in rows.slice(place, 2).to_pylist())
            yield _Pair(key[0], first, second, max(scores))


def _halves(phrase: str) -> list[tuple[str, bool]]:
    """Return the first and the last half of a phrase, each with whether it is the first; none of a single word."""
    parts, space = phrase.split(), " "
    if len(parts) == 1:  # a word, or text without spaces
        parts, space = list(phrase), ""
        characters = sequence(phrase)
        if len(characters) == 1 or max(map(len, characters)) > 1:
            return []
    half = (len(parts) + 1) // 2
    return [(space.join(parts[:half]), True), (space.join(parts[-half:]), False)]


def _may_go_on(text: str, phrase: Sequence[str], *, ends: bool, most: int) -> bool:
    """Return whether a line ends with the beginning of a phrase, or begins with its end.

    Args:
        most: the words of the phrase between spaces. With several, the others of the line need not be looked at.
    """
    if most > 1:
        words = text.split()
        text = " ".join(words[-most:] if ends else words[:most])
    line = sequence(text)
    if ends:
        return any(line[-size:] == list(phrase[:size]) for size in range(1, len(phrase)))
    return any(line[:size] == list(phrase[-size:]) for size in range(1, len(phrase)))
