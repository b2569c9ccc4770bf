"""What the owner says of the videos: tags and favourites, in `owner.json` beside the database.

A mark belongs to the content of a video, by its id, or to a moment of it, by its times. So it stays with a file that is
moved, renamed, indexed again or embedded with another model, and it waits for a video that was removed. If a file's
content changes and its duration does not, as when a program writes tags into the file, its marks move to the new
content (`follow_files`).

The file has a lock of its own, which is held for milliseconds, since an indexing may hold the library's lock for hours.
In object storage, a write that another process has overtaken is repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from vop.errors import UsageError, VopError
from vop.storage import small_files
from vop.storage.address import Location
from vop.storage.errors import ChangedObject, MissingObject
from vop.storage.objects import ObjectInfo, read, write
from vop.utils.files import atomic_write
from vop.utils.names import nfc

FILE, LOCK = "owner.json", ".owner.lock"
MAX_CHARACTERS = 100  # of a tag
SEPARATOR = ";"  # of tags in a CSV file
_VERSION = 1
_SAME_SECONDS = 0.1  # of the duration of a video whose content has changed
_COMMON = 0.5  # the share of the shorter one of two clips that both have, from which on they are one moment
_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The tags of a video or of a moment, and whether it is a favourite.

    Attributes:
        video: the video's id.
        start_seconds, end_seconds: the times of a moment; None for the whole video.
        path, duration_seconds: the video's file when the mark was last changed, and its duration.
        changed_at: ISO 8601.
    """

    video: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    tags: tuple[str, ...] = ()
    is_favourite: bool = False
    path: str = ""
    duration_seconds: float = 0.0
    changed_at: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it belongs to the whole video."""
        return self.start_seconds is None or self.end_seconds is None

    def covers(self, start_seconds: float, end_seconds: float) -> bool:
        """Whether it belongs to this clip of its video: to all of it, or to a moment that is mostly the same."""
        if self.start_seconds is None or self.end_seconds is None:
            return True
        common = min(self.end_seconds, end_seconds) - max(self.start_seconds, start_seconds)
        shorter = min(self.end_seconds - self.start_seconds, end_seconds - start_seconds)
        return common > 0 and common >= _COMMON * shorter

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}  # `asdict` would take ten times as long

    @property
    def _key(self) -> tuple[str, float, float]:
        return (self.video, -1.0 if self.start_seconds is None else self.start_seconds, self.end_seconds or 0.0)


_FIELDS = [field.name for field in fields(Mark)]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A video or a moment that an owner names; see `Mark`."""

    video: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    path: str = ""
    duration_seconds: float = 0.0

    @classmethod
    def of(
        cls, video: str, start_seconds: float | None, end_seconds: float | None, *, path: str, duration_seconds: float
    ) -> Target:
        """Return a moment, or the whole video if the moment is all of it.

        Raises:
            UsageError: the video has no such moment.
        """
        if start_seconds is None and end_seconds is None:
            return cls(video=video, path=path, duration_seconds=duration_seconds)
        start = round(max(0.0, start_seconds or 0.0), 3)
        end = round(min(duration_seconds, duration_seconds if end_seconds is None else end_seconds), 3)
        if not start < end:
            raise UsageError(
                f"the moment begins at {start_seconds or 0.0:g} s and ends at "
                f"{duration_seconds if end_seconds is None else end_seconds:g} s; give times from 0 to "
                f"{duration_seconds:g} s, the end of the video, and the start before the end"
            )
        is_whole = start <= _SAME_SECONDS and end >= duration_seconds - _SAME_SECONDS
        times = (None, None) if is_whole else (start, end)
        return cls(
            video=video,
            start_seconds=times[0],
            end_seconds=times[1],
            path=path,
            duration_seconds=duration_seconds,
        )


