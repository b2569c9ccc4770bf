"""Confidence: how well a moment matches a sentence, compared with sentences that describe nothing in the library.

A cosine similarity says little by itself: its scale differs between models, and its best value grows with the library.
So a query is compared with a background, the captions of `unlikely_captions.txt`. They describe what hardly any video
shows ("a walrus waters a cactus"), in words that libraries do know. For a query q, and a segment v with the score
s(q, v), the evidence is

    T(q, v) = s(q, v) - m(q) / 2,    where m(q) is the mean of s(q, .) over the segments of the library

The mean is what a sentence has in common with every video, whatever they show. The confidence of a moment is the share
of captions whose best segment in this library has a lower T. `bench/confidence.py` compares this with other formulas;
the factor of m(q), the captions and `WEAK_BELOW` come from it.

The calibration of a library is computed at the end of an indexing (`vop.search.sync.calibrating`) and kept in
`confidence.safetensors`. Without it, and for queries that are not sentences, the confidence is None.

Shapes: `c` captions, `e` width of the embeddings, `n` segments.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from vop.errors import UsageError
from vop.search.results import Moment
from vop.storage import small_files
from vop.storage.address import Location
from vop.storage.small_files import Stamp

FILE = "confidence.safetensors"
WEAK_BELOW = 0.9  # moments with less confidence are "weaker matches"
_SHARED = 0.5  # the share of m(q) that is subtracted
_LOOK_SECONDS = 60.0  # between two looks for a new file in object storage, which cost a request each
_CAPTIONS, _SEGMENTS = "captions", "segments"

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]


@lru_cache(maxsize=1)
def unlikely_captions() -> tuple[str, ...]:
    """Return the captions of the background."""
    text = files("vop.search").joinpath("unlikely_captions.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def captions_digest() -> str:
    """Return a hash of the captions, so that embeddings of others are not used."""
    return hashlib.sha256("\n".join(unlikely_captions()).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the confidence of one model in one library needs.

    Attributes:
        mean: the mean embedding of the library's segments (e,).
        evidence: the evidence of each caption for its best segment (c,), ascending.
        captions: the embeddings of the captions (c, e), with which the calibration is brought up to date.
        segments: the number of segments when it was computed.
    """

    mean: Floats
    evidence: Floats
    captions: Floats
    segments: int

    @classmethod
    def of(cls, captions: Floats, segments: Iterable[Floats]) -> Calibration:
        """Compare the captions (c, e) with all segments of a library, in batches (n, e) of unit vectors."""
        captions = np.asarray(captions, np.float32)
        best, total, number = np.full(len(captions), -np.inf, np.float32), np.zeros(captions.shape[1]), 0
        for batch in segments:
            if len(batch):
                best = np.maximum(best, (batch @ captions.T).max(axis=0))
                total += batch.sum(axis=0, dtype=np.float64)
                number += len(batch)
        if not number:
            raise ValueError("a library without segments cannot be calibrated")
        mean = (total / number).astype(np.float32)
        return cls(mean=mean, evidence=np.sort(best - _SHARED * (captions @ mean)), captions=captions, segments=number)

    def confidence(self, vector: Floats, scores: Sequence[float] | Floats) -> list[float]:
        """Return the confidence of scores of a query (e,), each from 0 to 1."""
        evidence = np.asarray(scores, np.float32) - np.float32(_SHARED * float(vector @ self.mean))
        below = np.searchsorted(self.evidence, evidence, side="left")
        return [float(share) for share in below / len(self.evidence)]


def judged(moments: Sequence[Moment], vector: Floats, calibration: Calibration | None) -> list[Moment]:
    """Return the moments of a query in sentences (e,) with their confidence, if the library is calibrated.

    The confidence is that of pictures. If it is low, a moment with a matching line is not seen, and has none.
    """
    if calibration is None or not moments:
        return list(moments)
    shares = calibration.confidence(vector, [moment.score for moment in moments])
    return [
        replace(moment, matched=tuple(kind for kind in moment.matched if kind != "seen"))
        if moment.line is not None and share < WEAK_BELOW
        else replace(moment, confidence=share, is_weak=share < WEAK_BELOW)
        for moment, share in zip(moments, shares, strict=True)
    ]


