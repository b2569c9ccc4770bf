"""Quoted phrases that run across two lines, such as the end of a subtitle and the beginning of the next one.

The full-text index knows single lines. A phrase of n words that two lines share has at least half of its words in one
of them: either the first line ends with its first words, or the second one begins with its last words. Lines with one
of these halves come from the index; then the lines beside them are read, and the words are compared.

Lines are neighbours if one follows the other in the same source, after a pause of at most `LONGEST_PAUSE_SECONDS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery, sequence
from vop.search.words.table import FoundLine, Words

LONGEST_PAUSE_SECONDS = 5.0


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
            if second.start_seconds - first.end_seconds > LONGEST_PAUSE_SECONDS:
                continue
            before, after = sequence(first.text), sequence(second.text)
            if not all(contains(before + after, phrase) for phrase in wanted):
                continue
            if any(not contains(before, phrase) and not contains(after, phrase) for phrase in wanted):
                ends = max(first.end_seconds, second.end_seconds)
                yield replace(first, text=f"{first.text} {second.text}", end_seconds=ends)


def across_lines(words: Words, query: WordsQuery, *, limit: int) -> list[FoundLine]:
    """Return what a query's phrases find across two lines, as lines with the text of both.

    Args:
        limit: how many lines of the index to look at, for each half of a phrase.
    """
    found: dict[tuple[str, str], float] = {}  # by video and source: the best score of a half
    for phrase in query.phrases:
        wanted = sequence(phrase)
        for half, is_first in _halves(phrase):
            for one in words.search(WordsQuery(phrases=(half,)), limit=limit):
                if _may_go_on(sequence(one.line.text), wanted, ends=is_first):
                    key = one.video, one.line.source
                    found[key] = max(found.get(key, 0.0), one.score)
    videos = sorted({video for video, _ in found})
    return [
        FoundLine(video, line, found[video, line.source])
        for video, lines in words.lines_of(videos).items()
        for line in joined_lines(lines, query.phrases)
        if (video, line.source) in found
    ]


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


def _may_go_on(line: Sequence[str], phrase: Sequence[str], *, ends: bool) -> bool:
    """Return whether a line ends with the beginning of a phrase, or begins with its end."""
    if ends:
        return any(list(line[-size:]) == list(phrase[:size]) for size in range(1, len(phrase)))
    return any(list(line[:size]) == list(phrase[-size:]) for size in range(1, len(phrase)))