class Marks:
    """All marks of a library, as they were at one time."""

    def __init__(self, marks: Iterable[Mark] = ()) -> None:
        self.all = tuple(sorted(marks, key=lambda mark: (mark.path, mark._key)))

    def __bool__(self) -> bool:
        return bool(self.all)

    @cached_property
    def _by_video(self) -> dict[str, list[Mark]]:
        found = defaultdict(list)
        for mark in self.all:
            found[mark.video].append(mark)
        return dict(found)

    def of(self, video: str, clip: tuple[float, float] | None = None) -> tuple[tuple[str, ...], bool]:
        """Return the tags of a video, or of a clip of it together with those of the video; and if it is a favourite."""
        marks = [
            mark for mark in self._by_video.get(video, ()) if (mark.is_whole if clip is None else mark.covers(*clip))
        ]
        tags = dict.fromkeys(tag for mark in marks for tag in mark.tags)
        return tuple(sorted(tags, key=str.casefold)), any(mark.is_favourite for mark in marks)

    def of_target(self, target: Target) -> tuple[tuple[str, ...], bool]:
        """Return the tags of a video or moment, and whether it is a favourite; see `of`."""
        if target.start_seconds is None or target.end_seconds is None:
            return self.of(target.video)
        return self.of(target.video, (target.start_seconds, target.end_seconds))

    def tags(self) -> dict[str, int]:
        """Return all tags, each with the number of videos and moments that have it."""
        counts = Counter(tag for mark in self.all for tag in mark.tags)
        return dict(sorted(counts.items(), key=lambda item: item[0].casefold()))

    def matching(self, tags: Sequence[str], *, favourites: bool) -> list[list[Mark]]:
        """Return the marks that meet each condition: one list for each tag, and one for favourites."""
        found = [[mark for mark in self.all if _has(mark, tag)] for tag in tags]
        return [*found, [mark for mark in self.all if mark.is_favourite]] if favourites else found

    def changed(
        self,
        *targets: Target,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        is_favourite: bool | None = None,
    ) -> Marks:
        """Return the marks after the same change of some videos and moments.

        A tag that the library has keeps its spelling. What is removed from a moment is also removed from the moments
        that are mostly the same, but not from the whole video.
        """
        spelling = {tag.casefold(): tag for tag in self.tags()}
        added = [spelling.get(tag.casefold(), tag) for tag in map(check_tag, add)]
        removed = {check_tag(tag).casefold() for tag in remove}
        marks = {mark._key: mark for mark in self.all}
        for target in targets:
            for mark in self._by_video.get(target.video, ()):
                mark = marks[mark._key]
                if _is_same_moment(mark, target):
                    tags = tuple(tag for tag in mark.tags if tag.casefold() not in removed)
                    is_kept = mark.is_favourite and is_favourite is not False
                    if (tags, is_kept) != (mark.tags, mark.is_favourite):
                        marks[mark._key] = replace(mark, tags=tags, is_favourite=is_kept, changed_at=_now())
            if added or is_favourite:
                fresh = Mark(video=target.video, start_seconds=target.start_seconds, end_seconds=target.end_seconds)
                own = marks.get(fresh._key, fresh)
                marks[own._key] = replace(
                    own,
                    tags=tuple(sorted({*own.tags, *added}, key=str.casefold)),
                    is_favourite=own.is_favourite or bool(is_favourite),
                    path=target.path,
                    duration_seconds=target.duration_seconds,
                    changed_at=_now(),
                )
        return Marks(mark for mark in marks.values() if mark.tags or mark.is_favourite)

    def merged(self, others: Iterable[Mark]) -> Marks:
        """Return these marks and others; a video or moment that has both gets the tags of both."""
        spelling = {tag.casefold(): tag for tag in self.tags()}
        marks = {mark._key: mark for mark in self.all}
        for mark in others:
            tags = tuple(spelling.setdefault(tag.casefold(), tag) for tag in map(check_tag, mark.tags))
            own = marks.get(mark._key, replace(mark, tags=()))
            marks[mark._key] = replace(
                own,
                tags=tuple(sorted({*own.tags, *tags}, key=str.casefold)),
                is_favourite=own.is_favourite or mark.is_favourite,
            )
        return Marks(marks.values())

    def without(self, videos: Iterable[str]) -> Marks:
        """Return the marks of all other videos."""
        dropped = set(videos)
        return Marks(mark for mark in self.all if mark.video not in dropped)


