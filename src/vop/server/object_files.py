"""Videos in object storage: sent in ranges, and copied to the server's disk only to cut a clip."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vop.errors import VideoError
from vop.search.results import IndexedVideo
from vop.server.errors import Unavailable
from vop.storage.address import Address
from vop.storage.errors import ObjectError, ScratchFull, StorageError
from vop.storage.objects import ObjectInfo, read_range
from vop.storage.scratch import Scratch

_MOST_AHEAD = 2**23  # bytes of one request
CHANGED = "it has changed since it was indexed"
log = logging.getLogger("vop.server")


class OpenObject:
    """One version of an object, read in ranges that grow while it is read in sequence."""

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        self.size, self.modified = info.size, info.modified_at.timestamp()
        self.etag = f'"{info.version:x}-{info.size:x}"'
        self._start, self._content = 0, b""
        self._ahead = 0

    def read(self, start: int, size: int) -> bytes:
        """Return bytes; none if the object has changed or cannot be read any more."""
        end = self._start + len(self._content)
        if not self._start <= start < end:
            self._ahead = min(2 * self._ahead, _MOST_AHEAD) if start == end else 0
            try:
                self._content = read_range(self._info, start, min(start + max(size, self._ahead), self.size))
            except StorageError as error:
                log.warning("a video cannot be read any more: %s", error)
                return b""
            self._start, self._ahead = start, len(self._content)
        return self._content[start - self._start :][:size]

    def close(self) -> None:
        self._content = b""


class RemoteVideo:
    """A video of a library that is an object.

    Attributes:
        identity: changes if the object changes.
    """

    def __init__(self, address: Address, found: IndexedVideo, scratch: Scratch) -> None:
        self._address, self._found, self._scratch = address, found, scratch
        self.identity = [str(address), found.size, found.mtime_ns]

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """Yield a copy on this server's disk, and then remove it.

        Raises:
            VideoError: the object cannot be read, or is not the one that was indexed.
            ScratchFull: the disk is full.
            Unavailable: the storage cannot be used.
        """
        try:
            with self._scratch.copy(self._address) as (path, info):
                if (info.size, info.version) != (self._found.size, self._found.mtime_ns):
                    raise VideoError(str(self._address), CHANGED)
                yield path
        except ObjectError as error:
            raise VideoError(str(self._address), error.reason) from None
        except ScratchFull:
            raise
        except StorageError as error:
            raise Unavailable(str(error)) from None
