"""Which videos of a library were deleted, and which are only unavailable."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vop.search.reading import is_as_it_was
from vop.search.volumes import mount_point, volume_of
from vop.utils.names import nfc

if TYPE_CHECKING:
    from vop.search.results import VideoRecord


def is_below(path: str | Path, roots: Set[Path]) -> bool:
    """Whether a path is one of `roots`, or below one, however Unicode spells their names."""
    if not roots:
        return False
    wanted, path = _in_nfc(frozenset(roots)), Path(nfc(str(path)))
    return path in wanted or any(parent in wanted for parent in path.parents)


@lru_cache(maxsize=4)  # the same few roots are asked about for every video of a library
def _in_nfc(roots: frozenset[Path]) -> frozenset[Path]:
    return frozenset(Path(nfc(str(root))) for root in roots)


def sort_missing(paths: Iterable[str], known: Mapping[str, VideoRecord]) -> tuple[list[str], list[str]]:
    """Of files, those that were deleted, and those that are unavailable; files that exist are in neither list.

    A file was deleted if its folder still exists, has other things in it (hidden ones do not count), and is on the
    filesystem that the file was on; where that is not known, another video of the folder has to be there. A folder
    that is missing or empty may be a drive or a share that is not mounted, and so may one that is on another filesystem
    than before.

    Args:
        known: the videos of the library, by path; what they say of their filesystems is used.
    """
    has_something, volume, is_there = cache(_has_something), cache(volume_of), cache(_witnesses(known.values()))
    has_sibling = cache(lambda folder: any(map(is_as_it_was, _in_folder(folder, known))))

    def is_deleted(path: str) -> bool:
        folder = os.path.dirname(path)
        if not has_something(folder):
            return False
        before = known[path].volume if path in known else None
        if before is None:  # of an older library
            return has_sibling(folder)
        return before == volume(folder) or _is_mounted(before, volume(folder), is_there)

    deleted, unavailable = [], []
    for path in paths:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            (deleted if is_deleted(path) else unavailable).append(path)
        except (OSError, ValueError):
            unavailable.append(path)
    return deleted, unavailable


def missing_folders(paths: Collection[str]) -> list[Path]:
    """For unavailable files, the topmost folders that are missing, or else the folders they were in; sorted."""
    return sorted({_topmost_missing(Path(path).parent) for path in paths})


def _topmost_missing(folder: Path) -> Path:
    while not os.path.lexists(folder.parent) and folder != folder.parent:
        folder = folder.parent
    return folder


def _has_something(folder: str) -> bool:
    """Whether there is anything that is not hidden: systems leave hidden files where a drive was mounted."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False


def _is_mounted(before: str, now: str | None, is_there: Callable[[str], bool]) -> bool:
    """Whether the same filesystem is mounted at the same place although its identity is another one.

    Some filesystems get their identity from a device number, which may change when the system starts: then most of its
    videos, still there, tell that it is the same one. The root filesystem is always mounted.
    """
    if now is None or mount_point(now) != mount_point(before):
        return False
    return mount_point(now) == os.sep or is_there(before)


def _witnesses(known: Collection[VideoRecord]) -> Callable[[str], bool]:
    """Tells whether a filesystem still has half of its videos: another drive may have copies of a few."""

    def is_there(volume: str) -> bool:
        there = [is_as_it_was(video) for video in known if video.volume == volume]
        return 2 * sum(there) >= len(there)

    return is_there


def _in_folder(folder: str, known: Mapping[str, VideoRecord]) -> list[VideoRecord]:
    return [video for path, video in known.items() if os.path.dirname(path) == folder]
