"""Limits for connections: their number, and how long a client may hold one without sending or reading."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_SECONDS = 10.0  # for all headers of a request, from its first byte, or from connecting for the first request
KEEP_ALIVE_SECONDS = 30  # between a response and the next request
STALLED_SECONDS = 5.0  # without reading the response; then the connection may be closed if others need it
YOUNG_SECONDS = 0.2  # for a new connection to send its first request; until then it is not idle
LINGER_SECONDS = 1.0  # for a client to read a response that was sent before its whole request arrived
MAX_CONNECTIONS = 1000
MIN_CONNECTIONS = 8  # a browser opens 6
EXPENDABLE = "expendable"  # key in a request's state: only a delay keeps the connection open
_MAX_HEAD_BYTES = 2**20  # enough for a query of ten thousand words in any script
_SHUTDOWN_SECONDS = 1  # for requests in progress, after Ctrl-C
_RESERVED_FILES = 40  # for the libraries' tables, uploads, and the decoding processes
_PAUSE_SECONDS = 0.05
_WARNING_SECONDS = 600.0

log = logging.getLogger("vop.server")


class Connection(H11Protocol):
    """A client's connection, which is closed when the headers of a request take too long."""

    _timer: asyncio.TimerHandle | None = None
    _waiting_since = 0.0
    _stalled_since: float | None = None
    _closed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrowed by uvicorn
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_progress():
            self._stop_timer()
        elif self._timer is None:  # the rest of the headers may come slowly
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
        """Return a rank, or None if the connection is in use. The lowest rank is closed first to make room.

        Connections without a request come first, then delayed responses, then responses that the client does not read.
        Within each group, the connection that has waited longest comes first.
        """
        now = self.loop.time()
        if self._closed:
            return None
        if self._is_in_progress() and self.scope["state"].get(EXPENDABLE):
            return 1, self._waiting_since
        if self._is_in_progress() or self.transport.get_write_buffer_size():
            since = self._stalled_since or (None if self._is_in_progress() else self._waiting_since)
            return None if since is None or now - since < STALLED_SECONDS else (2, since)
        return None if now - self._waiting_since < YOUNG_SECONDS else (0, self._waiting_since)

    def close(self) -> None:
        """Close the connection immediately, without sending the rest."""
        self._closed = True
        self.transport.abort()

    def _is_in_progress(self) -> bool:
        # uvicorn's annotation lacks None, the value before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        self._waiting_since = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.close()


class Server(uvicorn.Server):
    """Serves an application on a listening socket, with no more connections than the process has descriptors for.

    When the limit is reached, a new client closes an idle connection; if none is idle, it waits.

    Args:
        max_connections: at once; by default as many as the descriptors allow.
        on_startup: is called when the server accepts connections.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        max_connections: int | None = None,
        on_startup: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            loop="asyncio",  # even if uvloop is installed
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            ws="none",
            lifespan="on",
            log_level="critical",  # the application logs its own errors; those of clients are not logged
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._listener, self._on_startup = listener, on_startup
        self._max_connections = max_connections or connections_that_fit()
        self._accept_task: asyncio.Task[None] | None = None
        self._warned = float("-inf")

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets=[])  # this class accepts connections itself: asyncio spins while no descriptor is free

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listener.setblocking(False)
        self._listener.listen(self.config.backlog)
        self._accept_task = asyncio.create_task(self._accept())
        self._on_startup()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._accept_task is not None:
            self._accept_task.cancel()
        self._listener.close()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client = await self._next_client(loop)
            while len(self.server_state.connections) >= self._max_connections and not self._close_idle():
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await loop.connect_accepted_socket(self._connection, client)
            except OSError:  # the client has disconnected
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
        """Close the idle connection with the lowest rank. Return whether there was one."""
        ranked = [
            (rank, connection)
            for connection in self.server_state.connections
            if isinstance(connection, Connection) and (rank := connection.idle_rank()) is not None
        ]
        if not ranked:
            return False
        log.debug("closing an idle connection for a new one")
        min(ranked, key=lambda pair: pair[0])[1].close()
        return True

    def _warn(self, error: OSError) -> None:
        if time.monotonic() - self._warned >= _WARNING_SECONDS:
            self._warned = time.monotonic()
            log.warning("new connections must wait: %s; raise the limit (ulimit -n) if this lasts", error.strerror)


def connections_that_fit() -> int:
    """Return the number of connections that this process has descriptors for, each with a file to send or receive."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(MIN_CONNECTIONS, (soft - _open_files() - _RESERVED_FILES) // 2))


def _open_files() -> int:
    with suppress(OSError):
        return len(os.listdir(Path("/dev/fd")))
    return 40


class CloseUnreadRequests:
    """Middleware that closes the connection if a request was answered before its body was read to the end.

    The client gets a moment to read the response before that. Closing immediately, while the client is sending, would
    reset the connection, and many clients report that instead of the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(Headers(scope=scope)):
            body = _RequestBody(scope, receive, send)
            await self._app(scope, body.receive, body.send)
        else:
            await self._app(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class _RequestBody:
    """The body of a request. Records whether it was read to the end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._ended = self._closes = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = self._ended or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._ended:
            self._closes = True
            MutableHeaders(scope=message)["connection"] = "close"
        if self._closes and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            self._scope.setdefault("state", {})[EXPENDABLE] = True
            await asyncio.sleep(LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)
