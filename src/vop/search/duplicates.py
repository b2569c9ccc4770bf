"""Lists of near-duplicates and exact copies, from which an owner can decide what to keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vop.errors import VideoError
from vop.search.failures import COPY_OF, DUPLICATE, Failure
from vop.search.near_copies import PART, NearCopies, Pair
from vop.storage.address import location


@dataclass(frozen=True, kw_only=True)
class DuplicateVideo:
    """One of several versions of a video.

    Attributes:
        path, video: its file, and its id in the library.
        size: of the file, in bytes.
        width, height: of its pictures, as they are stored; None if the file cannot be read now, or is an object.
        date: when it was recorded, ISO 8601.
        exact_copies: the paths of files with the same content, which are not in the library.
        part_of, start_seconds: for a cut, the path of the longer video, and when the cut begins there.
    """

    path: str
    video: str
    size: int
    width: int | None = None
    height: int | None = None
    duration_seconds: float
    date: str
    exact_copies: tuple[str, ...] = ()
    part_of: str | None = None
    start_seconds: float | None = None

    @property
    def pixels(self) -> int:
        return (self.width or 0) * (self.height or 0)


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Versions of one video: those that show all of it, largest pictures and files first, and cuts of it."""

    videos: tuple[DuplicateVideo, ...]
    parts: tuple[DuplicateVideo, ...]


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The near-duplicates and the exact copies of a library.

    Attributes:
        groups: the videos that have any, by path.
        were_compared: whether near-duplicates were looked for. Otherwise the next indexing does.
    """

    groups: tuple[DuplicateGroup, ...]
    were_compared: bool

    @property
    def near_duplicates(self) -> int:
        """The number of videos beyond the first of each group."""
        return sum(len(group.videos) - 1 for group in self.groups)

    @property
    def parts(self) -> int:
        """The number of cuts."""
        return len({part.video for group in self.groups for part in group.parts})

    @property
    def exact_copies(self) -> int:
        """The number of files with the content of a video of the library."""
        return len({path for group in self.groups for video in group.videos for path in video.exact_copies})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop library duplicates --json`."""
        counts = {name: getattr(self, name) for name in ("near_duplicates", "parts", "exact_copies", "were_compared")}
        return {"groups": [asdict(group) for group in self.groups], **counts}


def grouped(
    rows: Iterable[Mapping[str, Any]], pairs: Sequence[Pair], failures: Iterable[Failure]
) -> tuple[DuplicateGroup, ...]:
    """Return the groups of a library's near-duplicates and exact copies, without the sizes of pictures.

    Args:
        rows: path, video, size, duration_seconds and date of each video of the library.
    """
    copies: dict[str, list[str]] = defaultdict(list)
    for failed in failures:
        if failed.kind == DUPLICATE:
            copies[failed.reason.removeprefix(COPY_OF)].append(failed.path)
    videos = {row["video"]: DuplicateVideo(**row, exact_copies=tuple(copies[row["path"]])) for row in rows}
    pairs = [pair for pair in pairs if pair.video in videos and pair.other in videos]
    names = NearCopies.of(pairs).groups
    members: dict[str, list[DuplicateVideo]] = defaultdict(list)
    for id, video in videos.items():
        members[names.get(id, id)].append(video)
    parts: dict[str, dict[str, DuplicateVideo]] = defaultdict(dict)
    for pair in pairs:
        if pair.kind == PART:
            cut = replace(videos[pair.video], part_of=videos[pair.other].path, start_seconds=max(0.0, pair.offset))
            parts[names.get(pair.other, pair.other)].setdefault(pair.video, cut)
    groups = [
        DuplicateGroup(videos=tuple(own), parts=tuple(sorted(parts[name].values(), key=lambda part: part.path)))
        for name, own in members.items()
        if len(own) > 1 or name in parts or own[0].exact_copies
    ]
    return tuple(sorted(groups, key=lambda group: min(video.path for video in group.videos)))


def with_sizes(
    groups: Iterable[DuplicateGroup], *, read: Callable[[Path], tuple[int, int]] | None = None
) -> tuple[DuplicateGroup, ...]:
    """Return the groups with the sizes of the pictures, the largest first.

    Args:
        read: returns the width and height of a file; by default from its headers, in this process.
    """
    sized = partial(_with_size, read=read or _stored_size)
    return tuple(
        DuplicateGroup(
            videos=tuple(sorted(map(sized, group.videos), key=lambda video: (-video.pixels, -video.size, video.path))),
            parts=tuple(map(sized, group.parts)),
        )
        for group in groups
    )


def _stored_size(path: Path) -> tuple[int, int]:
    from vop.video.probe import stored_size

    return stored_size(path)


def _with_size(video: DuplicateVideo, *, read: Callable[[Path], tuple[int, int]]) -> DuplicateVideo:
    place = location(video.path)
    if not isinstance(place, Path):
        return video
    try:
        width, height = read(place)
    except VideoError:
        return video
    return replace(video, width=width, height=height)
