"""Small files beside a database: the same calls for a local folder and for a prefix in object storage."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vop.storage.address import Address, Location
from vop.storage.errors import MissingObject
from vop.storage.objects import delete, head, read, write
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
    write(place, content, replacing=before)


def remove(place: Location) -> None:
    """Delete a file, if it exists."""
    if isinstance(place, Path):
        with suppress(FileNotFoundError):
            place.unlink()
    else:
        delete(place)


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
