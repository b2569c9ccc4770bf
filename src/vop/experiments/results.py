"""Typed contents of an experiment's files: its results, and the records of its runs and searches.

A file may have other keys, which are kept. Missing keys are not added when a file is written again, so that files of
earlier versions do not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from vop.config import validated
from vop.errors import VopError
from vop.evaluation.confidence import QueryRanks

DIRECTIONS = ("t2v", "v2t")
RECALLS = ("r1", "r5", "r10")
COMPARE, ABLATE = "compare", "ablate"

# Ablations by their names in the paper: the title and the varied setting.
ABLATION_TITLES = {
    "towers": ("prompts in one tower or in both", "towers with prompts"),
    "depth": ("prompt depth", "layers with prompts"),
    "length": ("prompt length", "prompt length"),
    "specific-length": ("specific prompts", "specific prompts of 8"),
    "cmm": ("the context modelling module", "CMM"),
    "cmm-role": ("the role of the CMM's output", "role of the CMM"),
    "split-layer": ("layers that work within each frame", "K_s"),
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


# Paths may hold bytes that are not UTF-8 as lone surrogates, which pydantic's str type rejects.
Text = Annotated[str, PlainValidator(_text)]
Number = int | float


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, protected_namespaces=())

    @classmethod
    def from_dict(cls, values: object, *, source: str = "the results") -> Self:
        """Read the output of `to_dict`.

        Args:
            source: the file, for the error.

        Raises:
            VopError: a value is missing, or of another type.
        """
        return validated(cls, values, source=source, error=VopError)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without keys that were never set."""
        return self.model_dump(exclude_unset=True, by_alias=True)


class Metrics(_Document):
    """Metrics of one direction: recalls in percent, median and mean rank."""

    r1: Number
    r5: Number
    r10: Number
    mdr: Number
    mnr: Number

    def value(self, key: str) -> Number:
        return {"r1": self.r1, "r5": self.r5, "r10": self.r10, "mdr": self.mdr, "mnr": self.mnr}[key]


class BothDirections(_Document):
    t2v: Metrics
    v2t: Metrics

    def direction(self, name: str) -> Metrics:
        return self.t2v if name == "t2v" else self.v2t

    @property
    def r_sum(self) -> float:
        """Sum of R@1, R@5 and R@10 of both directions, at most 600."""
        return sum(self.direction(way).value(key) for way in DIRECTIONS for key in RECALLS)


class EpochRecord(_Document):
    """An epoch of a training."""

    epoch: int
    loss: Number | None = None
    validation: BothDirections | None = None


class Trial(_Document):
    """A learning rate that was tried. Its state is complete, pruned or failed."""

    learning_rate: Number
    score: Number | None = None
    state: Text
    minutes: Number | None = None


class UnreadableVideo(_Document):
    id: Text
    path: Text
    reason: Text


class SeedResult(BothDirections):
    """A training with one seed, and its evaluation.

    Attributes:
        run: the run's folder, relative to the experiment's folder.
        epoch: the epoch of the evaluated weights; None if nothing was trained.
        selection: how the weights were selected.
        extras: further metrics of the benchmark, in percent.
    """

    seed: int
    run: Text | None = None
    machine: Text | None = None
    epoch: int | None = None
    selection: Text | None = None
    minutes: Number | None = None
    peak_memory_bytes: Number | None = None
    size_bytes: Number | None = None
    history: list[EpochRecord] = Field(default_factory=list)
    extras: dict[Text, Number] = Field(default_factory=dict)


class OverSeeds(BothDirections):
    """A statistic over seeds: the mean, or the sample standard deviation."""

    minutes: Number | None = None
    peak_memory_bytes: Number | None = None
    size_bytes: Number | None = None
    extras: dict[Text, Number] = Field(default_factory=dict)


class Parameters(_Document):
    """Trained parameters: all, and as the paper counts them. Percentages are relative to the backbone."""

    paper_count: int
    paper_percent: Number = 0.0
    true_count: int
    true_percent: Number = 0.0


class Intervals(_Document):
    """Confidence intervals of the recalls, by direction and metric."""

    level: float
    t2v: dict[str, tuple[float, float]] = Field(default_factory=dict)
    v2t: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def of(self, direction: str, key: str) -> tuple[float, float] | None:
        return (self.t2v if direction == "t2v" else self.v2t).get(key)


class Gain(_Document):
    """Gain in t2v R@1 over the baseline, in points."""

    t2v_r1: Number
    interval: tuple[float, float]
    p: float


