"""Tags and favourites in a library: which segments have them, and which videos and moments an owner means."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.errors import UsageError, VopError
from vop.search.filters import quoted
from vop.search.owners import FILE, Mark, Marks, Target, change_marks, check_tag, follow_files, read_marks
from vop.search.results import Moment
from vop.search.schema import clip_of, conditions
from vop.storage import small_files
from vop.storage.address import Address, Location, absolute
from vop.storage.small_files import Stamp

if TYPE_CHECKING:
    from lancedb.table import Table

_ID = re.compile(r"(?P<video>[0-9a-f]{32})(-\d{1,12}-\d{1,12})?")
_MOST_VIDEOS = 5000  # in one query
_VALID_SECONDS = 2.0  # of marks that were read from object storage, since looking costs a request
log = logging.getLogger(__name__)


class OwnMarks:
    """The tags and favourites of a library, read again when they have changed. Several threads can use them."""

    def __init__(self, library: Location) -> None:
        self._library = library
        self._changing = threading.Lock()
        self._marks = Marks()
        self._stamp: Stamp | None = None
        self._valid_until = 0.0

    def read(self) -> Marks:
        """Return all marks; none, with a warning, if they cannot be read."""
        with self._changing:
            if time.monotonic() >= self._valid_until:
                stamp = small_files.stamp_of(small_files.child(self._library, FILE))
                if self._stamp != stamp:
                    self._marks, self._stamp = read_or_warn(self._library), stamp
                if isinstance(self._library, Address):
                    self._valid_until = time.monotonic() + _VALID_SECONDS
            return self._marks

    def change(self, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks, and return all. It needs no lock; see `vop.search.owners`."""
        with self._changing:
            self._valid_until = 0.0
        return change_marks(self._library, change)


def read_or_warn(library: Location) -> Marks:
    """Return the marks of a library. A damaged file does not keep anybody from searching."""
    try:
        return read_marks(library)
    except VopError as error:
        log.warning("%s", error)
        return Marks()


def marked(moments: Sequence[Moment], marks: Marks) -> list[Moment]:
    """Return the moments with their tags, and whether they are favourites."""
    if not marks:
        return list(moments)
    found = []
    for moment in moments:
        tags, is_favourite = marks.of(moment.video, (moment.start_seconds, moment.end_seconds))
        found.append(replace(moment, tags=tags, is_favourite=is_favourite))
    return found


def condition(tags: Sequence[str], favourites: bool, *, table: Table, marks: Marks, whole_videos: bool) -> str:
    """Return the SQL condition of the segments that have all these tags, or are favourites too.

    Args:
        whole_videos: whether a tag of a moment counts for its whole video.
    """
    parts = []
    for matching in marks.matching([check_tag(tag) for tag in tags], favourites=favourites):
        videos = sorted({mark.video for mark in matching if mark.is_whole or whole_videos})
        segments = _segments(table, [mark for mark in matching if not mark.is_whole and not whole_videos])
        choices = [f"{name} IN ({_listed(ids)})" for name, ids in (("video", videos), ("segment", segments)) if ids]
        parts.append(f"({' OR '.join(choices) or 'FALSE'})")
    return " AND ".join(parts)


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(map(quoted, ids))


def _segments(table: Table, marks: Sequence[Mark]) -> list[str]:
    """Return the ids of the segments to which marks of moments belong."""
    rows = _rows(table, "video", {mark.video for mark in marks}, ["segment", "video"])
    own: dict[str, list[Mark]] = {}
    for mark in marks:
        own.setdefault(mark.video, []).append(mark)
    return sorted(
        row["segment"] for row in rows if any(mark.covers(*clip_of(row["segment"])) for mark in own[row["video"]])
    )


def _rows(
    table: Table, column: str, values: Iterable[str], names: list[str], *, only: str = ""
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for wanted in conditions(column, values, most=_MOST_VIDEOS):
        found += table.search().where(f"{only}{wanted}").select(names).to_arrow().to_pylist()
    return found


def target_of(
    table: Table,
    named: str | Path | Address | Moment,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Target:
    """Return what an owner means: a video or segment by its id, a video by its file, or a moment.

    Args:
        start_seconds, end_seconds: the times of a moment in the video.

    Raises:
        UsageError: the library does not have it.
    """
    own: tuple[float | None, float | None] = (None, None)
    if isinstance(named, Moment):
        column, value, own = "video", named.video, (named.start_seconds, named.end_seconds)
    elif isinstance(named, str):
        found = _ID.fullmatch(named)
        if found is None:
            raise UsageError(f"{named!r} is not the id of a video or segment; give a Path for a file")
        column, value = "video", found["video"]
        if named != value:
            column, value, own = "segment", named, clip_of(named)
    else:
        column, value = "path", str(absolute(named))
    names = ["video", "path", "duration_seconds"]
    rows = table.search().where(f"{column} = {quoted(value)}").select(names).limit(1).to_arrow().to_pylist()
    if not rows:
        hint = "; index it first" if column == "path" else "; it may have changed since"
        raise UsageError(f"the library has no {'video' if column == 'path' else column} {value}{hint}")
    (row,) = rows
    start, end = own if start_seconds is None and end_seconds is None else (start_seconds, end_seconds)
    return Target.of(row["video"], start, end, path=row["path"], duration_seconds=row["duration_seconds"])


def targets_below(table: Table, paths: Sequence[Path | Address]) -> list[Target]:
    """Return all videos at or below some paths.

    Raises:
        UsageError: there is none at or below one of them.
    """
    names = ["video", "path", "duration_seconds"]
    found: dict[str, Target] = {}
    for path in map(str, map(absolute, paths)):
        where = f"place = 0 AND (path = {quoted(path)} OR starts_with(path, {quoted(path.rstrip('/') + '/')}))"
        rows = table.search().where(where).select(names).to_arrow().to_pylist()
        if not rows:
            raise UsageError(f"the library has no video at or below {path}; index it first")
        found |= {row["video"]: Target(**row) for row in rows}
    return list(found.values())


def follow(library: Location, table: Table) -> None:
    """Move marks with the files: to their new paths, and to their new content if the duration is the same."""
    if not read_or_warn(library):
        return

    def change(marks: Marks) -> Marks:
        names = ["video", "path", "duration_seconds"]
        here = _rows(table, "video", {mark.video for mark in marks.all}, names, only="place = 0 AND ")
        present = {row["video"]: (row["path"], row["duration_seconds"]) for row in here}
        lost = {mark.path for mark in marks.all if mark.video not in present and mark.path}
        there = _rows(table, "path", lost, names, only="place = 0 AND ")
        at_paths = {row["path"]: (row["video"], row["duration_seconds"]) for row in there}
        return follow_files(marks, present, at_paths)

    change_marks(library, change)
