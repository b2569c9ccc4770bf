"""Scratch: a folder with local copies of objects, of bounded size.

The folder is removed at the end. A killed process leaves its folder behind; the next scratch in the same place removes
it, which it recognizes by the lock that a living process holds.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vop.errors import UsageError
from vop.storage.address import Address
from vop.storage.errors import ChangedObject, ObjectError, ScratchFull, StorageError
from vop.storage.objects import ObjectInfo, download, head
from vop.utils.files import folder_in

_PREFIX = "vop-scratch-"
_SHARE = 0.5  # of the free space, by default
FOLDER = "VOP_SCRATCH"
_ATTEMPTS = 3  # to read an object that changes meanwhile
_LONGEST_NAME = 120  # bytes; a key may be longer than a name on a disk
log = logging.getLogger(__name__)


class Scratch:
    """Local copies of objects; safe from several threads. Use it as a context manager.

    Args:
        parent: where to make the folder, when the first object is copied; by default the folder in `VOP_SCRATCH`, or
            else the system's temporary folder.
        max_bytes: of all copies together; by default half of the free space. A copy waits until others are removed.
    """

    def __init__(self, parent: str | os.PathLike[str] | None = None, *, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise UsageError(f"the size of the scratch is {max_bytes} bytes; it must be 1 or more")
        given = os.environ.get(FOLDER)
        self.parent = Path(parent).absolute() if parent else folder_in(FOLDER, given or tempfile.gettempdir())
        self._max_bytes, self._by_default = max_bytes, max_bytes is None
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        self._used = 0
        self._changed = threading.Condition()
        self._closed = False

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove all copies. Threads that wait for space fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            folder, lock, self._folder, self._lock = self._folder, self._lock, None, None
        if folder is not None and lock is not None:
            _remove(folder, lock)

    @contextmanager
    def copy(self, address: Address) -> Iterator[tuple[Path, ObjectInfo]]:
        """Yield a file with the content of an object, and the description of this content. Then remove the file.

        The file has the object's name and time. An object that changes while it is read is read again.

        Raises:
            MissingObject: it does not exist.
            ChangedObject: it changed at every attempt.
            ObjectError: it cannot be read, or is larger than the scratch may be.
            ScratchFull: the disk is full.
            StorageError: the storage cannot be used.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            info = head(address)
            with self._reserved(info) as folder:
                path = folder / _file_name(address.name)
                try:
                    self._download(info, path)
                except ChangedObject:
                    log.info("%s changed while it was read (attempt %d)", address, attempt)
                    continue
                yield path, info
                return
        raise ChangedObject(address, f"it changed while it was read, {_ATTEMPTS} times; index it again later")

    def _download(self, info: ObjectInfo, path: Path) -> None:
        try:
            download(info, path)
            seconds = info.modified_at.timestamp()
            os.utime(path, (seconds, seconds))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(info) from error
            raise StorageError(f"{path}: the copy of {info.address} cannot be written: {error.strerror}") from error

    @contextmanager
    def _reserved(self, info: ObjectInfo) -> Iterator[Path]:
        """Yield a new folder for a copy, once there is space for it."""
        size = info.size
        with self._changed:
            folder = self._opened()
            assert self._max_bytes is not None
            if size > self._max_bytes:
                if self._by_default and size <= _SHARE * shutil.disk_usage(folder).total:
                    raise self._full(info)  # it would fit on an emptier disk
                raise ObjectError(
                    info.address,
                    f"its {_megabytes(size)} do not fit into {self.parent}, which may hold "
                    f"{_megabytes(self._max_bytes)} of copies; set VOP_SCRATCH to a folder on a larger disk",
                )
            while not self._closed and self._used and self._used + size > self._max_bytes:
                self._changed.wait()
            if self._closed:
                raise StorageError("the scratch is closed")
            if size > shutil.disk_usage(folder).free:
                raise self._full(info)
            self._used += size
        own = folder / secrets.token_hex(8)
        try:
            own.mkdir()
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    def _full(self, info: ObjectInfo) -> ScratchFull:
        return ScratchFull(
            f"{self.parent}: no space left for the copy of {info.address} ({_megabytes(info.size)}); free some space, "
            "or set VOP_SCRATCH to a folder on a larger disk, then run the same command again"
        )

    def _opened(self) -> Path:
        """Return the folder. Make it if needed."""
        if self._folder is None and not self._closed:
            try:
                self.parent.mkdir(parents=True, exist_ok=True)
                remove_abandoned(self.parent)
                folder = self.parent / f"{_PREFIX}{secrets.token_hex(8)}"
                lock = _lock_of(folder)
                lock.acquire()  # before the folder exists, so that others do not take it for an abandoned one
                folder.mkdir(mode=0o700)
            except OSError as error:
                raise StorageError(
                    f"{self.parent}: copies of objects cannot be written there ({error.strerror}); "
                    "set VOP_SCRATCH to another folder"
                ) from error
            self._folder, self._lock = folder, lock
            if self._max_bytes is None:
                self._max_bytes = max(1, int(_SHARE * shutil.disk_usage(folder).free))
        if self._folder is None:
            raise StorageError("the scratch is closed")
        return self._folder


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` that killed processes left behind."""
    for folder in parent.glob(f"{_PREFIX}*/"):
        lock = _lock_of(folder)
        with suppress(Timeout, OSError):  # in use, or of another user
            lock.acquire(timeout=0)
            log.info("removing %s, which a killed process left behind", folder)
            _remove(folder, lock)


def _lock_of(folder: Path) -> FileLock:
    # Any thread may release it.
    return FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    with suppress(OSError):
        os.unlink(lock.lock_file)


def _file_name(name: str) -> str:
    """Return the name of a copy: that of the object, from which the date of a video may be read, if a disk takes it."""
    name = re.sub(r"[\x00-\x1f/\\]", "_", name)
    stem, dot, suffix = name.rpartition(".")
    suffix = f"{dot}{suffix}" if stem and len(suffix) <= 8 else ""
    stem = name.removesuffix(suffix) if suffix else name
    return stem.encode()[: _LONGEST_NAME - len(suffix.encode())].decode(errors="ignore") + suffix


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