class KindResult(_Document):
    """Results on one kind of content."""

    videos: Number
    t2v_r1: Number | None = None
    order: Number | None = None

    def value(self, key: str) -> Number | None:
        return {"t2v_r1": self.t2v_r1, "order": self.order}[key]


class PaperRow(_Document):
    """The paper's row of a method. Some metrics may be missing."""

    t2v: dict[str, Number]
    v2t: dict[str, Number] = Field(default_factory=dict)

    def value(self, direction: str, key: str) -> Number | None:
        return (self.t2v if direction == "t2v" else self.v2t).get(key)


class ArmResult(_Document):
    """One row of the table: a method with its settings, over all seeds.

    Attributes:
        x: its position on the axis of an ablation, if there is one.
        learning_rate: None if nothing was trained.
        trials: the trials of its own learning-rate search, if it had one.
        spread: None with one seed.
        gain: None for the baseline, or without a baseline.
        paper: the paper's row on this benchmark, if it has one.
        paper_average_gain: the paper's gain over `full`, averaged over its benchmarks.
    """

    name: Text
    method: Text
    head: Text = ""
    settings: dict[Text, Any] = Field(default_factory=dict)
    x: Number | None = None
    learning_rate: Number | None = None
    parameters: Parameters
    trials: list[Trial] = Field(default_factory=list)
    runs: list[SeedResult] = Field(default_factory=list)
    mean: OverSeeds
    spread: OverSeeds | None = None
    interval: Intervals | None = None
    kinds: dict[Text, KindResult] = Field(default_factory=dict)
    gain: Gain | None = None
    paper: PaperRow | None = None
    paper_average_gain: Number | None = None

    @property
    def true_share(self) -> Number:
        """All trained parameters, in percent of the backbone's."""
        return self.parameters.true_percent

    def mean_r1(self, direction: str = "t2v") -> Number:
        return self.mean.direction(direction).r1

    def spread_r1(self, direction: str = "t2v") -> Number:
        """The standard deviation of R@1 over seeds, in points; 0 with one seed."""
        return self.spread.direction(direction).r1 if self.spread else 0.0


class OrderVerdict(_Document):
    """A ranking of two methods in the paper, and whether it holds in the experiment, by t2v R@1 in points.

    Attributes:
        paper, ours: `higher` minus `lower`.
        spread: the spread of `ours`; None with one seed.
        verdict: "holds", "within the spread" or "does not hold".
    """

    lower: Text
    higher: Text
    paper: Number | None = None
    ours: Number
    spread: Number | None = None
    verdict: Text


class FoundClip(_Document):
    """The video that an arm ranks first for a sentence."""

    arm: Text
    path: Text
    right: bool
    caption: Text


class Example(_Document):
    """A sentence on which the arms disagree, the right video, and the video that each arm ranks first."""

    sentence: Text
    path: Text
    found: list[FoundClip]


class SearchSettings(_Document):
    """How learning rates were searched; see `vop.experiments.plan.Search`."""

    low: float
    high: float
    rates: list[Number] = Field(default_factory=list)
    trials: int
    epochs: int
    steps: int


class Gallery(_Document):
    """The videos and captions on which all arms were ranked. `listed` includes unreadable videos."""

    videos: int
    texts: int
    listed_videos: int
    listed_texts: int
    tie_rule: Text
    fingerprint: Text = ""
    skipped: list[UnreadableVideo] = Field(default_factory=list)


