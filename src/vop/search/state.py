"""How far an indexing is, for those who watch it from another process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vop.utils.files import atomic_write
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.utils.progress import Progress
    from vop.video.find import FoundFile

FILE = "progress.json"
_MEGABYTE = 2**20
STALE_SECONDS = 300.0  # a large model on a CPU may take minutes for a batch


class State:
    """Writes `progress.json` at most once a second."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._written = 0.0

    def __call__(self, **said) -> None:
        now = time.time()
        if now - self._written < 1:
            return
        self._written = now
        with suppress(Exception), atomic_write(self._path, durable=False) as path:  # nothing depends on it
            path.write_text(json.dumps({**said, "process": os.getpid(), "written_at": now}), encoding="utf-8")


class IndexProgress:
    """Says how far it is: megabytes for the bar, files, hours and speed beside it, all of it for who watches."""

    def __init__(self, show: Progress, *, hours: Callable[[], float]) -> None:
        """`hours` of video have been decoded when it is called."""
        self._show, self._hours = show, hours

    def start(self, files: Sequence[FoundFile], state: State) -> None:
        self._state, self._started = state, time.monotonic()
        self._bytes, self._done_bytes = sum(file.size for file in files), 0.0
        self._files, self._done_files = len(files), 0
        self._part: dict[Path, float] = {}
        self._current = ""
        if files:
            self._say()

    def piece(self, file: FoundFile | None, share: float) -> None:
        if file is not None:
            self._current = str(file.path)
            self._part[file.path] = self._part.get(file.path, 0.0) + share * file.size
            self._done_bytes += share * file.size
        self._say()

    def file(self, file: FoundFile) -> None:
        self._done_bytes += file.size - self._part.pop(file.path, 0.0)
        self._done_files += 1
        self._say()

    def _say(self) -> None:
        seconds = time.monotonic() - self._started
        hours = self._hours()
        speed = hours * 3600 / seconds if seconds else 0.0
        left = seconds * (self._bytes - self._done_bytes) / self._done_bytes if self._done_bytes else None
        self._state(
            done=self._done_files,
            total=self._files,
            hours=round(hours, 3),
            hours_per_hour=round(speed, 1),
            seconds_left=None if left is None else round(left),
            current=self._current,
        )
        note = f"{self._done_files:,} of {count('file', self._files)}, {hours:.2f} h of video, {speed:.0f} h/h"
        whole = max(1, self._bytes // _MEGABYTE)
        done = whole if self._done_files == self._files else min(int(self._done_bytes // _MEGABYTE), whole - 1)
        self._show("indexing (MB)", done, whole, note)


@contextmanager
def state_of(folder: Path) -> Iterator[State]:
    """A `State` that is gone when the job is."""
    try:
        yield State(folder)
    finally:
        with suppress(OSError):
            (folder / FILE).unlink()


def read_progress(folder: Path) -> dict | None:
    """What the indexing that runs now has said; None if none does."""
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        alive = time.time() - said.pop("written_at") < STALE_SECONDS and _is_alive(said.pop("process"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return said if alive else None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
