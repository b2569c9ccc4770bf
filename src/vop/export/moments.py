"""What an export takes and reports. `vop.search.results.Moment` is one of its moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from vop.errors import FileFailure


class ExportableMoment(Protocol):
    """A clip of a video, with what is known about it."""

    @property
    def video(self) -> str:
        """The video's id in its library."""

    @property
    def path(self) -> str: ...

    @property
    def start_seconds(self) -> float: ...

    @property
    def end_seconds(self) -> float: ...

    @property
    def duration_seconds(self) -> float:
        """Of the whole video."""

    def to_dict(self) -> dict[str, Any]: ...


class Line(Protocol):
    """A line of subtitles or of speech, with its times from the video's first frame."""

    @property
    def text(self) -> str: ...

    @property
    def start_seconds(self) -> float: ...

    @property
    def end_seconds(self) -> float: ...


Moments: TypeAlias = Sequence[ExportableMoment]

# Yields a moment's file on this machine, as it was when it was indexed, or raises a VideoError.
Original: TypeAlias = Callable[[ExportableMoment], AbstractContextManager[Path]]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file that was written.

    Attributes:
        path: the file.
        moments: the number of moments in it.
        lead_seconds: how much earlier than the moment a clip begins, because a copy begins at a key frame.
        copied: whether the pictures of a clip were copied, not encoded again.
    """

    path: str
    moments: int
    lead_seconds: float = 0.0
    copied: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export has written.

    Attributes:
        path: the file or folder that was asked for.
        skipped: moments that were left out, with reasons; their `path` is that of the video.
        notes: what a reader of the files has to know, such as that a frame rate is an average.
    """

    format: str
    path: str
    files: tuple[ExportedFile, ...]
    skipped: tuple[FileFailure, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
