"""Limits on requests in progress, on uploads, and on wrong tokens."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from vop.server.errors import Unavailable
from vop.utils.text import count

FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 5.0  # of the response to a wrong token
FORGET_SECONDS = 300.0  # after which a client's wrong tokens no longer count
_MAX_CLIENTS = 10_000
YIELD_AFTER_SECONDS, YIELD_RATE = 3.0, 64 * 2**10  # an older upload below this rate (bytes/s) may lose its slot


class ConcurrencyLimiter:
    """Admits up to `limit` requests at once. Refuses further ones immediately, so that no queue can grow.

    Attributes:
        active: the number of requests in progress.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.active = limit, 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the slots.

        Raises:
            Unavailable: all slots are taken.
        """
        if self.active >= self.limit:
            raise Unavailable(f"the server is busy with {count('request', self.active)}; try again in a moment")
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


class UploadSlot:
    """The slot of an upload, from its first byte to the response.

    Attributes:
        received_bytes: bytes of the file that have arrived.
        began: start time on the event loop's clock.
        waiting: the timeout for the next part of the file; None while no part is expected.
        given_up: whether another upload has taken the slot.
    """

    def __init__(self) -> None:
        self.received_bytes, self.began = 0, asyncio.get_running_loop().time()
        self.waiting: asyncio.Timeout | None = None
        self.given_up = False

    def rate(self, now: float) -> float:
        """Bytes per second."""
        return self.received_bytes / max(now - self.began, 1e-3)

    def is_slow(self, now: float) -> bool:
        """Return whether another upload may take this slot."""
        return self.waiting is not None and now - self.began >= YIELD_AFTER_SECONDS and self.rate(now) < YIELD_RATE

    def wait_until(self, deadline: float) -> None:
        """Set the time by which the next part must arrive."""
        if self.waiting is not None:
            self.waiting.reschedule(deadline)

    def give_up(self) -> None:
        self.given_up = True
        self.wait_until(asyncio.get_running_loop().time())


class UploadLimiter:
    """Limits the number of uploads, and their total bytes on disk."""

    def __init__(self, limit: int, *, max_total_bytes: int) -> None:
        self.limit, self.max_total_bytes = limit, max_total_bytes
        self._slots: set[UploadSlot] = set()

    @property
    def active(self) -> int:
        return len(self._slots)

    @contextmanager
    def slot(self) -> Iterator[UploadSlot]:
        """Hold a slot. If all are taken, take the slot of the slowest client.

        Raises:
            Unavailable: all slots are taken, and no client is slow.
        """
        if self.active >= self.limit:
            self._make_room()
        slot = UploadSlot()
        self._slots.add(slot)
        try:
            yield slot
        finally:
            self._slots.discard(slot)

    def _make_room(self) -> None:
        now = asyncio.get_running_loop().time()
        slowest = min(
            (slot for slot in self._slots if slot.is_slow(now)), key=lambda slot: slot.rate(now), default=None
        )
        if slowest is None:
            raise Unavailable(f"the server is receiving {self.active} other files; try again in a moment")
        slowest.give_up()
        self._slots.discard(slowest)

    def add_bytes(self, slot: UploadSlot, size: int) -> None:
        """Count bytes of a file.

        Raises:
            Unavailable: all files together are too large.
        """
        slot.received_bytes += size
        if sum(slot.received_bytes for slot in self._slots) > self.max_total_bytes:
            raise Unavailable("the server is receiving other large files; try again in a moment")


class TokenThrottle:
    """Delays the responses to wrong tokens, longer each time, for each client's address separately.

    Right tokens are never delayed, so that nobody is locked out by others behind the same address.
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # (number, time of the last); the oldest first

    def delay_seconds(self, address: str) -> float:
        """Count one wrong token and return the delay of its response in seconds."""
        client = _network_of(address)
        now, (count, last) = time.monotonic(), self._wrong.pop(client, (0, 0.0))
        count = 1 if now - last > FORGET_SECONDS else count + 1
        self._wrong[client] = count, now
        if len(self._wrong) > _MAX_CLIENTS:
            self._wrong.popitem(last=False)
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(count - 1, 20), MAX_DELAY_SECONDS)


def _network_of(address: str) -> str:
    """Return the address, or for IPv6 its /64 network, because one client has many addresses in it."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