def check_tag(tag: str) -> str:
    """Return a tag without spaces around it, in Unicode's composed form.

    Raises:
        UsageError: it is empty or too long, or has a semicolon or a control character.
    """
    clean = " ".join(nfc(tag).split())
    if not clean or len(clean) > MAX_CHARACTERS or SEPARATOR in clean or not clean.isprintable():
        raise UsageError(
            f"{tag!r} cannot be a tag: write 1 to {MAX_CHARACTERS} printable characters without {SEPARATOR!r}"
        )
    return clean


def read_marks(library: Location) -> Marks:
    """Read the marks of a library; none if its owner has not made any.

    Raises:
        VopError: the file is damaged, or of a later version of vop.
    """
    try:
        content = small_files.read_bytes(small_files.child(library, FILE))
    except FileNotFoundError:
        return Marks()
    return _parse(content, library)


def change_marks(library: Location, change: Callable[[Marks], Marks]) -> Marks:
    """Change the marks of a library, and return them.

    Args:
        change: may be called several times.

    Raises:
        VopError: the file is damaged, or cannot be written.
    """
    place = small_files.child(library, FILE)
    with _explained(library), FileLock(library / LOCK) if isinstance(library, Path) else nullcontext():
        for _ in range(_ATTEMPTS):
            content, info = _read(place)
            before = Marks() if content is None else _parse(content, library)
            after = change(before)
            if after.all == before.all:
                return after
            try:
                _write(place, _document(after), info)
            except ChangedObject:
                continue
            return after
    raise VopError(f"{place} is changed by other processes all the time; try again")


def _read(place: Location) -> tuple[bytes | None, ObjectInfo | None]:
    try:
        return (place.read_bytes(), None) if isinstance(place, Path) else read(place)
    except (FileNotFoundError, MissingObject):
        return None, None


def _write(place: Location, content: bytes, before: ObjectInfo | None) -> None:
    if not isinstance(place, Path):
        write(place, content, replacing=before)
        return
    with atomic_write(place) as path:
        path.write_bytes(content)


@contextmanager
def _explained(library: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VopError(f"{library}: tags and favourites cannot be saved ({error.strerror or error})") from error


def _document(marks: Marks) -> bytes:
    listed = [{name: value for name, value in mark.to_dict().items() if value not in (None, ())} for mark in marks.all]
    document = {"version": _VERSION, "marks": listed, "sha256": _digest(listed)}
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def _digest(listed: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _parse(content: bytes, library: Location) -> Marks:
    try:
        document = json.loads(content.decode())
        version, listed = document["version"], document["marks"]
        is_sound = version > _VERSION or document["sha256"] == _digest(listed)
        marks = [Mark(**{**mark, "tags": tuple(mark.get("tags", ()))}) for mark in listed] if is_sound else []
    except (ValueError, KeyError, TypeError, AttributeError):
        version, is_sound, marks = _VERSION, False, []
    if version > _VERSION:
        raise VopError(f"{library}: {FILE} was written by a later version of vop; update vop")
    if not is_sound:
        raise VopError(
            f"{library}: {FILE}, which has the tags and favourites, is damaged; restore it from a backup, or move it "
            "away and import them: vop library tags LIBRARY --import FILE"
        )
    return Marks(marks)


def _is_same_moment(mark: Mark, target: Target) -> bool:
    if target.start_seconds is None or target.end_seconds is None:
        return mark.is_whole
    return not mark.is_whole and mark.covers(target.start_seconds, target.end_seconds)


def _has(mark: Mark, tag: str) -> bool:
    return tag.casefold() in map(str.casefold, mark.tags)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def follow_files(marks: Marks, present: dict[str, tuple[str, float]], at_paths: dict[str, tuple[str, float]]) -> Marks:
    """Return the marks after files were moved or changed.

    Args:
        present: path and duration in seconds of the videos that the library has, by id.
        at_paths: id and duration of the videos that the library has at the paths of the other marks, by path.
    """
    followed = []
    for mark in marks.all:
        if mark.video in present:
            path, seconds = present[mark.video]
            mark = replace(mark, path=path, duration_seconds=seconds)
        elif mark.path in at_paths:
            video, seconds = at_paths[mark.path]
            if abs(seconds - mark.duration_seconds) <= _SAME_SECONDS:
                mark = replace(mark, video=video)
        followed.append(mark)
    return Marks().merged(followed)
