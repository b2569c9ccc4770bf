"""Quoted phrases across two lines, against a naive search."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from search.libraries import a_file, content_of, make_library
from vop.search.queries import Sentence
from vop.search.store import Store
from vop.search.words.lines import Line
from vop.search.words.phrases import LONGEST_PAUSE_SECONDS, joined_lines, matches
from vop.search.words.query import WordsQuery, sequence
from vop.search.words.table import WordsRead

WORDS = ("onion", "mango", "walrus")


def a_line(text: str, start: float, end: float, source: str = "speech") -> Line:
    return Line(text=text, start_seconds=start, end_seconds=end, source=source)


def random_lines(seed: int) -> list[Line]:
    """Return lines of a few words in two sources, some of them after a long pause."""
    random = np.random.default_rng(seed)
    lines, at = [], 0.0
    for _ in range(5):
        source = "speech" if random.integers(2) else "talk.srt"
        text = " ".join(random.choice(WORDS, random.integers(1, 4)))
        lines.append(a_line(text, at, at + 1, source))
        at += float(random.choice([1.0, 2.0, 9.0]))
    return lines


def naive(lines: list[Line], phrase: list[str]) -> bool:
    """Whether a phrase is in a line, or runs from one line into the next of the same source."""
    for source in {line.source for line in lines}:
        own = [line for line in lines if line.source == source]
        texts = [line.text for line in own]
        texts += [
            f"{one.text} {other.text}"
            for one, other in pairwise(own)
            if other.start_seconds - one.end_seconds <= LONGEST_PAUSE_SECONDS
        ]
        if any(f" {' '.join(phrase)} " in f" {text} " for text in texts):
            return True
    return False


@pytest.mark.slow
def test_phrases_are_found_as_by_a_naive_search(tmp_path):
    lines = {f"/v/{number}.mp4": random_lines(number) for number in range(12)}
    library = make_library(tmp_path / "library", [a_file(path, seconds=60.0) for path in lines], segments=6)
    library.words.put([WordsRead(content_of(path), "speech", "1", own) for path, own in lines.items()])
    crossing = 0
    for phrase in [words for size in (1, 2, 3, 4) for words in product(WORDS, repeat=size)][::2]:
        asked = WordsQuery.of([Sentence(f'"{" ".join(phrase)}"')])
        moments = library.search_words(None, asked, only=True, k=20)
        expected = {path for path, own in lines.items() if naive(own, list(phrase))}
        assert {moment.path for moment in moments} == expected, phrase
        assert all(matches(moment.line.text, asked.phrases) for moment in moments)
        crossing += sum(moment.line.text not in {line.text for line in lines[moment.path]} for moment in moments)
    assert crossing > 25


@pytest.fixture
def library(tmp_path) -> Store:
    made = make_library(tmp_path / "library", [a_file("/v/a.mp4", seconds=20.0)], segments=2)
    lines = [
        a_line("Good morning, everybody, and welcome to", 3.0, 5.0),
        a_line("the Great Game!", 5.5, 7.0),
        a_line("今日は東京で犬が", 11.0, 13.0, "ja.srt"),
        a_line("走っている", 13.0, 15.0, "ja.srt"),
    ]
    made.words.put([WordsRead(content_of("/v/a.mp4"), "speech", "1", lines)])
    return made


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ('"welcome to the great game"', 3.0, 7.0),
        ('"to the"', 3.0, 7.0),
        ('"and welcomed to the great"', 3.0, 7.0),  # in another form
        ('"to the" "good morning"', 3.0, 7.0),
        ('"犬が走って"', 11.0, 15.0),
        ('"welcome the"', None, None),
        ('"to the" "a parrot"', None, None),
        ('"game today"', None, None),  # of another source
    ],
)
def test_the_line_has_the_text_of_both(library, query, start, end):
    moments = library.search_words(None, WordsQuery.of([Sentence(query)]), only=True)
    assert [(moment.line.start_seconds, moment.line.end_seconds) for moment in moments] == [(start, end)] * bool(start)
    if start == 3.0:
        assert moments[0].line.text == "Good morning, everybody, and welcome to the Great Game!"


def test_only_neighbours_are_joined():
    lines = [a_line("a red", 0, 1), a_line("ball", 1, 2), a_line("rolls", 8, 9), a_line("red", 9, 10, "b.srt")]
    assert [line.text for line in joined_lines(lines, ["red ball"])] == ["a red ball"]
    assert list(joined_lines(lines, ["ball rolls"])) == []  # after a pause
    assert list(joined_lines(lines, ["rolls red"])) == []  # of another source
    assert list(joined_lines(lines, ["a red", "ball"])) == []  # none runs across


def test_words_in_their_order():
    assert sequence("The Cafés, 3 dogs 東京!") == ["the", "caf", "3", "dog", "東", "京"]
