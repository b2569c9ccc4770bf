"""The uncertainty of recalls: bootstrap intervals, and a paired test of two models on the same gallery.

Captions of a video are not independent, so **videos** are resampled and swapped, each with all of its captions (a
cluster bootstrap; an ordinary bootstrap if every video has one caption). Every query keeps its rank in the whole
gallery; only the choice of queries varies. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3
(percentile intervals) and chapter 15 (randomisation tests).

Shapes: `v` videos with a caption, `t` texts, `s` resamples; `2` directions (t2v, v2t), `3` recalls (R@1, R@5, R@10).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vop.errors import UsageError
from vop.utils.text import count

CUTS = {"r1": 1, "r5": 5, "r10": 10}
DIRECTIONS = ("t2v", "v2t")
LEVEL = 0.95
RESAMPLES = 2_000
SWAPS = 10_000  # the smallest p-value is 0.0001
BLOCK_CELLS = 2**22  # resamples x videos in memory at a time, 8 bytes each

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """The rank of every query of one evaluation, and its gallery.

    Attributes:
        t2v: (t,) int64, ranks from 1.
        v2t: (v,) int64, ranks from 1 of the videos that have a text, by ascending index.
        targets: (t,) int64, the index of each text's video.
        fingerprint: the gallery's `Split.fingerprint`; results with different fingerprints are not compared.
        tie_rule: how the ranks treat ties.
        name: the model's name, for tables.

    Raises:
        UsageError: ranks or targets are not integers, or do not match each other.
    """

    t2v: np.ndarray
    v2t: np.ndarray
    targets: np.ndarray
    fingerprint: str = ""
    tie_rule: str = "pessimistic"
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        for part, least in (("t2v", 1), ("v2t", 1), ("targets", 0)):
            object.__setattr__(self, part, _whole_numbers(part, getattr(self, part), least=least))
        if len(self.t2v) != len(self.targets):
            raise UsageError(
                f"{count('rank', len(self.t2v))} of texts, but {count('target', len(self.targets))}: "
                "give one rank and one target for each text"
            )
        named = len(np.unique(self.targets))
        if len(self.v2t) != named:
            raise UsageError(
                f"{count('rank', len(self.v2t))} of videos, but texts of {count('video', named)}: "
                "give one rank for each video that has a text"
            )

    def __repr__(self) -> str:
        texts, videos = count("text", len(self.t2v)), count("video", len(self.v2t))
        return f"QueryRanks({self.name!r}, {texts}, {videos}, {self.fingerprint!r})"

    def hits(self) -> np.ndarray:
        """Return (v, 2, 3) float64: how many of each video's queries rank at most 1, 5, 10."""
        cuts = np.array(list(CUTS.values()))
        found = np.empty((len(self.v2t), len(DIRECTIONS), len(cuts)))
        found[:, 1] = self.v2t[:, None] <= cuts
        for n, cut in enumerate(cuts):
            found[:, 0, n] = np.bincount(self._video(), weights=self.t2v <= cut)
        return found

    def queries(self) -> np.ndarray:
        """Return (v, 2) float64: how many queries each video has, its captions and itself."""
        return np.stack([np.bincount(self._video()), np.ones(len(self.v2t))], axis=1)

    def _video(self) -> np.ndarray:
        """Return (t,): the index of each text's video among the videos that have a text."""
        return np.unique(self.targets, return_inverse=True)[1]

    def to_dict(self) -> dict[str, list[int]]:
        """Return `{"t2v", "v2t", "targets"}` as lists of integers."""
        return {part: getattr(self, part).tolist() for part in (*DIRECTIONS, "targets")}


