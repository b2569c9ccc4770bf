"""Small files beside a database: the same calls for a local folder and for a prefix in object storage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from vop.storage.address import Address, Location
from vop.storage.errors import ChangedObject, MissingObject
from vop.storage.objects import ObjectInfo, delete, delete_all, delete_below, head, list_objects, read, write
from vop.utils.files import atomic_write

Stamp = tuple[int, int]


def child(folder: Location, name: str) -> Location:
    """Return the location of a file in a folder or below a prefix."""
    return folder.at(f"{folder.key}/{name}".lstrip("/")) if isinstance(folder, Address) else folder / name


def read_bytes(place: Location) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: it does not exist.
        StorageError: the storage cannot be used.
    """
    if isinstance(place, Path):
        return place.read_bytes()
    try:
        return read(place)[0]
    except MissingObject:
        raise FileNotFoundError(str(place)) from None


def write_new(place: Location, content: bytes) -> None:
    """Write a new file completely or not at all.

    Raises:
        ChangedObject: the object exists, with other content.
    """
    if isinstance(place, Address):
        _put(place, content, replacing=None)
    else:
        write_bytes(place, content)


def write_bytes(place: Location, content: bytes, *, durable: bool = True) -> None:
    """Write a file completely or not at all.

    Raises:
        ChangedObject: another process has written the object at the same time.
    """
    if isinstance(place, Path):
        with atomic_write(place, durable=durable) as path:
            path.write_bytes(content)
        return
    try:
        before = head(place)
    except MissingObject:
        before = None
    _put(place, content, replacing=before)


def _put(place: Address, content: bytes, *, replacing: ObjectInfo | None) -> None:
    try:
        write(place, content, replacing=replacing)
    except ChangedObject:
        if read(place)[0] != content:  # otherwise only the answer to a request was lost, which was then repeated
            raise


def remove(place: Location) -> None:
    """Delete a file, if it exists."""
    if isinstance(place, Path):
        with suppress(FileNotFoundError):
            place.unlink()
    else:
        delete(place)


def names_in(folder: Location) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; none if it does not exist.

    Below a prefix, these are the names of the objects directly below it.
    """
    if isinstance(folder, Address):
        begin = len(folder.parts)
        found = (info.address.parts[begin:] for info in list_objects(folder))
        return sorted(name for name, *others in found if not others)
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def folders_with(folder: Location, name: str) -> list[Location]:
    """Return the folders in a folder that have a file of this name, oldest file first."""
    if isinstance(folder, Address):
        depth = len(folder.parts) + 2
        found = [info for info in list_objects(folder) if info.address.name == name]
        objects = [(info.modified_at, info.address.parent) for info in found if len(info.address.parts) == depth]
        return [place for _, place in sorted(objects)]
    files = [(path.stat().st_mtime_ns, path.parent) for path in folder.glob(f"*/{name}")]
    return [place for _, place in sorted(files)]


def folders_in(folder: Location) -> list[Location]:
    """Return the folders in a folder, or the prefixes below a prefix."""
    if isinstance(folder, Address):
        begin = len(folder.parts)
        names = {info.address.parts[begin] for info in list_objects(folder) if len(info.address.parts) > begin + 1}
        return [child(folder, name) for name in sorted(names)]
    return sorted(path for path in folder.glob("*") if path.is_dir())


def files_below(folder: Location, *, suffix: str) -> list[Location]:
    """Return the files in a folder and its folders, or all objects below a prefix, whose names end with `suffix`."""
    if isinstance(folder, Address):
        return [info.address for info in list_objects(folder) if info.address.name.endswith(suffix)]
    return list(folder.rglob(f"*{suffix}"))


def remove_files(places: Collection[Location]) -> None:
    """Delete files, if they exist; objects of one bucket by few requests."""
    delete_all([place for place in places if isinstance(place, Address)])
    for place in places:
        if isinstance(place, Path):
            place.unlink(missing_ok=True)


def remove_all(folder: Location) -> None:
    """Delete everything in a folder or below a prefix, as far as that is possible."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete_below(folder)


def stamp_of(place: Location) -> Stamp | None:
    """Return what changes whenever a file is written; None if it does not exist.

    Raises:
        StorageError: the storage cannot be used.
    """
    if isinstance(place, Address):
        try:
            info = head(place)
        except MissingObject:
            return None
        return info.version, info.size
    try:
        state = os.stat(place)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def is_file(place: Location) -> bool:
    return stamp_of(place) is not None
