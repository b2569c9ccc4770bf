"""The API's pictures: film strips, videos, and moments as a browser plays them. Only ids come from outside."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response

from vop.search.library import Library
from vop.server.answers import MEDIA_PROBLEMS, PROBLEMS, AskedForMoment
from vop.server.desk import TheDesk
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
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    with known():
        found = await desk.admit(request, partial(desk.look_up, served.library.segment, segment))
    return Response(found.strip, media_type="image/jpeg", headers=headers)


@router.head("/videos/{video}", include_in_schema=False)
@router.get("/videos/{video}", responses={200: {"content": {"video/*": {}}}})
async def video(request: Request, desk: TheDesk, library: str, video: str) -> FileResponse:
    """A video file as it is; answers requests for byte ranges."""
    served = desk.views.library(library)
    path, plays, _, state = await desk.admit(request, partial(desk.look_up, _file, served.library, video))
    types = {**_OTHER_TYPES, **(_TYPES if plays else {})}
    media_type = types.get(path.suffix.lower(), "video/mp4" if plays else "application/octet-stream")
    return FileResponse(path, media_type=media_type, stat_result=state, headers={"Cache-Control": _AN_HOUR})


@router.head("/videos/{video}/moment.mp4", include_in_schema=False)
@router.get("/videos/{video}/moment.mp4", responses={200: {"content": {"video/mp4": {}}}, **MEDIA_PROBLEMS})
async def moment(
    request: Request, desk: TheDesk, library: str, video: str, asked: Annotated[AskedForMoment, Query()]
) -> FileResponse:
    """A moment of a video as an MP4 that begins at 0, whatever the video's own format."""
    served = desk.views.library(library)

    async def make() -> Path:
        path, _, duration, _ = await desk.look_up(_file, served.library, video)
        start, end = asked.within(duration)
        span = {"start_seconds": start, "end_seconds": end, "duration_seconds": duration}
        return await desk.make(desk.moments.get, path, **span)

    made = await desk.admit(request, make)
    return FileResponse(made, media_type="video/mp4", headers={"Cache-Control": _AN_HOUR})


def _file(library: Library, video: str) -> tuple[Path, bool, float, os.stat_result]:
    """Path, whether browsers play it, duration and state of a video's file, which is the one that was indexed.

    Its size tells: times change when a file is copied or touched, and then its content is still the library's.
    """
    with known():
        found = library.video(video)
    path = Path(found.path)
    again = f"index its folder again: vop index {library.path} {path.parent}"
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            path.open("rb").close()
    except OSError as error:
        raise HTTPException(404, f"{path}: the file cannot be had ({error.strerror}); {again}") from None
    if not stat.S_ISREG(state.st_mode) or state.st_size != found.size:
        raise HTTPException(404, f"{path}: the file has changed since it was indexed; {again}")
    return path, found.plays_in_browsers, found.duration_seconds, state
