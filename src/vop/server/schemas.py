"""The API's schemas: query parameters of requests, and the JSON of responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from vop.errors import UsageError
from vop.search.duplicates import DuplicateVideo
from vop.search.explanations import explain
from vop.search.failures import Failure
from vop.search.filters import FILTERS, DateOrder, FilterOption, Filters, Order
from vop.search.queries import EXAMPLE_WEIGHT, Sentence
from vop.search.results import Moment
from vop.search.words.lines import Line
from vop.server.indexing import IndexingJob
from vop.server.libraries import ServedStatus, View
from vop.storage.address import location
from vop.utils.text import count

MAX_K, MAX_PER_VIDEO = 1000, 100
MAX_SENTENCES, MAX_CHARACTERS = 32, 100_000  # sentences of a query, characters of a sentence
MAX_WEIGHT, WEIGHT_DIGITS = 1e6, 6  # so that the length of a weighted sum fits float32
MAX_CLIP_SECONDS = 60.0
MAX_CURSOR = 10_000  # characters; it has a path in it

_Text = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]


# Requests


def _parameter(option: FilterOption) -> tuple[Any, Any]:
    """Return the type and the field of a filter's parameter."""
    if option.repeatable:
        return list[_Text], Field([], max_length=MAX_SENTENCES, description=option.help)
    kind = _Text if option.type is str else option.type
    return Annotated[kind | None, BeforeValidator(lambda value: value or None)], Field(None, description=option.help)


if TYPE_CHECKING:
    _FilterParameters = BaseModel
else:
    _FilterParameters = create_model("FilterParameters", **{option.name: _parameter(option) for option in FILTERS})


class FilterParameters(_FilterParameters):
    """The filters of `vop.search.filters`. Empty values are ignored."""

    def filters(self) -> Filters:
        values: dict[str, Any] = {option.name: getattr(self, option.name) for option in FILTERS}
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(filter(None, value))
        values["favourites"] = bool(values["favourites"])
        return Filters(**values)


class SearchParameters(FilterParameters):
    """How many moments to return and in which order, and the filters."""

    k: int = Field(20, ge=1, le=MAX_K, description="The number of moments.")
    per_video: int = Field(
        1, ge=1, le=MAX_PER_VIDEO, description="The number of moments that one video may have among the results."
    )
    copies: bool = Field(
        False, description="Whether to return near-duplicates, too. Otherwise they stand behind the best one."
    )
    order: Order = Field(
        "match", description="match: best first. newest, oldest: the k best matches by the date of their recording."
    )


class Sentences(BaseModel):
    """Sentences to search for. Either each sentence has a weight, or none has."""

    q: list[_Text] = Field([], max_length=MAX_SENTENCES, description="A sentence.")
    w: list[Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]] = Field(
        [], description="A weight for each sentence (default 1). A negative weight finds less of the sentence."
    )

    def sentences(self) -> list[Sentence]:
        """Return the sentences with their weights.

        Raises:
            UsageError: the numbers of sentences and weights differ.
        """
        if self.w and len(self.w) != len(self.q):
            raise UsageError(
                f"w has {count('weight', len(self.w))}, but q has {count('sentence', len(self.q))}; "
                "give a weight for each sentence, or none"
            )
        weights = [round(weight, WEIGHT_DIGITS) for weight in self.w] or [1.0] * len(self.q)
        return [Sentence(text, weight) for text, weight in zip(self.q, weights, strict=True)]


class SentencesAndWords(Sentences):
    """Sentences to search for in pictures and words."""

    words: Literal["both", "only", "none"] = Field(
        "both",
        description="What to search: what is seen and what is spoken or written, words only, or no words. In a "
        "sentence, quoted words must be spoken or written.",
    )


class SentenceParameters(SentencesAndWords, SearchParameters):
    """Sentences to search for, and how."""

    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Only moments of at least this confidence. Those whose confidence is unknown stay.",
    )


class ExampleParameters(Sentences, SearchParameters):
    """Sentences that a search by a segment or file takes in addition; without any, the example alone counts."""

    weight: float = Field(
        EXAMPLE_WEIGHT, ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="The weight of the example beside the sentences."
    )

    def sentences(self) -> list[Sentence]:
        """Return the sentences with their weights.

        Raises:
            UsageError: weights do not match the sentences, or there is only that of the example.
        """
        if not self.q and "weight" in self.model_fields_set:
            raise UsageError("weight weighs the example beside sentences: give q, too, or leave it out")
        return super().sentences()


