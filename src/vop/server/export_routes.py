"""Routes of the API for keeping moments: a clip as a download, and lists for tables and video editors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from vop.errors import UsageError
from vop.export import ListDocument, list_document
from vop.export.names import clip_name, safe
from vop.search.exporting import Originals
from vop.search.results import Moment
from vop.search.store import Store
from vop.server.dependencies import (
    MEDIA_PROBLEMS,
    PROBLEMS,
    LibraryName,
    ServicesDependency,
    VideoId,
    admit,
)
from vop.server.file_responses import OpenFile, OpenFileResponse
from vop.server.libraries import unknown_ids_as_not_found
from vop.server.media_routes import CACHE_FOR_AN_HOUR, check_unchanged, open_clip, open_video
from vop.server.object_files import RemoteVideo
from vop.server.schemas import ExportedSegment, ExportRequest, Problem, SavedClipParameters
from vop.server.services import Services
from vop.storage.address import parse_address
from vop.video.clip_export import SavedClip, saved_suffix

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS, default_response_class=Response)

_MOST_BYTES = 2**20  # of the body of a request
_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/matroska",
    ".webm": "video/webm",
    ".ts": "video/mp2t",
}
_CLIP: dict[str, Any] = {
    "content": {"video/*": {}},
    "headers": {
        "Vop-Lead-Seconds": {
            "description": "Seconds of the clip before the wanted start, because a copy begins at a key frame.",
            "schema": {"type": "number"},
        }
    },
}
_LIST_TYPES = {"csv": "text/csv", "edl": "text/plain", "fcpxml": "application/xml", "otio": "application/json"}


def _body_schema() -> dict[str, Any]:
    """Return the schema of an `ExportRequest` in one piece, because OpenAPI has another place for definitions."""
    schema = ExportRequest.model_json_schema()
    del schema["$defs"]
    schema["properties"]["moments"]["items"] = ExportedSegment.model_json_schema()
    return schema


_BODY: dict[str, Any] = {"content": {"application/json": {"schema": _body_schema()}}, "required": True}


@router.head("/videos/{video}/clip", include_in_schema=False)
@router.get("/videos/{video}/clip", responses={200: _CLIP, **MEDIA_PROBLEMS})
async def clip(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    video: VideoId,
    parameters: Annotated[SavedClipParameters, Query()],
) -> OpenFileResponse:
    """Send a clip of a video to keep, as a download: copied from a key frame on, or cut exactly.

    The header `Vop-Lead-Seconds` says how many seconds of the clip come before `start_seconds`.
    """
    served, exact = services.libraries.library(library), parameters.exact

    async def work() -> tuple[str, float, float, SavedClip | None, OpenFile]:
        found, file = await open_video(services, served.library, video)
        start, end = parameters.within(found.duration_seconds)
        cached = partial(
            services.saved_clips.get,
            exact=exact,
            start_seconds=start,
            end_seconds=end,
            duration_seconds=found.duration_seconds,
        )
        if isinstance(file, OpenFile):
            check = partial(check_unchanged, served.library, file, Path(found.path))
            clip, saved = await services.in_media_thread(cached, found.path, check=check)
            check()  # the clip may come from an older file
        else:
            remote = RemoteVideo(parse_address(found.path), found, services.scratch)
            clip, saved = await services.in_media_thread(cached, remote)
        return found.path, start, end, saved, await services.in_search_thread(open_clip, clip)

    path, start, end, saved, opened = await admit(request, services, work)
    suffix = saved_suffix(path, exact=exact)
    headers = {
        "Content-Disposition": attachment(clip_name(path, start, end) + suffix),
        "Cache-Control": CACHE_FOR_AN_HOUR,
        **({"Vop-Lead-Seconds": f"{saved.lead_seconds:.3f}"} if saved else {}),
    }
    return OpenFileResponse(opened, media_type=_TYPES[suffix], headers=headers)


@router.post(
    "/export",
    responses={200: {"content": {kind: {} for kind in _LIST_TYPES.values()}}, 413: {"model": Problem}},
    openapi_extra={"requestBody": _BODY},
)
async def export(request: Request, services: ServicesDependency, library: LibraryName) -> Response:
    """Send chosen moments as one file: a table, or a list for video editors.

    A table has all moments. Lists for editors leave out videos whose files are missing, have changed or cannot be read;
    the header `Vop-Skipped` is the number of their moments.
    """
    served = services.libraries.library(library)
    wanted = await _received(request)

    def write() -> ListDocument:
        with unknown_ids_as_not_found():
            segments = served.library.whole_segments([chosen.segment for chosen in wanted.moments])
        moments = [chosen.moment(segment) for chosen, segment in zip(wanted.moments, segments, strict=True)]
        return _document(services, served.library, moments, wanted)

    document = await admit(request, services, partial(services.in_media_thread, write))
    if not document.moments:
        first = document.skipped[0]
        raise HTTPException(404, f"no moment can be exported: {first.path}: {first.reason}")
    headers = {
        "Content-Disposition": attachment(f"{safe(wanted.name)}.{wanted.format}"),
        "Vop-Skipped": str(len(document.skipped)),
        "Cache-Control": "no-store",
    }
    return Response(document.encoded(), media_type=_LIST_TYPES[wanted.format], headers=headers)


async def _received(request: Request) -> ExportRequest:
    """Return the body of a request.

    Raises:
        HTTPException: it is too long.
        UsageError: it is not valid.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"the body of the request has more than {_MOST_BYTES:,} bytes")
    try:
        return ExportRequest.model_validate_json(body)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()[:3])
        raise UsageError("; ".join(problems)) from None


def _document(services: Services, library: Store, moments: list[Moment], wanted: ExportRequest) -> ListDocument:
    with Originals(library.video, scratch=services.scratch) as originals:
        return list_document(
            moments,
            wanted.format,
            original=originals.of,
            name=wanted.name,
            read=services.worker.read_source,
        )


def attachment(name: str) -> str:
    """Return the header that makes a browser save a response under a name (RFC 6266)."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
