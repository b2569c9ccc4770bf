"""Whole videos on their way into the library, in a commit every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import pyarrow as pa

from vop.search.checksums import check_rows
from vop.search.failures import Failure
from vop.search.results import METADATA
from vop.search.schema import with_column
from vop.search.store import Store
from vop.search.sync.scanner import volume_of
from vop.utils.uninterrupted import uninterrupted
from vop.video.find import FoundFile

COMMIT_ROWS, COMMIT_SECONDS = 1000, 5.0
TIDY_COMMITS = 100  # are compacted: every commit writes a file of its own


class Writer:
    """Collects changes of whole videos, and commits them together.

    Attributes:
        failures: files to list with the next commit.
    """

    def __init__(self, library: Store) -> None:
        self._library = library
        self._last, self._commits = time.monotonic(), 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.Table] = []
        self._updates: dict[str, tuple[FoundFile, Mapping[str, str]]] = {}
        self._replacing: set[str] = set()
        self._removed: list[str] = []
        self.failures: list[Failure] = []

    def add(self, rows: pa.Table, *, replacing: Iterable[str]) -> None:
        """Adds a video, and removes what the library has at these paths."""
        self._rows.append(rows)
        self._replacing.update(replacing)

    def update(self, video: str, file: FoundFile, values: Mapping[str, str], *, before: str) -> None:
        """Keeps a video's segments, and changes its path, size and time, and these values of its metadata."""
        self._updates[video] = (file, values)
        self._replacing |= {before, str(file.path)}

    def remove(self, path: str) -> None:
        """Removes a video whose file has changed its content."""
        self._removed.append(path)

    def commit_if_due(self) -> None:
        waiting = sum(map(len, self._rows)) + len(self._updates)
        if waiting >= COMMIT_ROWS or time.monotonic() - self._last >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes all changes. An interruption takes effect afterwards: half of them would be written twice."""
        with uninterrupted():
            self._write()
        if self._commits >= TIDY_COMMITS:
            self._library.keep_up()
            self._commits = 0

    def _write(self) -> None:
        if self.failures:
            # They come first: if a kill falls in between, the files are not known yet and are looked at again. The
            # other way around, a video that is only partly there would be taken for a whole one.
            self._library.put_failures(self.failures)
        rows = [*self._rows, *self._updated_rows()]
        if rows:
            self._library.put(pa.concat_tables(rows), replacing=self._replacing)
            self._commits += 1
        removed = self._removed
        self._clear()
        self._library.remove(removed)
        self._last = time.monotonic()

    def _updated_rows(self) -> Iterator[pa.Table]:
        if not self._updates:
            return
        rows = check_rows(self._library.rows_of(self._updates), self._library.path)  # sorted by video
        videos = rows.column("video").to_pylist()
        for video, places in groupby(range(len(videos)), key=videos.__getitem__):
            first, *others = places
            own = rows.slice(first, 1 + len(others))
            file, metadata = self._updates[video]
            values = {
                "path": str(file.path),
                "name": file.path.name,
                "size": file.size,
                "mtime_ns": file.mtime_ns,
                "volume": volume_of(file.path.parent),
                "num_segments": len(own),
                **{METADATA + name: value for name, value in metadata.items()},
            }
            for name, value in values.items():
                own = with_column(own, name, value)
            yield own