class BrowseParameters(FilterParameters):
    """Which videos to list, and the filters."""

    k: int = Field(100, ge=1, le=MAX_K, description="The number of videos.")
    order: DateOrder = Field("newest", description="newest or oldest first.")
    start: str = Field("", max_length=MAX_CURSOR, description="`next` of the part before.")
    skip: int = Field(0, ge=0, le=2**31, description="The number of videos to leave out first.")


class MomentTimes(BaseModel):
    """The times of a moment, if they are not those of the segment."""

    start_seconds: float | None = Field(None, ge=0, allow_inf_nan=False, description="The start of the moment.")
    end_seconds: float | None = Field(None, ge=0, allow_inf_nan=False, description="The end of the moment.")


class MomentParameters(SentencesAndWords):
    """A query for the moments of one video: sentences, or a segment."""

    like: str = Field("", max_length=100, description="A segment's id, in place of sentences.")

    def check(self) -> None:
        """Raise a UsageError if there are a segment and something that only sentences take."""
        others = sorted(self.model_fields_set - {"like"})
        if self.like and others:
            raise UsageError(f"the query has a segment (like) and {', '.join(others)}, for sentences: give only one")


class ClipParameters(BaseModel):
    """A clip of a video, in seconds from its first frame."""

    start_seconds: float = Field(ge=0, allow_inf_nan=False, description="The start of the clip.")
    end_seconds: float = Field(
        ge=0, allow_inf_nan=False, description=f"The end of the clip, at most {MAX_CLIP_SECONDS:g} s after its start."
    )

    def within(self, duration_seconds: float) -> tuple[float, float]:
        """Return the clip's start and end, limited to the end of the video.

        Raises:
            UsageError: the video has no such clip, or the clip is too long.
        """
        start, end = self.start_seconds, min(self.end_seconds, duration_seconds)
        if not self.start_seconds < self.end_seconds:
            raise UsageError(f"end_seconds is {self.end_seconds}; it must be greater than start_seconds, {start}")
        if start >= duration_seconds:
            raise UsageError(f"start_seconds is {start}; the video ends at {duration_seconds:.3f} s")
        if end - start > MAX_CLIP_SECONDS:
            raise UsageError(f"the clip is {end - start:g} s long; the maximum is {MAX_CLIP_SECONDS:g} s")
        return start, end


class SavedClipParameters(ClipParameters):
    """A clip of a video to keep."""

    exact: bool = Field(
        False, description="Cut exactly and encode again, instead of copying from the key frame before the start."
    )


class PlaylistParameters(BaseModel):
    """Where a playlist begins, and how it names the video."""

    start_seconds: float = Field(0.0, ge=0, allow_inf_nan=False, description="Where to begin.")
    address: Literal["auto", "file", "server"] = Field(
        "auto",
        description="How to name the video. file: by its path; server: by its URL on this server; auto: by its path "
        "for browsers on the server's own machine, and by its URL for others.",
    )


class DuplicateParameters(BaseModel):
    """Which groups of near-duplicates to list."""

    k: int = Field(20, ge=1, le=100, description="The number of groups.")
    skip: int = Field(0, ge=0, le=2**31, description="The number of groups to leave out first.")


class ExportedSegment(BaseModel):
    """A moment of a list: a segment, and where the moment lies in its video, if not the whole segment."""

    model_config = ConfigDict(extra="forbid")

    segment: str = Field(max_length=80, description="The segment's id, from the results of a search.")
    start_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    end_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    score: float = Field(0.0, allow_inf_nan=False, description="For the table.")

    def moment(self, segment: Moment) -> Moment:
        """Return the moment, limited to the end of its video.

        Raises:
            UsageError: it ends before it begins, or begins after the video.
        """
        start = segment.start_seconds if self.start_seconds is None else self.start_seconds
        end = min(segment.end_seconds if self.end_seconds is None else self.end_seconds, segment.duration_seconds)
        if not start < end:
            raise UsageError(f"the moment of {self.segment} begins at {start} s and ends at {end} s")
        return replace(segment, start_seconds=start, end_seconds=end, score=self.score)


