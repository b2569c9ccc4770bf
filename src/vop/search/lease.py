"""The lock of a library in object storage: an object that its holder rewrites every few seconds.

A process takes the lock by creating or replacing this object on the condition that nobody has changed it meanwhile. To
release it, the process writes that it is free. If a process dies, nobody rewrites the object: another process that has
watched it unchanged for `LEASE_SECONDS`, by its own clock, takes it. A process that could not rewrite it in time does
not commit any more.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from vop.errors import VopError
from vop.storage.address import Address, Location
from vop.storage.errors import ChangedObject, MissingObject, StorageError
from vop.storage.objects import ObjectInfo, read, write

LEASE_SECONDS, RENEW_SECONDS, POLL_SECONDS = 60.0, 15.0, 1.0
_MARGIN = 0.75  # of the lease: the age after which its holder does not commit any more
_held: dict[Address, Lease] = {}
log = logging.getLogger(__name__)


class Lease:
    """The lock of one library, of this process.

    Args:
        address: the object.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._token = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        self._written = 0
        self._info: ObjectInfo | None = None
        self._renewed_at = 0.0
        self._lost = False
        self._done = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self, waiting: Callable[[], None]) -> None:
        """Take the lock. `waiting` is called once if another process has it."""
        seen, since, told = 0, 0.0, False
        while not self._is_held:
            before, is_free = self._state()
            now = time.monotonic()
            if before is not None and before.version != seen:
                seen, since = before.version, now
            if is_free or now - since >= LEASE_SECONDS:
                self._take(before)
                continue
            if not told:
                log.info("waiting for the lock %s", self.address)
                waiting()
                told = True
            time.sleep(POLL_SECONDS)
        self._renewing.start()

    @property
    def _is_held(self) -> bool:
        return self._info is not None

    def _state(self) -> tuple[ObjectInfo | None, bool]:
        """Return the present object, if there is one, and whether the lock is free."""
        try:
            content, info = read(self.address)
        except MissingObject:
            return None, True
        try:
            return info, bool(json.loads(content)["free"])
        except (ValueError, KeyError, TypeError):
            return info, False

    def _take(self, before: ObjectInfo | None) -> None:
        now = time.monotonic()
        try:
            self._info = self._written_over(before)
        except ChangedObject:  # another process was faster
            return
        self._renewed_at = now

    def _written_over(self, before: ObjectInfo | None, *, free: bool = False) -> ObjectInfo:
        """Write that this process has the lock, or that it is free.

        Raises:
            ChangedObject: another process has it.
        """
        try:
            return write(self.address, self._content(free=free), replacing=before)
        except ChangedObject:
            content, info = read(self.address)
            if self._token.encode() not in content:
                raise
        # Only the answer to an earlier request of this process was lost.
        return write(self.address, self._content(free=free), replacing=info)

    def _content(self, *, free: bool = False) -> bytes:
        self._written += 1  # so that each content differs
        return json.dumps({"free": free, "holder": self._token, "written": self._written}).encode()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            now = time.monotonic()
            try:
                self._info = self._written_over(self._info)
                self._renewed_at = now
            except ChangedObject:
                self._lost = True
                return
            except StorageError as error:
                log.warning("the lock %s cannot be renewed: %s", self.address, error)

    def check(self) -> None:
        """Raise a VopError if another process may have the lock by now."""
        if self._lost or time.monotonic() - self._renewed_at > _MARGIN * LEASE_SECONDS:
            raise VopError(
                f"{self.address.parent}: this process could not renew its lock in time, so another one may write to "
                "the library; what was committed is kept. Run the same command again"
            )

    def release(self) -> None:
        self._done.set()
        self._renewing.join()
        try:
            self._written_over(self._info, free=True)
        except StorageError as error:
            log.warning("the lock %s cannot be released and will expire: %s", self.address, error)


def hold(address: Address, waiting: Callable[[], None]) -> Lease:
    """Take the lock of a library. Call `release_held` at the end."""
    lease = Lease(address)
    lease.acquire(waiting)
    _held[address.parent] = lease
    return lease


def release_held(lease: Lease) -> None:
    _held.pop(lease.address.parent, None)
    lease.release()


def is_held(library: Address) -> bool:
    """Return whether this process has the lock of a library."""
    return library in _held


def check_held(library: Location) -> None:
    """Raise a VopError if this process has lost the lock of a library in object storage. Call it before a commit."""
    if isinstance(library, Address) and library in _held:
        _held[library].check()
