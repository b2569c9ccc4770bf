"""Check that a folder can be a library, and lock a library for writing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from vop.errors import UsageError, VopError
from vop.search.checksums import seal
from vop.search.lease import hold, release_held
from vop.search.manifest import DATABASE, FILE, exists
from vop.storage.address import Address, Location
from vop.storage.objects import list_objects

LOCK = ".lock"
logger = logging.getLogger(__name__)


class UnwritableLibrary(VopError):
    """A library lies in a folder in which its lock cannot be made."""


def check_folder(path: Location) -> None:
    """Check that a folder is a library or can become one: it is new, empty, or left by an interrupted attempt.

    Raises:
        UsageError: the folder has other files in it, or its path is not printable.
    """
    if not str(path).isprintable():
        raise UsageError(f"{str(path)!r}: the path of a library must be printable; choose another folder")
    if exists(path):
        return
    if isinstance(path, Address):
        _check_prefix(path)
        return
    if path.is_file() or (path.is_dir() and {entry.name for entry in path.iterdir()} - {LOCK, DATABASE}):
        raise UsageError(
            f"{path} exists and is not a library; give the library first: vop index LIBRARY FOLDER_OF_VIDEOS …"
        )


def _check_prefix(address: Address) -> None:
    if not address.key:
        raise UsageError(f"{address}: a library needs a prefix of its own; give {address}/NAME")
    begin = len(address.parts)
    if any(info.address.parts[begin] not in (LOCK, DATABASE) for info in list_objects(address)):
        raise UsageError(f"{address} has objects and is not a library; give the library first: vop index LIBRARY …")


@contextmanager
def library_lock(path: Location, *, waiting: Callable[[], None] = lambda: None, sealing: bool = True) -> Iterator[None]:
    """Lock a library for writing, and update its checksums at the end. The lock ends with the process.

    A library in object storage has no checksums of files, and its lock is a `vop.search.lease`.

    Args:
        waiting: called once if another process has the lock, before waiting for it.
        sealing: whether to update the checksums.

    Raises:
        UnwritableLibrary: the folder cannot be written.
    """
    if isinstance(path, Address):
        lease = hold(path.at(f"{path.key}/{LOCK}"), waiting)
        try:
            yield
        finally:
            release_held(lease)
        return
    lock = FileLock(path / LOCK)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for the lock of %r", str(path))
        waiting()
        lock.acquire()
    except OSError as error:
        raise UnwritableLibrary(
            f"{path} cannot be changed: {error.strerror}. It must be on a disk that can be written and has free space"
        ) from error
    try:
        try:
            yield
        finally:
            if sealing and (path / FILE).exists():
                seal(path)
    finally:
        lock.release()
