"""What the API takes and gives, as JSON and as query parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from vop.errors import UsageError
from vop.search.failures import Failure
from vop.search.filters import Filters
from vop.search.queries import Sentence
from vop.search.results import Moment
from vop.server.views import View
from vop.utils.text import count

MAX_K = 1000
MAX_SENTENCES, MAX_LENGTH = 32, 100_000  # of a query, and characters of each
MAX_WEIGHT, WEIGHT_DIGITS = 1e6, 6  # a sum of them has a length in float32
MAX_MOMENT_SECONDS = 60.0

_Text = Annotated[str, StringConstraints(max_length=MAX_LENGTH)]


class Asked(BaseModel):
    """How many moments are wanted, and out of which videos; see `vop.search.filters`. Empty values say nothing."""

    model_config = ConfigDict(extra="forbid")  # a misspelt filter would be one that does not filter

    k: int = Field(20, ge=1, le=MAX_K, description="number of moments")
    folder: _Text | None = Field(None, description="an absolute path, or a folder anywhere on the way to the file")
    name: _Text | None = Field(None, description="the file's name or a part of it; * and ? stand for any characters")
    min_seconds: float | None = Field(None, description="of the whole video")
    max_seconds: float | None = Field(None, description="of the whole video")
    after: _Text | None = Field(None, description="a date, ISO 8601")
    before: _Text | None = Field(None, description="a date, ISO 8601; the day itself is left out")
    where: list[_Text] = Field([], max_length=MAX_SENTENCES, description="COLUMN, one of = != > < >= <= ~, VALUE")

    @field_validator("folder", "name", "min_seconds", "max_seconds", "after", "before", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    def how(self) -> dict:
        """The arguments of `Library.search`."""
        names = ("folder", "name", "min_seconds", "max_seconds", "after", "before")
        where = tuple(condition for condition in self.where if condition)
        return {"k": self.k, "filters": Filters(**{name: getattr(self, name) for name in names}, where=where)}


class AskedInWords(Asked):
    """Sentences, with as many weights or none."""

    q: list[_Text] = Field([], max_length=MAX_SENTENCES, description="a sentence")
    w: list[Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]] = Field(
        [], description="weights of the sentences, 1 where left out; a negative one leads away"
    )

    def sentences(self) -> list[Sentence]:
        if self.w and len(self.w) != len(self.q):
            raise UsageError(
                f"there are {count('weight', len(self.w))} (w) for {count('sentence', len(self.q))} (q); "
                "give one for each, or none"
            )
        weights = [round(weight, WEIGHT_DIGITS) for weight in self.w] or [1.0] * len(self.q)
        return [Sentence(text, weight) for text, weight in zip(self.q, weights, strict=True)]


class AskedForMoment(BaseModel):
    """A stretch of a video, in seconds from its first frame."""

    start_seconds: float = Field(ge=0, allow_inf_nan=False)
    end_seconds: float = Field(ge=0, allow_inf_nan=False)

    def within(self, duration_seconds: float) -> tuple[float, float]:
        """The stretch as far as the video goes.

        Raises:
            UsageError: it has no such stretch, or it is too long.
        """
        start, end = self.start_seconds, min(self.end_seconds, duration_seconds)
        if not self.start_seconds < self.end_seconds:
            raise UsageError(f"end_seconds is {self.end_seconds}; it must come after start_seconds, {start}")
        if start >= duration_seconds:
            raise UsageError(f"start_seconds is {start}; the video ends at {duration_seconds:.3f} s")
        if end - start > MAX_MOMENT_SECONDS:
            raise UsageError(f"the moment is {end - start:g} s long; at most {MAX_MOMENT_SECONDS:g} s are given")
        return start, end


class Result(BaseModel):
    """A moment that was found: `media_url` plays it from `media_start_seconds` on."""

    path: str
    name: str
    start_seconds: float
    end_seconds: float
    score: float
    duration_seconds: float
    date: str
    segment: str
    video: str
    columns: dict[str, str]
    strip_url: str
    media_url: str
    media_start_seconds: float


class Found(BaseModel):
    """Moments, best first, at most one of a video; `notes` are for the user."""

    results: list[Result]
    seconds: float
    notes: list[str] = []


class IndexState(BaseModel):
    """How far an indexing is that runs now."""

    model_config = ConfigDict(extra="ignore")

    done: int
    total: int
    hours: float
    hours_per_hour: float
    seconds_left: float | None
    current: str


class ViewState(BaseModel):
    """A library under one of its models; where `error` says why it cannot be read now, its counts are 0."""

    id: str
    library: str
    model: str
    method: str
    segments: int
    videos: int
    hours: float
    failures: int
    columns: list[str]
    index: IndexState | None
    error: str | None = None


class Limits(BaseModel):
    upload_bytes: int
    max_k: int


class State(BaseModel):
    version: str
    views: list[ViewState]
    limits: Limits


class FailedFile(BaseModel):
    """A file that is not, or not wholly, in the library."""

    path: str
    kind: str
    reason: str
    seen_at: str


class Failures(BaseModel):
    failures: list[FailedFile]
    total: int


class Problem(BaseModel):
    """What every answer with a status of 400 or more says."""

    detail: str


MEDIA_PROBLEMS = {507: {"model": Problem}}
UPLOAD_PROBLEMS = {status: {"model": Problem} for status in (400, 408, 413, 415, 507)}
PROBLEMS = {status: {"model": Problem} for status in (401, 403, 404, 422, 500, 503)}


def result_of(moment: Moment, library: str, *, root_path: str = "") -> Result:
    """A moment with the addresses of its pictures.

    Args:
        library: its name in URLs.
        root_path: below which a proxy serves the API.
    """
    start = f"{root_path}/api/libraries/{quote(library, safe='')}"
    media, begins = f"{start}/videos/{moment.video}", moment.start_seconds
    if not moment.plays_in_browsers:
        end = min(moment.end_seconds, moment.start_seconds + MAX_MOMENT_SECONDS)
        span = urlencode({"start_seconds": moment.start_seconds, "end_seconds": end})
        media, begins = f"{media}/moment.mp4?{span}", 0.0
    said = {name: getattr(moment, name) for name in Result.model_fields.keys() & vars(moment).keys()}
    return Result(
        **said,
        name=Path(moment.path).name,
        strip_url=f"{start}/segments/{moment.segment}/strip.jpg",
        media_url=media,
        media_start_seconds=begins,
    )


def state_of(view: View, status: dict) -> ViewState:
    """A view, with what `Served.status` says."""
    model = view.model
    return ViewState(id=view.id, library=view.served.name, model=_short(model.name), method=model.method, **status)


def _short(name: str) -> str:
    """A model's name as people call it: of a folder the last two parts."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() and len(path.parts) > 2 else name


def failed(failure: Failure) -> FailedFile:
    return FailedFile(path=failure.path, kind=failure.kind, reason=failure.reason, seen_at=failure.seen_at)
