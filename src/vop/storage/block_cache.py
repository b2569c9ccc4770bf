"""A cache of objects on this machine's disk: blocks of objects that never change, in a folder of limited size.

A block is a file with a checksum, written to a temporary name and then renamed, so that several processes can share the
folder. A damaged block counts as missing. The least recently used blocks are removed when the folder is full.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vop.errors import UsageError
from vop.utils.files import folder_in

FOLDER, SIZE = "VOP_CACHE", "VOP_CACHE_SIZE"
DEFAULT_BYTES = 2 * 10**9
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KB|MB|GB|TB)?", re.IGNORECASE)
_LONGEST_SIZE = 30  # characters
_HEADER = struct.Struct(">IQ")  # the checksum of all that follows, and the size of the whole object
_FOLDER_NAME, _FILE_NAME = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{38}")
_TEMPORARY, _ABANDONED_SECONDS = ".tmp-vop-", 3600.0
_KEPT_SHARE = 0.9  # of the size, after old blocks were removed
_LOOK_SHARE = 0.05  # of the size that a process writes before it looks again at what others have written
_PAUSE_SECONDS = 60.0  # after a failed write
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Some bytes of an object.

    Attributes:
        object_bytes: the size of the whole object.
    """

    content: bytes
    object_bytes: int


class BlockCache:
    """Blocks by name. Threads and processes may share the folder.

    Args:
        max_bytes: of all blocks. It is exceeded a little while several processes write at the same time.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._unseen_bytes = max_bytes  # written since the folder was looked at; the first write looks
        self._evicting = threading.Lock()
        self._writes_after = 0.0
        self._has_warned = False

    def get(self, name: str) -> Block | None:
        """Return a block; None if it is missing or damaged."""
        path = self._path(name)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        if len(stored) < _HEADER.size or zlib.crc32(stored[4:]) != _HEADER.unpack_from(stored)[0]:
            log.info("%s is damaged and is read again", path)
            return None
        with suppress(OSError):
            os.utime(path)  # it was used
        return Block(stored[_HEADER.size :], _HEADER.unpack_from(stored)[1])

    def put(self, name: str, block: Block) -> None:
        """Keep a block. If the disk is full or read-only, warn once and go on without."""
        if time.monotonic() < self._writes_after:
            return
        size = struct.pack(">Q", block.object_bytes)
        checksum = zlib.crc32(block.content, zlib.crc32(size))
        path = self._path(name)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            try:
                temporary.touch(mode=0o600)  # also in a folder that others may read
                temporary.write_bytes(b"".join([struct.pack(">I", checksum), size, block.content]))
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._make_room(_HEADER.size + len(block.content))
        except OSError as error:
            self._writes_after = time.monotonic() + _PAUSE_SECONDS
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "%s: the cache of objects cannot be written (%s), so more is read from the server; free some space "
                    "or set %s to another folder, or %s=0",
                    self.folder,
                    error.strerror,
                    FOLDER,
                    SIZE,
                )

    def _make_room(self, written: int) -> None:
        """Remove the least recently used blocks if they are too many."""
        with self._evicting:
            self._unseen_bytes += written
            if self._unseen_bytes < _LOOK_SHARE * self.max_bytes:
                return
            self._unseen_bytes = 0
            blocks = sorted(self._blocks())
            excess = sum(size for _, size, _ in blocks) - self.max_bytes
            if excess <= 0:
                return
            excess += int((1 - _KEPT_SHARE) * self.max_bytes)
            for _, size, path in blocks:
                if excess <= 0:
                    return
                path.unlink(missing_ok=True)
                excess -= size

    def _blocks(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each block was last used, its size and its file. Remove files that killed processes left."""
        abandoned = time.time() - _ABANDONED_SECONDS
        for folder in [entry.path for entry in os.scandir(self.folder) if _FOLDER_NAME.fullmatch(entry.name)]:
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):  # another process has removed it
                    state = entry.stat()
                    if entry.name.startswith(_TEMPORARY):
                        if state.st_mtime < abandoned:
                            os.unlink(entry.path)
                    elif _FILE_NAME.fullmatch(entry.name):
                        yield state.st_mtime, state.st_size, Path(entry.path)

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()[:40]
        return self.folder / digest[:2] / digest[2:]


def chosen() -> BlockCache | None:
    """Return the cache that the environment chooses; None if its size is 0, or if the user has no home folder for it.

    Raises:
        UsageError: the size is not valid.
    """
    text = os.environ.get(SIZE, "").strip()
    max_bytes = parse_size(text) if text else DEFAULT_BYTES
    if not max_bytes:
        return None
    given = os.environ.get(FOLDER)
    if given:
        return BlockCache(folder_in(FOLDER, given), max_bytes=max_bytes)
    try:
        users = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
    except RuntimeError:  # such as a user of a container that has only a number
        log.info("there is no home folder for the cache of objects; set %s to a folder", FOLDER)
        return None
    return BlockCache(users / "vop" / "objects", max_bytes=max_bytes)


def parse_size(text: str) -> int:
    """Return a number of bytes: "500MB", "2 GB", "0"."""
    found = _SIZE.fullmatch(text)
    if found is None or len(text) > _LONGEST_SIZE:
        raise UsageError(f"{SIZE} is {text!r}; give a size such as 500MB or 10GB, or 0 to use no cache")
    return int(float(found[1]) * _UNITS[(found[2] or "B").upper()])