@dataclass(frozen=True)
class Confidence:
    """Intervals of R@1, R@5, R@10 in percent, by direction and `r1`, `r5`, `r10`."""

    level: float
    resamples: int
    t2v: Mapping[str, Interval]
    v2t: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Return `{"level", "resamples", "t2v": {"r1": [low, high], …}, "v2t": {…}}`."""
        intervals = {
            direction: {name: list(interval) for name, interval in getattr(self, direction).items()}
            for direction in DIRECTIONS
        }
        return {"level": self.level, "resamples": self.resamples, **intervals}


@dataclass(frozen=True)
class Difference:
    """One recall of two models, and the difference.

    Attributes:
        first, second: R@K of each, in percent.
        interval: the interval of `first - second`.
        p: the two-sided p-value of `paired_test`.
    """

    first: float
    second: float
    interval: Interval
    p: float

    @property
    def difference(self) -> float:
        """`first - second`, in percentage points."""
        return self.first - self.second

    def to_dict(self) -> dict[str, Any]:
        return {"difference": self.difference, "interval": list(self.interval), "p": self.p}


@dataclass(frozen=True)
class PairedTest:
    """Two models, `names`, compared on the same gallery, by direction and `r1`, `r5`, `r10`."""

    names: tuple[str, str]
    level: float
    resamples: int
    swaps: int
    t2v: Mapping[str, Difference]
    v2t: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """Return `{"method", "level", …, "t2v": {"r1": {"difference", "interval", "p"}, …}, …}`.

        `method` is the name of the second model.
        """
        facts = {"method": self.names[1], "level": self.level, "resamples": self.resamples, "swaps": self.swaps}
        differences = {
            direction: {name: found.to_dict() for name, found in getattr(self, direction).items()}
            for direction in DIRECTIONS
        }
        return facts | differences


def bootstrap_intervals(
    ranks: QueryRanks | Sequence[QueryRanks], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Confidence:
    """Return percentile intervals of the recalls in both directions.

    A resample draws as many videos as there are, with replacement, each with all of its captions.

    Args:
        ranks: the ranks of one evaluation, or of several seeds on the same gallery for intervals of their mean.
        level: the share of resamples within an interval.
        resamples: the number of resamples.
        seed: the random seed; the same seed gives the same interval.

    Raises:
        UsageError: a setting is not allowed.
    """
    _check(level=level, resamples=resamples)
    runs = _runs(ranks)
    recalls = _resampled(_hits(runs), len(runs) * runs[0].queries(), resamples=resamples, seed=seed)
    return Confidence(level, resamples, **_by_name(_interval(recalls, level)))


def paired_test(
    first: QueryRanks | Sequence[QueryRanks],
    second: QueryRanks | Sequence[QueryRanks],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    swaps: int = SWAPS,
    seed: int = 0,
) -> PairedTest:
    """Compare two models' recalls on the same gallery: their difference, its interval and a p-value.

    The interval is computed as in `bootstrap_intervals`, on differences: the same resamples serve both models.

    The p-value tests this null hypothesis: *swapping the two models' results on any video, independently of the other
    videos, does not change the joint distribution of all results* (the ranks of the video and of all its captions are
    swapped together). Then a video's difference in hits is as likely as its negative. Each of `swaps` random
    relabellings gives every video's difference a random sign. p is (b + 1) / (swaps + 1), where b counts the
    relabellings whose total is at least as far from 0 as the observed total. Under the null hypothesis, the
    probability of p <= a is at most a for any number of videos. Phipson and Smyth, 2010, "Permutation P-values Should
    Never Be Zero".

    Args:
        first, second: ranks on the same texts and videos, of one run or of several seeds each; the means of seeds are
            compared. The test does not cover the variation between seeds.
        level, resamples: as for `bootstrap_intervals`.
        swaps: the number of random relabellings.
        seed: the random seed.

    Raises:
        UsageError: the galleries differ, or a setting is not allowed.
    """
    _check(level=level, resamples=resamples, swaps=swaps)
    runs, others = _runs(first), _runs(second)
    check_same_gallery(runs[0], others[0])
    pair = (
        len(others) * _hits(runs),
        len(runs) * _hits(others),
    )  # proportional to the means over seeds, but whole numbers
    queries = len(runs) * len(others) * runs[0].queries()
    change = pair[0] - pair[1]
    interval = _interval(_resampled(change, queries, resamples=resamples, seed=seed), level)
    recalls = [_percent(hits.sum(axis=0), queries.sum(axis=0)) for hits in pair]
    p = _p_values(change, swaps=swaps, seed=seed)
    rows = np.stack([*recalls, *interval, p])  # (5, 2, 3)
    found = _by_name(rows, lambda one, other, low, high, p: Difference(one, other, (low, high), p))
    return PairedTest((runs[0].name, others[0].name), level, resamples, swaps, **found)


def _runs(ranks: QueryRanks | Sequence[QueryRanks]) -> list[QueryRanks]:
    """Return the evaluations as a list; there must be one or more, all on the same gallery."""
    runs = [ranks] if isinstance(ranks, QueryRanks) else list(ranks)
    if not runs:
        raise UsageError("there are 0 evaluations: give the ranks of one or more")
    for other in runs[1:]:
        check_same_gallery(runs[0], other)
    return runs


def _hits(runs: Sequence[QueryRanks]) -> np.ndarray:
    """Return hits (v, 2, 3), summed over runs."""
    return np.sum([run.hits() for run in runs], axis=0)


def check_same_gallery(first: QueryRanks, second: QueryRanks) -> None:
    """Raise a UsageError that says what differs if two evaluations are not comparable."""
    sizes = [f"{count('text', len(ranks.t2v))} and {count('video', len(ranks.v2t))}" for ranks in (first, second)]
    if sizes[0] != sizes[1]:
        what = f"the galleries have different sizes, {sizes[0]} against {sizes[1]}"
    elif not np.array_equal(first.targets, second.targets):
        what = "the captions belong to different videos"
    elif first.fingerprint != second.fingerprint:
        prints = f"fingerprint {first.fingerprint!r} against {second.fingerprint!r}"
        what = f"their numbers of videos and captions are equal, but the contents differ, {prints}"
    elif first.tie_rule != second.tie_rule:
        what = f"ties were ranked differently, {first.tie_rule} against {second.tie_rule}"
    else:
        return
    raise UsageError(f"these two evaluations cannot be compared: {what}; evaluate both models on the same data")


def read_ranks(path: str | Path) -> QueryRanks:
    """Read the ranks from a report of `vop evaluate --json FILE`; their `name` is its method.

    Raises:
        UsageError: the file does not exist, or is not such a report.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        t2v, v2t, targets = (_entry(document, "ranks", part) for part in (*DIRECTIONS, "targets"))
        fingerprint, tie_rule, name = (str(_entry(document, key)) for key in ("fingerprint", "tie_rule", "method"))
        return QueryRanks(t2v, v2t, targets, fingerprint=fingerprint, tie_rule=tie_rule, name=name)
    except (OSError, ValueError) as error:  # unreadable, not JSON, or another JSON document
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{path} is not a report of an evaluation ({reason}): write one with "
            "vop evaluate RUN --data SPEC --json FILE"
        ) from error


