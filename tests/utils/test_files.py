from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from vop.errors import DataError, VopError
from vop.utils.files import atomic_write, check_file, read_file


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".safetensors"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_a_failure_keeps_the_old_file(tmp_path, durable):
    path = tmp_path / "state"
    path.write_text("old")

    def write():
        with atomic_write(path, durable=durable) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }'),
    ],
)
def test_a_full_disk_is_reported(tmp_path, error):
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(VopError, match=rf"{path}: no space left") as caught, atomic_write(path):
        raise error
    assert caught.value.__cause__ is error
    assert path.read_text() == "old"


def test_a_full_disk_is_reported_for_any_error(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(VopError, match="no space left"), atomic_write(tmp_path / "state.pt"):
        raise RuntimeError("unexpected pos 704 vs 598")


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(VopError, match="file/inner"),
        atomic_write(tmp_path / "file" / "inner" / "x"),
    ):
        pass


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "state"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_regular_files_are_read(tmp_path):
    """Opening a pipe would wait for its other end."""
    os.mkfifo(tmp_path / "pipe")
    for path, says in [
        (tmp_path / "pipe", "this is a pipe, not a file"),
        ("/dev/zero", "this is a device, not a file"),
        (tmp_path, "this is a folder, not a file"),
        (tmp_path / "missing", "No such file"),
        (f"{tmp_path}/a\0b", "null byte"),
    ]:
        with pytest.raises(VopError, match=says):
            read_file(path, at_most=10)
        with pytest.raises(VopError, match=says):
            check_file(path)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_file(path, at_most=10) == b"0123456789"
    check_file(path, at_most=10)
    with pytest.raises(DataError, match=" 10 .* 9 "):
        read_file(path, at_most=9, error=DataError)
