"""Write files completely or not at all, and read only regular files of a limited size."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vop.errors import UsageError, VopError

# Libraries that write files themselves (safetensors, PyTorch) mention the system's error only in their own message.
_FULL_MESSAGES = ("No space left", "StorageFull", "Disk quota exceeded")
_ROOM = 4096  # bytes; a disk with less free space is full


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with its `~` replaced. The `~` of an unknown user is taken literally."""
    return Path(os.path.expanduser(path))


def folder_in(variable: str, given: str) -> Path:
    """Return the absolute path of a folder that an environment variable names.

    Raises:
        UsageError: it is in the home folder of a user who does not exist.
    """
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise UsageError(f"{variable} is {given!r}, but there is no such home folder; give another folder") from None


def check_file(path: str | Path, *, at_most: int | None = None, error: type[VopError] = VopError) -> None:
    """Raise `error` unless `path` is a readable file of at most `at_most` bytes.

    Reading a pipe may wait forever, and a device such as /dev/zero never ends.
    """
    os.close(_open_file(Path(path), at_most, error))


def read_file(path: str | Path, *, at_most: int, error: type[VopError] = VopError) -> bytes:
    """Return the content of a file.

    Raises:
        error: the file is missing, cannot be read, is a folder, a pipe or a device, or has more than `at_most` bytes.
    """
    with open(_open_file(Path(path), at_most, error), "rb") as file:
        try:
            return file.read(at_most)
        except OSError as failure:
            raise error(f"{path}: {failure.strerror}") from failure


def _open_file(path: Path, at_most: int | None, error: type[VopError]) -> int:
    """Open a file. It is checked after opening, so that it cannot be replaced in between."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as failure:  # a ValueError: a path with a zero byte
        raise error(f"{path}: {getattr(failure, 'strerror', None) or failure}") from failure
    state = os.fstat(descriptor)
    wrong = None
    if not stat.S_ISREG(state.st_mode):
        wrong = f"this is {_kind(state.st_mode)}, not a file; give the path of a file"
    elif at_most is not None and state.st_size > at_most:
        wrong = f"the file has {state.st_size:,} bytes; at most {at_most:,} are read: check that it is the right file"
    if wrong:
        os.close(descriptor)
        raise error(f"{path}: {wrong}")
    return descriptor


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`. When the block succeeds, the temporary file replaces `path`.

    The temporary name keeps the suffix. Missing folders are created. When the block fails, the temporary file is
    removed and `path` stays as it was.

    Args:
        durable: write the content to the disk before the name, so that a power cut leaves either the old or the new
            file. A cache that checks its files does not need this and is faster without it.

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
        with suppress(OSError):  # it was moved, or never created
            temporary.unlink()


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of `atomic_write` to `path`. No other process may be writing it."""
    for temporary in path.parent.glob(f".tmp-*-{glob.escape(path.name)}"):
        temporary.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Raise a VopError that names the cause if `path` cannot be written because the disk is full."""
    try:
        yield
    except Exception as error:
        if _is_full(error) or _has_no_room(path.parent):
            raise VopError(
                f"{path}: no space left; the previous file is unchanged. "
                "Free some space or choose another folder, then run the same command again"
            ) from error
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if _is_full(error):
            raise
        raise VopError(f"{folder}: this folder cannot be created: {error.strerror}") from error


def _publish(temporary: Path, path: Path, *, durable: bool) -> None:
    if durable:
        _sync(temporary)
    os.replace(temporary, path)
    if durable:
        _sync(path.parent)  # the name is stored in the folder


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
    """Return whether the disk is full. `torch.save` reports a full disk as an "unexpected pos" in its file."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False
