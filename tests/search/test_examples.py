"""Example sentences of a library."""

from __future__ import annotations

import numpy as np
import pytest

from search.libraries import content_of, unit_vectors
from vop.search.examples import everyday_captions, said_example, seen_examples
from vop.search.languages import looks_foreign
from vop.search.results import Moment
from vop.search.words.phrases import matches


def a_moment(video: str, score: float, confidence: float | None) -> Moment:
    return Moment(
        segment=f"{content_of(video)}-0-10",
        video=content_of(video),
        path=video,
        start_seconds=0.0,
        end_seconds=10.0,
        score=score,
        duration_seconds=10.0,
        date="",
        plays_in_browsers=True,
        columns={},
        confidence=confidence,
    )


def test_captions_that_certainly_match_are_examples():
    """Best first, one of each video."""
    captions = [f"caption {number}" for number in range(6)]
    vectors = unit_vectors(6)
    found = [
        ("/a", 0.3, 1.0),
        ("/a", 0.4, 1.0),
        ("/b", 0.9, 0.99),
        ("/c", 0.2, 1.0),
        ("/d", 0.5, 1.0),
        ("/e", 0.1, 1.0),
    ]
    best = dict(zip(map(bytes, vectors), found, strict=True))

    def find(vector: np.ndarray) -> list[Moment]:
        return [a_moment(*best[bytes(vector)])]

    assert seen_examples(captions, vectors, find) == ["caption 4", "caption 1", "caption 3"]
    assert seen_examples(captions, vectors, find, most=1) == ["caption 4"]
    clock = iter([0.0, 1.0, 2.0, 3.5])
    assert seen_examples(captions, vectors, find, now=lambda: next(clock)) == ["caption 1"]
    assert seen_examples(captions, vectors, lambda vector: []) == []
    assert seen_examples(captions, vectors, lambda vector: [a_moment("/a", 0.9, None)]) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["Yes", "Oh no!"], None),
        (
            ["and then it was", "Good morning, everybody, and welcome to it"],
            '"Good morning, everybody, and welcome"',
        ),
        (["What a game! And now", "He said “a red car” and left"], '"He said a red car"'),
        (["And then it was", "it"], None),
        (["Wait here. The old red car is gone"], None),  # a sentence of two words
        (["今日は東京で"], '"今日は東京で"'),
    ],
)
def test_words_of_a_line_are_an_example(lines, expected):
    assert said_example(lines) == expected
    if expected:
        assert any(matches(line, [expected.strip('"')]) for line in lines)


def test_everyday_captions_are_different_and_english():
    captions = everyday_captions()
    assert len(set(captions)) == len(captions) > 40
    assert [caption for caption in captions if looks_foreign(caption)] == []