class ExportRequest(BaseModel):
    """Moments to export as one file, in their order."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["csv", "edl", "fcpxml", "otio"]
    moments: list[ExportedSegment] = Field(min_length=1, max_length=MAX_K)
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        "moments", description="The title of the list, and the name of the file."
    )


# Responses


class SpokenLine(BaseModel):
    """A line that is spoken or written in a video."""

    text: str
    start_seconds: float = Field(description="From the video's first frame.")
    end_seconds: float
    source: str = Field(description="`speech`, a subtitle track, or the name of a file of subtitles.")

    @classmethod
    def of(cls, line: Line) -> SpokenLine:
        return cls(**line.to_dict())


class Lines(BaseModel):
    """All lines of a video, in the order of their times."""

    lines: list[SpokenLine]


class PlaceOnEarth(BaseModel):
    """A place, in degrees: north and east are positive."""

    model_config = ConfigDict(from_attributes=True)

    latitude: float
    longitude: float


class Result(BaseModel):
    """A search result. To play it, open `media_url` and start at `media_start_seconds`."""

    path: str
    name: str = Field(description="The file's name.")
    start_seconds: float
    end_seconds: float
    score: float = Field(
        description="Cosine similarity with the query; of a search for words only, the share of its words in the line."
    )
    duration_seconds: float = Field(description="Duration of the whole video.")
    date: str = Field(description="Recording date of the video, ISO 8601.")
    segment: str = Field(description="The segment's id.")
    video: str = Field(description="The video's id.")
    columns: dict[str, str] = Field(description="The video's columns from --metadata.")
    others: int = Field(
        0, description="Further moments of the video that match and are not among the results; 0 if unknown."
    )
    copies: list[str] = Field([], description="Paths of near-duplicates that were found, too, and stand behind it.")
    tags: list[str] = Field([], description="The owner's tags of the video and of this moment.")
    is_favourite: bool = Field(False, description="Whether the video or this moment is a favourite.")
    place: PlaceOnEarth | None = Field(None, description="Where the video was recorded; null if unknown.")
    strip_url: str = Field(description="The segment's thumbnail strip, a JPEG.")
    media_url: str
    media_start_seconds: float
    matched: list[Literal["seen", "heard", "written"]] = Field(
        ["seen"], description="What matches the query: pictures, speech, subtitles."
    )
    line: SpokenLine | None = Field(None, description="The line that matches; null if no words do.")
    confidence: float | None = Field(
        None,
        description="Share, from 0 to 1, of captions that describe nothing in the library and match their best moment "
        "less well. Null for videos and pictures, and in a library that is not calibrated.",
    )
    is_weak: bool = Field(False, description='Whether the confidence is below the divider "weaker matches".')

    @classmethod
    def of(cls, moment: Moment, library: str, *, root_path: str = "") -> Result:
        """Return a moment with the URLs of its media.

        Args:
            library: its name in URLs.
            root_path: path at which a proxy serves the API.
        """
        library_url = f"{root_path}/api/libraries/{quote(library, safe='')}"
        media_url, media_start = f"{library_url}/videos/{moment.video}", moment.start_seconds
        if not moment.plays_in_browsers:
            end = min(moment.end_seconds, moment.start_seconds + MAX_CLIP_SECONDS)
            clip = urlencode({"start_seconds": moment.start_seconds, "end_seconds": end})
            media_url, media_start = f"{media_url}/moment.mp4?{clip}", 0.0
        return cls(
            path=moment.path,
            name=location(moment.path).name,
            start_seconds=moment.start_seconds,
            end_seconds=moment.end_seconds,
            score=moment.score,
            duration_seconds=moment.duration_seconds,
            date=moment.date,
            segment=moment.segment,
            video=moment.video,
            columns=moment.columns,
            others=moment.others,
            copies=list(moment.copies),
            tags=list(moment.tags),
            is_favourite=moment.is_favourite,
            place=None if moment.place is None else PlaceOnEarth.model_validate(moment.place),
            strip_url=f"{library_url}/segments/{moment.segment}/strip.jpg",
            media_url=media_url,
            media_start_seconds=media_start,
            matched=list(moment.matched),
            line=None if moment.line is None else SpokenLine.of(moment.line),
            confidence=moment.confidence,
            is_weak=moment.is_weak,
        )


class SearchResponse(BaseModel):
    """Moments, best first, at most `per_video` for each video."""

    results: list[Result]
    seconds: float = Field(description="Duration of the search.")
    notes: list[str] = Field([], description="Messages for the user, for example that a long sentence was cut.")


class Examples(BaseModel):
    """Sentences that find something in a library."""

    seen: list[str] = Field(description="What it certainly shows, best first; empty if it is not calibrated.")
    said: list[str] = Field(description="Words that are spoken or written in it, in quotes.")


class BrowseResponse(BaseModel):
    """Videos by date, each from its beginning, with the thumbnail strip of its middle and a score of 0."""

    results: list[Result]
    next: str | None = Field(description="Where the next part begins, for `start`; null at the end.")
    total: int = Field(description="The number of all videos that pass the filters.")
    seconds: float = Field(description="Duration of the request.")


class VideoVersion(BaseModel):
    """One of several versions of a video."""

    path: str
    name: str = Field(description="The file's name.")
    video: str = Field(description="The video's id.")
    size: int = Field(description="Of the file, in bytes.")
    width: int | None = Field(description="Of the pictures as they are stored; null if the file cannot be read now.")
    height: int | None
    duration_seconds: float
    date: str = Field(description="Recording date of the video, ISO 8601.")
    exact_copies: list[str] = Field(description="Paths of files with the same content.")
    part_of: str | None = Field(description="For a cut, the path of the longer video.")
    start_seconds: float | None = Field(description="For a cut, when it begins in the longer video.")
    segment: str = Field(description="The id of the segment in its middle.")
    strip_url: str = Field(description="The thumbnail strip of this segment, a JPEG.")

    @classmethod
    def of(cls, video: DuplicateVideo, *, segments: Mapping[str, str], library_url: str) -> VideoVersion:
        """Return a video with a segment of it, one of `segments`, by the ids of the videos."""
        segment = segments[video.video]
        return cls(
            **asdict(video),
            name=location(video.path).name,
            segment=segment,
            strip_url=f"{library_url}/segments/{segment}/strip.jpg",
        )


class VersionGroup(BaseModel):
    """Versions of one video: those that show all of it, largest pictures and files first, and cuts of it."""

    videos: list[VideoVersion]
    parts: list[VideoVersion]


class DuplicateGroups(BaseModel):
    """Groups of near-duplicates, and the numbers of all."""

    groups: list[VersionGroup]
    total: int = Field(description="The number of all groups.")
    near_duplicates: int = Field(description="The number of videos beyond the first of each group.")
    parts: int = Field(description="The number of cuts.")
    exact_copies: int = Field(description="The number of files with the content of a video of the library.")
    were_compared: bool = Field(
        description="Whether near-duplicates were looked for; otherwise the next indexing does."
    )


class FolderState(BaseModel):
    """A folder with videos."""

    model_config = ConfigDict(from_attributes=True)

    path: str
    name: str
    videos: int = Field(description="The number of videos that are directly in it.")
    total: int = Field(description="The number of all videos below it.")
    has_folders: bool = Field(description="Whether there are folders with videos in it.")


class Folders(BaseModel):
    """The folders with videos in a folder, by name."""

    folders: list[FolderState]


class TagCount(BaseModel):
    """A tag, and the number of videos and moments that have it."""

    tag: str
    count: int


class Tags(BaseModel):
    """All tags by name, and the number of favourites."""

    tags: list[TagCount]
    favourites: int


class MarkState(BaseModel):
    """The tags of a video or moment, and whether it is a favourite; and those of the whole video among them."""

    tags: list[str]
    is_favourite: bool
    video_tags: list[str] = Field(description="The tags that the whole video has.")
    is_video_favourite: bool = Field(description="Whether the whole video is a favourite.")


class OwnMark(BaseModel):
    """The tags of a video or moment, and whether it is a favourite, as `vop library tags` exports them."""

    model_config = ConfigDict(from_attributes=True)

    video: str = Field(description="The video's id.")
    start_seconds: float | None = Field(description="The start of the moment; null for the whole video.")
    end_seconds: float | None = Field(description="The end of the moment; null for the whole video.")
    tags: list[str]
    is_favourite: bool
    path: str
    duration_seconds: float
    changed_at: str = Field(description="Time of the last change, ISO 8601.")


class OwnMarks(BaseModel):
    """All tags and favourites, also of videos that were removed."""

    marks: list[OwnMark]


class SegmentScore(BaseModel):
    """A segment of a video, and its score."""

    model_config = ConfigDict(from_attributes=True)

    segment: str = Field(description="The segment's id.")
    start_seconds: float
    end_seconds: float
    score: float = Field(description="Cosine similarity with the query.")


class VideoMomentsResponse(SearchResponse):
    """All moments of one video that match, best first, and the scores of all its segments."""

    segments: list[SegmentScore] = Field(description="All segments of the video, in order of time.")
    floor: float = Field(description="The score from which on a segment matches.")


class IndexProgress(BaseModel):
    """The progress of a running indexing."""

    model_config = ConfigDict(from_attributes=True)

    done: int = Field(description="Number of finished files.")
    total: int = Field(description="Total number of files.")
    hours: float = Field(description="Hours of video decoded so far.")
    hours_per_hour: float = Field(description="Speed: hours of video per hour.")
    seconds_left: float | None
    current: str = Field(description="Path of a file that is being decoded.")


class IndexingState(BaseModel):
    """The last indexing of a library's folders that was started by way of this server."""

    allowed: bool = Field(description="Whether this server may start one.")
    state: Literal["idle", "waiting", "running", "stopping", "done", "stopped", "failed"] = Field(
        description="idle: none was started; waiting: another process writes to the library; stopping: the current "
        "files are being finished; stopped: it was stopped before the end."
    )
    message: str | None = Field(None, description="Why it failed, or its last warning.")
    started_at: str | None = Field(None, description="ISO 8601.")
    ended_at: str | None = Field(None, description="ISO 8601.")
    result: IndexingResult | None = Field(None, description="What it has changed, once it has ended.")

    @classmethod
    def of(cls, job: IndexingJob, *, allowed: bool) -> IndexingState:
        return cls(
            allowed=allowed,
            state=job.state,
            message=job.message,
            started_at=job.started_at,
            ended_at=job.ended_at,
            result=IndexingResult.model_validate(job.report) if job.report else None,
        )


