"""The folders, files and addresses that a library remembers, in `folders.json` beside its manifest.

`index` remembers what it was given, so that it can be called without paths later. A place that the indexing of another
one covers is not kept: `holidays/lake` is part of `holidays`, unless a glob excludes it there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vop.errors import UsageError, VopError
from vop.search.lease import check_held
from vop.search.results import VideoRecord
from vop.search.sync.object_finder import Exclusion
from vop.search.sync.scanner import is_below
from vop.storage.address import Address, Location, location
from vop.storage.errors import StorageError
from vop.storage.objects import list_objects
from vop.storage.small_files import child, read_bytes, write_bytes
from vop.utils.names import existing_path
from vop.video.find import Exclude, is_of_system

FILE = "folders.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class LibraryFolder:
    """A place that a library remembers.

    Attributes:
        path: the absolute path, or the address.
        kind: "folder", "file" or "address". A path that does not exist counts as a folder.
        videos: the number of the library's videos at or below it.
        is_available: whether it can be indexed now. A folder that is empty although the library has videos of it may
            be a drive or a share that is not mounted.
    """

    path: str
    kind: Literal["folder", "file", "address"]
    videos: int
    is_available: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in the JSON document of `vop library folders`."""
        values = asdict(self)
        return values | {"available": values.pop("is_available")}


def read(library: Location) -> list[Location]:
    """Return the places that a library remembers, sorted; none for a library of an earlier version of vop.

    Raises:
        VopError: the file is damaged, or from a later version.
    """
    file = child(library, FILE)
    try:
        document = json.loads(read_bytes(file))
        later, places = document["format"] > _FORMAT, [location(place) for place in document["folders"]]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise VopError(
            f"{file}: the list of remembered folders is damaged ({error}); delete this file, and give the folders "
            f"again: vop index {library} FOLDER"
        ) from None
    if later:
        raise VopError(f"{file}: a later version of vop has written the list of remembered folders: upgrade vop")
    return places


def remembered(library: Location) -> list[Location]:
    """Return the places that a library remembers.

    Raises:
        UsageError: it remembers none.
        VopError: see `read`.
    """
    places = read(library)
    if not places:
        raise UsageError(
            f"{library} remembers no folders: an earlier version of vop has indexed it, or its folders were dropped. "
            f"Give them once: vop index {library} FOLDER"
        )
    return places


def remember(library: Location, places: Iterable[Location], *, exclude: Sequence[str] = ()) -> None:
    """Remember places. The caller has the library's lock.

    Args:
        places: absolute paths, and addresses.
        exclude: the library's globs.
    """
    known = read(library)
    wanted = merged([*known, *places], exclude=exclude)
    if wanted != known:
        _write(library, wanted)


def drop(library: Location, places: Iterable[Location]) -> list[Location]:
    """Forget places, and return the others. The caller has the library's lock.

    Raises:
        UsageError: the library does not remember one of them.
    """
    known = read(library)
    for place in places:
        found = next((one for one in known if _is_same(one, place)), None)
        if found is None:
            listed = ", ".join(map(str, known)) or "nothing"
            raise UsageError(f"{library} does not remember {str(place)!r}; it remembers: {listed}")
        known.remove(found)
    _write(library, known)
    return known


def _is_same(one: Location, other: Location) -> bool:
    """Return whether two places are the same, in any Unicode form."""
    return is_below(str(one), frozenset({other})) and is_below(str(other), frozenset({one}))


def merged(places: Iterable[Location], *, exclude: Sequence[str] = ()) -> list[Location]:
    """Return places without those that others cover, sorted."""
    kept: list[Location] = []
    for place in sorted(set(places), key=lambda one: (len(str(one)), str(one))):
        if not any(covers(root, place, exclude=exclude) for root in kept):
            kept.append(place)
    return sorted(kept, key=str)


def covers(root: Location, place: Location, *, exclude: Sequence[str] = ()) -> bool:
    """Return whether an indexing of `root` reaches `place`: the same place, or one below it that is not skipped."""
    if not is_below(str(place), frozenset({root})):
        return False
    if isinstance(root, Address) or isinstance(place, Address):
        return isinstance(root, Address) and isinstance(place, Address) and _reaches_object(root, place, exclude)
    is_excluded, below = Exclude(exclude, str(root)), place.parts[len(root.parts) :]
    folders = [root.joinpath(*below[:end]) for end in range(1, len(below) + 1)]
    return not any(one.name.startswith(".") or is_of_system(one.name) or is_excluded(str(one)) for one in folders)


def _reaches_object(root: Address, place: Address, exclude: Sequence[str]) -> bool:
    below = place.parts[len(root.parts) :]
    skipped = any(name.startswith(".") or is_of_system(name) for name in below)
    return not skipped and (place == root or not Exclusion(exclude, root)(place))


def describe(places: Iterable[Location], records: Mapping[str, VideoRecord]) -> list[LibraryFolder]:
    """Describe remembered places.

    Args:
        records: the library's videos, by path.
    """
    found = []
    for place in places:
        videos = sum(is_below(path, frozenset({place})) for path in records)
        available = is_available(place, videos=videos)
        found.append(LibraryFolder(path=str(place), kind=_kind(place, records), videos=videos, is_available=available))
    return found


def _kind(place: Location, records: Mapping[str, VideoRecord]) -> Literal["folder", "file", "address"]:
    if isinstance(place, Address):
        return "address"
    is_file = str(place) in records or os.path.isfile(existing_path(place))
    return "file" if is_file else "folder"


def is_available(place: Location, *, videos: int = 0) -> bool:
    """Return whether a place can be indexed now.

    Args:
        videos: the number of the library's videos at or below it. Without any, an empty folder is available.
    """
    if isinstance(place, Address):
        try:
            return next(iter(list_objects(place)), None) is not None or not videos
        except StorageError:
            return False
    path = existing_path(place)
    try:
        with os.scandir(path) as entries:
            return not videos or any(not entry.name.startswith(".") for entry in entries)
    except NotADirectoryError:
        return os.access(path, os.R_OK)
    except OSError:
        return False


def drop_below(library: Location, roots: Set[Location]) -> None:
    """Forget the places at or below some roots. The caller has the library's lock."""
    known = read(library)
    kept = [place for place in known if not is_below(str(place), roots)]
    if kept != known:
        _write(library, kept)


def _write(library: Location, places: Sequence[Location]) -> None:
    check_held(library)
    document = {"format": _FORMAT, "folders": [str(place) for place in places]}
    write_bytes(child(library, FILE), (json.dumps(document, indent=2) + "\n").encode())