def _entry(document: Any, *keys: str) -> Any:
    for n, key in enumerate(keys):
        if not isinstance(document, dict) or key not in document:
            raise ValueError(f"it has no {'.'.join(keys[: n + 1])!r}")
        document = document[key]
    return document


def _resampled(hits: np.ndarray, queries: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Return (s, 2, 3): the percentage of hits in every resample of the videos."""
    videos = len(hits)
    generator = np.random.default_rng(seed)
    sums = np.concatenate([hits.reshape(videos, -1), queries], axis=1)  # (v, 8)
    blocks = _blocks(resamples, videos)
    totals = np.concatenate([_times_drawn(generator, rows, videos) @ sums for rows in blocks])  # (s, 8)
    return _percent(totals[:, :6].reshape(-1, *hits.shape[1:]), totals[:, 6:])


def _times_drawn(generator: np.random.Generator, rows: int, videos: int) -> np.ndarray:
    """Return (rows, v) float64: how often each resample draws each video."""
    drawn = generator.integers(videos, size=(rows, videos))
    drawn += videos * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * videos).reshape(rows, videos).astype(np.float64)


def _p_values(change: np.ndarray, *, swaps: int, seed: int) -> np.ndarray:
    """Return two-sided p-values (2, 3) of differences in hits (v, 2, 3). Totals are integers, so equal totals tie."""
    generator = np.random.default_rng(seed)
    flat = change.reshape(len(change), -1)  # (v, 6)
    found = np.abs(flat.sum(axis=0))
    as_far = np.zeros_like(found)
    for rows in _blocks(swaps, len(flat)):
        signs = 2.0 * generator.integers(2, size=(rows, len(flat))) - 1
        as_far += (np.abs(signs @ flat) >= found).sum(axis=0)
    return ((as_far + 1) / (swaps + 1)).reshape(change.shape[1:])


def _blocks(rows: int, videos: int) -> Iterator[int]:
    """Yield sizes of blocks of about `BLOCK_CELLS` cells."""
    block = max(1, BLOCK_CELLS // videos)
    for start in range(0, rows, block):
        yield min(block, rows - start)


def _percent(hits: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return hits (…, 2, 3) as percentages of queries (…, 2)."""
    return 100 * hits / queries[..., None]


def _interval(recalls: np.ndarray, level: float) -> np.ndarray:
    """Return the low and high ends (2, 2, 3) of recalls (s, 2, 3)."""
    return np.quantile(recalls, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _by_name(rows: np.ndarray, make: Callable[..., Any] = lambda *values: values) -> dict[str, dict[str, Any]]:
    """Turn (n, 2, 3) into `{"t2v": {"r1": make(n numbers), …}, "v2t": {…}}`."""
    return {
        direction: {name: make(*rows[:, d, k].tolist()) for k, name in enumerate(CUTS)}
        for d, direction in enumerate(DIRECTIONS)
    }


def _whole_numbers(part: str, values: Any, *, least: int) -> np.ndarray:
    numbers = np.asarray(values)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        kind = f"{numbers.dtype} of shape {numbers.shape}"
        raise UsageError(f"{part} is {kind}: give a list of one or more whole numbers")
    numbers = numbers.astype(np.int64)
    if numbers.min() < least:
        raise UsageError(f"{part} contains {numbers.min()}: every value must be {least} or more")
    return numbers


def _check(*, level: float, **counts: int) -> None:
    if not 0 < level < 1:
        raise UsageError(f"level {level} is not allowed: give a share between 0 and 1, such as {LEVEL}")
    for name, number in counts.items():
        if number < 1:
            raise UsageError(f"{name} {number} is not allowed: give 1 or more")
