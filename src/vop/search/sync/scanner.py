"""Compare the disk with a library: find the files to index, and the videos whose files are missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

from vop.errors import DataError, UsageError
from vop.search import manifest
from vop.search.results import VideoRecord
from vop.search.sync.lock import check_folder
from vop.search.sync.object_finder import find_objects, reason_to_skip
from vop.search.sync.tables import VideoTable, is_table, read_videos
from vop.storage.address import Address, Location, is_address, location, parse_address
from vop.storage.errors import MissingObject, StorageError
from vop.storage.objects import head
from vop.utils.files import expand
from vop.utils.names import nfc
from vop.video.find import FoundFile, FoundVideos, absolute_path, find_videos, mount_point, normal_globs, volume_of

# `prune` asks first if it would remove more videos than both this number and this share of the library.
FEW_VIDEOS, LARGE_SHARE = 5, 0.1


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The videos below some paths, by the rules of a library.

    Attributes:
        library: the library's folder, or its address.
        roots: the absolute paths and the addresses, also those in given tables.
        exclude: the globs of the library and of the call.
        live_photos: whether to index the movies of Live Photos.
        found: the files that were found.
        given: the roots, with tables in place of their content.
        seconds: durations of videos by path, as far as tables have them.
    """

    library: Location
    roots: frozenset[Location]
    exclude: tuple[str, ...]
    live_photos: bool
    found: FoundVideos
    given: frozenset[Location] = frozenset()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def files(self) -> list[FoundFile]:
        return self.found.files

    def only(self, settled: Callable[[Path], bool]) -> Scan:
        """Return a scan without local files that are not settled."""
        files = [file for file in self.files if not isinstance(file.path, Path) or settled(file.path)]
        return replace(self, found=replace(self.found, files=files))

    @property
    def missing(self) -> dict[str, str]:
        """The paths that do not exist or cannot be read, with the reasons."""
        return {str(path): reason for path, reason in self.found.missing}


def scan(
    library: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    exclude: Sequence[str] = (),
    live_photos: bool | None = None,
) -> Scan:
    """Find the videos below some paths.

    Args:
        paths: folders, files, addresses, and tables of them; see `vop.search.sync.tables`.
        exclude: globs in addition to those of the library.
        live_photos: whether to index the movies of Live Photos; None keeps the library's setting.

    Raises:
        UsageError: none of the paths exists, or `library` exists and is not a library.
        DataError: a table is not valid, and nothing else is given.
        StorageError: an address cannot be listed.
    """
    (folder,) = absolute_paths([library])
    check_folder(folder)
    had = manifest.read(folder) if manifest.exists(folder) else None
    exclude = normal_globs([*(had.exclude if had else ()), *exclude])
    if live_photos is None:
        live_photos = had is not None and had.live_photos
    given = absolute_paths(paths)
    tables, wrong = _tables(given)
    listed = frozenset(place for table in tables.values() for place in table.places)
    roots = (given - tables.keys() - wrong.keys()) | listed
    found = _find(roots, listed=listed, skip=folder, exclude=exclude, live_photos=live_photos)
    found.missing += wrong.items()
    return Scan(
        library=folder,
        roots=roots,
        exclude=exclude,
        live_photos=live_photos,
        found=found,
        given=given,
        seconds={place: seconds for table in tables.values() for place, seconds in table.seconds.items()},
    )


def _tables(given: Set[Location]) -> tuple[dict[Location, VideoTable], dict[Location, str]]:
    """Read the tables among given paths. Return them, and those that are not valid, with the reasons.

    Raises:
        DataError: nothing else is given.
    """
    tables: dict[Location, VideoTable] = {}
    wrong: dict[Location, DataError] = {}
    for path in sorted(path for path in given if isinstance(path, Path) and is_table(path)):
        try:
            tables[path] = read_videos(path)
        except DataError as error:  # it may lie beside videos
            wrong[path] = error
    if wrong and len(wrong) == len(given):
        raise next(iter(wrong.values()))
    return tables, {path: str(error).removeprefix(f"{path}: ") for path, error in wrong.items()}


