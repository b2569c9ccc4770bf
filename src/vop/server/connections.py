"""Connections: how many there are at once, and how long one may keep its place without sending or reading."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the whole head of a request, from its first byte or from connecting on
KEEP_ALIVE_SECONDS = 30  # between an answer and the next request
STALLED_SECONDS = 5.0  # without reading: an answer's client may be cut off where others need its place
YOUNG_SECONDS = 0.2  # in which a request that is on its way arrives
MOST_CONNECTIONS = 1000
LEAST_CONNECTIONS = 8  # a browser opens 6
EXPENDABLE = "expendable"  # in a request's state: its answer is only being held back
_MAX_HEAD_BYTES = 2**20  # a query of ten thousand words, in any script
_END_SECONDS = 1  # that requests in work have after Ctrl-C
_RESERVED_FILES = 40  # for the libraries' tables, uploads, and the processes that decode
_PAUSE_SECONDS = 0.05
_WARNING_SECONDS = 600.0

log = logging.getLogger("vop.server")


class Connection(H11Protocol):
    """One client's connection, which is closed when the head of a request takes too long."""

    _timer: asyncio.TimerHandle | None = None
    _waiting_since = 0.0
    _stalled_since: float | None = None
    _ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_work():
            self._stop_timer()
        elif self._timer is None:  # the rest of a head may only trickle in
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def idle_rank(self) -> tuple[int, float] | None:
        """Which connection others may replace first, the lowest; None for one that is in use.

        Clients that have asked for nothing come first, then answers that are only held back, then those that nobody
        reads; of each kind the one that has waited longest.
        """
        now = self.loop.time()
        if self._ended:
            return None
        if self._is_in_work() and self.scope["state"].get(EXPENDABLE):
            return 1, self._waiting_since
        if self._is_in_work() or self.transport.get_write_buffer_size():
            since = self._stalled_since or (None if self._is_in_work() else self._waiting_since)
            return None if since is None or now - since < STALLED_SECONDS else (2, since)
        return None if now - self._waiting_since < YOUNG_SECONDS else (0, self._waiting_since)

    def end(self) -> None:
        """Closes it at once, whatever is still to be sent."""
        self._ended = True
        self.transport.abort()

    def _is_in_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting_since = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.end()


class Server(uvicorn.Server):
    """Serves an application on a listening socket, with no more connections than the process has descriptors for.

    A client that comes when all places are taken has one that is idle closed; where none is, it waits.

    Args:
        most: connections at once; by default as many as fit.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, *, most: int | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            loop="asyncio",  # wherever uvloop happens to be installed, too
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            ws="none",
            lifespan="on",
            log_level="critical",  # the application logs its own errors, and those of clients are their own
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        super().__init__(config)
        self._listener, self._most = listener, most or connections_that_fit()
        self._accepting: asyncio.Task | None = None
        self._warned = float("-inf")

    def run(self) -> None:
        super().run(sockets=[])  # none that asyncio accepts from: it would spin while the descriptors are used up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listener.setblocking(False)
        self._listener.listen(self.config.backlog)
        self._accepting = asyncio.create_task(self._accept())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting.cancel()
        self._listener.close()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client = await self._next_client(loop)
            while len(self.server_state.connections) >= self._most and not self._close_idle():
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await loop.connect_accepted_socket(self._connection, client)
            except OSError:  # it has gone already
                client.close()

    async def _next_client(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        while True:
            try:
                return (await loop.sock_accept(self._listener))[0]
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._warn(error)
                    self._close_idle()
                await asyncio.sleep(_PAUSE_SECONDS)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _close_idle(self) -> bool:
        """Closes the connection that can best be spared; whether there is one."""
        ranks = {one: one.idle_rank() for one in self.server_state.connections}
        idle = min((one for one in ranks if ranks[one]), key=ranks.get, default=None)
        if idle is not None:
            idle.end()
        return idle is not None

    def _warn(self, error: OSError) -> None:
        if time.monotonic() - self._warned >= _WARNING_SECONDS:
            self._warned = time.monotonic()
            log.warning("new connections have to wait: %s; raise the limit (ulimit -n) if it lasts", error.strerror)


def connections_that_fit() -> int:
    """How many connections this process has descriptors for, each with a file that is sent or received."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(LEAST_CONNECTIONS, (soft - _open_files() - _RESERVED_FILES) // 2))


def _open_files() -> int:
    with suppress(OSError):
        return len(os.listdir(Path("/dev/fd")))
    return 40
