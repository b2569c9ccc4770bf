"""A folder of moments that were made already, of limited size."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from vop.errors import UsageError, VideoError, VopError
from vop.server.media.writing import MOMENT_VERSION, write_moment


class NoRoom(VopError):
    """The server's disk is full, for now: status 507."""


class MomentCache:
    """Moments as files in a folder, the ones not used for longest removed when they take more than `max_bytes`.

    Threads that ask for the same moment at the same time have it made once. A file that is being sent keeps its
    content when it is removed here. The folder belongs to one cache alone; it may have been another's before.

    Args:
        write: makes a moment, as `write_moment` does; its errors go to all who asked.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int, write: Callable[..., None] = write_moment) -> None:
        self.folder, self.max_bytes, self._write = Path(folder), max_bytes, write
        self._lock = threading.Lock()
        self._making: dict[str, Future[Path]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished("*")
        there = sorted(self.folder.glob("moment-*.mp4"), key=lambda file: file.stat().st_mtime_ns)
        self._sizes = OrderedDict((file.name, file.stat().st_size) for file in there)  # the least recently used first
        self._evict(max_bytes)

    def get(
        self,
        path: str | Path,
        *,
        start_seconds: float,
        end_seconds: float,
        duration_seconds: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> Path:
        """The file with this moment of a video; made if it is not there, or if the video has changed.

        Args:
            as those of `write_moment`.
            check: raises if the path leads to another file by now; a moment that was just made is not kept then.

        Raises:
            VideoError: there is no such video, or it cannot give this moment.
            NoRoom: the folder cannot hold it.
        """
        name = self._name(Path(path), float(start_seconds), float(end_seconds))
        with self._lock:
            mine = name not in self._making
            future = self._making.setdefault(name, Future())
        if mine:
            span = {"start_seconds": start_seconds, "end_seconds": end_seconds, "duration_seconds": duration_seconds}
            self._fulfil(future, name, path, check, **span)
        return future.result()

    def _fulfil(
        self,
        future: Future[Path],
        name: str,
        path: str | Path,
        check: Callable[[], None] | None,
        **span: float | None,
    ) -> None:
        file = self.folder / name
        try:
            if not self._is_there(file):
                self._write_in_room(path, file, **span)
                self._check(file, check)
                self._keep(file)
            future.set_result(file)
        except BaseException as error:  # the others must not wait for ever
            self._remove_unfinished(name)
            future.set_exception(error)
        finally:
            with self._lock:
                del self._making[name]

    def _check(self, file: Path, check: Callable[[], None] | None) -> None:
        try:
            if check:
                check()
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def _write_in_room(self, path: str | Path, file: Path, **span: float | None) -> None:
        """Writes it, if need be where half of the others were: what else is on the disk may have grown."""
        try:
            self._try_to_write(path, file, **span)
        except NoRoom:
            with self._lock:
                self._evict(sum(self._sizes.values()) // 2)
            self._try_to_write(path, file, **span)

    def _try_to_write(self, path: str | Path, file: Path, **span: float | None) -> None:
        try:
            self._write(path, file, **span)
        except (UsageError, VideoError):
            raise
        except VopError as error:  # the file cannot be written
            raise NoRoom("the server has no room for the moment now; try again later") from error

    def _name(self, path: Path, start_seconds: float, end_seconds: float) -> str:
        try:
            path = path.resolve()
            state = path.stat()
        except OSError as error:
            raise VideoError(path, "there is no such file") from error
        identity = [str(path), state.st_size, state.st_mtime_ns, start_seconds, end_seconds, MOMENT_VERSION]
        return f"moment-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]}.mp4"

    def _is_there(self, file: Path) -> bool:
        with self._lock:
            if file.name not in self._sizes or not file.exists():  # somebody may have emptied the folder
                return False
            self._sizes.move_to_end(file.name)
            return True

    def _keep(self, file: Path) -> None:
        with self._lock:
            self._sizes[file.name] = file.stat().st_size
            self._sizes.move_to_end(file.name)
            self._evict(self.max_bytes)

    def _evict(self, most: int) -> None:
        while len(self._sizes) > 1 and sum(self._sizes.values()) > most:  # the newest is about to be sent
            name, _ = self._sizes.popitem(last=False)
            (self.folder / name).unlink(missing_ok=True)

    def _remove_unfinished(self, name: str) -> None:
        """What a killed process leaves behind; see `atomic_write`."""
        for file in self.folder.glob(f".tmp-*-{name}"):
            file.unlink(missing_ok=True)
