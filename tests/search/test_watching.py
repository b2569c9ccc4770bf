"""Libraries follow their folders: real folders and files, and waits for events."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from search.libraries import a_file, make_library
from search.owners_videos import write_video
from vop.errors import UsageError, VopError
from vop.search import folders, watching
from vop.search.library import Library
from vop.search.sync import index
from vop.search.sync.lock import library_lock
from vop.search.watching import Settling, Watcher, WatchTimes, is_on_network

pytest.importorskip("watchfiles")
FAST = WatchTimes(settle_seconds=0.3, check_seconds=0.1, poll_seconds=0.1, address_seconds=0.2)
LIMIT_SECONDS = 60.0  # for one event, on a busy machine


class Calls:
    """The indexings of a watcher in a thread, and what it says."""

    def __init__(self) -> None:
        self.indexed: queue.SimpleQueue[tuple[list[Path], list[str]]] = queue.SimpleQueue()
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.failing: VopError | None = None
        self.stop = threading.Event()

    def index(self, places, settled) -> None:
        if self.failing is not None:
            error, self.failing = self.failing, None
            raise error
        files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file() and settled(path)]
        self.indexed.put((list(places), [path.name for path in files]))

    def until_indexed(self, *, with_files: set[str] | None = None, without: set[str] = frozenset()) -> list[Path]:
        """Wait until an indexing has these files, and return its places."""
        until = time.monotonic() + LIMIT_SECONDS
        while True:
            places, files = self.indexed.get(timeout=until - time.monotonic())
            if with_files is None or (with_files <= set(files) and not without & set(files)):
                return places

    def until_said(self, part: str) -> str:
        until = time.monotonic() + LIMIT_SECONDS
        while part not in (text := self.said.get(timeout=until - time.monotonic())):
            pass
        return text


@contextmanager
def following(library: Path, *places: Path, times: WatchTimes = FAST) -> Iterator[Calls]:
    calls = Calls()
    watcher = Watcher(
        library, calls.index, places=places or None, say=calls.said.put, stopped=calls.stop.is_set, times=times
    )
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    try:
        yield calls
    finally:
        calls.stop.set()
        thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def at(tmp_path) -> Path:
    """A folder that is followed."""
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def library(tmp_path, at) -> Path:
    path = make_library(tmp_path / "library", [a_file(str(at / "a.mp4"))]).path
    folders.remember(path, [at])
    return path


@pytest.mark.parametrize("by_polling", [False, True])
def test_new_files_and_folders_are_indexed(library, at, tmp_path, monkeypatch, by_polling):
    monkeypatch.setattr(watching, "is_on_network", lambda folder: by_polling)
    with following(library) as calls:
        assert calls.until_indexed(with_files=set()) == [at]
        (at / "b.mp4").write_text("b")
        calls.until_indexed(with_files={"b.mp4"})
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "c.mp4").write_text("c")
        shutil.move(tmp_path / "new", at / "new")
        calls.until_indexed(with_files={"b.mp4", "c.mp4"})
        (at / "b.mp4").unlink()
        calls.until_indexed(with_files={"c.mp4"}, without={"b.mp4"})


def test_a_file_that_is_being_written_waits_and_others_do_not(library, at):
    times = WatchTimes(settle_seconds=0.5, check_seconds=0.1, batch_seconds=0.5)
    finished = threading.Event()

    def record() -> None:
        with (at / "recording.mp4").open("w") as file:
            while not finished.wait(0.05):
                file.write("more")
                file.flush()

    with following(library, times=times) as calls:
        calls.until_indexed()
        recorder = threading.Thread(target=record)
        recorder.start()
        try:
            (at / "short.mp4").write_text("done")
            calls.until_indexed(with_files={"short.mp4"}, without={"recording.mp4"})
        finally:
            finished.set()
            recorder.join()
        calls.until_indexed(with_files={"recording.mp4", "short.mp4"})


@pytest.mark.parametrize("has_same_inode", [False, True])
def test_folders_that_return_are_followed_again(library, at, monkeypatch, has_same_inode):
    if has_same_inode:  # a filesystem may give a new folder the number of a deleted one
        monkeypatch.setattr(watching, "_identity", lambda folder: (1, 1))
    with following(library) as calls:
        calls.until_indexed()
        at.rename(at.with_name("unplugged"))
        assert str(at) in calls.until_said("unavailable")
        at.with_name("unplugged").rename(at)
        assert str(at) in calls.until_said("available again")
        (at / "b.mp4").write_text("b")
        calls.until_indexed(with_files={"b.mp4"})
        shutil.rmtree(at)
        calls.until_said("unavailable")
        at.mkdir()
        (at / "c.mp4").write_text("c")
        calls.until_indexed(with_files={"c.mp4"})
        (at / "d.mp4").write_text("d")
        calls.until_indexed(with_files={"d.mp4"})


def test_without_notifications_it_polls_and_says_so(library, at, monkeypatch):
    changes = watching._changes

    def refuse(folder, stop, *, poll_seconds):
        if poll_seconds is None:
            raise OSError("OS file watch limit reached.")
        return changes(folder, stop, poll_seconds=poll_seconds)

    monkeypatch.setattr(watching, "_changes", refuse)
    with following(library) as calls:
        assert "max_user_watches" in calls.until_said("limit reached")
        (at / "b.mp4").write_text("b")
        calls.until_indexed(with_files={"b.mp4"})


def test_it_follows_what_the_library_remembers_later(library, at, tmp_path):
    other, lone = tmp_path / "other", tmp_path / "lone.mp4"
    other.mkdir()
    with following(library) as calls:
        calls.until_indexed()
        with library_lock(library):
            folders.remember(library, [other])
            folders.drop(library, [at])
        assert calls.until_indexed() == [other]
        (at / "unseen.mp4").write_text("x")
        (other / "b.mp4").write_text("b")
        assert calls.until_indexed(with_files={"b.mp4"}) == [other]
        with library_lock(library):
            folders.remember(library, [lone])
        assert str(lone) in calls.until_said("unavailable")
        lone.write_text("a single file")
        while calls.until_indexed() != [lone]:
            pass


def test_a_failed_indexing_is_tried_again(library, at):
    with following(library) as calls:
        calls.until_indexed()
        calls.failing = VopError("the disk is full")
        (at / "b.mp4").write_text("b")
        calls.until_said("the disk is full")
        calls.until_indexed(with_files={"b.mp4"})


def test_a_missing_library_is_not_created_again(library, at):
    with following(library) as calls:
        calls.until_indexed()
        library.rename(library.with_name("away"))
        (at / "b.mp4").write_text("b")
        assert str(library) in calls.until_said("nothing is indexed")
        assert not library.exists()
        library.with_name("away").rename(library)
        calls.until_indexed(with_files={"b.mp4"})


def test_what_the_indexing_writes_is_not_a_change(tmp_path):
    library = make_library(tmp_path / "library", []).path
    events: queue.SimpleQueue = queue.SimpleQueue()
    notifier = watching._Notifier(tmp_path, library, events, FAST, lambda text: None)
    try:
        assert events.get(timeout=LIMIT_SECONDS).paths is None
        (library / "progress.json").write_text("{}")
        (tmp_path / ".hidden").write_text("x")
        (tmp_path / "a.mp4").write_text("a")
        seen: set[Path] = set()
        while tmp_path / "a.mp4" not in seen:
            seen |= events.get(timeout=LIMIT_SECONDS).paths
        assert seen <= {tmp_path / "a.mp4", tmp_path}
    finally:
        notifier.stop()


def test_old_files_have_settled(tmp_path, monkeypatch):
    file = tmp_path / "a.mp4"
    file.write_text("a")
    settling = Settling(100.0)
    assert not settling(file)
    assert not settling(file)  # seen once, and unchanged for too short a time
    os.utime(file, (0, 0))
    assert not settling(file)  # its other time is new: a copy keeps the first one
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 101)
    assert settling(file)
    settling.note(file)
    assert not settling(file)
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + 101)
    assert Settling(100.0)(file)


@pytest.mark.parametrize(
    ("folder", "remote"),
    [("/mnt/nas/a b/x", True), ("/mnt/nas", False), ("/mnt/share/x", True), ("/home/ann", False), ("/far/x", True)],
)
def test_network_drives_are_known_by_their_filesystem(tmp_path, monkeypatch, folder, remote):
    mounts = ["/dev/sda / ext4 rw 0 0", "nas:/a /mnt/nas/a\\040b nfs4 rw 0 0", "//b/c /mnt/share cifs rw 0 0"]
    (tmp_path / "mounts").write_text("\n".join([*mounts, "x /far fuse.sshfs rw 0 0"]) + "\n")
    monkeypatch.setattr(watching, "MOUNTS", tmp_path / "mounts")
    assert is_on_network(Path(folder)) is remote


def test_without_watchfiles_the_extra_is_named(library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"vop\[watch\]"):
        Library.open(library).watch()


def test_models_stay_loaded_and_deleted_videos_stay(folder, tiny_folder, tmp_path, monkeypatch):
    write_video(tmp_path / "videos" / "a.mp4", seed=0)
    write_video(tmp_path / "videos" / "b.mp4", seed=1)
    index(folder, [tmp_path / "videos"], model=str(tiny_folder), num_frames=2, precision="fp32", workers=1)
    loaded = []
    monkeypatch.setattr("vop.search.models.open_models", _counting(loaded, "vop.search.models.open_models"))
    reports: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    watched = threading.Thread(
        target=Library.open(folder).watch,
        kwargs={"workers": 1, "times": FAST, "reported": reports.put, "stopped": stop.is_set},
        daemon=True,
    )
    watched.start()
    try:
        first = reports.get(timeout=LIMIT_SECONDS)
        assert (first.unchanged, first.added) == (2, 0)
        write_video(tmp_path / "c.mp4", seed=2).rename(tmp_path / "videos" / "c.mp4")
        with library_lock(folder):  # it is free between two indexings
            pass
        while not (report := reports.get(timeout=LIMIT_SECONDS)).added:
            pass
        assert report.added == 1
        (tmp_path / "videos" / "a.mp4").unlink()
        while not (report := reports.get(timeout=LIMIT_SECONDS)).deleted:
            pass
        assert (report.deleted, report.removed) == (1, 0)
        assert Library.open(folder).status().videos == 3
    finally:
        stop.set()
        watched.join(LIMIT_SECONDS)
    assert len(loaded) == 1


def _counting(calls: list, name: str) -> Callable:
    import importlib

    module, _, attribute = name.rpartition(".")
    original = getattr(importlib.import_module(module), attribute)
    return lambda *args, **kwargs: calls.append(args) or original(*args, **kwargs)
