"""Which videos of a library have no file any more, and which may only be out of reach."""

from __future__ import annotations

import os
from collections.abc import Iterable, Set
from functools import cache, lru_cache
from pathlib import Path

from vop.utils.names import nfc


def is_below(path: str | Path, roots: Set[Path]) -> bool:
    """Whether a path is one of `roots`, or below one, however Unicode spells their names."""
    if not roots:
        return False
    wanted, path = _in_nfc(frozenset(roots)), Path(nfc(str(path)))
    return path in wanted or any(parent in wanted for parent in path.parents)


@lru_cache(maxsize=4)  # the same few roots are asked about for every video of a library
def _in_nfc(roots: frozenset[Path]) -> frozenset[Path]:
    return frozenset(Path(nfc(str(root))) for root in roots)


def sort_missing(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of files, those that are gone, and those that are away: a drive that is not mounted may have them.

    Gone is what is not in a folder that has other things in it. An empty folder is what a drive leaves where it was
    mounted, and a file whose folder does not answer may be there.
    """

    @cache
    def has_something(folder: Path) -> bool:
        try:
            return any(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return folder != folder.parent and has_something(folder.parent)
        except OSError:
            return False

    gone, away = [], []
    for path in paths:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            (gone if has_something(Path(path).parent) else away).append(path)
        except OSError:
            away.append(path)
    return gone, away