def check_min_confidence(least: float | None) -> None:
    """Raise a UsageError if `least` is not from 0 to 1."""
    if least is not None and not 0 <= least <= 1:
        raise UsageError(f"min_confidence is {least}; give a share from 0 to 1, such as {WEAK_BELOW}")


def at_least(moments: Sequence[Moment], least: float | None) -> list[Moment]:
    """Return the moments without those of less confidence. A moment whose confidence is unknown stays."""
    return [moment for moment in moments if least is None or moment.confidence is None or moment.confidence >= least]


def unknown_note(moments: Sequence[Moment], least: float | None) -> str | None:
    """Return why `min_confidence` drops nothing, if the confidence of moments is unknown."""
    if least is None or not any(moment.confidence is None and moment.line is None for moment in moments):
        return None
    return (
        "min_confidence has no effect: the confidence is known only for sentences, and only after an indexing by this "
        "version of vop (run `vop index` again)"
    )


# -- the file


def write(calibrations: Mapping[str, Calibration], library: Location) -> None:
    """Write the calibrations of a library's models, by fingerprint. The caller has the library's lock."""
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray[Any, Any]] = {}
    facts = {_CAPTIONS: captions_digest()}
    for fingerprint, one in calibrations.items():
        tensors[f"{fingerprint}.mean"] = one.mean.astype(np.float32)
        tensors[f"{fingerprint}.evidence"] = one.evidence.astype(np.float32)
        tensors[f"{fingerprint}.{_CAPTIONS}"] = one.captions.astype(np.float32)
        facts[f"{fingerprint}.{_SEGMENTS}"] = str(one.segments)
    small_files.write_bytes(small_files.child(library, FILE), save(tensors, metadata=facts))


def read(library: Location) -> dict[str, Calibration]:
    """Read the calibrations of a library's models, by fingerprint.

    A missing or damaged file, or one for other captions, gives none: the next indexing writes it again.
    """
    from safetensors import SafetensorError

    try:
        return _parsed(small_files.read_bytes(small_files.child(library, FILE)))
    except (FileNotFoundError, NotADirectoryError, SafetensorError, KeyError, ValueError):
        return {}


def _parsed(content: bytes) -> dict[str, Calibration]:
    import json

    from safetensors.numpy import load

    tensors = load(content)
    size = int.from_bytes(content[:8], "little")
    facts = json.loads(content[8 : 8 + size])["__metadata__"]
    if facts[_CAPTIONS] != captions_digest():
        return {}
    names = {name.rpartition(".")[0] for name in tensors}
    return {
        name: Calibration(
            mean=tensors[f"{name}.mean"],
            evidence=tensors[f"{name}.evidence"],
            captions=tensors[f"{name}.{_CAPTIONS}"],
            segments=int(facts[f"{name}.{_SEGMENTS}"]),
        )
        for name in names
    }


class Calibrations:
    """The newest calibrations of a library, read again whenever the file has changed."""

    def __init__(self, library: Location) -> None:
        self._library = library
        self._reading = threading.Lock()
        self._stamp: Stamp | None = None
        self._looked_at = -_LOOK_SECONDS
        self._kept: dict[str, Calibration] = {}

    def of(self, fingerprint: str) -> Calibration | None:
        """Return the calibration of a model; None if the library has none."""
        with self._reading:
            if isinstance(self._library, Path) or time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                self._look()
            return self._kept.get(fingerprint)

    def _look(self) -> None:
        stamp = small_files.stamp_of(small_files.child(self._library, FILE))
        if stamp != self._stamp:
            self._kept = read(self._library)
            self._stamp = stamp
        self._looked_at = time.monotonic()
