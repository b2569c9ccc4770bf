"""Which of several files with the same content is the original."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from vop.video.find import FoundFile

_SECONDS = 2  # FAT keeps times of change in steps of so many seconds, so that a copy on it looks a little older


class Copies:
    """Finds the originals among files that are to be indexed; safe from several threads.

    Only files of the same size are read through, each once, and only those that come before another one by
    `preference`: the answer does not depend on the order in which threads ask.

    Args:
        known: paths of videos that the library has. These stay originals as long as their content is the same.
        content_id: reads a file through.
    """

    def __init__(
        self, files: Iterable[FoundFile], *, known: Set[str] = frozenset(), content_id: Callable[[Path], str]
    ) -> None:
        self._content_id = content_id
        groups: dict[int, list[FoundFile]] = defaultdict(list)
        for file in files:
            groups[file.size].append(file)
        self._groups = {
            size: sorted(group, key=lambda file: (str(file.path) not in known, preference(file)))
            for size, group in groups.items()
            if len(group) > 1
        }
        self._reading = {size: threading.Lock() for size in self._groups}
        self._ids: dict[Path, str | None] = {}

    def original_of(self, file: FoundFile) -> FoundFile | None:
        """The best of those files that have the content of this one; None if that is the file itself.

        Raises:
            OSError: the file cannot be read.
        """
        group = self._groups.get(file.size, [])
        if not group or group[0] == file:
            return None
        own = self.content_of(file)
        for other in group[: group.index(file)]:
            if self._content_if_readable(other) == own:
                return other
        return None

    def content_of(self, file: FoundFile) -> str:
        """The id of a file's content.

        Raises:
            OSError: the file cannot be read.
        """
        if file.size not in self._groups:
            return self._content_id(file.path)
        with self._reading[file.size]:
            if self._ids.get(file.path) is None:
                self._ids[file.path] = self._content_id(file.path)
            return self._ids[file.path]

    def _content_if_readable(self, file: FoundFile) -> str | None:
        try:
            return self.content_of(file)
        except OSError:
            return None


def preference(file: FoundFile) -> tuple:
    """Sorts copies: the one that was changed first, then the shorter name, then the one in fewer folders."""
    seconds = file.mtime_ns // (_SECONDS * 10**9)
    return seconds, len(file.path.name), len(file.path.parts), str(file.path)
