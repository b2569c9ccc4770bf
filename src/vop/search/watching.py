"""Follow the folders of a library, and index what changes in them.

    notifiers, one thread for each folder -> events -> Watcher: waits until files have settled -> an indexing

`watchfiles` reports changes; network drives are polled, and so are all folders for which the system gives no more
notifications. Addresses and single files are looked at from time to time. A notifier is started again when its folder
returns: a drive was plugged in, or the folder was created again. Each start is followed by an indexing, because changes
may have been missed.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from vop.errors import UsageError, VopError
from vop.search import folders, manifest
from vop.search.folders import is_available
from vop.storage.address import Address, Location
from vop.storage.small_files import Stamp, child, stamp_of
from vop.video.find import is_of_system

MOUNTS = Path("/proc/self/mounts")
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|ceph|gluster\w*|9p|virtiofs|davfs\w*|prl_fs|vboxsf|vmhgfs|"
    r"fuse\.(sshfs|rclone|s3fs|gcsfuse|blobfuse\w*|glusterfs|grpcfuse|osxfs|vmhgfs-fuse|ceph\w*|smbnetfs|davfs\w*)"
)
_STEP_MS, _DEBOUNCE_MS, _TIMEOUT_MS = 200, 1000, 1000  # of watchfiles
_WAKE_SECONDS = 1.0  # at most between two looks at what is waiting

_State: TypeAlias = "tuple[int, ...] | None"
Settled: TypeAlias = Callable[[Path], bool]
_Say: TypeAlias = Callable[[str], None]
_Index: TypeAlias = Callable[[Sequence[Location], Settled], object]


@dataclass(frozen=True, kw_only=True)
class WatchTimes:
    """How long a watcher waits.

    Attributes:
        settle_seconds: a file whose size and times have not changed for this long is complete.
        batch_seconds: complete files wait at most this long for others that are being written.
        check_seconds: between two looks at whether folders exist, and at single files.
        poll_seconds: between two looks at a folder without notifications.
        address_seconds: between two listings of an address, and before a failed indexing is tried again.
        rescan_seconds: between two indexings of a folder in which nothing seems to happen: notifications can get lost.
    """

    settle_seconds: float = 5.0
    batch_seconds: float = 30.0
    check_seconds: float = 5.0
    poll_seconds: float = 30.0
    address_seconds: float = 300.0
    rescan_seconds: float = 3600.0


class Settling:
    """Tells whether files are complete: nothing about them has changed for some seconds.

    A file that has not been seen before is complete if its times are old.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[Path, tuple[_State, float]] = {}

    def note(self, path: Path) -> None:
        """Note that a file has changed just now."""
        self._seen[path] = (_state(path), time.monotonic())

    def __call__(self, path: Path) -> bool:
        now, state = time.monotonic(), _state(path)
        known, since = self._seen.get(path, (None, None))
        if since is None:
            if _is_old(path, self._seconds):
                return True
        elif known == state:
            return now - since >= self._seconds
        self._seen[path] = (state, now)
        return False

    def forget(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._seen.pop(path, None)


def _state(path: Path) -> _State:
    """Return what changes when a file is written, renamed or replaced; None if it does not exist."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _is_old(path: Path, seconds: float) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return True
    return abs(time.time() - max(found.st_mtime, found.st_ctime)) >= seconds  # another machine's clock may be ahead


@dataclass(frozen=True)
class _Event:
    """Something has happened in a folder.

    Attributes:
        paths: the files and folders that have changed; None if the notifier has just started, or has ended.
    """

    folder: Path
    paths: frozenset[Path] | None = None


class _Notifier:
    """Reports the changes below a folder, from a thread.

    Attributes:
        identity: the folder on its filesystem. Another folder of the same path has another one.
    """

    def __init__(
        self, folder: Path, library: Location, events: queue.SimpleQueue[_Event], times: WatchTimes, say: _Say
    ) -> None:
        self.folder, self.identity = folder, _identity(folder)
        self._own = _below(folder, library) if isinstance(library, Path) else None
        self._events, self._times, self._say = events, times, say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {folder}", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether the folder was deleted or replaced, so that changes are not reported any more."""
        return not self._thread.is_alive() or _identity(self.folder) != self.identity

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        by_polling = is_on_network(self.folder)
        while not self._stop.is_set():
            try:
                self._follow(by_polling=by_polling)
                return
            except FileNotFoundError:
                return
            except (OSError, RuntimeError) as error:  # watchfiles' own errors are RuntimeErrors
                if by_polling:
                    self._say(f"changes in {self.folder} cannot be seen ({error}); it is still looked at now and then")
                    self._stop.wait(self._times.address_seconds)
                    return
                self._say(
                    f"the system gives no notifications for {self.folder} ({error}); it is looked at every "
                    f"{self._times.poll_seconds:g} s instead. On Linux, a higher fs.inotify.max_user_watches helps"
                )
                by_polling = True

    def _follow(self, *, by_polling: bool) -> None:
        is_ready = False
        for changes in _changes(self.folder, self._stop, poll_seconds=self._times.poll_seconds if by_polling else None):
            if not is_ready:
                is_ready = True
                self._events.put(_Event(self.folder))
            paths = frozenset(path for path in changes if self._matters(path))
            if paths:
                self._events.put(_Event(self.folder, paths))
            if self.folder in changes and _identity(self.folder) != self.identity:
                return

    def _matters(self, path: Path) -> bool:
        """Whether an indexing may look at a file or folder."""
        if self._own is not None and (path == self._own or self._own in path.parents):
            return False  # what the indexing itself writes
        below = path.parts[len(self.folder.parts) :]
        return not any(name.startswith(".") or is_of_system(name) for name in below)


def _changes(folder: Path, stop: threading.Event, *, poll_seconds: float | None) -> Iterator[set[Path]]:
    """Yield the paths that change below a folder, and nothing once it is being watched and from time to time.

    It ends when the folder is deleted. A new one at its path is not watched, and may have the same identity.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError, RuntimeError: it cannot be watched.
    """
    import watchfiles

    found = watchfiles.watch(
        folder,
        watch_filter=None,
        stop_event=stop,
        step=_STEP_MS,
        debounce=_DEBOUNCE_MS,
        rust_timeout=_TIMEOUT_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
        force_polling=None if poll_seconds is None else True,  # None: the variable WATCHFILES_FORCE_POLLING decides
        poll_delay_ms=300 if poll_seconds is None else round(1000 * poll_seconds),
        ignore_permission_denied=True,
    )
    for changes in found:
        yield {Path(path) for _, path in changes}
        if (watchfiles.Change.deleted, str(folder)) in changes:
            return


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _below(folder: Path, library: Path) -> Path | None:
    """Return the library as a path below a folder; None if it lies elsewhere."""
    real, root = Path(os.path.realpath(library)), Path(os.path.realpath(folder))
    return folder / real.relative_to(root) if real.is_relative_to(root) else None


def is_on_network(folder: Path) -> bool:
    """Return whether a folder lies on a network drive, whose changes the system does not report; False if unknown."""
    real = Path(os.path.realpath(folder))
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    kinds: dict[Path, str] = {}
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount))] = kind  # \040 is a space
    kind = next((kinds[place] for place in (real, *real.parents) if place in kinds), "")
    return _NETWORK.fullmatch(kind) is not None


