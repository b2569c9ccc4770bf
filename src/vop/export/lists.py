"""Write moments as one file: a table, or a list for video editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vop.errors import FileFailure, VideoError
from vop.export.edl import edl
from vop.export.fcpxml import fcpxml
from vop.export.frames import Source, read_source
from vop.export.moments import ExportableMoment, Moments, Original
from vop.export.otio import otio
from vop.export.table import csv_table, json_results
from vop.export.timeline import Timeline, make_timeline, notes_of
from vop.storage.address import Address, location


class SourceReader(Protocol):
    def __call__(self, file: Path, *, path: str, url: str, duration_seconds: float) -> Source:
        """Describes a file, as `read_source` does."""


_TABLES: Mapping[str, Callable[[Moments], str]] = {"csv": csv_table, "json": json_results}
_WRITERS: Mapping[str, Callable[[Timeline], str]] = {"edl": edl, "fcpxml": fcpxml, "otio": otio}


@dataclass(frozen=True, kw_only=True)
class ListDocument:
    """The content of a list.

    Attributes:
        moments: the number of moments in it.
        skipped, notes: as in `ExportReport`.
    """

    text: str
    moments: int
    skipped: tuple[FileFailure, ...] = ()
    notes: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        return self.text.encode("utf-8")


def list_document(
    moments: Moments, format: str, *, original: Original, name: str = "vop", read: SourceReader = read_source
) -> ListDocument:
    """Return moments as a list. A table has all of them; a list for editors leaves out unreadable files.

    Args:
        format: csv, json, edl, fcpxml or otio.
        name: the title of the timeline.
        read: describes a file.

    Raises:
        UsageError: the format cannot hold so many moments, or needs a package that is not installed.
    """
    if format in _TABLES:
        return ListDocument(text=_TABLES[format](moments), moments=len(moments))
    placed: list[tuple[ExportableMoment, Source]] = []
    known: dict[str, Source | FileFailure] = {}
    skipped: list[FileFailure] = []
    for moment in moments:
        if moment.path not in known:
            known[moment.path] = _source(moment, original, read)
        source = known[moment.path]
        if isinstance(source, Source):
            placed.append((moment, source))
        else:
            skipped.append(source)
    timeline = make_timeline(placed, name=name)
    text = _WRITERS[format](timeline)
    return ListDocument(text=text, moments=len(placed), skipped=tuple(skipped), notes=tuple(notes_of(timeline)))


def _source(moment: ExportableMoment, original: Original, read: SourceReader) -> Source | FileFailure:
    place = location(moment.path)
    try:
        with original(moment) as file:
            path, url = (moment.path, str(place)) if isinstance(place, Address) else (str(file), file.as_uri())
            return read(file, path=path, url=url, duration_seconds=moment.duration_seconds)
    except VideoError as error:
        return FileFailure(path=moment.path, reason=error.reason)
