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


@dataclass(frozen=True, kw_only=True)
class Amount:
    """What an indexing has read so far.

    Attributes:
        current: the file that was read last.
    """

    files: int = 0
    bytes: float = 0.0
    hours: float = 0.0
    current: str = ""


class Tally:
    """Counts what is read of some files.

    Args:
        files: the files to read.
        hours: returns the hours of video decoded so far.
        changed: called with the new amount after each change.
    """

    def __init__(
        self, files: Sequence[FoundFile], hours: Callable[[], float], changed: Callable[[Amount], None]
    ) -> None:
        self._hours, self._changed = hours, changed
        self._files, self._bytes, self._current = 0, 0.0, ""
        self._part: dict[Location, float] = {}
        if files:
            self._update()

    def part_done(self, file: FoundFile | None, share: float) -> None:
        """Record that a part of a file is done; None only updates the time."""
        if file is not None:
            self._current = str(file.path)
            self._part[file.path] = self._part.get(file.path, 0.0) + share * file.size
            self._bytes += share * file.size
        self._update()

    def file_done(self, file: FoundFile) -> None:
        self._bytes += file.size - self._part.pop(file.path, 0.0)
        self._files += 1
        self._update()

    def _update(self) -> None:
        self._changed(Amount(files=self._files, bytes=self._bytes, hours=self._hours(), current=self._current))


class Display:
    """Shows the progress of an indexing: megabytes for the bar; files, hours and speed beside it.

    Args:
        files, size: the files to read, and their bytes.
        show: updates the progress bar.
        state: writes the status for other processes.
    """

    def __init__(self, *, files: int, size: int, show: Progress, state: Callable[[IndexingStatus], None]) -> None:
        self._files, self._bytes, self._show, self._state = files, size, show, state
        self._started = time.monotonic()

    def update(self, done: Amount) -> None:
        seconds = time.monotonic() - self._started
        speed = done.hours * 3600 / seconds if seconds else 0.0
        left = seconds * (self._bytes - done.bytes) / done.bytes if done.bytes else None
        self._state(
            IndexingStatus(
                done=done.files,
                total=self._files,
                hours=round(done.hours, 3),
                hours_per_hour=round(speed, 1),
                seconds_left=None if left is None else round(left),
                current=done.current,
            )
        )
        note = f"{done.files:,} of {count('file', self._files)}, {done.hours:.2f} h of video, {speed:.0f} h/h"
        whole = max(1, self._bytes // _MEGABYTE)
        shown = whole if done.files == self._files else min(int(done.bytes // _MEGABYTE), whole - 1)
        self._show("indexing (MB)", shown, whole, note)


class IndexProgress(Tally):
    """Counts what is read of some files, and shows it.

    Args:
        files, hours: see `Tally`.
        show, state: see `Display`.
    """

    def __init__(
        self,
        files: Sequence[FoundFile],
        show: Progress,
        state: Callable[[IndexingStatus], None],
        hours: Callable[[], float],
    ) -> None:
        display = Display(files=len(files), size=sum(file.size for file in files), show=show, state=state)
        super().__init__(files, hours, display.update)