class Watcher:
    """Follows places, and calls an indexing of those in which something has changed.

    Args:
        library: the library, which must exist when `run` is called.
        index: indexes some of the places, without the files that are not settled. It has the library's lock only while
            it runs.
        places: the places to follow; None stands for those that the library remembers, also later ones.
        say: called with a message for the user.
        stopped: is asked at least once a second whether to end.

    Raises:
        UsageError: watchfiles is not installed.
    """

    def __init__(
        self,
        library: Location,
        index: _Index,
        *,
        places: Collection[Location] | None = None,
        say: _Say,
        stopped: Callable[[], bool] = lambda: False,
        times: WatchTimes | None = None,
    ) -> None:
        check_installed()
        self._library, self._index, self._given = library, index, places
        self._say, self._stopped, self._times = say, stopped, times or WatchTimes()
        self._places: list[Location] = []
        self._list_stamp: Stamp | None = None  # of the library's list of places, when it was read
        self._list_read, self._checked = float("-inf"), float("-inf")
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._notifiers: dict[Path, _Notifier] = {}
        self._away: set[Location] = set()  # places that were reported as unavailable
        self._settling = Settling(self._times.settle_seconds)
        self._refused: set[Path] = set()  # files that an indexing has left out
        self._changed: dict[Location, set[Path]] = {}  # by place
        self._complete_since: dict[Location, float] = {}  # when the first of these was complete
        self._files: dict[Path, _State] = {}  # single files
        self._due: dict[Location, float] = {}  # when to index a place at the latest
        self._not_before: dict[Location, float] = {}  # after a failure

    def settled(self, path: Path) -> bool:
        """Return whether a file is complete. Those that are not are indexed when they are."""
        is_settled = self._settling(path)
        if not is_settled:
            self._refused.add(path)
        return is_settled

    def run(self) -> None:
        """Follow the places until `stopped`, or until an interruption."""
        try:
            while not self._stopped():
                self._check()
                self._wait()
                ready = self._ready()
                if ready and not self._stopped():
                    self._index_now(ready)
        finally:
            for notifier in self._notifiers.values():
                notifier.stop()

    # -- what there is to follow

    def _check(self) -> None:
        """Look at whether places exist, and follow those that have come."""
        now = time.monotonic()
        if now - self._checked < self._times.check_seconds:
            return
        self._checked = now
        self._read_places(now)
        for place in self._places:
            if isinstance(place, Address):
                self._due.setdefault(place, now + self._times.address_seconds)
                continue
            self._is_there(place)
            if place.is_dir() or place in self._notifiers:
                self._check_folder(place)
            else:
                self._check_file(place)
        self._keep_refused()

    def _read_places(self, now: float) -> None:
        if self._given is not None:
            self._places = sorted(self._given, key=str)
            return
        is_local = isinstance(self._library, Path)
        if not is_local and now - self._list_read < self._times.address_seconds:  # looking costs a request
            return
        self._list_read = now
        try:
            stamp = stamp_of(child(self._library, folders.FILE))
            if stamp == self._list_stamp or not manifest.exists(self._library):
                return
            before, self._places = self._places, folders.read(self._library)
        except VopError as error:
            self._say(str(error))
            return
        if self._list_stamp is not None:
            self._due |= {place: now for place in self._places if place not in before}
        self._list_stamp = stamp
        for place in [place for place in self._notifiers if place not in self._places]:
            self._notifiers.pop(place).stop()
        for known in (self._due, self._not_before, self._changed, self._complete_since):
            for gone in [place for place in known if place not in self._places]:
                del known[gone]

    def _check_folder(self, place: Path) -> None:
        notifier = self._notifiers.get(place)
        if notifier is not None and notifier.is_lost:
            self._notifiers.pop(place).stop()
            notifier = None
        if notifier is None and place.is_dir():
            self._notifiers[place] = _Notifier(place, self._library, self._events, self._times, self._say)

    def _check_file(self, place: Path) -> None:
        state = _state(place)
        if self._files.setdefault(place, state) != state:
            self._files[place] = state
            if state is not None:
                self._note(place, place)

    def _keep_refused(self) -> None:
        """Take the files that an indexing has left out as changed."""
        for path in self._refused:
            for place in self._places:
                if isinstance(place, Path) and (path == place or place in path.parents):
                    self._changed.setdefault(place, set()).add(path)
        self._refused.clear()

    # -- what has changed

    def _wait(self) -> None:
        """Wait for events, and take those that have come."""
        seconds = min(_WAKE_SECONDS, self._times.check_seconds)
        if any(self._changed.values()):
            seconds = min(seconds, self._times.settle_seconds / 2)
        try:
            event = self._events.get(timeout=seconds)
            while True:
                self._take(event)
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _take(self, event: _Event) -> None:
        if event.paths is None:
            self._due[event.folder] = time.monotonic()
            return
        for path in event.paths:
            self._note(event.folder, path)
        if event.folder in event.paths:
            self._checked = float("-inf")  # it may have been deleted

    def _note(self, place: Path, path: Path) -> None:
        self._settling.note(path)
        self._changed.setdefault(place, set()).add(path)

    def _ready(self) -> dict[Location, set[Path]]:
        """Return the places to index now, with the changed files that are complete."""
        now, ready = time.monotonic(), dict[Location, set[Path]]()
        for place in self._places:
            if self._not_before.get(place, 0.0) > now:
                continue
            changed = self._changed.get(place, set())
            complete = {path for path in changed if self._settling(path)}
            if complete:
                since = self._complete_since.setdefault(place, now)
                if complete == changed or now - since >= self._times.batch_seconds:
                    ready[place] = complete
            if self._due.get(place, float("inf")) <= now:
                ready[place] = complete
        return ready

    def _index_now(self, ready: dict[Location, set[Path]]) -> None:
        if not manifest.exists(self._library):  # otherwise the indexing would create a new library
            self._postpone(ready, f"{self._library} is unavailable; nothing is indexed until it returns")
            return
        there = [place for place in ready if self._is_there(place)]
        if there:
            try:
                self._index(there, self.settled)
            except (VopError, OSError) as error:
                self._postpone(ready, f"{error}. It is tried again in {self._times.address_seconds:g} s")
                return
        now = time.monotonic()
        for place, complete in ready.items():
            is_address = isinstance(place, Address)
            self._due[place] = now + (self._times.address_seconds if is_address else self._times.rescan_seconds)
            self._complete_since.pop(place, None)
            if place in self._changed:
                self._changed[place] -= complete
            self._settling.forget(complete)
        self._keep_refused()

    def _is_there(self, place: Location) -> bool:
        """Return whether a place exists; say so if that has changed."""
        exists = isinstance(place, Address) or is_available(place)
        if exists and place in self._away:
            self._away.remove(place)
            self._say(f"{place} is available again")
        elif not exists and place not in self._away:
            self._away.add(place)
            self._say(f"{place} is unavailable; its videos stay in the library")
        return exists

    def _postpone(self, ready: Iterable[Location], message: str) -> None:
        self._say(message)
        for place in ready:
            self._due[place] = self._not_before[place] = time.monotonic() + self._times.address_seconds


def check_installed() -> None:
    """Raise a UsageError if watchfiles is not installed."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise UsageError("following folders needs the package watchfiles: pip install 'vop[watch]'") from None