class ExperimentResults(_Document):
    """The results of an experiment, for its tables, figures and reports.

    Attributes:
        command: the command that repeats the experiment.
        written: the time of writing, in ISO 8601.
        minutes: total time of all trainings and trials.
        kind: `COMPARE` or `ABLATE`.
        ablation: the name of the ablation ("study" in the file); None for a comparison.
        recipe: the recipe of all trainings, without seed and learning rate.
        search: None if every arm trained with `learning_rate`.
        baseline: the name of the arm that the gains are relative to.
        order: the paper's rankings of two methods, and whether they hold.
    """

    command: Text
    written: Text
    minutes: Number
    machines: list[Text]
    vop_versions: list[Text]
    kind: Text
    ablation: Text | None = Field(default=None, alias="study")
    data: Text
    split: Text
    backbone: Text
    recipe: dict[Text, Any]
    search: SearchSettings | None = None
    learning_rate: Number | None = None
    seeds: list[int]
    gallery: Gallery
    notes: list[Text] = Field(default_factory=list)
    baseline: Text | None = None
    arms: list[ArmResult]
    order: list[OrderVerdict] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    left_out_of_training: list[UnreadableVideo] = Field(default_factory=list)
    failures: list[Text] = Field(default_factory=list)

    @property
    def heading(self) -> str:
        """The data set, and for an ablation the varied setting."""
        if not self.ablation:
            return self.data
        return f"{self.data}: {ABLATION_TITLES.get(self.ablation, (self.ablation,))[0]}"

    @property
    def heads(self) -> list[str]:
        return list(dict.fromkeys(arm.head for arm in self.arms if arm.head))

    @property
    def baseline_arm(self) -> ArmResult | None:
        return next((arm for arm in self.arms if arm.name == self.baseline), None)

    def gain(self, arm: ArmResult) -> float | None:
        """Return the gain in t2v R@1 over the baseline, in points; None without a baseline."""
        if arm.gain is not None:
            return arm.gain.t2v_r1
        return None if self.baseline_arm is None else arm.mean_r1() - self.baseline_arm.mean_r1()

    def paper_gain(self, arm: ArmResult) -> float | None:
        """Return the paper's gain over Full on this benchmark; None without such a row or with another baseline."""
        full = self.baseline_arm
        if self.baseline != "full" or full is None or full.paper is None or arm.paper is None:
            return None
        ours, theirs = arm.paper.value("t2v", "r1"), full.paper.value("t2v", "r1")
        return None if ours is None or theirs is None else ours - theirs

    def paper_average(self, arm: ArmResult) -> float | None:
        """Return the paper's gain over Full, averaged over its five benchmarks; None if it has a row for this one."""
        # The paper has zero-shot on one benchmark only, so there is no average.
        if self.baseline != "full" or arm.paper is not None or arm.method == "zero-shot":
            return None
        return arm.paper_average_gain


def file_stems(results: Sequence[ExperimentResults]) -> list[str]:
    """Return a unique name for each experiment that is valid in a file name."""
    return unique_stems([f"{one.data}-{one.ablation or one.kind}" for one in results], usual="study")


def unique_stems(names: Iterable[str], *, usual: str) -> list[str]:
    """Return a unique name for each of `names` that is valid in a file name.

    Args:
        usual: instead of a name without letters and digits.
    """
    words: list[str] = []
    for name in names:
        word = plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or usual
        number = 1
        while word in words:
            number += 1
            word = f"{plain}-{number}"
        words.append(word)
    return words


class Ranks(_Document):
    """The rank of every query, and the video of each text."""

    t2v: list[int]
    v2t: list[int]
    targets: list[int]


class RankedReport(BothDirections):
    """The part of an evaluation report that an experiment needs. Other keys are kept unchanged."""

    method: Text
    data: Text
    texts: int
    videos: int
    listed_texts: int
    listed_videos: int
    tie_rule: Text
    fingerprint: Text
    notes: list[Text] = Field(default_factory=list)
    skipped: list[UnreadableVideo] = Field(default_factory=list)
    settings: dict[Text, Any]
    ranks: Ranks


class _Record(_Document):
    """Fields of the results of all jobs.

    Attributes:
        data: the fingerprint of each split's readable part.
    """

    data: dict[Text, Text] = Field(default_factory=dict)
    machine: Text = ""
    vop_version: Text = ""


class SearchRecord(_Record):
    """Contents of `search/ARM.json`: the trials of a search, and the best learning rate."""

    learning_rate: Number
    trials: list[Trial]


class RunRecord(_Record):
    """Contents of `runs/RUN/result.json`: a training with one seed, and its evaluation.

    Attributes:
        first: the first-ranked video of each text.
        extras, kinds: further metrics of the benchmark.
    """

    seed: int
    learning_rate: Number | None
    run: Text
    epoch: int | None
    selection: Text | None
    minutes: Number
    peak_memory_bytes: Number | None  # None if the system does not report it
    size_bytes: Number
    history: list[EpochRecord]
    report: RankedReport
    first: list[int]
    extras: dict[Text, Number] = Field(default_factory=dict)
    kinds: dict[Text, KindResult] = Field(default_factory=dict)

    @property
    def ranks(self) -> QueryRanks:
        t2v, v2t, targets = map(np.asarray, (self.report.ranks.t2v, self.report.ranks.v2t, self.report.ranks.targets))
        return QueryRanks(t2v, v2t, targets, self.report.fingerprint, name=self.report.method)


def read_results(documents: Iterable[Mapping[str, Any]]) -> list[ExperimentResults]:
    return [ExperimentResults.from_dict(document) for document in documents]
