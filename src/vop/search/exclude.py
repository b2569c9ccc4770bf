"""Globs of files and folders that are not indexed.

IMG_*.MOV           a file or folder of such a name, anywhere
private             everything below each folder of that name
2024/private        by its path from the folder that is indexed (with or without that folder's own name)
**/raw/*.mov        anywhere again
/data/videos/old    an absolute path
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import cache
from pathlib import PurePath

from vop.errors import UsageError
from vop.utils.names import nfc

_ANY_FOLDERS = "**"


def normal_globs(globs: Iterable[str]) -> tuple[str, ...]:
    """The globs in one spelling, each once, in their order.

    Raises:
        UsageError: one of them is empty, or goes up with `..`.
    """
    return tuple(dict.fromkeys(map(_normal, globs)))


def _normal(glob: str) -> str:
    parts = [part for part in nfc(os.path.expanduser(glob)).split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise UsageError(f"--exclude {glob!r}: give a name (private, *.MOV), or a path below the folder (2024/private)")
    return "/" * glob.startswith(("/", "~")) + "/".join(parts)


class Exclude:
    """Tells which paths some globs exclude below one of the folders that are indexed.

    Args:
        root: the folder; case counts in it as on its disk. Or a file that was given by itself.
    """

    def __init__(self, globs: Sequence[str], root: str) -> None:
        self._root = nfc(root)
        globs = normal_globs(globs)
        flags = re.IGNORECASE if globs and ignores_case(root) else 0
        self._names = [re.compile(translate(glob), flags) for glob in globs if "/" not in glob]
        self._paths = [(glob[0] == "/", _compiled(glob, flags)) for glob in globs if "/" in glob]

    def __call__(self, path: str) -> bool:
        """Whether a file or folder is excluded by itself: not whether a folder above it is."""
        path = nfc(path)
        if any(name.match(os.path.basename(path)) for name in self._names):
            return True
        if not self._paths:
            return False
        whole, root = PurePath(path).parts[1:], PurePath(self._root).parts
        below = whole[len(root) - 1 :]
        relative = [below, (*root[-1:], *below)] if below else [whole[-1:]]
        return any(
            _fits(parts, glob) for absolute, glob in self._paths for parts in ([whole] if absolute else relative)
        )


def _compiled(glob: str, flags: int) -> tuple[re.Pattern | None, ...]:
    """A pattern for each part of a path; None stands for any number of folders."""
    parts = glob.strip("/").split("/")
    return tuple(None if part == _ANY_FOLDERS else re.compile(translate(part), flags) for part in parts)


def _fits(parts: tuple[str, ...], glob: tuple[re.Pattern | None, ...]) -> bool:
    if not glob:
        return not parts
    if glob[0] is None:
        return any(_fits(parts[start:], glob[1:]) for start in range(len(parts) + 1))
    return bool(parts) and bool(glob[0].match(parts[0])) and _fits(parts[1:], glob[1:])


@cache
def ignores_case(path: str) -> bool:
    """Whether the disk that has a file or folder takes names for the same that differ by case only."""
    folder, name = os.path.split(path.rstrip("/"))
    other = name.swapcase()
    if other == name:
        return ignores_case(folder) if name and folder != path else sys.platform in ("darwin", "win32")
    try:
        return os.path.samefile(path, os.path.join(folder, other))
    except OSError:
        return False
