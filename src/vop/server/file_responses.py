"""Send files with conditional requests and byte ranges (RFC 9110), from one file descriptor."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK = 2**18
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_DIGITS = 19  # in a byte position; Python refuses to convert thousands of digits
# Opening must not wait for the writer of a FIFO, or make a terminal the server's controlling terminal.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotAFile(OSError):
    """The path is a folder, a device or another special file."""


class OpenFile:
    """An open regular file. It stays the same file even if its path changes.

    Attributes:
        state: the result of `os.fstat`.
        size: in bytes.
        etag: for the response.
        modified: the time of the last change, in seconds.

    Raises:
        NotAFile: the path is not a regular file.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        _check_regular(path, os.stat(path))  # before opening, which can have effects on a device
        self._descriptor = os.open(path, _FLAGS)
        try:
            self.state = os.fstat(self._descriptor)
            _check_regular(path, self.state)
        except OSError:
            self.close()
            raise
        self.size, self.etag, self.modified = self.state.st_size, etag_of(self.state), self.state.st_mtime

    def __del__(self) -> None:
        self.close()

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, start)

    def close(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _check_regular(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise NotAFile(None, "it is not a regular file", str(path))


def identity_of(state: os.stat_result) -> tuple[int, ...]:
    """Return a value that changes if a path leads to another file, or if the file's content changes."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def etag_of(state: os.stat_result) -> str:
    return f'"{state.st_mtime_ns:x}-{state.st_size:x}"'


def is_unchanged(headers: Headers, etag: str) -> bool:
    """Return whether the client already has the current content: `If-None-Match`, by weak comparison (RFC 9110)."""
    given = ", ".join(headers.getlist("if-none-match")).strip()
    return given == "*" or etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in _TAG.findall(given)}


class Readable(Protocol):
    """What `OpenFileResponse` sends: an `OpenFile` or the like."""

    size: int
    etag: str
    modified: float

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start` on; none after the end."""

    def close(self) -> None: ...


class OpenFileResponse(Response):
    """Sends a file, a part of it, or status 304 if the client already has it. Then closes the file.

    A single byte range gets status 206, a range after the end 416. Several ranges, other units and malformed
    ranges are ignored, as RFC 9110 (14.2) allows: the whole file is sent.
    """

    def __init__(self, file: Readable, *, media_type: str, headers: Mapping[str, str]) -> None:
        self._file, self._size = file, file.size
        self.status_code, self.media_type, self.background = 200, media_type, None
        self._etag = file.etag
        self._modified = formatdate(file.modified, usegmt=True)
        standard = {"ETag": self._etag, "Last-Modified": self._modified, "Accept-Ranges": "bytes"}
        self.init_headers({**headers, **standard})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._respond(scope, receive, send)
        finally:
            self._file.close()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if is_unchanged(headers, self._etag):
            self._reduce(304)
            return await self._start(send, done=True)
        start, end = 0, self._size
        wanted = self._range(headers) if scope["method"] == "GET" else None
        if wanted is not None:
            start, end = wanted
            if start >= end:
                self._reduce(416)
                self.headers["Content-Range"] = f"bytes */{self._size}"
                self.headers["Content-Length"] = "0"
                return await self._start(send, done=True)
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{self._size}"
        self.headers["Content-Length"] = str(end - start)
        bare = scope["method"] == "HEAD" or start == end
        await self._start(send, done=bare)
        if not bare:
            await self._send(receive, send, start, end)

    def _reduce(self, status: int) -> None:
        """Remove the headers that describe content, because none is sent."""
        self.status_code = status
        for name in ("content-type", "content-length"):
            if name in self.headers:
                del self.headers[name]

    def _range(self, headers: Headers) -> tuple[int, int] | None:
        """Return the requested first byte and the end, or None for the whole file.

        For a range after the end of the file, the first byte is not before the end.
        """
        condition = headers.get("if-range")
        if condition is not None and condition.strip() not in (self._etag, self._modified):
            return None
        unit, _, spec = headers.get("range", "").partition("=")
        found = _RANGE.fullmatch(spec.strip())
        if unit.strip().lower() != "bytes" or found is None or spec.strip() == "-":
            return None
        first, last = found.groups()
        if not first:  # the last bytes
            return max(self._size - _number(last), 0), self._size
        if last and _number(last) < _number(first):
            return None
        return _number(first), min(_number(last) + 1, self._size) if last else self._size

    async def _start(self, send: Send, *, done: bool) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, receive: Receive, send: Send, start: int, end: int) -> None:
        """Send the bytes. If the file has become shorter, end the response early, so that the client notices."""
        disconnected = asyncio.ensure_future(_disconnected(receive))
        try:
            while start < end and not disconnected.done():
                chunk = await run_in_threadpool(self._file.read, start, min(_CHUNK, end - start))
                if not chunk:
                    return
                start += len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": start < end})
        finally:
            disconnected.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _number(digits: str) -> int:
    return int(digits.lstrip("0")[:_MAX_DIGITS] or "0")