class IndexingResult(BaseModel):
    """What an indexing has changed: numbers of videos."""

    added: int
    changed: int
    moved: int
    unchanged: int
    removed: int
    deleted: int = Field(
        validation_alias="gone", description="Deleted from the disk, but still in the library: `--prune` removes them."
    )
    excluded: int = Field(description="Excluded, but still in the library.")
    unavailable: int = Field(validation_alias="away", description="On drives or in folders that are unavailable.")
    unreadable: int = Field(description="Files that cannot be read, also from earlier indexings.")


class IndexedFolder(BaseModel):
    """A folder, file or address that a library remembers."""

    model_config = ConfigDict(from_attributes=True)

    path: str
    kind: Literal["folder", "file", "address"]
    videos: int = Field(description="Number of the library's videos at or below it.")
    available: bool = Field(validation_alias="is_available", description="Whether it can be indexed now.")


class IndexedFolders(BaseModel):
    """What an indexing goes through."""

    folders: list[IndexedFolder]


class ViewState(BaseModel):
    """A library with one of its models."""

    id: str = Field(description="The view's name in URLs.")
    library: str = Field(description="The library's name in URLs.")
    model: str
    method: str
    segments: int
    videos: int
    hours: float = Field(description="Hours of video.")
    failures: int = Field(description="Number of files that could not be read completely.")
    columns: list[str] = Field(description="Names of the columns from --metadata.")
    index: IndexProgress | None = Field(description="Null if no indexing is running, here or elsewhere.")
    indexing: IndexingState = Field(description="The last indexing that was started by way of this server.")
    error: str | None = Field(None, description="Reason why the library cannot be read. All counts are then 0.")

    @classmethod
    def of(cls, view: View, status: ServedStatus, indexing: IndexingState) -> ViewState:
        counts = status.library
        return cls(
            id=view.id,
            library=view.served.name,
            model=_short_name(view.model.name),
            method=view.model.method,
            segments=counts.segments,
            videos=counts.videos,
            hours=counts.hours,
            failures=counts.failures,
            columns=counts.columns,
            index=None if counts.index is None else IndexProgress.model_validate(counts.index),
            indexing=indexing,
            error=status.error,
        )


