"""Route of the API for playlists, which open a video in a player of the user's own at a moment."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.types import Scope

from vop.errors import UsageError
from vop.export.names import safe
from vop.server.access import is_loopback
from vop.server.dependencies import PROBLEMS, LibraryName, ServicesDependency, VideoId, admit
from vop.server.export_routes import attachment
from vop.server.media_routes import open_video
from vop.server.schemas import PlaylistParameters
from vop.server.signed_links import SignedLinks
from vop.storage.address import location
from vop.utils.text import on_one_line

router = APIRouter(prefix="/api/libraries/{library}", responses=PROBLEMS, default_response_class=Response)

_TYPE = "audio/x-mpegurl"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")  # headers of proxies


@router.head("/videos/{video}/playlist.m3u", include_in_schema=False)
@router.get("/videos/{video}/playlist.m3u", responses={200: {"content": {_TYPE: {}}}})
async def playlist(
    request: Request,
    services: ServicesDependency,
    library: LibraryName,
    video: VideoId,
    parameters: Annotated[PlaylistParameters, Query()],
) -> Response:
    """Send a playlist with one video, which starts at a moment in VLC; other players start at the beginning.

    For a browser on the server's own machine it names the file, for others the video on this server. If the server
    needs a token, that link has a signature in its place, which works for this video only and for 12 hours.
    """
    served = services.libraries.library(library)
    found, file = await admit(request, services, partial(open_video, services, served.library, video))
    file.close()  # it can be played
    place = location(found.path)
    by_path = parameters.address == "file" or (parameters.address == "auto" and is_direct(request.scope))
    if by_path and isinstance(place, Path):
        address = place.as_uri()  # also for names that are not UTF-8, or have line breaks
    elif parameters.address == "file":
        raise UsageError(f"{found.path} is an object, which players do not open by its address; use address=server")
    else:
        address = _server_address(request.scope, f"/api/libraries/{library}/videos/{video}", services.links)
    start, seconds = parameters.start_seconds, found.duration_seconds
    if start >= seconds:
        raise UsageError(f"start_seconds is {start}; the video ends at {seconds:.3f} s")
    text = playlist_of(address, name=place.name, duration_seconds=seconds, start_seconds=start)
    name = f"{safe(PurePosixPath(place.name).stem)}.m3u"
    headers = {"Content-Disposition": attachment(name), "Cache-Control": "no-store"}
    return Response(text.encode(), media_type=_TYPE, headers=headers)


def playlist_of(address: str, *, name: str, duration_seconds: float, start_seconds: float) -> str:
    """Return an extended M3U playlist of one video. VLC reads the line of its own option; others skip it."""
    lines = [
        "#EXTM3U",
        f"#EXTINF:{round(duration_seconds)},{on_one_line(name)}",
        f"#EXTVLCOPT:start-time={start_seconds:.3f}",
        address,
    ]
    return "\n".join(lines) + "\n"


def is_direct(scope: Scope) -> bool:
    """Return whether a request seems to come from the server's own machine: not by a proxy, a tunnel or a container.

    A tunnel to the same port of another machine looks the same.
    """
    headers, client, server = Headers(scope=scope), scope.get("client"), scope.get("server")
    host, _, port = headers.get("host", "").rpartition(":")
    if client is None or server is None or any(name in headers for name in _FORWARDED):
        return False
    return is_loopback(client[0]) and is_loopback(host.strip("[]")) and port == str(server[1])


def _server_address(scope: Scope, path: str, links: SignedLinks | None) -> str:
    """Return the URL of a path on this server, as the client of this request reaches it."""
    host = Headers(scope=scope).get("host", "")
    query = f"?{urlencode(links.query(path))}" if links else ""
    return f"{scope['scheme']}://{host}{quote(scope['root_path'] + path)}{query}"
