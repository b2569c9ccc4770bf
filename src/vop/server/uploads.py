"""Files that clients send: streamed to disk up to a limit, and removed again whatever happens."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from vop.server.batching import GONE
from vop.server.media import NoRoom

FIELD = "file"
UPLOAD_SECONDS = 600.0  # in all
SILENT_SECONDS = 20.0  # with nothing of it: a client that has gone silently would keep its place among the few
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


@asynccontextmanager
async def received(request: Request, folder: Path, *, max_bytes: int) -> AsyncIterator[Path]:
    """The file that a request brings, read no further than the limit; nothing of it is left after the block.

    Its name here has nothing of the client's: what kind of file it is, its content says.

    Raises:
        HTTPException: 413, it is too large; 400, 415 or 422, it is no form with a file in it; 408, it takes too long.
        NoRoom: the disk does not take it.
    """
    with _room(), tempfile.NamedTemporaryFile(dir=folder, prefix="upload-") as file:
        await _Upload(request, file, max_bytes=max_bytes).read()
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

    def __init__(self, request: Request, file: BinaryIO, *, max_bytes: int) -> None:
        self._request, self._file, self._max_bytes = request, file, max_bytes
        self._bytes, self._field, self._header, self._ours, self._seen = 0, b"", b"", False, False

    async def read(self) -> None:
        self._check_announced()
        parser = self._parser()
        try:
            async with asyncio.timeout(UPLOAD_SECONDS), asyncio.timeout(SILENT_SECONDS) as silence:
                await self._parse(parser, silence)
        except TimeoutError:
            late = f"nothing of the file has arrived for {SILENT_SECONDS:g} s"
            late = late if silence.expired() else f"the file has not arrived within {UPLOAD_SECONDS:g} s"
            raise HTTPException(408, late) from None
        except ClientDisconnect:
            raise HTTPException(GONE, "the client has gone") from None
        except FormParserError as error:
            raise HTTPException(400, f"the request is no multipart form: {error}") from None
        if not self._bytes:
            found = "is empty" if self._seen else "is missing"
            raise HTTPException(422, f"the form's field {FIELD!r} {found}; send a video or a picture in it")

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

    async def _parse(self, parser: MultipartParser, silence: asyncio.Timeout) -> None:
        read, clock = 0, asyncio.get_running_loop().time
        async for chunk in self._request.stream():
            silence.reschedule(clock() + SILENT_SECONDS)
            read += len(chunk)
            if read > self._max_bytes + _AROUND:
                raise self._too_large()
            parser.write(chunk)
        parser.finalize()
        self._file.flush()

    # What the parser finds

    def _on_part_begin(self) -> None:
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
        self._file.write(data[start:end])
