"""Whole videos on their way into the library, a commit now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa

from vop.search.checksums import check_rows
from vop.search.failures import Failure
from vop.search.results import METADATA
from vop.search.scanner import FoundFile
from vop.search.schema import with_column
from vop.search.store import Store
from vop.search.volumes import volume_of
from vop.utils.uninterrupted import uninterrupted

COMMIT_ROWS, COMMIT_SECONDS = 1000, 5.0
TIDY_COMMITS = 100  # every commit is a file of its own; so many are made into one


class Pending:
    """Whole videos that wait for the next commit."""

    def __init__(self, library: Store) -> None:
        self._library = library
        self._last, self._commits = time.monotonic(), 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.Table] = []
        self._rewrites: dict[str, tuple[FoundFile, dict[str, str]]] = {}
        self._replacing: set[str] = set()
        self._removed: list[str] = []
        self.failures: list[Failure] = []

    def add(self, rows: pa.Table, *, replacing: Iterable[str]) -> None:
        """A video, in the place of what is known at these paths."""
        self._rows.append(rows)
        self._replacing.update(replacing)

    def rewrite(self, video: str, file: FoundFile, values: dict[str, str], *, before: str) -> None:
        """The same segments with the file's path, size and time as they are now, and these values of metadata."""
        self._rewrites[video] = (file, values)
        self._replacing |= {before, str(file.path)}

    def remove(self, path: str) -> None:
        """A video whose file holds something else now."""
        self._removed.append(path)

    def commit_if_due(self) -> None:
        waiting = sum(map(len, self._rows)) + len(self._rewrites)
        if waiting >= COMMIT_ROWS or time.monotonic() - self._last >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes all that waits. An interruption takes effect afterwards: half of it would be written twice."""
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
        rows = [*self._rows, *self._rewritten()]
        if rows:
            self._library.put(pa.concat_tables(rows), replacing=self._replacing)
            self._commits += 1
        removed = self._removed
        self._clear()
        self._library.remove(removed)
        self._last = time.monotonic()

    def _rewritten(self) -> Iterator[pa.Table]:
        if not self._rewrites:
            return
        rows = check_rows(self._library.rows_of(self._rewrites), self._library.path)  # by video
        videos = rows.column("video").to_pylist()
        for video, places in groupby(range(len(videos)), key=videos.__getitem__):
            file, values = self._rewrites[video]
            first, *others = places
            own = rows.slice(first, 1 + len(others))
            said = {"path": str(file.path), "name": file.path.name, "size": file.size, "mtime_ns": file.mtime_ns}
            said |= {"volume": volume_of(file.path.parent), "num_segments": len(own)}
            for name, value in (said | {METADATA + name: value for name, value in values.items()}).items():
                own = with_column(own, name, value)
            yield own
