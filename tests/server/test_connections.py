"""Clients that send half a request or read nothing cannot block others."""

from __future__ import annotations

import asyncio
import errno
import http.client
import resource
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from vop.server import connections
from vop.server.connections import CloseUnreadRequests, Server, connections_that_fit

HALF = b"GET / HTTP/1.1\r\nHost: local"
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def serving(**options):
    """Run a small application; yield its port and its server."""

    async def respond(request):
        return PlainTextResponse("here")

    async def refuse(request):
        return PlainTextResponse("no", 413)

    async def wait(request):
        await asyncio.sleep(1)
        return PlainTextResponse("waited")

    async def endless(request):
        async def parts():
            while True:
                yield bytes(2**16)
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    routes = [Route("/", respond), Route("/refuse", refuse, methods=["POST"]), Route("/wait", wait)]
    app = Starlette(routes=[*routes, Route("/endless", endless)], middleware=[Middleware(CloseUnreadRequests)])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = Server(app, listener, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def connect(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(data)
    return connection


def get(port: int, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server closes the connection before its timeout."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def until(condition) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("sent", [b"", HALF, WHOLE + HALF, b"G", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100])
def test_an_incomplete_head_closes_the_connection(sent, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(connections, "KEEP_ALIVE_SECONDS", 1)
    with serving() as (port, server):
        assert is_closed(connect(port, sent))
        assert until(lambda: not server.server_state.connections)


def test_a_slow_head_closes_the_connection(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    with serving() as (port, _):
        connection = connect(port, WHOLE)
        assert b"200" in connection.recv(100)
        sent = 0
        with suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(100):
                sent += connection.send(b"G")
                time.sleep(0.1)
        assert sent < 100


def test_a_response_may_take_longer_than_a_head(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with serving() as (port, _):
        assert get(port, "/wait") == 200


@pytest.mark.parametrize("sent", [b"", HALF, WHOLE])
def test_idle_connections_make_room(sent, monkeypatch):
    monkeypatch.setattr(connections, "YOUNG_SECONDS", 0.05)
    with serving(max_connections=4) as (port, server):
        idle = [connect(port, sent) for _ in range(20)]
        assert [get(port) for _ in range(5)] == [200] * 5
        assert len(server.server_state.connections) <= 4
        assert is_closed(idle[0])


def test_unread_responses_make_room(monkeypatch):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    with serving(max_connections=4) as (port, _):
        stalled = [connect(port, WHOLE.replace(b"/ ", b"/endless ", 1)) for _ in range(6)]
        assert get(port) == 200
        assert is_closed(stalled[0])


def test_running_requests_are_not_interrupted():
    with serving(max_connections=3) as (port, _):
        working = [connect(port, WHOLE.replace(b"/ ", b"/wait ", 1)) for _ in range(3)]
        assert get(port) == 200  # after one of them is done
        for connection in working:
            assert b"200 OK" in connection.recv(2**12)


def test_a_lack_of_file_descriptors_is_survived(monkeypatch, caplog):
    """It logs one warning and pauses; asyncio's own server logs thousands of tracebacks a second."""
    tries = []
    accept = asyncio.SelectorEventLoop.sock_accept

    async def full(loop, listener):
        tries.append(time.monotonic())
        if len(tries) <= 8:
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(loop, listener)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", full)
    with serving() as (port, _):
        assert get(port) == 200
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Too many open files" in caplog.text
    assert tries[7] - tries[0] > 0.2  # a pause after each error


def test_connections_fit_the_file_descriptors(monkeypatch):
    for soft, fit in [(2**20, 1000), (resource.RLIM_INFINITY, 1000), (20, 8)]:
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections_that_fit() == fit
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert 100 < connections_that_fit() < 512


class TestBodies:
    @pytest.fixture(autouse=True)
    def _short_lingering(self, monkeypatch):
        monkeypatch.setattr(connections, "LINGER_SECONDS", 0.2)

    @pytest.mark.parametrize("announced", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
    def test_a_body_is_not_read_after_the_response(self, announced):
        with serving() as (port, _):
            connection = connect(port, b"POST /refuse HTTP/1.1\r\nHost: localhost\r\n" + announced + b"\r\n\r\n")
            response = connection.recv(2**12)
            assert b"413" in response
            assert b"connection: close" in response
            sent = 0
            with suppress(ConnectionResetError, BrokenPipeError):
                while sent < 10**8:
                    sent += connection.send(b"10000\r\n" + bytes(2**16) + b"\r\n")
            assert sent < 10**8

    def test_a_request_without_a_body_keeps_the_connection(self):
        with serving() as (port, _):
            connection = connect(port, WHOLE)
            for _ in range(3):
                assert b"connection: close" not in connection.recv(2**12)
                connection.sendall(WHOLE)

    def test_a_missing_body_closes_the_connection(self):
        with serving() as (port, server):
            connection = connect(port, WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000000\r\n\r\n"))
            assert is_closed(connection)
            assert until(lambda: not server.server_state.connections)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"NOT HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e9\r\n\r\n",
        b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**21 + b"\r\n\r\n",
        b"\r\n" * 1000,
    ],
)
def test_an_invalid_request_closes_only_its_connection(sent, caplog, capfd):
    with serving() as (port, _):
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        try:
            connection.sendall(sent)
            response = connection.recv(2**12)
        except (ConnectionResetError, BrokenPipeError):
            response = b""
        assert response[9:12] in (b"", b"400", b"413", b"404")
        assert get(port) == 200
    assert not caplog.records
    assert capfd.readouterr().err == ""
