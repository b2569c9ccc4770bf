"""A cache of clips in a folder of limited size."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vop.errors import UsageError, VideoError, VopError
from vop.server.errors import StorageFull, Unavailable
from vop.video.clip_export.export import CLIP_VERSION, export_clip

log = logging.getLogger("vop.server")


class ClipWriter(Protocol):
    def __call__(
        self,
        path: str | Path,
        out: str | Path,
        *,
        start_seconds: float,
        end_seconds: float,
        duration_seconds: float | None = None,
    ) -> None:
        """Writes a clip, as `export_clip` does."""


class Remote(Protocol):
    """A video that is copied before a clip of it is written."""

    @property
    def identity(self) -> Sequence[str | int]:
        """Values that change if the video changes."""

    def copied(self) -> AbstractContextManager[Path]:
        """Yield a copy of the video."""


class ClipCache:
    """Clips as files in a folder. The least recently used are removed when they take more than `max_bytes`.

    If several threads ask for the same clip at the same time, it is written once. Removing a clip does not affect a
    response that is sending it. Only one cache at a time may use the folder; a later one uses its files again.

    Args:
        write: writes a clip. All callers that wait for the clip get its error.

    Attributes:
        hits, misses: number of requested clips that were in the cache, and that were not.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int, write: ClipWriter = export_clip) -> None:
        self.folder, self.max_bytes, self._write = Path(folder), max_bytes, write
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Path]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished("*")
        existing = sorted(self.folder.glob("moment-*.mp4"), key=lambda file: file.stat().st_mtime_ns)
        self._sizes = OrderedDict((file.name, file.stat().st_size) for file in existing)  # least recently used first
        self._evict(max_bytes)

    @property
    def total_bytes(self) -> int:
        with self._lock:
            return sum(self._sizes.values())

    def get(
        self,
        path: str | Path | Remote,
        *,
        start_seconds: float,
        end_seconds: float,
        duration_seconds: float | None = None,
        check: Callable[[], None] | None = None,
        write: ClipWriter | None = None,
        kind: str = "",
    ) -> Path:
        """Return the file with this clip of a video. Write it if it is missing or the video has changed.

        Args:
            start_seconds, end_seconds, duration_seconds: as in `export_clip`.
            check: is called after writing. If it raises an error, the new clip is deleted.
            write, kind: another writer, and a name that tells its clips from those of others.

        Raises:
            VideoError: the video does not exist, or has no such clip.
            StorageFull: the folder cannot hold the clip.
        """
        identity = _identity(Path(path)) if isinstance(path, str | Path) else path.identity
        file = self.folder / _file_name(identity, float(start_seconds), float(end_seconds), kind)
        writing = partial(
            self._write_clip,
            write or self._write,
            path,
            file,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            duration_seconds=duration_seconds,
        )
        with self._lock:
            is_first = file.name not in self._pending
            future = self._pending.setdefault(file.name, Future())
        if is_first:
            self._fulfil(future, file, writing, check)
        return future.result()

    def _write_clip(self, write: ClipWriter, path: str | Path | Remote, out: Path, **times: Any) -> None:
        if isinstance(path, str | Path):
            write(path, out, **times)
            return
        with path.copied() as copy:
            write(copy, out, **times)

    def _fulfil(
        self, future: Future[Path], file: Path, write: Callable[[], None], check: Callable[[], None] | None
    ) -> None:
        try:
            if not self._is_cached(file):
                self._make_room_and_write(write)
                if check is not None:
                    _check_or_remove(check, file)
                self._keep(file)
            future.set_result(file)
        except BaseException as error:  # the other threads must not wait forever
            self._remove_unfinished(file.name)
            future.set_exception(error)
        finally:
            with self._lock:
                del self._pending[file.name]

    def _make_room_and_write(self, write: Callable[[], None]) -> None:
        """Writes a clip. If the disk is full, removes half of the cache and tries again."""
        try:
            _write(write)
        except StorageFull as error:
            log.warning("no room for a clip, removing half of the cache: %s", error.__cause__)
            with self._lock:
                self._evict(sum(self._sizes.values()) // 2)
            _write(write)

    def _is_cached(self, file: Path) -> bool:
        with self._lock:
            if file.name not in self._sizes or not file.exists():  # another program may have emptied the folder
                self.misses += 1
                return False
            self.hits += 1
            self._sizes.move_to_end(file.name)
            return True

    def _keep(self, file: Path) -> None:
        with self._lock:
            self._sizes[file.name] = file.stat().st_size
            self._sizes.move_to_end(file.name)
            self._evict(self.max_bytes)

    def _evict(self, max_bytes: int) -> None:
        while len(self._sizes) > 1 and sum(self._sizes.values()) > max_bytes:  # the newest is about to be sent
            name, _ = self._sizes.popitem(last=False)
            log.debug("removing the clip %s from the cache", name)
            (self.folder / name).unlink(missing_ok=True)

    def _remove_unfinished(self, name: str) -> None:
        """Removes the files that a killed process leaves behind; see `atomic_write`."""
        for file in self.folder.glob(f".tmp-*-{name}"):
            file.unlink(missing_ok=True)


def _write(write: Callable[[], None]) -> None:
    try:
        write()
    except (UsageError, VideoError, Unavailable):
        raise
    except VopError as error:  # the file cannot be written
        raise StorageFull("the server's disk is full, so the clip cannot be written; try again later") from error


def _identity(path: Path) -> list[str | int]:
    try:
        path = path.resolve()
        state = path.stat()
    except OSError as error:
        raise VideoError(path, "the file does not exist") from error
    return [str(path), state.st_size, state.st_mtime_ns]


def _file_name(identity: Sequence[str | int], start_seconds: float, end_seconds: float, kind: str) -> str:
    values = [*identity, start_seconds, end_seconds, CLIP_VERSION, *filter(None, [kind])]
    return f"moment-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:40]}.mp4"


def _check_or_remove(check: Callable[[], None], file: Path) -> None:
    try:
        check()
    except BaseException:
        file.unlink(missing_ok=True)
        raise
