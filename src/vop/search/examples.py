"""Examples of sentences for a library: what it shows and what is said in it, so that a first search finds something.

- Seen: the captions of `everyday_captions.txt` that match a moment better than every unlikely caption does, which is a
  confidence of 1 (`vop.search.confidence`); best first, each of another video. Without a calibration there are none.
- Said: the beginning of a line, in quotes, so that it is found as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np

from vop.search.results import Moment
from vop.search.words.query import COMMON, sequence, terms

MOST_SEEN = 3
SECONDS = 3.0  # for all searches, of a large library or one in object storage
_FEWEST_WORDS, _MOST_WORDS = 3, 6  # of a line
_CERTAIN = 1.0
_MARKS = " .,;:?!-–—…。、？！"


@lru_cache(maxsize=1)
def everyday_captions() -> tuple[str, ...]:
    """Return sentences that describe what many people film."""
    text = files("vop.search").joinpath("everyday_captions.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def seen_examples(
    captions: Sequence[str],
    vectors: Iterable[np.ndarray],
    best: Callable[[np.ndarray], Sequence[Moment]],
    *,
    most: int = MOST_SEEN,
    seconds: float = SECONDS,
    now: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Return the captions that certainly match a moment, best first.

    Args:
        vectors: their embeddings (e,).
        best: returns the best moment of the library for a vector, with its confidence; none if the library is empty.
        seconds: after this time the other captions are not tried.
    """
    until, found = now() + seconds, []
    for caption, vector in zip(captions, vectors, strict=True):
        moments = best(vector)
        if not moments or moments[0].confidence is None or now() > until:
            break
        if moments[0].confidence >= _CERTAIN:
            found.append((moments[0].score, caption, moments[0].video))
    chosen: dict[str, str] = {}  # by video
    for _, caption, video in sorted(found, key=lambda one: -one[0]):
        chosen.setdefault(video, caption)
    return list(chosen.values())[:most]


def said_example(lines: Iterable[str]) -> str | None:
    """Return words of the line that says most in few words, in quotes; None if there is no line of several words."""
    starts = {_beginning(line) for line in lines}
    fitting = [words for words in starts if _FEWEST_WORDS <= len(sequence(words)) <= 2 * _MOST_WORDS]
    best = max(fitting, key=lambda words: (len(terms(words)), -len(words), words), default=None)
    return None if best is None else f'"{best}"'


def _beginning(line: str) -> str:
    """Return the first words of a line, without quotation marks, up to a telling word or the end of a sentence."""
    kept: list[str] = []
    for word in line.split()[:_MOST_WORDS]:
        kept.append("".join(letter for letter in word if letter not in '"“”„«»「」'))
        if word[-1] in ".?!…。？！":
            break
    while kept and kept[-1].strip(_MARKS).casefold() in {"", *COMMON}:
        kept.pop()
    return " ".join(filter(None, kept)).strip(_MARKS)
