"""What assistants can do with libraries. Independent of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from vop.errors import UsageError, VopError, unknown_name
from vop.export.names import reserved_number
from vop.search.folders import LibraryFolder
from vop.search.library import Library
from vop.search.results import Moment
from vop.utils.text import count as counted

MAX_CLIP_SECONDS = 600.0


class MatchedLine(BaseModel):
    """A line that is spoken or written in a video."""

    text: str
    start_seconds: float = Field(description="When it is spoken or shown in the video.")
    end_seconds: float
    source: str = Field(description="speech, the subtitle track, or the name of the subtitle file.")


class FoundMoment(BaseModel):
    """A moment that a search has found."""

    library: str
    segment: str = Field(description="The moment's id, for look_at_moment and export_clip.")
    path: str = Field(description="The video's file, or its address in object storage.")
    start_seconds: float = Field(description="Where the moment begins in the video.")
    end_seconds: float
    matched: list[Literal["seen", "heard", "written"]] = Field(
        description="What matches the query: the pictures (seen), speech (heard), or subtitles (written)."
    )
    line: MatchedLine | None = Field(description="The line that matches; null if no words do.")
    score: float = Field(
        description="Similarity of the pictures with the query; if the query is only quoted words, the share of them "
        "in the line. Compare it only within one search. The order of the moments may differ from that of the scores, "
        "because words count, too."
    )
    duration_seconds: float = Field(description="Duration of the whole video.")
    date: str = Field(description="When the video was recorded, ISO 8601.")
    columns: dict[str, str] = Field(description="The owner's metadata of the video.")
    confidence: float | None = Field(description="How sure it is that the moment fits, from 0 to 1; null if unknown.")
    is_weak: bool = Field(description="Whether the moment probably does not fit.")


class FoundMoments(BaseModel):
    """Moments, best first."""

    moments: list[FoundMoment]
    notes: list[str] = Field(description="What the reader should know, such as that the query was too long.")


class FolderDescription(BaseModel):
    """A folder, file or address that a library indexes."""

    path: str
    videos: int
    available: bool = Field(description="Whether it can be read now: a drive may be unplugged.")

    @classmethod
    def of(cls, folder: LibraryFolder) -> FolderDescription:
        return cls(path=folder.path, videos=folder.videos, available=folder.is_available)


class LibraryDescription(BaseModel):
    """A library: its size, model and folders."""

    name: str = Field(description="For the argument `library` of the other tools.")
    path: str
    videos: int
    hours: float = Field(description="Hours of video.")
    segments: int
    models: list[str]
    columns: list[str] = Field(description="Columns of the owner's metadata, for the argument `where` of a search.")
    folders: list[FolderDescription]
    unreadable: int = Field(description="Files that could not be read.")
    is_indexing: bool
    error: str | None = Field(None, description="Why the library cannot be read now; all numbers are 0 then.")


class LibraryDescriptions(BaseModel):
    """The libraries that can be searched."""

    libraries: list[LibraryDescription]


class ExportedClip(BaseModel):
    """A clip that was written to a file."""

    file: str
    start_seconds: float = Field(description="Where the wanted part begins in the video.")
    end_seconds: float
    lead_seconds: float = Field(
        description="How much earlier the file begins: a copy begins at a key frame. 0 with exact=true."
    )


class Tools:
    """What assistants can do with some libraries.

    Args:
        export_to: the folder for clips; None if none may be written.
    """

    def __init__(self, libraries: Sequence[Library], *, export_to: Path | None = None) -> None:
        self._libraries: dict[str, Library] = {}
        for library in libraries:
            numbered = (library.name if number == 1 else f"{library.name}-{number}" for number in count(1))
            self._libraries[next(name for name in numbered if name not in self._libraries)] = library
        self._export_to = export_to

    def describe(self, name: str | None = None) -> LibraryDescriptions:
        """Describe one library, or all of them. One that cannot be read does not keep the others from the assistant."""
        names = list(self._libraries) if name is None else [self._find(name)[0]]
        return LibraryDescriptions(libraries=[self._description_or_error(one) for one in names])

    def _description_or_error(self, name: str) -> LibraryDescription:
        try:
            return self._description(name)
        except VopError as error:
            return LibraryDescription(
                name=name,
                path=str(self._libraries[name].path),
                videos=0,
                hours=0.0,
                segments=0,
                models=[],
                columns=[],
                folders=[],
                unreadable=0,
                is_indexing=False,
                error=str(error),
            )

    def _description(self, name: str) -> LibraryDescription:
        library = self._libraries[name]
        status = library.status()
        return LibraryDescription(
            name=name,
            path=str(library.path),
            videos=status.videos,
            hours=status.hours,
            segments=status.segments,
            models=[f"{model.name} ({model.method})" for model in library.models],
            columns=status.columns,
            folders=[FolderDescription.of(folder) for folder in library.folders()],
            unreadable=status.unreadable,
            is_indexing=status.index is not None,
        )

    def search(
        self, query: str, *, name: str | None = None, k: int = 5, per_video: int = 1, filters: dict[str, Any]
    ) -> FoundMoments:
        """Return the best moments for a sentence; the arguments are those of `Library.search`."""
        if not query.strip():
            raise UsageError("the query is empty; describe in a sentence what happens in the video")
        found, library = self._find(name)
        notes: list[str] = []
        given = {key: value for key, value in filters.items() if value not in (None, "", [])}
        moments = library.search(query, k=k, per_video=per_video, warn=notes.append, **given)
        return FoundMoments(
            moments=[FoundMoment.model_validate(moment.to_dict() | {"library": found}) for moment in moments],
            notes=notes,
        )

    def look(self, segment: str, *, name: str | None = None) -> tuple[str, bytes]:
        """Return a description of a moment, and its thumbnail strip as a JPEG."""
        found = self._find(name)[1].segment(segment)
        return (
            f"{found.path}, {found.start_seconds:.1f} s to {found.end_seconds:.1f} s, from left to right",
            found.strip,
        )

    def export(
        self,
        segment: str,
        *,
        name: str | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        exact: bool = False,
    ) -> ExportedClip:
        """Write a moment, or another part of its video, as a new file: an MP4 if exact, else in the video's format.

        Args:
            exact: as for `Library.export`.

        Raises:
            UsageError: clips may not be written, or there is no such clip.
            VopError: the video has changed since it was indexed, or cannot be read.
        """
        if self._export_to is None:
            raise UsageError("clips may not be exported; start the server with --allow-export DIR")
        library = self._find(name)[1]
        moment = _clip(library, segment, start_seconds, end_seconds)
        with reserved_number(self._export_to) as number:
            report = library.export([moment], self._export_to, format="clips", exact=exact, first_number=number)
        if report.skipped:
            raise VopError(f"{moment.path}: {report.skipped[0].reason}")
        (file,) = report.files
        return ExportedClip(
            file=file.path,
            start_seconds=moment.start_seconds,
            end_seconds=moment.end_seconds,
            lead_seconds=file.lead_seconds,
        )

    def _find(self, name: str | None) -> tuple[str, Library]:
        """Return a library with its name; without a name, the only one."""
        if name is None and len(self._libraries) == 1:
            return next(iter(self._libraries.items()))
        if name is None:
            raise UsageError(f"there are {counted('library', len(self._libraries))}; name one: {self._names}")
        if name not in self._libraries:
            raise unknown_name("library", name, self._libraries)
        return name, self._libraries[name]

    @property
    def _names(self) -> str:
        return ", ".join(self._libraries)


def _clip(library: Library, segment: str, start_seconds: float | None, end_seconds: float | None) -> Moment:
    """Return a moment, or another part of its video."""
    found = library.segment(segment)
    video = library.video(found.video)
    start = found.start_seconds if start_seconds is None else start_seconds
    wanted = found.end_seconds if end_seconds is None else end_seconds
    end = min(wanted, video.duration_seconds)
    if not 0 <= start < end:
        raise UsageError(
            f"the clip begins at {start:g} s and ends at {wanted:g} s; give times from 0 to "
            f"{video.duration_seconds:g} s, the end of the video, and the start before the end"
        )
    if end - start > MAX_CLIP_SECONDS:
        raise UsageError(f"the clip has {end - start:g} s; at most {MAX_CLIP_SECONDS:g} s may be exported at once")
    return Moment(
        segment=segment,
        video=found.video,
        path=found.path,
        start_seconds=start,
        end_seconds=end,
        score=0.0,
        duration_seconds=video.duration_seconds,
        date="",
        plays_in_browsers=video.plays_in_browsers,
        columns={},
    )
