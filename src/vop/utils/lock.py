"""A lock for a folder in which only one process may work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vop.errors import VopError
from vop.utils.files import explain_full_disk


@contextmanager
def locked(path: Path, *, busy: str) -> Iterator[None]:
    """Hold the lock of the file `path`. The operating system releases it even if the process crashes.

    Some file systems of clusters have no locks. There the block runs without one.

    Raises:
        VopError: another process holds the lock, with the message `busy`, or the file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with suppress(NotImplementedError):
                lock.acquire(timeout=0)
        except Timeout:
            raise VopError(busy) from None
    try:
        yield
    finally:
        lock.release()
