"""The files of a library's moments, for `Library.export`, and moments that were written as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path, PurePath
from typing import Any

from vop.errors import DataError, UsageError, VideoError
from vop.export.moments import ExportableMoment
from vop.search.results import IndexedVideo, Moment
from vop.search.words.lines import SPEECH, Line
from vop.storage.address import Address, location
from vop.storage.errors import StorageError
from vop.storage.scratch import Scratch

_CHANGED = "it has changed since it was indexed"
_RESULTS = "results"  # the key of the list in the JSON of `vop search`


class Originals:
    """The files of a library's videos as they were indexed. Use it as a context manager.

    Args:
        video: returns a video of the library by its id.
        scratch: where to copy objects; by default one of its own.
    """

    def __init__(self, video: Callable[[str], IndexedVideo], *, scratch: Scratch | None = None) -> None:
        self._video, self._scratch = video, scratch or Scratch()
        self._closes = scratch is None

    def __enter__(self) -> Originals:
        return self

    def __exit__(self, *_: object) -> None:
        if self._closes:
            self._scratch.close()

    @contextmanager
    def of(self, moment: ExportableMoment) -> Iterator[Path]:
        """Yield the file of a moment's video; a copy, if it is an object.

        Raises:
            VideoError: the library does not have the video any more, or its file is missing or has changed.
        """
        try:
            found = self._video(moment.video)
        except UsageError:
            raise VideoError(moment.path, "the library does not have this video any more") from None
        place = location(found.path)
        if isinstance(place, Address):
            with self._copied(place, found) as copy:
                yield copy
            return
        try:
            state = place.stat()
        except OSError as error:
            raise VideoError(place, f"the file cannot be opened ({error.strerror})") from None
        if (state.st_size, state.st_mtime_ns) != (found.size, found.mtime_ns):
            raise VideoError(place, _CHANGED)
        yield place

    @contextmanager
    def _copied(self, address: Address, found: IndexedVideo) -> Iterator[Path]:
        try:
            with self._scratch.copy(address) as (path, info):
                if (info.size, info.version) != (found.size, found.mtime_ns):
                    raise VideoError(str(address), _CHANGED)
                yield path
        except StorageError as error:
            raise VideoError(str(address), f"it cannot be copied: {error}") from None


def moments_from_json(text: str) -> list[Moment]:
    """Return the moments of a document that `vop search --json` has printed. Unknown fields are ignored.

    Raises:
        DataError: it is not such a document.
    """
    try:
        results = json.loads(text)[_RESULTS]
        return [_moment(result) for result in results]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"this is not what `vop search --json` prints: {error or type(error).__name__}") from error


def _moment(result: Mapping[str, Any]) -> Moment:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in result.items()
    }
    given = {field.name: values[field.name] for field in fields(Moment) if field.name in values}
    missing = [
        field.name
        for field in fields(Moment)
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"a result has no {', '.join(missing)}")
    line = given.get("line")
    given |= {"line": None if line is None else Line(**line), "matched": tuple(given.get("matched", ("seen",)))}
    start, end = float(given["start_seconds"]), float(given["end_seconds"])
    if not 0 <= start < end < float("inf"):
        raise ValueError(f"a result begins at {start} s and ends at {end} s")
    copies = tuple(given.get("copies", ()))
    return Moment(**given | {"start_seconds": start, "end_seconds": end, "copies": copies})


def of_one_source(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of one source, because the same words in several languages are no subtitles.

    A file with a short name comes first, which has no language in it, then tracks, then speech.
    """

    def rank(source: str) -> tuple[bool, bool, int, str]:
        return source == SPEECH, not PurePath(source).suffix, len(source), source

    chosen = min({line.source for line in lines}, key=rank, default="")
    return [line for line in lines if line.source == chosen]
