"""Queries as unit vectors: weighted sentences, a video, a picture; and the captions that match a video best."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vop.errors import DataError, UsageError
from vop.search.languages import language_note
from vop.search.results import Moment
from vop.utils.text import is_unicode
from vop.video.clip import WHOLE_VIDEO, Clip
from vop.video.resizing import Resizing

if TYPE_CHECKING:
    from torch import Tensor

    from vop.models.model import TextVideoModel

Vector = np.ndarray[Any, np.dtype[np.float32]]

# Of a video, picture or moment beside sentences of weight 1. With `mini-2` and videos of `emoji-motion-2` that have the
# sentence and look like the example, 0.5 finds more of them than 0.25 and 1. Centring each kind finds fewer
# (`bench/words_and_example.py`).
EXAMPLE_WEIGHT = 0.5


@dataclass(frozen=True)
class Sentence:
    """A sentence and its weight. A negative weight finds less of the sentence."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Example:
    """A file to search with.

    Attributes:
        kind: "video" or "picture"; None detects it from the content.
        clip: the part of a video.
    """

    path: Path
    kind: Literal["video", "picture"] | None = None
    clip: Clip = WHOLE_VIDEO


@dataclass(frozen=True)
class Caption:
    """A caption, its line in the file (from 1), and its similarity with the video."""

    caption: str
    line: int
    score: float


def parse_sentences(query: str | Sentence | Sequence[str | tuple[str, float] | Sentence]) -> list[Sentence]:
    """Return the sentences of a query.

    Raises:
        UsageError: the query is empty, a sentence is empty, all weights are 0, or an item is not a sentence.
    """
    items = [query] if isinstance(query, str | Sentence) else list(query)
    sentences = [_sentence(item) for item in items]
    check(sentences)
    return sentences


def _sentence(item: object) -> Sentence:
    match item:
        case Sentence():
            return item
        case str():
            return Sentence(item)
        case (str() as text, Real() as weight):
            return Sentence(text, float(weight))
    raise UsageError(f"{item!r} is not a sentence; give texts, or pairs of a text and its weight")


def check(sentences: Sequence[Sentence]) -> None:
    """Raise a UsageError if a query has no sentence or an empty one, or if all weights are 0."""
    if not sentences:
        raise UsageError("the query is empty: describe what happens in the video, or search by a video or picture")
    for sentence in sentences:
        if not sentence.text.strip():
            raise UsageError(f"the query has an empty sentence, {sentence.text!r}: describe what happens in the video")
        if not is_unicode(sentence.text):  # bytes that are not UTF-8, from a shell
            raise UsageError(f"the sentence {sentence.text!r} is not valid Unicode; write it in UTF-8")
        if not math.isfinite(sentence.weight):
            raise UsageError(f"the weight of {sentence.text!r} is {sentence.weight}; it must be finite")
    if all(sentence.weight == 0 for sentence in sentences):
        raise UsageError("all weights of the query are 0; give at least one another value")


def parse_parts(query: Sequence[object]) -> tuple[list[Sentence], list[tuple[Path | Example | Moment, float]]]:
    """Return the sentences of a query, and its videos, pictures and moments with their weights.

    Raises:
        UsageError: a sentence is empty, all weights are 0, or an item is something else.
    """
    sentences: list[Sentence] = []
    examples: list[tuple[Path | Example | Moment, float]] = []
    for item in query:
        match item:
            case Path() | Example() | Moment():
                examples.append((item, EXAMPLE_WEIGHT))
            case (Path() | Example() | Moment() as example, Real() as weight):
                examples.append((example, float(weight)))
            case _:
                sentences.append(_sentence(item))
    check_parts(sentences, [weight for _, weight in examples])
    return sentences, examples


def has_examples(query: Sequence[object]) -> bool:
    """Whether a query has videos, pictures or moments among its parts."""
    return any(
        isinstance(item[0] if isinstance(item, tuple) and item else item, Path | Example | Moment) for item in query
    )


def check_parts(sentences: Sequence[Sentence], weights: Sequence[float]) -> None:
    """Raise a UsageError if a sentence is empty, or if all weights are 0; `weights` are those of examples."""
    check([*sentences, *(Sentence("an example", weight) for weight in weights)])


def can_be_judged(query: object) -> bool:
    """Return whether the results of a query have a confidence: it has a sentence with a positive weight.

    The confidence compares sentences with captions. A picture or a video looks like something in any library, and there
    are no videos that are unrelated to all of its videos to compare it with.
    """
    if not isinstance(query, str | Sentence | Sequence) or not query:
        return False
    if not isinstance(query, str | Sentence) and has_examples(query):
        return False
    return any(sentence.weight > 0 for sentence in parse_sentences(query))


def combine(vectors: np.ndarray, sentences: Sequence[Sentence]) -> Vector:
    """Return the weighted sum of the unit vectors of sentences (n, e), scaled to unit length (e,).

    Raises:
        UsageError: the sentences cancel each other out.
    """
    return weighted_sum(vectors, [sentence.weight for sentence in sentences])


