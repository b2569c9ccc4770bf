"""Files with several names (hard links): one of the names is indexed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from vop.search.sync.reader import preference
from vop.video.find import FoundFile


def other_names(files: Sequence[FoundFile], *, is_known: Callable[[FoundFile], bool]) -> list[FoundFile]:
    """Return the files that have another name among these files, by which they are indexed.

    That is a name which the library knows, or else the first one by `preference`.

    Args:
        is_known: whether the library has a file by this name, in its present state.
    """
    by_state: dict[tuple[int, int], list[FoundFile]] = defaultdict(list)
    for file in files:
        if isinstance(file.path, Path):
            by_state[file.size, file.mtime_ns].append(file)
    by_identity: dict[tuple[int, int], list[FoundFile]] = defaultdict(list)
    for same in by_state.values():
        for file in same if len(same) > 1 else ():
            with suppress(OSError):  # deleted meanwhile
                status = os.stat(str(file.path))
                by_identity[status.st_dev, status.st_ino].append(file)
    found: list[FoundFile] = []
    for names in by_identity.values():
        names.sort(key=lambda file: (not is_known(file), preference(file)))
        found += names[1:]
    return found
