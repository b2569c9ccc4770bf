"""What assistants can do with libraries. Independent of the protocol."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from vop.errors import UsageError, VopError, unknown_name
from vop.search.folders import LibraryFolder
from vop.search.library import Library
from vop.search.results import IndexedVideo, Segment
from vop.storage.address import Address, location
from vop.storage.objects import head
from vop.storage.scratch import Scratch
from vop.utils.text import count as counted
from vop.video.clip_export import export_clip

MAX_CLIP_SECONDS = 600.0


class FoundMoment(BaseModel):
    """A moment that a search has found."""

    library: str
    segment: str = Field(description="The moment's id, for look_at_moment and export_clip.")
    path: str = Field(description="The video's file, or its address in object storage.")
    start_seconds: float = Field(description="Where the moment begins in the video.")
    end_seconds: float
    score: float = Field(description="Similarity with the query. Compare it only within one search.")
    duration_seconds: float = Field(description="Duration of the whole video.")
    date: str = Field(description="When the video was recorded, ISO 8601.")
    columns: dict[str, str] = Field(description="The owner's metadata of the video.")


class FoundMoments(BaseModel):
    """The best moment of each video, best first."""

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


class LibraryDescriptions(BaseModel):
    """The libraries that can be searched."""

    libraries: list[LibraryDescription]


class ExportedClip(BaseModel):
    """A clip that was written to a file."""

    file: str
    start_seconds: float
    end_seconds: float


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
        """Describe one library, or all of them."""
        names = list(self._libraries) if name is None else [self._find(name)[0]]
        return LibraryDescriptions(libraries=[self._description(one) for one in names])

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

    def search(self, query: str, *, name: str | None = None, k: int, filters: dict[str, Any]) -> FoundMoments:
        """Return the best moments for a sentence."""
        if not query.strip():
            raise UsageError("the query is empty; describe in a sentence what happens in the video")
        found, library = self._find(name)
        notes: list[str] = []
        given = {key: value for key, value in filters.items() if value not in (None, "", [])}
        moments = library.search(query, k=k, warn=notes.append, **given)
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
    ) -> ExportedClip:
        """Write a moment, or another part of its video, as an MP4.

        Raises:
            UsageError: clips may not be written, or there is no such clip.
            VopError: the video has changed since it was indexed, or cannot be read.
        """
        if self._export_to is None:
            raise UsageError("clips may not be exported; start the server with --allow-export DIR")
        library = self._find(name)[1]
        found = library.segment(segment)
        video = library.video(found.video)
        start = found.start_seconds if start_seconds is None else start_seconds
        end = min(found.end_seconds if end_seconds is None else end_seconds, video.duration_seconds)
        if not 0 <= start < end:
            raise UsageError(
                f"the clip from {start:g} s to {end:g} s does not exist; the video has {video.duration_seconds:.1f} s"
            )
        if end - start > MAX_CLIP_SECONDS:
            raise UsageError(f"the clip has {end - start:g} s; at most {MAX_CLIP_SECONDS:g} s may be exported at once")
        out = _new_file(self._export_to, found, start, end)
        with _content_of(video) as path:
            export_clip(
                path,
                out,
                start_seconds=start,
                end_seconds=end,
                duration_seconds=video.duration_seconds,
                max_seconds=MAX_CLIP_SECONDS,
            )
        return ExportedClip(file=str(out), start_seconds=start, end_seconds=end)

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


@contextmanager
def _content_of(video: IndexedVideo) -> Iterator[Path]:
    """Yield the file of a video; for an object, a local copy of it.

    Raises:
        VopError: it is not the content that was indexed.
    """
    place = location(video.path)
    if isinstance(place, Address):
        info = head(place)
        state = (info.size, info.version)
    else:
        try:
            found = os.stat(place)
        except OSError as error:
            raise VopError(
                f"{video.path}: the file cannot be read ({error.strerror}); it may be on another drive"
            ) from None
        state = (found.st_size, found.st_mtime_ns)
    if state != (video.size, video.mtime_ns):
        raise VopError(f"{video.path}: the file has changed since it was indexed; index its folder again")
    if isinstance(place, Path):
        yield place
        return
    with Scratch() as scratch, scratch.copy(place) as (path, _):
        yield path


def _new_file(folder: Path, found: Segment, start: float, end: float) -> Path:
    """Return a name in the folder that no file has yet."""
    stem = re.sub(r"[^\w. -]+", "_", Path(found.path).stem).strip(". ")[:80] or "clip"
    numbered = (f" ({number})" if number > 1 else "" for number in count(1))
    paths = (folder / f"{stem} {start:.1f}-{end:.1f}{number}.mp4" for number in numbered)
    return next(path for path in paths if not os.path.lexists(path))
