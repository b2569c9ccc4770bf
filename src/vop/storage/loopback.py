"""Reads of LanceDB through a cache: a server of S3's protocol in this process, which only reads.

LanceDB reads objects with a client of its own. It keeps nothing on the disk, and Python cannot replace it. So LanceDB
is given the address of a server on this machine, which answers from a cache of blocks, and else from the object
storage. Only objects that never change are cached. The server asks for lists and all other objects each time, so that a
new version is seen at once.

The server listens on the loopback interface. Its buckets have secret names, so that other users of the machine cannot
read from it.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from vop.storage.address import Address
from vop.storage.block_cache import Block, BlockCache
from vop.storage.errors import DeniedObject, MissingObject, ObjectError, StorageError
from vop.storage.objects import PART_BYTES, ObjectInfo, endpoint, head, list_level, list_objects, read, read_part

BLOCK_BYTES = 2**16  # small, since many reads are of a few rows
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PART_BLOCKS = PART_BYTES // BLOCK_BYTES
_LARGE_BYTES, _LARGE_READS = 2**20, 8  # so many large ranges are in memory at the same time
_LONG_AGO = formatdate(0, usegmt=True)  # clients need a time
log = logging.getLogger(__name__)


class CachedReads:
    """Ranges of objects that never change, from the cache and else from the object storage."""

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self._large_reads = threading.BoundedSemaphore(_LARGE_READS)

    def size(self, address: Address) -> int:
        """Return the size of an object in bytes."""
        first = self._cache.get(_name(address, 0))
        return head(address).size if first is None else first.object_bytes

    def read(self, address: Address, start: int, end: int | None) -> tuple[bytes, int]:
        """Return the bytes from `start` to `end` of an object, or to its own end, and its size.

        Args:
            start: counts from the object's end if it is negative.
        """
        if start < 0 or end is None:
            size = self.size(address)
            start, end = max(0, start + size) if start < 0 else start, size if end is None else end
        if start >= end:
            return b"", self.size(address)
        with self._large_reads if end - start >= _LARGE_BYTES else nullcontext():
            return self._read(address, start, end)

    def _read(self, address: Address, start: int, end: int) -> tuple[bytes, int]:
        numbers = range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1)
        found: dict[int, Block] = {}
        for number in numbers:
            block = self._cache.get(_name(address, number))
            if block is not None:
                found[number] = block
        for first, last in _runs([number for number in numbers if number not in found]):
            begin, until = first * BLOCK_BYTES, (last + 1) * BLOCK_BYTES
            content, info = read_part(address, begin, until)
            if len(content) != min(until, info.size) - begin:
                raise ObjectError(address, "only a part of it could be read")
            for number in range(first, last + 1):
                place = (number - first) * BLOCK_BYTES
                found[number] = block = Block(content[place : place + BLOCK_BYTES], info.size)
                if block.content:
                    self._cache.put(_name(address, number), block)
        skipped = start - numbers[0] * BLOCK_BYTES
        content = b"".join(found[number].content for number in numbers)
        return content[skipped : skipped + end - start], found[numbers[0]].object_bytes


def _name(address: Address, number: int) -> str:
    return f"{endpoint()} {address} {BLOCK_BYTES} {number}"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last number of each run of successive numbers, which one request reads."""
    first = 0
    for place in range(1, len(numbers) + 1):
        is_end = place == len(numbers) or numbers[place] != numbers[place - 1] + 1
        if is_end or place - first == _PART_BLOCKS:
            yield numbers[first], numbers[place - 1]
            first = place


