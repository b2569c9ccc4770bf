"""Routes of the API for media: thumbnail strips, videos, and clips that every browser plays.

Requests name videos and segments only by their ids, so that no path in a URL reaches the file system.
"""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from vop.search.results import IndexedVideo
from vop.search.store import Store
from vop.server.dependencies import (
    MEDIA_PROBLEMS,
    PROBLEMS,
    LibraryName,
    SegmentId,
    ServicesDependency,
    VideoId,
    admit,
)
from vop.server.errors import Unavailable
from vop.server.file_responses import NotAFile, OpenFile, OpenFileResponse, identity_of, is_unchanged
from vop.server.libraries import unknown_ids_as_not_found
from vop.server.object_files import OpenObject, RemoteVideo
from vop.server.schemas import ClipParameters
from vop.server.services import Services
from vop.storage.address import Address, Location, location, parse_address
from vop.storage.errors import MissingObject, StorageError
from vop.storage.objects import head

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS, default_response_class=Response)

_CACHE_FOREVER = "private, max-age=31536000, immutable"  # an id always stands for the same content
CACHE_FOR_AN_HOUR = "private, max-age=3600"
_BROWSER_TYPES = {".webm": "video/webm", ".mkv": "video/webm"}  # of files that browsers play; all others are MP4
_OTHER_TYPES = {".avi": "video/x-msvideo", ".mkv": "video/matroska", ".wmv": "video/x-ms-wmv", ".ts": "video/mp2t"}


@router.head("/segments/{segment}/strip.jpg", include_in_schema=False)
@router.get("/segments/{segment}/strip.jpg", responses={200: {"content": {"image/jpeg": {}}}})
async def strip(request: Request, services: ServicesDependency, library: LibraryName, segment: SegmentId) -> Response:
    """Send the thumbnail strip of a segment."""
    served, etag = services.libraries.library(library), f'"{segment}"'
    headers = {"ETag": etag, "Cache-Control": _CACHE_FOREVER}
    with unknown_ids_as_not_found():
        found = await admit(request, services, partial(services.in_search_thread, served.library.segment, segment))
    if is_unchanged(request.headers, etag):
        return Response(status_code=304, headers=headers)
    return Response(found.strip, media_type="image/jpeg", headers=headers)


@router.head("/videos/{video}", include_in_schema=False)
@router.get("/videos/{video}", responses={200: {"content": {"video/*": {}}}})
async def video(
    request: Request, services: ServicesDependency, library: LibraryName, video: VideoId
) -> OpenFileResponse:
    """Send a video file unchanged. Supports byte ranges."""
    served = services.libraries.library(library)
    found, file = await admit(request, services, partial(open_video, services, served.library, video))
    plays = found.plays_in_browsers
    types = {**_OTHER_TYPES, **(_BROWSER_TYPES if plays else {})}
    suffix = PurePosixPath(location(found.path).name).suffix.lower()
    media_type = types.get(suffix, "video/mp4" if plays else "application/octet-stream")
    return OpenFileResponse(file, media_type=media_type, headers={"Cache-Control": CACHE_FOR_AN_HOUR})


@router.head("/videos/{video}/moment.mp4", include_in_schema=False)
@router.get("/videos/{video}/moment.mp4", responses={200: {"content": {"video/mp4": {}}}, **MEDIA_PROBLEMS})
async def moment(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    video: VideoId,
    parameters: Annotated[ClipParameters, Query()],
) -> OpenFileResponse:
    """Send a clip of a video as an MP4 that begins at 0, for any format of the video."""
    served = services.libraries.library(library)

    async def work() -> OpenFile:
        found, file = await open_video(services, served.library, video)
        start, end = parameters.within(found.duration_seconds)
        cached = partial(services.clips.get, duration_seconds=found.duration_seconds)
        if isinstance(file, OpenFile):
            check = partial(check_unchanged, served.library, file, Path(found.path))
            clip = await services.in_media_thread(cached, found.path, start_seconds=start, end_seconds=end, check=check)
            check()  # the clip may come from an older file
        else:
            remote = RemoteVideo(parse_address(found.path), found, services.scratch)
            clip = await services.in_media_thread(cached, remote, start_seconds=start, end_seconds=end)
        return await services.in_search_thread(open_clip, clip)

    file = await admit(request, services, work)
    return OpenFileResponse(file, media_type="video/mp4", headers={"Cache-Control": CACHE_FOR_AN_HOUR})


async def open_video(services: Services, library: Store, video: str) -> tuple[IndexedVideo, OpenFile | OpenObject]:
    """Return a video and its open file or object. Its size and modification time must be those in the library.

    Raises:
        HTTPException: 404, the file has changed or cannot be opened.
        Unavailable: too many files are open, or the storage cannot be used.
    """
    with unknown_ids_as_not_found():
        found = await services.in_search_thread(library.video, video)
    place = location(found.path)
    if isinstance(place, Address):
        return found, await services.in_media_thread(_open_object, library, place, found)
    return found, await services.in_search_thread(_open_indexed, library, place, found)


def _open_object(library: Store, address: Address, found: IndexedVideo) -> OpenObject:
    try:
        info = head(address)
    except MissingObject as error:
        raise HTTPException(404, f"{error}; {_index_again(library, address)}") from None
    except StorageError as error:
        raise Unavailable(str(error)) from None
    if (info.size, info.version) != (found.size, found.mtime_ns):
        raise _changed(library, address)
    return OpenObject(info)


def _open_indexed(library: Store, path: Path, found: IndexedVideo) -> OpenFile:
    try:
        file = OpenFile(path)
    except NotAFile:
        raise _changed(library, path) from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Unavailable("the server has too many files open; try again in a moment") from None
        reason = f"the file cannot be opened ({error.strerror}); {_index_again(library, path)}"
        raise HTTPException(404, f"{path}: {reason}") from None
    if (file.state.st_size, file.state.st_mtime_ns) != (found.size, found.mtime_ns):
        raise _changed(library, path)
    return file


def check_unchanged(library: Store, file: OpenFile, path: Path) -> None:
    """Raise an error if the path no longer leads to the open file: a clip of that path may show another video."""
    try:
        same = identity_of(path.stat()) == identity_of(file.state)
    except OSError:
        same = False
    if not same:
        raise _changed(library, path)


def open_clip(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except OSError:
        raise Unavailable("the clip was removed from the cache to make room for others; try again") from None


def _changed(library: Store, path: Location) -> HTTPException:
    return HTTPException(404, f"{path}: the file has changed since it was indexed; {_index_again(library, path)}")


def _index_again(library: Store, path: Location) -> str:
    return f"index its folder again: vop index {library.path} {path.parent}"
