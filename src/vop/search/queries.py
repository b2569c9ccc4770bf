"""What is asked for, as one unit vector: sentences with weights, a video, a picture, a segment of the library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vop.errors import DataError, UsageError
from vop.search.models import embed_by

if TYPE_CHECKING:
    from torch import Tensor

    from vop.models.model import TextVideoModel


@dataclass(frozen=True)
class Sentence:
    """A sentence and how much it counts; a negative weight leads away from it."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Caption:
    """A caption of a file, the line that it stands on, and its similarity with the video."""

    caption: str
    line: int
    score: float


def check(sentences: Sequence[Sentence]) -> None:
    """Raises a UsageError if a query has no words, or no weight that counts."""
    if not sentences:
        raise UsageError("the query is empty: say what happens in the video, or give --video or --picture")
    for sentence in sentences:
        if not sentence.text.strip():
            raise UsageError(f"the query has an empty sentence, {sentence.text!r}: say what happens in the video")
        if any("\ud800" <= letter <= "\udfff" for letter in sentence.text):  # bytes that are no UTF-8, from a shell
            raise UsageError(f"the sentence {sentence.text!r} is not valid Unicode; write it in UTF-8")
        if not math.isfinite(sentence.weight):
            raise UsageError(f"the weight of {sentence.text!r} is {sentence.weight}; it is a number")
    if all(sentence.weight == 0 for sentence in sentences):
        raise UsageError("all weights of the query are 0, so that nothing is asked for")


def combine(vectors: np.ndarray, sentences: Sequence[Sentence]) -> np.ndarray:
    """The weighted sum of unit vectors (n, e), of unit length (e,).

    Raises:
        UsageError: the sentences cancel each other out.
    """
    weights = np.array([sentence.weight for sentence in sentences], np.float64)
    weights /= np.abs(weights).max()  # only their proportions count; the largest numbers would overflow
    total = weights @ vectors
    length = np.linalg.norm(total)
    if length < 1e-6 * np.abs(weights).sum():
        raise UsageError("the sentences cancel each other out with these weights, so that nothing is asked for")
    return (total / length).astype(np.float32)


def of_sentences(model: TextVideoModel, sentences: Sequence[Sentence]) -> np.ndarray:
    """A query of sentences as a unit vector (e,)."""
    check(sentences)
    return combine(model.encode_text([sentence.text for sentence in sentences]).numpy(), sentences)


def of_frames(model: TextVideoModel, frames: Tensor) -> np.ndarray:
    """Frames of one video or picture, uint8 (num_frames, 3, size, size), as a unit vector (e,)."""
    return embed_by([model], frames[None])[0][0].numpy()


def cut_short(model: TextVideoModel, sentences: Sequence[Sentence]) -> list[str]:
    """What to tell of sentences that are longer than the model reads."""
    longest = model.method.max_tokens
    return [
        f"only the first {longest} tokens of “{sentence.text[:40].strip()}…” were read"
        for sentence in sentences
        if model.count_tokens(sentence.text) > longest
    ]


def read_captions(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, and their numbers from 1.

    Raises:
        UsageError: no such file.
        DataError: it is no text, or empty.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: not a text file in UTF-8") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{file}: there is no caption in it; write one on each line")
    return found


def best_captions(
    model: TextVideoModel, vector: np.ndarray, captions: Sequence[tuple[int, str]], k: int
) -> list[Caption]:
    """The captions that fit a video best (v2t), best first; equal ones in the order of the file."""
    if k < 1:
        raise UsageError(f"k is {k}; ask for 1 caption or more")
    scores = model.encode_text([text for _, text in captions]).numpy() @ vector
    order = np.argsort(-scores, kind="stable")[:k]
    return [Caption(captions[i][1], captions[i][0], float(scores[i])) for i in order.tolist()]
