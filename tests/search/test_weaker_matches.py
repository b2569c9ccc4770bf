"""How well a moment matches a sentence, compared with captions of unlikely scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.libraries import a_file, make_library, unit_vectors
from vop.errors import UsageError
from vop.search import confidence
from vop.search.confidence import Calibration, Calibrations, at_least, check_min_confidence, unlikely_captions
from vop.search.queries import Example, Sentence, can_be_judged

SEGMENTS, CAPTIONS = unit_vectors(40, seed=1), unit_vectors(10, seed=2)


@pytest.fixture
def calibration() -> Calibration:
    return Calibration.of(CAPTIONS, [SEGMENTS[:15], SEGMENTS[15:15], SEGMENTS[15:]])


def naive(query: np.ndarray, score: float) -> float:
    """The share of captions whose best segment has less evidence than this score."""
    below = 0
    for caption in CAPTIONS:
        scores = [float(caption @ segment) for segment in SEGMENTS]
        mean = sum(float(query @ segment) for segment in SEGMENTS) / len(SEGMENTS)
        below += max(scores) - sum(scores) / len(scores) / 2 < score - mean / 2
    return below / len(CAPTIONS)


def test_the_confidence_is_the_share_of_captions_that_match_less_well(calibration):
    assert calibration.segments == 40
    for query in unit_vectors(5, seed=3):
        scores = [-1.0, 0.3, 0.6, float((SEGMENTS @ query).max()), 2.0]
        assert calibration.confidence(query, scores) == [naive(query, score) for score in scores]
        assert calibration.confidence(query, [-1.0, 2.0]) == [0.0, 1.0]


def test_captions_are_unlikely_and_different():
    captions = unlikely_captions()
    assert (len(captions), len(set(captions))) == (256, 256)
    assert "a mermaid tames a lion" in captions
    assert all(caption == caption.strip() and caption for caption in captions)


def test_results_without_a_calibration_stay_as_they_are(tmp_path):
    library = make_library(tmp_path / "library", map(a_file, "abc"))
    query = unit_vectors(1, seed=4)[0]
    moments = library.search(query)
    assert library.judged(moments, query) == moments
    assert {(moment.confidence, moment.is_weak) for moment in moments} == {(None, False)}


def test_weak_results_are_those_below_the_divider(tmp_path, calibration):
    library = make_library(tmp_path / "library", map(a_file, "abc"))
    query = unit_vectors(1, seed=4)[0]
    confidence.write({"0123456789abcdef": calibration}, library.path)
    moments = [replace(one, score=score) for one, score in zip(library.search(query), (2.0, 0.5, -1.0), strict=True)]
    found = library.judged(moments, query)
    assert [one.confidence for one in found] == [1.0, naive(query, 0.5), 0.0]
    assert [one.is_weak for one in found] == [one.confidence < confidence.WEAK_BELOW for one in found]
    assert [one.score for one in at_least(found, 1.0)] == [2.0]
    assert at_least(found, 0.0) == found
    assert at_least(moments, 1.0) == moments  # unknown


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_min_confidence_is_a_share(least):
    with pytest.raises(UsageError, match=f"min_confidence is {least}"):
        check_min_confidence(least)


def test_calibrations_are_kept_in_a_file(tmp_path, calibration, monkeypatch):
    kept = Calibrations(tmp_path)
    assert kept.of("one") is None
    confidence.write({"one": calibration}, tmp_path)
    found = kept.of("one")
    assert found is not None
    assert kept.of("two") is None
    assert (found.segments, found.evidence.tolist()) == (40, calibration.evidence.tolist())
    np.testing.assert_array_equal(found.mean, calibration.mean)
    np.testing.assert_array_equal(found.captions, CAPTIONS)
    monkeypatch.setattr(confidence, "captions_digest", lambda: "another version's")
    assert confidence.read(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x02" + b"\0" * 7 + b"{}"])
def test_a_damaged_file_gives_no_confidence(tmp_path, content):
    (tmp_path / confidence.FILE).write_bytes(content)
    assert confidence.read(tmp_path) == {}


def test_an_empty_library_cannot_be_calibrated():
    with pytest.raises(ValueError, match="without segments"):
        Calibration.of(CAPTIONS, [SEGMENTS[:0]])


@pytest.mark.parametrize(
    ("query", "judge"),
    [
        ("a dog", True),
        ([("a dog", 1.0), Sentence("a park", -0.5)], True),
        ([Sentence("a park", -1.0)], False),
        (Path("sunset.jpg"), False),
        (Example(Path("sunset.jpg")), False),
        (np.zeros(3), False),
    ],
)
def test_sentences_have_a_confidence(query, judge):
    assert can_be_judged(query) is judge
