"""Recognize speech: the interface of recognizers, how to find one, and how long recordings are divided.

A recognizer is built in or comes from an installed package, which names it in the entry points `vop.recognizers`: a
function from a model's name to a `Recognizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vop.errors import UsageError
from vop.search.words.lines import SPEECH, Line, plain
from vop.search.words.tracks import SAMPLE_RATE
from vop.utils.registry import Registry

PIECE_SECONDS = 30 * 60  # of sound that is recognized at once, which takes 115 MB
_SEARCHED_SECONDS = 60  # at the end of a piece, for the quietest place to cut
_WINDOW_SECONDS = 0.5

Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class SpokenLine:
    """A line that was recognized, with its times in seconds from the first sample."""

    text: str
    start_seconds: float
    end_seconds: float


class Recognizer(Protocol):
    """Recognizes speech."""

    def transcribe(self, samples: Samples) -> Iterable[SpokenLine]:
        """Return what is spoken in a recording.

        Args:
            samples: float32 (samples,) in -1..1, 16 kHz, mono.
        """
        ...


RECOGNIZERS: Registry[Callable[[str], Recognizer]] = Registry(
    "recognizer", {"whisper": "vop.search.words.whisper:WhisperRecognizer"}, group="vop.recognizers"
)


def open_recognizer(model: str) -> Recognizer:
    """Open a recognizer.

    Args:
        model: a folder or hub id of a Whisper model, or NAME:MODEL for the recognizer NAME of another package.

    Raises:
        UsageError: the recognizer is not installed, or the model does not exist.
    """
    if not model.strip():
        raise UsageError("speech is empty; give the folder or the hub id of a Whisper model, such as small")
    name, colon, rest = model.partition(":")
    if colon and name in RECOGNIZERS.names():
        return RECOGNIZERS.find(name)(rest)
    return RECOGNIZERS.find("whisper")(model)


def spoken_lines(recognizer: Recognizer, blocks: Iterable[np.ndarray]) -> list[Line]:
    """Return what is spoken in a video.

    Args:
        blocks: the sound from the first frame on, int16 (samples,); see `vop.search.words.tracks.read_sound`.
    """
    lines = []
    for start, samples in pieces(blocks):
        offset = start / SAMPLE_RATE
        for spoken in recognizer.transcribe(samples):
            begin, end = spoken.start_seconds + offset, spoken.end_seconds + offset
            lines.append(Line(text=plain(spoken.text), start_seconds=begin, end_seconds=end, source=SPEECH))
    return lines


def pieces(blocks: Iterable[np.ndarray], *, seconds: float = PIECE_SECONDS) -> Iterator[tuple[int, Samples]]:
    """Yield the sound in pieces with the positions of their first samples, cut where it is quiet."""
    size = round(seconds * SAMPLE_RATE)
    waiting, position = np.zeros(0, np.int16), 0
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while len(waiting) > size:
            cut = _quietest(waiting[:size])
            yield position, _as_float(waiting[:cut])
            waiting, position = waiting[cut:], position + cut
    if len(waiting):
        yield position, _as_float(waiting)


def _quietest(samples: np.ndarray) -> int:
    """Return the middle of the quietest half second near the end of a piece."""
    window = round(_WINDOW_SECONDS * SAMPLE_RATE)
    first = max(len(samples) // 2, len(samples) - _SEARCHED_SECONDS * SAMPLE_RATE)
    windows = (len(samples) - first) // window
    if windows == 0:
        return len(samples)
    tail = samples[first : first + windows * window].astype(np.float64).reshape(windows, window)
    return first + int((tail**2).mean(axis=1).argmin()) * window + window // 2


def _as_float(samples: np.ndarray) -> Samples:
    return samples.astype(np.float32) / np.float32(32768)