class Loopback:
    """The server. It runs until the process ends.

    Args:
        is_immutable: whether an object never changes, by its key.
    """

    def __init__(self, cache: BlockCache, *, is_immutable: Callable[[str], bool]) -> None:
        self.reads, self.is_immutable = CachedReads(cache), is_immutable
        self.buckets: dict[str, Address] = {}
        self._adding = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.loopback = self
        threading.Thread(target=self._server.serve_forever, name="loopback", daemon=True).start()

    def database(self, address: Address) -> tuple[str, dict[str, str]]:
        """Return the address by which LanceDB reads from this server, and the options for its storage."""
        bucket = address.at("")
        with self._adding:
            name = next((name for name, own in self.buckets.items() if own == bucket), secrets.token_hex(20))
            self.buckets[name] = bucket
        server = f"http://127.0.0.1:{self._server.server_port}"
        options = {
            "aws_endpoint": server,
            "aws_endpoint_url_s3": server,  # else the environment's has priority
            "aws_region": "us-east-1",
            "aws_skip_signature": "true",
            "aws_virtual_hosted_style_request": "false",
            "aws_s3_express": "false",
            "allow_http": "true",
            # A proxy that is never used keeps the client from the one that HTTP_PROXY may name.
            "proxy_url": server,
            "proxy_excludes": "127.0.0.1",
        }
        return f"s3://{name}/{address.key}", options


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    loopback: Loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request of LanceDB has failed", exc_info=True)  # the client may have closed its connection


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self._send(403, _error("AccessDenied"))
        self.close_connection = True  # the body was not read

    do_POST = do_DELETE = do_PUT

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        name, _, key = unquote(url.path).lstrip("/").partition("/")
        bucket = self.server.loopback.buckets.get(name)
        try:
            if bucket is None:
                self._send(403, _error("AccessDenied"))
            elif key:
                self._send_object(bucket.at(key))
            else:
                self._send(200, _listed(bucket, {name: own[0] for name, own in parse_qs(url.query).items()}))
        except MissingObject:
            self._send(404, _error("NoSuchKey"))
        except StorageError as error:  # it was tried several times; a status of 5xx would be tried again
            log.info("%s", error)
            self._send(403 if isinstance(error, DeniedObject) else 400, _error("InvalidRequest"))

    def _send_object(self, address: Address) -> None:
        loopback, given = self.server.loopback, _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = _range(given)
        is_head, is_immutable = self.command == "HEAD", loopback.is_immutable(address.key)
        if is_immutable:
            content, size = (b"", loopback.reads.size(address)) if is_head else loopback.reads.read(address, start, end)
            headers = {"Last-Modified": _LONG_AGO}
        else:
            content, info = (
                (b"", head(address)) if is_head else read_part(address, start, end) if given else read(address)
            )
            size, headers = info.size, _headers(info)
        if is_head:
            self._send(200, b"", headers | {"Content-Length": str(size)})
        elif given is None:
            self._send(200, content, headers)
        else:
            first = max(0, start + size) if start < 0 else start
            headers["Content-Range"] = f"bytes {first}-{first + len(content) - 1}/{size}"
            self._send(206, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _range(given: re.Match[str] | None) -> tuple[int, int | None]:
    """Return where a range starts and ends. A negative start counts from the end."""
    if given is None:
        return 0, None
    first, last = given.groups()
    if not first:
        return -int(last), None
    return int(first), int(last) + 1 if last else None


def _headers(info: ObjectInfo) -> dict[str, str]:
    headers = {"Last-Modified": formatdate(info.modified_at.timestamp(), usegmt=True)}
    return headers | ({"ETag": info.etag} if info.etag else {})


def _listed(bucket: Address, query: dict[str, str]) -> bytes:
    """Return the answer to a request for a list of objects (ListObjectsV2), in one page."""
    prefix = bucket.at(query.get("prefix", "").strip("/"))
    if "delimiter" in query:
        objects, prefixes = list_level(prefix)
    else:
        objects, prefixes = list(list_objects(prefix)), []
    after = query.get("start-after", "")
    entries = [
        f"<Contents><Key>{escape(info.address.key)}</Key><Size>{info.size}</Size>"
        f"<LastModified>{info.modified_at.isoformat()}</LastModified>"
        f"{f'<ETag>{escape(info.etag)}</ETag>' if info.etag else ''}</Contents>"
        for info in objects
        if info.address.key > after
    ]
    entries += [f"<CommonPrefixes><Prefix>{escape(own.key)}/</Prefix></CommonPrefixes>" for own in prefixes]
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>".encode()


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()
