"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vop.errors import VopError

# Libraries that write files by themselves (safetensors, PyTorch) hide the error number in their own message.
_FULL_MESSAGES = ("No space left", "StorageFull", "Disk quota exceeded")
_ROOM = 4096  # bytes; less than this is no room


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, its file takes the place of `path`.

    The temporary name keeps the suffix. Folders on the way are made. When the block fails, its file is removed
    and whatever was at `path` stays.

    Args:
        durable: the content reaches the disk before the name does, so that a power cut leaves the old file or the
            new one. A cache that checks what it reads can do without, and saves the wait for the disk.

    Raises:
        VopError: the folder cannot be written, or there is no space left.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        with explain_full_disk(path):
            _make_folder(path.parent)
            yield temporary
            _publish(temporary, path, durable=durable)
    finally:
        with suppress(OSError):  # gone already, or never made
            temporary.unlink()


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns what fails for want of space, in writing `path`, into a VopError that says so."""
    try:
        yield
    except Exception as error:
        if _is_full(error) or _has_no_room(path.parent):
            raise VopError(
                f"{path}: no space left; what was there before is untouched. "
                "Free some space or choose another folder, then run the same command again"
            ) from error
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if _is_full(error):
            raise
        raise VopError(f"{folder}: this folder cannot be made: {error.strerror}") from error


def _publish(temporary: Path, path: Path, *, durable: bool) -> None:
    if durable:
        _sync(temporary)
    os.replace(temporary, path)
    if durable:
        _sync(path.parent)  # the new name is the folder's content


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(message in str(error) for message in _FULL_MESSAGES)


def _has_no_room(folder: Path) -> bool:
    """Whether the disk is full now, which torch.save reports as "unexpected pos" of its own file."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False
