"""The schema of the standing comparison: one row is one method on one benchmark and backbone.

`standing.schema.json` is the JSON Schema of the document. `python -m tools.publish_results` writes it from the classes
below.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from itertools import pairwise
from statistics import mean, stdev
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments.results import DIRECTIONS

SCHEMA: Final = "vop-standing/1"
SCHEMA_FILE = "standing.schema.json"
ROUNDING = 0.06  # how far a given mean may be from that of the runs: published numbers have one decimal place


def _iso_date(text: str) -> str:
    try:
        whole = date.fromisoformat(text).isoformat() == text
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"{text!r} is not a day; write YYYY-MM-DD")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError(f"{text!r} is blank; write a text, or leave it out if it is optional")
    return text


Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_not_blank)]
Percent = Annotated[float, Field(ge=0, le=100)]
AtLeast0 = Annotated[float, Field(ge=0)]
AtLeast1 = Annotated[float, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Date = Annotated[str, AfterValidator(_iso_date), Field(json_schema_extra={"format": "date"})]


class _Part(BaseModel):
    """A part of the document. Unknown keys are errors, because a misspelt one would silently be lost."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Scores(_Part):
    """Metrics of one direction."""

    r1: Percent = Field(description="R@1 in percent.")
    r5: Percent | None = Field(None, description="R@5 in percent.")
    r10: Percent | None = Field(None, description="R@10 in percent.")
    mdr: AtLeast1 | None = Field(None, description="Median rank.")
    mnr: AtLeast1 | None = Field(None, description="Mean rank.")

    @model_validator(mode="after")
    def _recalls_rise(self) -> Self:
        known = [value for value in (self.r1, self.r5, self.r10) if value is not None]
        if any(low > high + 1e-6 for low, high in pairwise(known)):
            raise ValueError(f"r1, r5 and r10 are {known}; recall at a larger rank is never lower")
        return self


class Deviations(_Part):
    """Standard deviations of the metrics of one direction."""

    r1: AtLeast0 | None = None
    r5: AtLeast0 | None = None
    r10: AtLeast0 | None = None
    mdr: AtLeast0 | None = None
    mnr: AtLeast0 | None = None


class Both(_Part):
    """Metrics of both directions, and further ones."""

    t2v: Scores = Field(description="Metrics of text-to-video retrieval.")
    v2t: Scores | None = Field(None, description="Metrics of video-to-text retrieval.")
    extras: dict[Text, float] = Field({}, description="Further metrics in percent by name, such as order accuracy.")


class Run(Both):
    """A training with one seed."""

    seed: int = Field(description="Seed of the training.")
    epoch: int | None = Field(None, ge=0, description="Epoch of the evaluated weights.")
    minutes: AtLeast0 | None = Field(None, description="Time of the training.")


def _by_seed(runs: list[Run]) -> list[Run]:
    """Sort runs, so that rows with the same runs are equal."""
    return sorted(runs, key=lambda run: run.seed)


class Spread(_Part):
    """Sample standard deviations over seeds."""

    t2v: Deviations
    v2t: Deviations | None = None
    extras: dict[Text, AtLeast0] = {}


class RankedGallery(_Part):
    """What the method was ranked on."""

    videos: Count = Field(description="Videos in the gallery.")
    texts: Count = Field(description="Captions.")
    tie_rule: Literal["pessimistic", "optimistic"] | None = Field(
        None, description="Place of a right item among wrong ones with the same score: after or before them."
    )
    fingerprint: Text | None = Field(None, description="Fingerprint of the gallery's contents, as vop computes it.")


class RecipeFacts(_Part):
    """The training. What is unknown, or does not apply, is left out."""

    epochs: Count | None = Field(None, description="Epochs.")
    batch_size: Count | None = Field(None, description="Videos per step.")
    captions_per_video: Count | None = Field(None, description="Captions of each video in a step.")
    num_frames: Count | None = Field(None, description="Frames per video.")
    precision: Text | None = Field(None, description="Precision of weights and activations.")
    learning_rate: Positive | None = Field(None, description="Learning rate.")
    rate_choice: Text | None = Field(None, description="How the learning rate was chosen.")
    selection: Text | None = Field(
        None, description="Evaluated weights: validation-selected, last, untrained, or another rule."
    )
    other: dict[Text, Any] = Field({}, description="Other values of the recipe, by name.")


class Cost(_Part):
    """Costs. What is unknown is left out."""

    minutes: AtLeast0 | None = Field(None, description="Mean time of a training.")
    search_minutes: AtLeast0 | None = Field(None, description="Time of the search for the learning rate.")
    machine: Text | None = Field(None, description="Machine of all measured costs.")
    peak_memory_bytes: AtLeast0 | None = Field(None, description="Mean peak memory of a training.")
    multiply_adds_per_video: Positive | None = Field(None, description="Multiply-adds to embed a video.")
    milliseconds_per_video: Positive | None = Field(None, description="Time to embed a decoded video.")


