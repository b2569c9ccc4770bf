"""Local copies of objects: their names, their space, their end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from datetime import datetime
from pathlib import Path

import pytest

from vop.errors import UsageError
from vop.storage import objects, scratch
from vop.storage.address import Address
from vop.storage.errors import ChangedObject, MissingObject, ObjectError, ScratchFull, StorageError
from vop.storage.scratch import Scratch

LAKE = Address("s3", "films", "2024/IMG_20190714_201500.mp4")


@pytest.fixture
def films(object_server):
    object_server.make_bucket()
    object_server.put(str(LAKE), b"water and light")
    return object_server


@pytest.fixture
def parent(tmp_path) -> Path:
    return tmp_path / "scratch"


def test_a_copy_has_the_name_the_time_and_the_content(films, parent):
    with Scratch() as copies:
        assert not parent.exists()
        with copies.copy(LAKE) as (path, info):
            assert path.is_relative_to(parent)
            assert path.name == LAKE.name
            assert path.read_bytes() == b"water and light"
            assert datetime.fromtimestamp(path.stat().st_mtime, info.modified_at.tzinfo) == info.modified_at
        assert not path.exists()
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 200 + ".mp4", "é" * 150 + ".webm", "a\\b:?.mp4", "..." + "x" * 300])
def test_any_name_of_an_object_becomes_one_of_a_file(films, name):
    address = LAKE.at(f"2024/{name}")
    objects.write(address, b"1", replacing=None)
    with Scratch() as copies, copies.copy(address) as (path, _):
        assert path.read_bytes() == b"1"
        assert path.suffix == address.name[address.name.rindex(".") :] or len(path.name) == 120


def change_between(monkeypatch, server, *, times: int) -> list[int]:
    """Write the object again between its description and its content, this many times."""
    original, changed = objects.read_range, []

    def changing(info, start, end):
        if len(changed) < times:
            changed.append(1)
            server.put(str(info.address), b"new content %d" % len(changed))
        return original(info, start, end)

    monkeypatch.setattr(objects, "read_range", changing)
    return changed


def test_a_changed_object_is_read_again(films, parent, monkeypatch):
    changed = change_between(monkeypatch, films, times=1)
    with Scratch() as copies, copies.copy(LAKE) as (path, info):
        assert path.read_bytes() == b"new content 1"
        assert info == objects.head(LAKE)
    assert len(changed) == 1


def test_an_object_that_always_changes_fails(films, parent, monkeypatch):
    change_between(monkeypatch, films, times=9)
    with Scratch() as copies, pytest.raises(ChangedObject, match="changed while it was read, 3 times"):
        copies.copy(LAKE).__enter__()
    assert list(parent.iterdir()) == []


def test_a_missing_object_fails(films):
    with Scratch() as copies, pytest.raises(MissingObject):
        copies.copy(LAKE.at("nothing")).__enter__()


def test_copies_wait_for_space(films):
    entered = threading.Event()

    def copy_second() -> None:
        with copies.copy(LAKE):
            entered.set()

    with Scratch(max_bytes=20) as copies:
        with copies.copy(LAKE):
            second = threading.Thread(target=copy_second)
            second.start()
            assert not entered.wait(0.2)
        assert entered.wait(10)
        second.join()


def test_closing_ends_the_waiting(films):
    failed = []

    def copy_second() -> None:
        try:
            copies.copy(LAKE).__enter__()
        except StorageError as error:
            failed.append(str(error))

    copies = Scratch(max_bytes=20)
    with copies.copy(LAKE):
        second = threading.Thread(target=copy_second)
        second.start()
        copies.close()
        second.join(10)
    assert failed == ["the scratch is closed"]


def test_an_object_that_never_fits_is_refused(films, parent):
    with Scratch(max_bytes=10) as copies, pytest.raises(ObjectError, match=r"may hold 0.0 MB.*VOP_SCRATCH"):
        copies.copy(LAKE).__enter__()
    with pytest.raises(UsageError, match="0 bytes"):
        Scratch(max_bytes=0)


def test_a_full_disk_is_named(films, parent, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with Scratch(max_bytes=100) as copies, pytest.raises(StorageError, match=f"{parent}: no space left.*VOP_SCRATCH"):
        copies.copy(LAKE).__enter__()


@pytest.mark.parametrize(("total", "error"), [(10**9, ScratchFull), (10, ObjectError)])
def test_a_full_disk_is_not_a_large_object(films, monkeypatch, total, error):
    """By default, copies take half of the free space, which may be nothing."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage(total, total, 0))
    with Scratch() as copies, pytest.raises(StorageError) as failed:
        copies.copy(LAKE).__enter__()
    assert type(failed.value) is error


def test_a_disk_that_fills_up_is_named(films, parent, monkeypatch):
    def full(info, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scratch, "download", full)
    with Scratch() as copies, pytest.raises(StorageError, match=f"{parent}: no space left.*{LAKE.name}"):
        copies.copy(LAKE).__enter__()
    assert list(parent.iterdir()) == []


def test_a_parent_that_cannot_be_written_is_named(films, tmp_path):
    (tmp_path / "file").write_text("")
    with Scratch(tmp_path / "file") as copies, pytest.raises(StorageError, match="VOP_SCRATCH to another"):
        copies.copy(LAKE).__enter__()


@pytest.mark.slow
def test_a_parent_of_an_unknown_user_is_named(monkeypatch):
    monkeypatch.setenv("VOP_SCRATCH", "~no-such-user/scratch")
    with pytest.raises(UsageError, match="VOP_SCRATCH is '~no-such-user/scratch'"):
        Scratch()


def test_copies_of_killed_processes_are_removed(films, parent):
    code = (
        "from vop.storage.address import location; from vop.storage.scratch import Scratch; import time\n"
        f"with Scratch().copy(location({str(LAKE)!r})) as (path, _): print(path, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    abandoned = Path(process.stdout.readline().strip())
    with Scratch() as copies, copies.copy(LAKE) as (living, _):
        assert abandoned.exists()  # its process runs
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Scratch() as others, others.copy(LAKE):
            assert not abandoned.exists()
            assert living.exists()
