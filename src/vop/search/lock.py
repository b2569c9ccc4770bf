"""Where a library lies on the disk, and who may write to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vop.errors import UsageError
from vop.search.manifest import FILE

DATABASE, LOCK = "database", ".lock"


def check_place(path: Path) -> None:
    """Raises a UsageError if a folder is neither a library, nor new, empty, or of an attempt that got no further.

    Nor can it have a name that the database does not take: control characters, or bytes that are no Unicode.
    """
    if not str(path).isprintable():
        raise UsageError(f"{str(path)!r}: a library's path holds letters that can be printed; choose another folder")
    if (path / FILE).exists():
        return
    if path.is_file() or (path.is_dir() and {entry.name for entry in path.iterdir()} - {LOCK, DATABASE}):
        raise UsageError(
            f"{path}: it exists and is not a library; the library comes first: vop index LIBRARY FOLDER_OF_VIDEOS …"
        )


@contextmanager
def alone_in(path: Path, *, waiting: Callable[[], None] = lambda: None, sealing: bool = True) -> Iterator[None]:
    """Holds a library for writing, and brings its checksums up to date; the lock goes with the process.

    Args:
        waiting: called once if another process holds it, before waiting for it.
        sealing: whether something may be written, so that there are new checksums.
    """
    from filelock import FileLock, Timeout

    from vop.search.checksums import seal

    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        try:
            yield
        finally:
            if sealing and (path / FILE).exists():
                seal(path)
    finally:
        lock.release()
