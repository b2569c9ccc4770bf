"""Fingerprints of videos, which show whether two of them have the same pictures at the same times.

They are made from the thumbnail strips of a library, so that nothing is decoded again and no model is needed. For each
picture of a strip: black borders are cut off (of the whole video: what is black in all of its pictures), the rest is
scaled to a square, and of its cosine transform (DCT) the 143 lowest frequencies after the mean are kept, as int8, each
times its frequency. Their direction describes the picture; brightness, contrast and size do not change it. The distance
of two pictures is 1 - the cosine of their directions. The tones of a picture, its contrast and its mean colour, tell
fades and pictures of other colours apart.

`docs/evaluation.md` has the measurement from which the constants come (`bench/near_copies.py`).

Shapes: `n` pictures of a video, `d` numbers of a picture.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Floats = NDArray[np.float32]

PICTURES = 4  # of a strip, if the library's segments have as many frames
SIDE = 12  # frequencies in each direction
WIDTH = SIDE * SIDE - 1  # d
_GRID = 32  # samples of a picture in each direction, from which the frequencies are computed
_BLACK = 16  # of 255, the mean of a row; letterboxes are brighter than 0 after compression
_MOST_BORDER = 0.45  # of the height or width, on each side; a dark video has no borders
_EMPTY: Any = ((0, np.float32), ((0, WIDTH), np.int8), ((0, 3), np.float32))
_FLAT = 2.0  # of 255: the contrast below which a picture says nothing


@dataclass(frozen=True, repr=False)
class Fingerprint:
    """The pictures of a video.

    Attributes:
        duration: in seconds.
        times: float32 (n,), when each picture is seen, ascending.
        pictures: int8 (n, d); zeros for a picture without contrast.
        tones: float32 (n, 3): the contrast, and the mean of Cb and of Cr, all from 0 to 255.
    """

    duration: float
    times: Floats
    pictures: NDArray[np.int8]
    tones: Floats

    @property
    def directions(self) -> Floats:
        """Unit vectors (n, d), or zeros."""
        return unit(self.pictures)


def unit(pictures: NDArray[np.int8]) -> Floats:
    """Scale pictures (n, d) to unit length; zeros stay."""
    numbers = pictures.astype(np.float32)
    lengths = np.linalg.norm(numbers, axis=-1, keepdims=True)
    directions: Floats = (numbers / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return directions


def fingerprint(
    strips: Sequence[bytes], clips: Sequence[tuple[float, float]], *, duration: float, pictures: int = PICTURES
) -> Fingerprint:
    """Return the fingerprint of a video.

    Args:
        strips: the thumbnail strips of its segments, JPEG. A damaged one is left out.
        clips: the start and end of each segment, in seconds.
        pictures: the number of pictures in each strip.
    """
    cells: list[NDArray[np.uint8]] = []
    times: list[NDArray[np.float64]] = []
    for strip, (start, end) in zip(strips, clips, strict=True):
        own = _cells(strip, pictures)
        if own is not None and (not cells or own.shape == cells[0].shape):
            cells.append(own)
            times.append(start + (np.arange(pictures) + 0.5) / pictures * (end - start))
    if not cells:
        return Fingerprint(duration, *(np.empty(shape, kind) for shape, kind in _EMPTY))
    at = np.concatenate(times).astype(np.float32)
    order = np.argsort(at, kind="stable")
    described, tones = _described(np.concatenate(cells))
    return Fingerprint(duration, at[order], described[order], tones[order])


def _cells(strip: bytes, pictures: int) -> NDArray[np.uint8] | None:
    """Return the pictures (pictures, height, width, YCbCr) of a strip; None if it cannot be read."""
    try:
        image = Image.open(io.BytesIO(strip))
        image.draft("YCbCr", (image.width // 2, image.height // 2))  # decodes half the size, which takes less time
        pixels = np.asarray(image.convert("YCbCr"))
    except (UnidentifiedImageError, OSError, ValueError):
        return None
    width = pixels.shape[1] // pictures
    if not width:
        return None
    starts = [round(place * pixels.shape[1] / pictures) for place in range(pictures)]
    return np.stack([pixels[:, start : start + width] for start in starts])


def _described(cells: NDArray[np.uint8]) -> tuple[NDArray[np.int8], Floats]:
    """Return the descriptions (n, d) and the tones (n, 3) of the pictures of a video (n, height, width, YCbCr)."""
    grey = cells[..., 0].astype(np.float32)
    height, width = grey.shape[1:]
    rows, columns = _inside(grey.mean(axis=2).max(axis=0)), _inside(grey.mean(axis=1).max(axis=0))
    down, across = _transform(height, *rows), _transform(width, *columns)
    frequencies = (down @ grey @ across.T).reshape(len(grey), -1)[:, 1:]
    contrast = np.linalg.norm(frequencies, axis=1, keepdims=True) / _GRID
    weighted = frequencies * _weights()
    most = np.abs(weighted).max(axis=1, keepdims=True)
    scaled = np.where(contrast >= _FLAT, weighted / np.where(most > 0, most, 1) * 127, 0)
    inner = cells[:, ceil(rows[0]) : int(rows[1]), ceil(columns[0]) : int(columns[1]), 1:]
    tones = np.concatenate([contrast, inner.mean(axis=(1, 2))], axis=1).astype(np.float32)
    return np.rint(scaled).astype(np.int8), tones


def _inside(brightness: NDArray[np.float64]) -> tuple[float, float]:
    """Return where the rows or columns begin and end that are not black; a border may end within one."""
    size = len(brightness)
    lit = np.flatnonzero(brightness > _BLACK)
    if len(lit) < 2:
        return 0.0, float(size)
    first, last = int(lit[0]), int(lit[-1])
    if max(first, size - 1 - last) > _MOST_BORDER * size:
        return 0.0, float(size)
    start = first + 1 - _share(brightness[first], brightness[first + 1]) if first > 0 else 0.0
    end = last + _share(brightness[last], brightness[last - 1]) if last < size - 1 else float(size)
    return start, end


def _share(edge: float, inner: float) -> float:
    """Return how much of the row at the edge is not black, in eighths."""
    return round(8 * min(1.0, float(edge / max(inner, 1.0)))) / 8


@lru_cache(maxsize=256)
def _transform(size: int, start: float, end: float) -> Floats:
    """Return the matrix (SIDE, size) that scales the samples between two places to `_GRID`, and takes their lowest
    frequencies."""
    edges = np.linspace(start, end, _GRID + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    scaled = np.clip(overlap, 0, None) * _GRID / (end - start)
    for mixed, inner, is_cut in ((int(start), int(start) + 1, start > 0), (ceil(end) - 1, ceil(end) - 2, end < size)):
        if is_cut:  # a row that is black in part shows what the next one shows
            scaled[:, inner] += scaled[:, mixed]
            scaled[:, mixed] = 0
    waves = np.cos(np.pi / _GRID * np.arange(SIDE)[:, None] * (np.arange(_GRID) + 0.5))
    waves *= np.sqrt(np.where(np.arange(SIDE) == 0, 1, 2) / _GRID)[:, None]
    return (waves @ scaled).astype(np.float32)


@lru_cache(maxsize=1)
def _weights() -> Floats:
    """Return the weights (d,) of the frequencies: pictures have most contrast in the low ones."""
    at = np.arange(SIDE)
    return np.hypot(at[:, None], at).ravel()[1:].astype(np.float32)


# -- comparing two videos

CLOSE = 0.1  # the distance of two pictures that may be the same
FEWEST = 3  # pictures with contrast, in the shorter video
_OFFSETS = 8  # offsets of the most pairs of close pictures that are tried
_STEPS = np.linspace(-0.5, 0.5, 5)  # of the pictures' interval, around each offset
_COUNTED = 0.75  # of the pictures, the nearest ones: where the shot changes, the others may show another one
_MANY = 8  # pictures; of fewer, all count


@dataclass(frozen=True)
class Alignment:
    """Two videos laid over each other.

    Attributes:
        offset: when the shorter video begins in the longer one, in seconds.
        distance: the mean distance of the shorter one's pictures from those of the longer one at the same times; of
            many, only the nearest three quarters count.
        variation: the mean distance of the shorter one's pictures from each other.
        contrast: how much the ratio of their contrasts differs from its median, as a logarithm.
        colour: the distance of their mean colours, in Cb and Cr.
    """

    offset: float
    distance: float
    variation: float
    contrast: float
    colour: float


def aligned(short: Fingerprint, long: Fingerprint, *, slack: float) -> Alignment | None:
    """Return the best alignment of two videos; None if they have too few pictures or none in common.

    A picture is compared with the nearest ones before and after its time, and the nearer one counts: strips show only
    some moments of a video.

    Args:
        slack: how far, in seconds, the shorter video may reach beyond the longer one.
    """
    own = np.flatnonzero(short.pictures.any(axis=1))
    if len(own) < FEWEST or len(long.times) < FEWEST:
        return None
    ours, times = short.directions[own], short.times[own]
    distances = 1 - ours @ long.directions.T  # (own, n)
    interval = max(float(np.median(np.diff(long.times))), 0.05)
    offsets = _offsets(distances, times, long, short.duration, interval=interval, slack=slack)
    tried = [(_nearest(distances, times + offset, long.times, interval=interval), offset) for offset in offsets]
    if not tried:
        return None
    nearest, offset = min(tried, key=lambda found: found[0].distance)
    between = 1 - ours @ ours.T
    tones = short.tones[own][nearest.ours], long.tones[nearest.theirs]
    ratios = np.log(np.maximum(tones[0][:, 0], 1) / np.maximum(tones[1][:, 0], 1))
    return Alignment(
        offset=offset,
        distance=nearest.distance,
        variation=float(between.sum() / (len(own) * (len(own) - 1))),
        contrast=float(np.abs(ratios - np.median(ratios)).mean()),
        colour=float(np.linalg.norm(tones[0][:, 1:] - tones[1][:, 1:], axis=1).mean()),
    )


def _offsets(
    distances: Floats, times: Floats, long: Fingerprint, duration: float, *, interval: float, slack: float
) -> list[float]:
    """Return offsets to try: the beginnings, the ends, and those of most close pictures."""
    last = long.duration - duration
    first, second = np.nonzero(distances <= CLOSE)
    voted = long.times[second] - times[first]
    bins, counts = np.unique(np.round(voted / interval).astype(np.int64), return_counts=True)
    often = bins[np.argsort(-counts, kind="stable")[:_OFFSETS]] * interval
    tried = [0.0, last, *(float(offset + step * interval) for offset in often for step in _STEPS)]
    return [offset for offset in dict.fromkeys(tried) if -slack <= offset <= last + slack]


@dataclass(frozen=True)
class _Nearest:
    """The pictures of two videos that count at one offset, by place, and their mean distance."""

    distance: float
    ours: NDArray[np.int64]
    theirs: NDArray[np.int64]


def _nearest(distances: Floats, times: Floats, others: Floats, *, interval: float) -> _Nearest:
    """Compare pictures at some times with the nearest ones of the longer video."""
    after = np.searchsorted(others, times)
    rows = np.arange(len(times))
    found, places = np.ones(len(times)), np.clip(after, 0, len(others) - 1)
    for place in (after - 1, after):
        inside = np.clip(place, 0, len(others) - 1)
        near = (place == inside) & (np.abs(others[inside] - times) <= interval)
        better = near & (distances[rows, inside] < found)
        found, places = np.where(better, distances[rows, inside], found), np.where(better, inside, places)
    counted = ceil(_COUNTED * len(found)) if len(found) >= _MANY else len(found)
    best = np.argsort(found, kind="stable")[:counted]
    return _Nearest(float(found[best].mean()), best, places[best])
