"""Files that clients send: streamed to disk up to a limit, and removed again whatever happens.

A client that sends slowly keeps nobody else from sending: it has to be faster than a least rate, and where all places
are taken the slowest gives up its own.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from vop.server.batching import GONE, TryAgain
from vop.server.media import NoRoom

# What is wrong with a form, its sender is told; the parser would write a line for each into the server's log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

FIELD = "file"
UPLOAD_SECONDS = 600.0  # in all
SILENT_SECONDS = 20.0  # with nothing of it: a client that has gone silently would keep its place among the few
GRACE_SECONDS = 20.0  # that a slow start, or a pause, may take
LEAST_RATE = 4 * 2**10  # bytes per second, on average, after that
YIELDING_SECONDS, YIELDING_RATE = 3.0, 64 * 2**10  # older and slower ones give up their places to others
MAX_PARTS = 64  # of a form
_AROUND = 2**16  # bytes of a body that are not the file: headers, boundaries, small fields

BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary"}},
            }
        }
    },
}


class Place:
    """A file's place among those on their way, from its first byte to its answer."""

    def __init__(self) -> None:
        self.bytes, self.began = 0, asyncio.get_running_loop().time()
        self.waiting: asyncio.Timeout | None = None  # for the file's next part
        self.given_up = False

    def rate(self, now: float) -> float:
        """Bytes per second."""
        return self.bytes / max(now - self.began, 1e-3)

    def yields(self, now: float) -> bool:
        """Whether it may have to make room: its client is slow."""
        return bool(self.waiting) and now - self.began >= YIELDING_SECONDS and self.rate(now) < YIELDING_RATE

    def give_up(self) -> None:
        self.given_up = True
        self.waiting.reschedule(asyncio.get_running_loop().time())


class Uploads:
    """The places for files on their way, and the bytes that all of them may take.

    Args:
        limit: number of places.
        most_bytes: on disk, of all.
    """

    def __init__(self, limit: int, *, most_bytes: int) -> None:
        self.limit, self.most_bytes = limit, most_bytes
        self._taken: set[Place] = set()

    @property
    def inside(self) -> int:
        return len(self._taken)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place; that of the slowest client if all are taken.

        Raises:
            TryAgain: all are taken, and none is slow.
        """
        if self.inside >= self.limit:
            self._make_room()
        place = Place()
        self._taken.add(place)
        try:
            yield place
        finally:
            self._taken.discard(place)

    def _make_room(self) -> None:
        now = asyncio.get_running_loop().time()
        slowest = min((one for one in self._taken if one.yields(now)), key=lambda one: one.rate(now), default=None)
        if slowest is None:
            raise TryAgain(f"the server is receiving {self.inside} other files; try again in a moment")
        slowest.give_up()
        self._taken.discard(slowest)

    def grow(self, place: Place, size: int) -> None:
        """Counts bytes of a file.

        Raises:
            TryAgain: all files together take too many.
        """
        place.bytes += size
        if sum(one.bytes for one in self._taken) > self.most_bytes:
            raise TryAgain("the server is receiving other large files; try again in a moment")


@asynccontextmanager
async def received(
    request: Request, folder: Path, place: Place, uploads: Uploads, *, max_bytes: int
) -> AsyncIterator[Path]:
    """The file that a request brings, read no further than the limit; nothing of it is left after the block.

    Its name here has nothing of the client's: what kind of file it is, its content says.

    Raises:
        HTTPException: 413, it is too large; 400, 415 or 422, it is no form with a file in it; 408, it takes too long.
        NoRoom: the disk does not take it.
    """
    with _room(), tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        await _Upload(request, file, max_bytes=max_bytes, count=partial(uploads.grow, place)).read(place)
        yield Path(file.name)


@contextmanager
def _room() -> Iterator[None]:
    """Stands around the file, whose closing fails as its writing did."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom("the server has no room for the file at the moment; try again later") from error


class _Upload:
    """Writes the file in a multipart request to another file."""

    _is_slow = False  # whether the least rate sets the time for the next part

    def __init__(self, request: Request, file: BinaryIO, *, max_bytes: int, count: Callable[[int], None]) -> None:
        self._request, self._file, self._max_bytes, self._count = request, file, max_bytes, count
        self._parts, self._bytes, self._field, self._header, self._ours, self._seen = 0, 0, b"", b"", False, False

    async def read(self, place: Place) -> None:
        self._check_announced()
        parser = self._parser()
        try:
            async with asyncio.timeout(UPLOAD_SECONDS) as whole, asyncio.timeout(SILENT_SECONDS) as place.waiting:
                await self._parse(parser, place)
        except TimeoutError:
            raise HTTPException(408, self._why_late(place, whole)) from None
        except ClientDisconnect:
            raise HTTPException(GONE, "the client has gone") from None
        except FormParserError as error:
            raise HTTPException(400, f"the request is no multipart form: {error}") from None
        finally:
            place.waiting = None
        if not self._bytes:
            found = "is empty" if self._seen else "is missing"
            raise HTTPException(422, f"the form's field {FIELD!r} {found}; send a video or a picture in it")

    def _why_late(self, place: Place, whole: asyncio.Timeout) -> str:
        if place.given_up:
            return "the file arrived slowly, and others needed its place; try again later, or from a faster network"
        if whole.expired():
            return f"the file has not arrived within {UPLOAD_SECONDS:g} s"
        if self._is_slow:
            return f"the file arrives more slowly than {LEAST_RATE / 2**10:g} KiB a second"
        return f"nothing of the file has arrived for {SILENT_SECONDS:g} s"

    def _check_announced(self) -> None:
        announced = self._request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes + _AROUND:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the file is larger than {self._max_bytes / 2**20:g} MiB, the most that is taken")

    def _parser(self) -> MultipartParser:
        kind, options = parse_options_header(self._request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise HTTPException(415, f"send the file as multipart/form-data, in the field {FIELD!r}")
        try:
            return MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_part_data": self._on_part_data,
                },
            )
        except FormParserError as error:
            raise HTTPException(400, f"the request is no multipart form: {error}") from None

    async def _parse(self, parser: MultipartParser, place: Place) -> None:
        read, clock = 0, asyncio.get_running_loop().time
        async for chunk in self._request.stream():
            read += len(chunk)
            if read > self._max_bytes + _AROUND:
                raise self._too_large()
            parser.write(chunk)
            silent, slow = clock() + SILENT_SECONDS, place.began + GRACE_SECONDS + read / LEAST_RATE
            self._is_slow = slow < silent
            if not place.given_up:
                place.waiting.reschedule(min(silent, slow))
        parser.finalize()
        self._file.flush()

    # What the parser finds

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise HTTPException(413, f"the form has more than {MAX_PARTS} parts; send the file alone")
        self._field, self._header, self._ours = b"", b"", False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            name = parse_options_header(self._header)[1].get(b"name")
            self._ours = name == FIELD.encode() and not self._seen  # the first of that name
            self._seen = self._seen or self._ours
        self._field, self._header = b"", b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._ours:
            return
        self._bytes += end - start
        if self._bytes > self._max_bytes:
            raise self._too_large()
        self._count(end - start)
        self._file.write(data[start:end])
