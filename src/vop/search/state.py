"""The progress of an indexing, shown by this process and written to `progress.json` for others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.search.results import IndexingStatus
from vop.storage.address import Location
from vop.storage.errors import StorageError
from vop.storage.small_files import child, read_bytes, remove, write_bytes
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.storage.address import Location
    from vop.utils.progress import Progress
    from vop.video.find import FoundFile

FILE = "progress.json"
STALE_SECONDS = 300.0  # a large model on a CPU may take minutes for a batch
_MEGABYTE = 2**20


class StateFile:
    """Writes `progress.json` at most once a second."""

    def __init__(self, folder: Location) -> None:
        self._path = child(folder, FILE)
        self._seconds = 1.0 if isinstance(folder, Path) else 10.0  # writing an object costs a request
        self._written = 0.0

    def write(self, status: IndexingStatus) -> None:
        now = time.time()
        if now - self._written < self._seconds:
            return
        self._written = now
        with suppress(Exception):  # it is only informative
            document = {**asdict(status), "process": os.getpid(), "written_at": now}
            write_bytes(self._path, json.dumps(document).encode(), durable=False)


@contextmanager
def state_file(folder: Location) -> Iterator[StateFile]:
    """Yield a `StateFile` that is deleted when the job ends."""
    try:
        yield StateFile(folder)
    finally:
        with suppress(OSError, StorageError):
            remove(child(folder, FILE))


def read_state(folder: Location) -> IndexingStatus | None:
    """Read the progress of a running indexing, perhaps by another version of vop; None if none is running."""
    try:
        document: dict[str, Any] = json.loads(read_bytes(child(folder, FILE)))
        is_running = time.time() - document["written_at"] < STALE_SECONDS
        if isinstance(folder, Path):  # otherwise it may run on another machine
            is_running = is_running and _is_alive(document["process"])
        names = IndexingStatus.__dataclass_fields__
        status = IndexingStatus(**{name: value for name, value in document.items() if name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StorageError):
        return None
    return status if is_running else None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


@dataclass
class IndexProgress:
    """Shows the progress of an indexing: megabytes for the bar; files, hours and speed beside it.

    Attributes:
        files: the files to read.
        show: updates the progress bar.
        state: writes the status for other processes.
        hours: returns the hours of video decoded so far.
    """

    files: Sequence[FoundFile]
    show: Progress
    state: Callable[[IndexingStatus], None]
    hours: Callable[[], float]

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._bytes, self._done_bytes = sum(file.size for file in self.files), 0.0
        self._done_files = 0
        self._part: dict[Location, float] = {}
        self._current = ""
        if self.files:
            self._update()

    def part_done(self, file: FoundFile | None, share: float) -> None:
        """Record that a part of a file is done; None only updates the time."""
        if file is not None:
            self._current = str(file.path)
            self._part[file.path] = self._part.get(file.path, 0.0) + share * file.size
            self._done_bytes += share * file.size
        self._update()

    def file_done(self, file: FoundFile) -> None:
        self._done_bytes += file.size - self._part.pop(file.path, 0.0)
        self._done_files += 1
        self._update()

    def _update(self) -> None:
        seconds = time.monotonic() - self._started
        hours, total = self.hours(), len(self.files)
        speed = hours * 3600 / seconds if seconds else 0.0
        left = seconds * (self._bytes - self._done_bytes) / self._done_bytes if self._done_bytes else None
        self.state(
            IndexingStatus(
                done=self._done_files,
                total=total,
                hours=round(hours, 3),
                hours_per_hour=round(speed, 1),
                seconds_left=None if left is None else round(left),
                current=self._current,
            )
        )
        note = f"{self._done_files:,} of {count('file', total)}, {hours:.2f} h of video, {speed:.0f} h/h"
        whole = max(1, self._bytes // _MEGABYTE)
        done = whole if self._done_files == total else min(int(self._done_bytes // _MEGABYTE), whole - 1)
        self.show("indexing (MB)", done, whole, note)