def weighted_sum(vectors: np.ndarray, given: Sequence[float]) -> Vector:
    """Return the weighted sum of unit vectors (n, e), scaled to unit length (e,).

    Raises:
        UsageError: they cancel each other out.
    """
    weights = np.array(given, np.float64)
    weights /= np.abs(weights).max()  # only their proportions count, and large numbers would overflow
    total = weights @ vectors
    length = np.linalg.norm(total)
    if length < 1e-6 * np.abs(weights).sum():
        raise UsageError("the sentences cancel each other out; change their weights")
    unit: Vector = (total / length).astype(np.float32)
    return unit


def embed_sentences(model: TextVideoModel, sentences: Sequence[Sentence]) -> Vector:
    """Embed the sentences of a query; return a unit vector (e,)."""
    check(sentences)
    return combine(model.encode_text([sentence.text for sentence in sentences]).numpy(), sentences)


def embed_frames(model: TextVideoModel, frames: Tensor) -> Vector:
    """Embed frames of one video or picture, uint8 (num_frames, 3, size, size); return a unit vector (e,)."""
    return model.encode_frames(frames[None])[0].numpy()


def embed_example(model: TextVideoModel, example: Example) -> Vector:
    """Embed a video, a clip of it or a picture; return a unit vector (e,).

    A separate process reads the file, because a damaged file can crash the decoder.

    Raises:
        VideoError: the file cannot be read.
        UsageError: the clip is not in the video.
    """
    import torch

    from vop.video.isolated import DecodingProcesses

    with DecodingProcesses() as processes:
        frames = processes.call(
            decode, example.path, example=example, num_frames=model.num_frames, resizing=model.resizing
        )
    return embed_frames(model, torch.from_numpy(frames))


def decode(path: Path, *, example: Example, num_frames: int, resizing: Resizing) -> np.ndarray:
    """Return the frames of an example, uint8 (num_frames, 3, size, size)."""
    from vop.video.frames import decode_frames
    from vop.video.picture import is_animation, is_picture, picture_frames

    if example.kind == "picture" or (example.kind is None and is_picture(path) and not is_animation(path)):
        return picture_frames(path, num_frames=num_frames, resizing=resizing)
    start, end = example.clip.start_seconds, example.clip.end_seconds
    return decode_frames(path, num_frames=num_frames, resizing=resizing, start_seconds=start, end_seconds=end)


def unit_vector(vector: np.ndarray | Tensor, *, width: int) -> Vector:
    """Scale an embedding (e,) of the caller to unit length.

    Raises:
        UsageError: its shape is not (width,), or it has no direction.
    """
    if not isinstance(vector, np.ndarray) and not hasattr(vector, "detach"):
        raise UsageError(
            f"a query is a text, texts with weights, a Path, a Moment or a vector, not {type(vector).__name__}"
        )
    numbers = vector if isinstance(vector, np.ndarray) else vector.detach().cpu().float().numpy()
    if numbers.shape != (width,):
        raise UsageError(f"the vector has the shape {tuple(numbers.shape)}; embeddings of this model have ({width},)")
    unit = numbers.astype(np.float64)
    length = np.linalg.norm(unit)
    if not 0 < length < math.inf:
        raise UsageError("the vector has no direction: its length is 0, or one of its numbers is not finite")
    return (unit / length).astype(np.float32)


def notes_on(model: TextVideoModel, sentences: Sequence[Sentence]) -> list[str]:
    """Return notes for the user: on sentences that are too long, or in a language that the model does not read."""
    foreign = (language_note(model.backbone, sentence.text) for sentence in sentences)
    return [*cut_short(model, sentences), *dict.fromkeys(filter(None, foreign))]


def cut_short(model: TextVideoModel, sentences: Sequence[Sentence]) -> list[str]:
    """Return a warning for each sentence that is longer than the model reads."""
    limit = model.method.max_tokens
    return [
        f"only the first {limit} tokens of “{sentence.text[:40].strip()}…” were read"
        for sentence in sentences
        if model.count_tokens(sentence.text) > limit
    ]


def parse_captions(captions: str | os.PathLike[str] | Sequence[str]) -> list[tuple[int, str]]:
    """Return captions with their numbers from 1; for a text file, its non-empty lines.

    Raises:
        UsageError: there are no captions, or the file does not exist.
        DataError: the file is empty or not a text file.
    """
    if isinstance(captions, str | os.PathLike):
        return read_captions(captions)
    if not captions:
        raise UsageError("captions is empty; give one or more")
    return list(enumerate(captions, start=1))


def read_captions(file: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Return the non-empty lines of a text file, with their numbers from 1.

    Raises:
        UsageError: the file does not exist.
        DataError: the file is empty or not a text file.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UsageError(f"{file} does not exist") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: not a text file in UTF-8") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{file} has no captions; write one on each line")
    return found


def check_captions(k: int) -> None:
    """Raise a UsageError if k is less than 1."""
    if k < 1:
        raise UsageError(f"k is {k}; ask for 1 caption or more")


def best_captions(
    model: TextVideoModel, vector: np.ndarray, captions: Sequence[tuple[int, str]], k: int
) -> list[Caption]:
    """Return the captions that match a video best (v2t), best first; ties in the order of the file."""
    check_captions(k)
    scores = model.encode_text([text for _, text in captions]).numpy() @ vector
    order = np.argsort(-scores, kind="stable")[:k]
    return [Caption(captions[i][1], captions[i][0], float(scores[i])) for i in order.tolist()]