class Limits(BaseModel):
    """Limits on requests."""

    upload_bytes: int
    max_k: int
    read_only: bool = Field(False, description="Whether tags and favourites cannot be changed.")


class State(BaseModel):
    """The server and its views."""

    version: str
    views: list[ViewState]
    limits: Limits


class FailedFile(BaseModel):
    """A file that could not be indexed completely."""

    path: str
    kind: str = Field(description="unreadable, partial or duplicate.")
    reason: str
    seen_at: str = Field(description="Time of the last attempt, ISO 8601.")
    explanation: str = Field(description="What the reason means, in plain words.")
    next_step: str = Field(description="What the owner can do.")

    @classmethod
    def of(cls, failure: Failure) -> FailedFile:
        explained = explain(failure)
        return cls(
            path=failure.path,
            kind=failure.kind,
            reason=failure.reason,
            seen_at=failure.seen_at,
            explanation=explained.text,
            next_step=explained.next_step,
        )


class Failures(BaseModel):
    """The first failed files, and their total number."""

    failures: list[FailedFile]
    total: int


class Health(BaseModel):
    """Whether the server can answer searches. It contains nothing private, because it needs no token."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="ok: all libraries can be searched; degraded: some; unavailable: none."
    )
    reasons: list[str] = []


class Problem(BaseModel):
    """The body of every response with a status of 400 or more."""

    detail: str


class InternalError(Problem):
    """The body of a response with status 500."""

    request_id: str | None = Field(None, description="Id of the traceback in the server's log.")


def _short_name(name: str) -> str:
    """Return a short name of a model: the last two parts of a folder's path."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() and len(path.parts) > 2 else name