def _find(
    roots: Set[Location], *, listed: Set[Location], skip: Location, exclude: Sequence[str], live_photos: bool
) -> FoundVideos:
    """Find the videos below paths and addresses; `listed` are those in tables."""
    below = skip if isinstance(skip, Path) else None
    paths = sorted(root for root in roots if isinstance(root, Path))
    addresses = [root for root in roots if isinstance(root, Address)]
    if not addresses:
        return find_videos(paths, skip=below, exclude=exclude, live_photos=live_photos)
    found = find_objects(
        [address for address in addresses if address not in listed],
        [address for address in addresses if address in listed],
        skip=skip if isinstance(skip, Address) else None,
        exclude=exclude,
    )
    any_exists = len(found.missing) < len(addresses)
    if not any_exists and not paths:
        address, reason = found.missing[0]
        raise UsageError(f"'{address}' cannot be indexed: {reason}; give addresses of objects that exist")
    local = find_videos(paths, skip=below, exclude=exclude, live_photos=live_photos, any_must_exist=not any_exists)
    return FoundVideos(
        files=[*local.files, *found.files],
        skipped=local.skipped + found.skipped,
        left_out=local.left_out | found.left_out,
        missing=[*local.missing, *found.missing],
        unreadable=local.unreadable,
    )


def absolute_paths(paths: Iterable[str | Path | Address]) -> frozenset[Location]:
    """Return absolute paths; addresses are absolute."""
    found = map(location, paths)
    return frozenset(one if isinstance(one, Address) else absolute_path(expand(one)) for one in found)


def is_below(path: str | Location, roots: Set[Location]) -> bool:
    """Whether a path is one of `roots` or below one, in any Unicode form; or an address, in its own form."""
    if not roots:
        return False
    if is_address(str(path)):
        own = parse_address(str(path))
        return own in roots or any(parent in roots for parent in own.parents)
    wanted, path = _in_nfc(frozenset(roots)), Path(nfc(str(path)))
    return path in wanted or any(parent in wanted for parent in path.parents)


@lru_cache(maxsize=4)  # called with the same roots for every video of a library
def _in_nfc(roots: frozenset[Location]) -> frozenset[Path]:
    return frozenset(Path(nfc(str(root))) for root in roots if isinstance(root, Path))


def is_unchanged(record: VideoRecord | FoundFile) -> bool:
    """Whether a file exists, with the size and modification time (or ETag) that it had before."""
    place = location(record.path)
    try:
        if isinstance(place, Address):
            info = head(place)
            return (info.size, info.version) == (record.size, record.mtime_ns)
        state = os.stat(place)
    except (OSError, StorageError):
        return False
    return (state.st_size, state.st_mtime_ns) == (record.size, record.mtime_ns)


def exists(path: str) -> bool:
    """Whether a file exists, also as a broken link, or an object; True if an object's server does not tell."""
    place = location(path)
    if isinstance(place, Path):
        return os.path.lexists(place)
    try:
        head(place)
    except MissingObject:
        return False
    except StorageError:
        return True
    return True


# -- videos that were not found


@dataclass(frozen=True, kw_only=True)
class MissingVideos:
    """Videos of a library that a scan has not found, by path.

    Attributes:
        deleted: their files were deleted.
        excluded: their files exist, and are excluded.
        unavailable: their files may exist; see `split_missing`.
        library_size: number of videos in the library.
    """

    deleted: list[str]
    excluded: list[str]
    unavailable: list[str]
    library_size: int

    def without(self, paths: Iterable[str]) -> MissingVideos:
        """Return all but these videos, which were found at other paths."""
        moved = set(paths)
        return replace(
            self,
            deleted=[path for path in self.deleted if path not in moved],
            unavailable=[path for path in self.unavailable if path not in moved],
        )

    @property
    def prunable(self) -> list[str]:
        return [*self.deleted, *self.excluded]

    @property
    def needs_confirmation(self) -> bool:
        """Whether `prune` asks before it removes these videos."""
        return len(self.prunable) > max(FEW_VIDEOS, LARGE_SHARE * self.library_size)


def missing_videos(records: Mapping[str, VideoRecord], scan: Scan) -> MissingVideos:
    """Return the videos below the roots of a scan that the scan has not found.

    Args:
        records: the library's videos, by path.
    """
    below = sorted(path for path in records if is_below(path, scan.roots))
    local = [path for path in below if not is_address(path)]
    missing, unavailable = split_missing(local, records)
    deleted_objects, unavailable_objects = _missing_objects([path for path in below if is_address(path)], scan)
    unreadable = frozenset(path for path, _ in scan.found.unreadable)
    deleted = [path for path in missing if not is_below(path, unreadable)]
    unavailable += [path for path in missing if is_below(path, unreadable)]
    deleted, unavailable = deleted + deleted_objects, unavailable + unavailable_objects
    elsewhere = {*deleted, *unavailable, *(str(file.path) for file in scan.files)}
    left_out = frozenset(scan.found.left_out)
    return MissingVideos(
        deleted=deleted,
        excluded=[path for path in below if path not in elsewhere and is_below(path, left_out)],
        unavailable=unavailable,
        library_size=len(records),
    )


