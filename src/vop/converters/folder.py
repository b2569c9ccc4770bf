"""Write a new folder atomically."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vop.errors import UsageError, VopError
from vop.utils.files import expand


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. It becomes `path` if the block succeeds, and is removed otherwise.

    Raises:
        UsageError: `path` exists and is not an empty folder.
        VopError: the folder cannot be created.
    """
    path = expand(path)
    check_new_folder(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise VopError(f"{path}: this folder cannot be created: {error.strerror}") from error
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: str | Path) -> None:
    """Raise a UsageError if `path` exists and is not an empty folder, or if one of its parents is a file."""
    path = expand(path)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists already and is not an empty folder: remove it or choose another one")
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise UsageError(f"{path}: {parent} is a file, not a folder: choose another one")
            break