class Source(_Part):
    """Where the numbers come from."""

    kind: Literal["vop", "external"] = Field(
        description="vop: measured by this program. external: published, or measured by another program."
    )
    version: Text | None = Field(None, description="Version of vop. Required if the kind is vop.")
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,40}$")] | None = Field(
        None, description="Commit of the code that was measured."
    )
    command: Text | None = Field(None, description="Command that repeats the measurement.")
    citation: Text | None = Field(None, description="Authors, title, identifier. Required if the kind is external.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>()\[\]]+$")] | None = Field(
        None, description="Link to the paper, the code or the logs."
    )

    @model_validator(mode="after")
    def _says_who(self) -> Self:
        needed, value = ("version", self.version) if self.kind == "vop" else ("citation", self.citation)
        if value is None:
            raise ValueError(f"{needed} is missing; a source of kind {self.kind!r} needs it")
        return self

    @property
    def text(self) -> str:
        return f"vop {self.version}" if self.kind == "vop" else self.citation or ""


class Row(_Part):
    """One method on one benchmark and backbone."""

    benchmark: Text = Field(description="Name of the benchmark.")
    split: Text = Field(description="Split that was ranked.")
    backbone: Text = Field(description="Name of the backbone.")
    gallery: RankedGallery = Field(description="What it was ranked on.")
    method: Text = Field(description="Name of the method.")
    name: str = Field("", description="Name of the row, if it is not the method's.")
    settings: dict[Text, Any] = Field({}, description="Settings of the method that are not its defaults, by name.")
    recipe: RecipeFacts = Field(RecipeFacts(), description="How it was trained.")
    runs: Annotated[list[Run], AfterValidator(_by_seed)] = Field([], description="Results of each seed.")
    mean: Both | None = Field(None, description="Mean over seeds. Required without runs, otherwise computed from them.")
    spread: Spread | None = Field(
        None, description="Sample standard deviation over seeds. Computed from runs if there are any."
    )
    parameters: int | None = Field(None, ge=0, description="Trained parameters.")
    percent_of_backbone: AtLeast0 | None = Field(None, description="Trained parameters in percent of the backbone's.")
    cost: Cost = Field(Cost(), description="What it costs.")
    source: Source = Field(description="Where the numbers come from.")
    date: Date = Field(description="Day of the measurement or publication.")
    notes: list[Text] = Field([], description="Remarks.")

    @model_validator(mode="before")
    @classmethod
    def _has_a_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name", "") == "" and "method" in values:
            return {**values, "name": values["method"]}
        return values

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        seeds = [run.seed for run in self.runs]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"runs have the seeds {seeds}; each seed may appear once")
        if not self.runs and self.mean is None:
            raise ValueError("mean is missing; a row without runs needs it")
        if self.runs and self.mean is not None:
            _check_computed("mean", self.mean, self.average)
        if self.runs and self.spread is not None:
            _check_computed("spread", self.spread, self.deviation)
        return self

    @property
    def trains(self) -> bool:
        return self.parameters != 0

    @property
    def average(self) -> Both:
        """The mean over seeds."""
        if not self.runs:
            assert self.mean is not None, "a row without runs has a mean"
            return self.mean
        return Both.model_validate(_over(self.runs, mean))

    @property
    def deviation(self) -> Spread | None:
        """The standard deviation over seeds; None if it is unknown, or there is one seed."""
        if not self.runs:
            return self.spread
        return Spread.model_validate(_over(self.runs, stdev)) if len(self.runs) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with mean and spread, and without facts that are unknown."""
        whole = self.model_copy(update={"mean": self.average, "spread": self.deviation})
        return whole.model_dump(exclude_defaults=True)


def _over(runs: Sequence[Run], statistic: Callable[[Iterable[float]], float]) -> dict[str, Any]:
    """Return a statistic of each metric that all runs have."""
    found: dict[str, Any] = {}
    for way in DIRECTIONS:
        scores = [one for run in runs if (one := run.t2v if way == "t2v" else run.v2t) is not None]
        if len(scores) == len(runs):
            columns = {key: [getattr(one, key) for one in scores] for key in METRIC_NAMES}
            found[way] = {key: statistic(values) for key, values in columns.items() if None not in values}
    shared = [name for name in runs[0].extras if all(name in run.extras for run in runs)]
    return found | {"extras": {name: statistic([run.extras[name] for run in runs]) for name in shared}}


def _check_computed(name: str, given: Both | Spread, computed: Both | Spread | None) -> None:
    """Raise a ValueError if a given statistic is not that of the runs."""
    if computed is None:
        raise ValueError(f"{name} is given, and there is one run; leave it out")
    theirs, ours = dict(_flat(given)), dict(_flat(computed))
    for key, value in theirs.items():
        if key not in ours:
            raise ValueError(f"{name}.{key} is {value:g}, but not every run has {key}: leave it out")
        if abs(value - ours[key]) > ROUNDING:
            raise ValueError(f"{name}.{key} is {value:g}; that of the runs is {ours[key]:.4g}: leave it out")


def _flat(part: BaseModel, *, under: str = "") -> Iterator[tuple[str, float]]:
    for key, value in part.model_dump(exclude_none=True).items():
        for inner, number in value.items():
            yield f"{key}.{inner}", number


class Standing(_Part):
    """The document: rows that vop compare wrote, and rows of others."""

    version: Literal["vop-standing/1"] = Field(alias="schema", description="Version of the schema.")
    rows: list[Row] = Field(description="One method on one benchmark and backbone each.")

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "rows": [row.to_dict() for row in self.rows]}


def as_text(document: Mapping[str, Any]) -> str:
    """Return a JSON file's text."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def schema_text() -> str:
    """Return the JSON Schema of the document, made from the classes."""
    schema = Standing.model_json_schema(by_alias=True)
    return as_text({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema})


def shipped_schema() -> str:
    """Return the text of the schema file in the package."""
    return files(__package__).joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