def _missing_objects(paths: Sequence[str], scan: Scan) -> tuple[list[str], list[str]]:
    """Return the deleted and the unavailable objects among those below the roots of a scan.

    A listing is complete, so an object that would be listed and is not was deleted. Only of an address below which
    nothing is listed it is not known whether it is the right one: its objects are unavailable.
    """
    seen = {str(file.path) for file in scan.files} | {str(path) for path in scan.found.left_out}
    nothing = frozenset(path for path, _ in scan.found.missing)
    roots = {root for root in scan.roots if isinstance(root, Address) and root not in nothing}
    deleted: list[str] = []
    unavailable: list[str] = []
    for path in paths:
        address = parse_address(path)
        own = [root for root in (address, *address.parents) if root in roots]
        if path in seen:
            continue
        if not own:
            unavailable.append(path)
        elif any(reason_to_skip(address, root) is None for root in own) or not exists(path):
            deleted.append(path)
    return deleted, unavailable


def split_missing(paths: Iterable[str], records: Mapping[str, VideoRecord]) -> tuple[list[str], list[str]]:
    """Return the deleted and the unavailable files among some paths; files that exist are in neither list.

    An object was deleted if its server says so.

    A file was deleted if its folder still exists, is not empty (hidden files do not count), and is on the filesystem of
    the file. If that filesystem is unknown, another video must exist in the folder; for a file that is not among the
    library's videos, the folder may also be on the filesystem of any of these. A folder that is missing, empty or on
    another filesystem may be a drive or a share that is not mounted.

    Args:
        records: the videos of the library, by path, which name their filesystems.
    """
    has_content, filesystem, is_mounted = cache(_has_content), cache(volume_of), cache(_mount_detector(records))
    has_sibling = cache(lambda folder: any(map(is_unchanged, _in_folder(folder, records))))
    volumes = {record.volume for record in records.values() if record.volume is not None}

    def is_deleted(path: str) -> bool:
        folder = os.path.dirname(path)
        if not has_content(folder):
            return False
        present = filesystem(folder)
        if path not in records:  # a copy, or a file that could not be read
            return has_sibling(folder) or present in volumes
        before = records[path].volume
        if before is None:  # unknown in older libraries
            return has_sibling(folder)
        return before == present or _is_same_mount(before, present, is_mounted)

    deleted: list[str] = []
    unavailable: list[str] = []
    for path in paths:
        if is_address(path):
            try:
                head(parse_address(path))
            except MissingObject:
                deleted.append(path)
            except StorageError:
                unavailable.append(path)
            continue
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            (deleted if is_deleted(path) else unavailable).append(path)
        except (OSError, ValueError):
            unavailable.append(path)
    return deleted, unavailable


def missing_folders(paths: Collection[str]) -> list[Location]:
    """Return the topmost missing folders of unavailable files, or else the folders of the files; sorted."""
    folders = sorted({_topmost_missing(Path(path).parent) for path in paths if not is_address(path)})
    return [*folders, *sorted({parse_address(path).parent for path in paths if is_address(path)})]


def _topmost_missing(folder: Path) -> Path:
    while not os.path.lexists(folder.parent) and folder != folder.parent:
        folder = folder.parent
    return folder


def _has_content(folder: str) -> bool:
    """Whether a folder has visible files: systems leave hidden files where a drive was mounted."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False


def _in_folder(folder: str, records: Mapping[str, VideoRecord]) -> list[VideoRecord]:
    return [record for path, record in records.items() if os.path.dirname(path) == folder]


# -- filesystems, which distinguish deleted files from files on a drive that is not mounted


def _is_same_mount(before: str, present: str | None, is_mounted: Callable[[str], bool]) -> bool:
    """Whether the same filesystem is mounted at the same place although its identity has changed.

    Some filesystems are identified by a device number, which may change when the system starts. It is the same
    filesystem if most of its videos still exist. The root filesystem is always mounted.
    """
    if present is None or mount_point(present) != mount_point(before):
        return False
    return mount_point(present) == os.sep or is_mounted(before)


def _mount_detector(records: Mapping[str, VideoRecord]) -> Callable[[str], bool]:
    """Return a function that tells whether a filesystem still has half of its videos.

    Fewer do not suffice: another drive may have copies of a few.
    """

    def is_mounted(volume: str) -> bool:
        present = [is_unchanged(record) for record in records.values() if record.volume == volume]
        return 2 * sum(present) >= len(present)

    return is_mounted
