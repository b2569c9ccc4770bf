"""The API's pictures: film strips, videos, and moments as a browser plays them. Only ids come from outside."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from vop.search.results import IndexedVideo
from vop.search.store import Store
from vop.server.answers import MEDIA_PROBLEMS, PROBLEMS, AskedForMoment
from vop.server.batching import TryAgain
from vop.server.desk import TheDesk
from vop.server.sending import FileAnswer, NotAFile, OpenFile, identity_of, is_unchanged
from vop.server.views import known

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS, default_response_class=Response)

_FOR_EVER = "private, max-age=31536000, immutable"  # an id stands for a content
_AN_HOUR = "private, max-age=3600"
_TYPES = {".webm": "video/webm", ".mkv": "video/webm"}  # of those that browsers play; the others are MP4
_OTHER_TYPES = {".avi": "video/x-msvideo", ".mkv": "video/matroska", ".wmv": "video/x-ms-wmv", ".ts": "video/mp2t"}


@router.head("/segments/{segment}/strip.jpg", include_in_schema=False)
@router.get("/segments/{segment}/strip.jpg", responses={200: {"content": {"image/jpeg": {}}}})
async def strip(request: Request, desk: TheDesk, library: str, segment: str) -> Response:
    """The film strip of a segment."""
    served, etag = desk.views.library(library), f'"{segment}"'
    headers = {"ETag": etag, "Cache-Control": _FOR_EVER}
    if is_unchanged(request.headers, etag):
        return Response(status_code=304, headers=headers)
    with known():
        found = await desk.admit(request, partial(desk.look_up, served.library.segment, segment))
    return Response(found.strip, media_type="image/jpeg", headers=headers)


@router.head("/videos/{video}", include_in_schema=False)
@router.get("/videos/{video}", responses={200: {"content": {"video/*": {}}}})
async def video(request: Request, desk: TheDesk, library: str, video: str) -> FileAnswer:
    """A video file as it is; answers requests for byte ranges."""
    served = desk.views.library(library)
    found, file = await desk.admit(request, partial(desk.look_up, _indexed, served.library, video))
    plays = found.plays_in_browsers
    types = {**_OTHER_TYPES, **(_TYPES if plays else {})}
    media_type = types.get(Path(found.path).suffix.lower(), "video/mp4" if plays else "application/octet-stream")
    return FileAnswer(file, media_type=media_type, headers={"Cache-Control": _AN_HOUR})


@router.head("/videos/{video}/moment.mp4", include_in_schema=False)
@router.get("/videos/{video}/moment.mp4", responses={200: {"content": {"video/mp4": {}}}, **MEDIA_PROBLEMS})
async def moment(
    request: Request, desk: TheDesk, library: str, video: str, asked: Annotated[AskedForMoment, Query()]
) -> FileAnswer:
    """A moment of a video as an MP4 that begins at 0, whatever the video's own format."""
    served = desk.views.library(library)

    async def make() -> OpenFile:
        found, file = await desk.look_up(_indexed, served.library, video)
        start, end = asked.within(found.duration_seconds)
        span = {"start_seconds": start, "end_seconds": end, "duration_seconds": found.duration_seconds}
        check = partial(_check_still, served.library, file, Path(found.path))
        made = await desk.make(desk.moments.get, found.path, **span, check=check)
        check()  # it may be the moment of another file that was made before
        return await desk.look_up(_made, made)

    return FileAnswer(await desk.admit(request, make), media_type="video/mp4", headers={"Cache-Control": _AN_HOUR})


def _indexed(library: Store, video: str) -> tuple[IndexedVideo, OpenFile]:
    """A video and its file, which is the one that was indexed: of the same size and time of change.

    Raises:
        HTTPException: 404, it is another one or cannot be opened.
        TryAgain: too many files are open.
    """
    with known():
        found = library.video(video)
    path = Path(found.path)
    try:
        file = OpenFile(path)
    except NotAFile:
        raise _changed(library, path) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise TryAgain("the server has too many files open; try again in a moment") from None
        said = f"the file cannot be had ({error.strerror}); {_index_again(library, path)}"
        raise HTTPException(404, f"{path}: {said}") from None
    if (file.state.st_size, file.state.st_mtime_ns) != (found.size, found.mtime_ns):
        raise _changed(library, path)
    return found, file


def _check_still(library: Store, file: OpenFile, path: Path) -> None:
    """Raises if the path leads to another file by now: what was read by its path is not the video then."""
    try:
        same = identity_of(path.stat()) == identity_of(file.state)
    except OSError:
        same = False
    if not same:
        raise _changed(library, path)


def _made(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except OSError:
        raise TryAgain("the moment had to make room for others; try again") from None


def _changed(library: Store, path: Path) -> HTTPException:
    return HTTPException(404, f"{path}: the file has changed since it was indexed; {_index_again(library, path)}")


def _index_again(library: Store, path: Path) -> str:
    return f"index its folder again: vop index {library.path} {path.parent}"
