"""The cache of objects on the disk: what it keeps, removes and refuses."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from vop.errors import UsageError
from vop.storage import block_cache
from vop.storage.block_cache import Block, BlockCache


def blocks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path) -> BlockCache:
    return BlockCache(tmp_path / "cache", max_bytes=10**6)


def test_blocks_are_kept_across_processes(cache):
    assert cache.get("a 0") is None
    cache.put("a 0", Block(b"water", 9000))
    cache.put("a 0", Block(b"water", 9000))
    assert BlockCache(cache.folder, max_bytes=1).get("a 0") == Block(b"water", 9000)
    assert cache.get("a 1") is None
    (path,) = blocks(cache.folder)
    assert not any(place.stat().st_mode & 0o077 for place in (path, cache.folder))


@pytest.mark.parametrize("harm", ["cut", "empty", "bit", "size"])
def test_damaged_blocks_are_missing_until_written_again(cache, harm):
    cache.put("a 0", Block(b"water and light", 15))
    (path,) = blocks(cache.folder)
    data = bytearray(path.read_bytes())
    data[7 if harm == "size" else -1] ^= 1
    path.write_bytes({"cut": data[:-4], "empty": b""}.get(harm, data))
    assert cache.get("a 0") is None
    cache.put("a 0", Block(b"water and light", 15))
    assert cache.get("a 0") == Block(b"water and light", 15)


def test_the_least_recently_used_blocks_are_removed(tmp_path):
    cache = BlockCache(tmp_path / "cache", max_bytes=10_000)
    for number in range(9):
        cache.put(f"a {number}", Block(bytes(1000), 9000))
    for age, path in enumerate(blocks(cache.folder)):
        os.utime(path, (1000 + age, 1000 + age))
    used = Path(tmp_path / "cache")
    assert cache.get("a 4") is not None  # so it is the newest
    for number in range(9, 12):
        cache.put(f"a {number}", Block(bytes(1000), 9000))
    assert sum(path.stat().st_size for path in blocks(used)) <= 10_000
    assert cache.get("a 4") is not None
    assert cache.get("a 11") is not None


def test_only_its_own_files_are_removed(tmp_path):
    folder = tmp_path / "cache"
    (folder / "ab").mkdir(parents=True)
    abandoned, new = folder / "ab" / ".tmp-vop-1", folder / "ab" / ".tmp-vop-2"
    others = [folder / "film.mp4", folder / "ab" / "film.mp4", new]
    for path in (*others, abandoned):
        path.write_bytes(bytes(500))
    os.utime(abandoned, (time.time() - 7200,) * 2)
    cache = BlockCache(folder, max_bytes=100)
    cache.put("a 0", Block(bytes(200), 200))
    assert blocks(folder) == sorted(others)


def test_threads_share_a_cache(tmp_path):
    cache, wrong = BlockCache(tmp_path, max_bytes=20_000), []

    def work() -> None:
        for number in range(60):
            name, content = f"a {number % 12}", bytes([number % 12]) * 3000
            found = cache.get(name)
            if found is not None and found.content != content:
                wrong.append(name)
            cache.put(name, Block(content, 3000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not list(tmp_path.rglob(".tmp*"))


def test_a_full_disk_is_told_once(cache, monkeypatch, caplog):
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(block_cache, "_PAUSE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for number in range(3):
            cache.put(f"a {number}", Block(b"1", 1))
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(cache.folder) in told
    assert "No space left" in told
    cache.put("a 0", Block(b"1", 1))  # there is space again
    assert cache.get("a 0") is not None


def test_a_folder_that_is_a_file_does_no_harm(tmp_path, caplog):
    (tmp_path / "cache").write_text("1")
    cache = BlockCache(tmp_path / "cache", max_bytes=10**6)
    cache.put("a 0", Block(b"1", 1))
    assert cache.get("a 0") is None
    assert (tmp_path / "cache").read_text() == "1"
    assert "VOP_CACHE" in caplog.text


def test_the_environment_chooses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("VOP_CACHE", "VOP_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert block_cache.chosen().folder == tmp_path / "vop" / "objects"
    assert block_cache.chosen().max_bytes == 2 * 10**9
    monkeypatch.setenv("VOP_CACHE", str(tmp_path / "own"))
    for text, size in {"500MB": 5 * 10**8, "1.5 gb": 1.5 * 10**9, "4096": 4096}.items():
        monkeypatch.setenv("VOP_CACHE_SIZE", text)
        assert (block_cache.chosen().folder, block_cache.chosen().max_bytes) == (tmp_path / "own", size)
    monkeypatch.setenv("VOP_CACHE_SIZE", "0")
    assert block_cache.chosen() is None
    for text in ("-1", "2 GiB", "much", "9" * 400):
        monkeypatch.setenv("VOP_CACHE_SIZE", text)
        with pytest.raises(UsageError, match="500MB"):
            block_cache.chosen()


def test_a_folder_of_an_unknown_user_is_named(monkeypatch):
    monkeypatch.setenv("VOP_CACHE", "~no-such-user/cache")
    with pytest.raises(UsageError, match="VOP_CACHE is '~no-such-user/cache'"):
        block_cache.chosen()


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "VOP_CACHE", "VOP_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as for a number of a user that a container does not know
    assert block_cache.chosen() is None
