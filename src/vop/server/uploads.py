"""Stream uploaded files to disk up to a limit, and always remove them afterwards.

A slow client cannot keep others from uploading: it must reach a minimum rate, and if all slots are taken, the slowest
upload loses its slot.
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
from typing import IO, Any

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from vop.server.errors import CLIENT_CLOSED_REQUEST, StorageFull
from vop.server.rate_limiter import UploadLimiter, UploadSlot

# The response explains a malformed form; the parser would also log it.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

FIELD = "file"
UPLOAD_SECONDS = 600.0  # for the whole file
SILENT_SECONDS = 20.0  # without data; a client that has disappeared must not keep its slot
GRACE_SECONDS = 20.0  # for a slow start or a pause
MIN_RATE = 4 * 2**10  # bytes per second, on average, after the grace period
MAX_PARTS = 64  # of a form
_MAX_OVERHEAD_BYTES = 2**16  # of a body besides the file: headers, boundaries, small fields

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {
                        "type": "string",
                        "format": "binary",
                        "description": "A video or a picture. The server deletes it after the search.",
                    }
                },
            }
        }
    },
}


log = logging.getLogger("vop.server")


@asynccontextmanager
async def received_file(
    request: Request, folder: Path, slot: UploadSlot, uploads: UploadLimiter, *, max_bytes: int
) -> AsyncIterator[Path]:
    """Store the file of a request, up to the limit. Remove it after the block.

    The client's file name is ignored: the content shows what kind of file it is.

    Raises:
        HTTPException: 413, the file is too large; 400, 415 or 422, the body is not a form with a file in it; 408, the
            file takes too long.
        StorageFull: the disk is full.
    """
    with _full_disk_explained(), tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        count = partial(uploads.add_bytes, slot)
        await _Upload(request, file, max_bytes=max_bytes, count=count).receive(slot)
        yield Path(file.name)


@contextmanager
def _full_disk_explained() -> Iterator[None]:
    """Turn the error of a full disk into StorageFull. Enclose the file in it: closing fails too if writing failed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.warning("the disk is full during an upload: %s", error.strerror)
        raise StorageFull("the server's disk is full, so it cannot receive the file; try again later") from error


class _Upload:
    """Writes the file of a multipart request to disk."""

    def __init__(self, request: Request, file: IO[bytes], *, max_bytes: int, count: Callable[[int], None]) -> None:
        self._request, self._file, self._max_bytes, self._count = request, file, max_bytes, count
        self._parts = self._file_bytes = 0
        self._header_name = self._header_value = b""
        self._in_file = self._file_seen = False
        self._is_slow = False  # whether the minimum rate sets the deadline for the next part

    async def receive(self, slot: UploadSlot) -> None:
        self._check_content_length()
        parser = self._parser()
        try:
            async with asyncio.timeout(UPLOAD_SECONDS) as whole, asyncio.timeout(SILENT_SECONDS) as slot.waiting:
                await self._parse(parser, slot)
        except TimeoutError:
            raise HTTPException(408, self._timeout_reason(slot, whole)) from None
        except ClientDisconnect:
            raise HTTPException(CLIENT_CLOSED_REQUEST, "the client has disconnected") from None
        except FormParserError as error:
            raise _malformed(error) from None
        finally:
            slot.waiting = None
        if not self._file_bytes:
            found = "is empty" if self._file_seen else "is missing"
            raise HTTPException(422, f"the form's field {FIELD!r} {found}; send a video or a picture in it")

    def _timeout_reason(self, slot: UploadSlot, whole: asyncio.Timeout) -> str:
        if slot.given_up:
            return "the file arrived slowly, and another upload took its slot; try again later or on a faster network"
        if whole.expired():
            return f"the file did not arrive within {UPLOAD_SECONDS:g} s"
        if self._is_slow:
            return f"the file arrived more slowly than {MIN_RATE / 2**10:g} KiB a second"
        return f"no data arrived for {SILENT_SECONDS:g} s"

    def _check_content_length(self) -> None:
        length = self._request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_bytes + _MAX_OVERHEAD_BYTES:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the file is larger than {self._max_bytes / 2**20:g} MiB, the maximum")

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
            raise _malformed(error) from None

    async def _parse(self, parser: MultipartParser, slot: UploadSlot) -> None:
        read, clock = 0, asyncio.get_running_loop().time
        async for chunk in self._request.stream():
            read += len(chunk)
            if read > self._max_bytes + _MAX_OVERHEAD_BYTES:
                raise self._too_large()
            parser.write(chunk)
            silent, slow = clock() + SILENT_SECONDS, slot.began + GRACE_SECONDS + read / MIN_RATE
            self._is_slow = slow < silent
            if not slot.given_up:
                slot.wait_until(min(silent, slow))
        parser.finalize()
        self._file.flush()

    # The parser's callbacks

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise HTTPException(413, f"the form has more than {MAX_PARTS} parts; send the file alone")
        self._header_name, self._header_value, self._in_file = b"", b"", False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            name = parse_options_header(self._header_value)[1].get(b"name")
            self._in_file = name == FIELD.encode() and not self._file_seen  # the first field of this name
            self._file_seen = self._file_seen or self._in_file
        self._header_name, self._header_value = b"", b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            return
        self._file_bytes += end - start
        if self._file_bytes > self._max_bytes:
            raise self._too_large()
        self._count(end - start)
        self._file.write(data[start:end])


def _malformed(error: FormParserError) -> HTTPException:
    return HTTPException(400, f"the request is not a multipart form: {error}")
