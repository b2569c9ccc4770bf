"""The server as one application: the page, its API, and the middleware around them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.routing import Match

from vop.errors import UsageError, VideoError, VopError
from vop.search.filters import FILTERS
from vop.search.manifest import MissingLibrary
from vop.search.store import Store
from vop.server import (
    browse_routes,
    duplicate_routes,
    example_routes,
    export_routes,
    indexing_routes,
    media_routes,
    owner_routes,
    playlist_routes,
    search_routes,
)
from vop.server.access import AllowedHosts
from vop.server.connections import CloseUnreadRequests
from vop.server.dependencies import check_parameters
from vop.server.errors import NotFound, StorageFull, Unavailable
from vop.server.file_responses import OpenFile, OpenFileResponse, is_unchanged
from vop.server.monitoring import MonitoringMiddleware, health_router, metrics_router
from vop.server.security import SIGN_IN_PAGE, SecurityMiddleware
from vop.server.services import MAX_REQUESTS, MAX_UPLOAD_BYTES, MAX_UPLOADS, Services
from vop.server.signed_links import SignedLinks
from vop.storage.address import Address
from vop.version import VERSION

PAGE = Path(__file__).with_name("page")
_API = (
    search_routes,
    example_routes,
    browse_routes,
    duplicate_routes,
    owner_routes,
    media_routes,
    export_routes,
    playlist_routes,
    indexing_routes,
)

log = logging.getLogger("vop.server")


def create_app(
    libraries: Sequence[str | Path | Address],
    *,
    token: str | None = None,
    hosts: AllowedHosts | None = None,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    max_requests: int = MAX_REQUESTS,
    max_uploads: int = MAX_UPLOADS,
    root_path: str = "",
    precision: str = "auto",
    metrics: bool = False,
    memory_bytes: int | None = None,
    may_index: bool = False,
    read_only: bool = False,
) -> FastAPI:
    """Return the application, with the libraries and their models open.

    Args:
        libraries: folders, or addresses. Libraries with the same name get a number.
        token: access token that clients must send; None if they need none.
        hosts: allowed host names (default: those of this machine).
        max_requests: maximum number of requests in progress. Further requests get status 503.
        max_uploads: maximum number of uploads at the same time.
        root_path: path at which a proxy serves the page, such as "/videos".
        precision: precision of the models: auto, bf16 or fp32.
        metrics: whether /metrics serves Prometheus metrics.
        memory_bytes: memory to keep large libraries in, all together; None for a quarter of the machine's.
        may_index: whether clients may start and stop indexings of the libraries' folders.
        read_only: whether clients cannot change tags and favourites.

    Raises:
        UsageError: a library or a model does not exist.
        VopError: a library is damaged, has a later format, or was made with another model.
    """
    services = Services(
        [Store.open(folder) for folder in libraries],
        precision=precision,
        max_requests=max_requests,
        max_uploads=max_uploads,
        max_upload_bytes=max_upload_bytes,
        memory_bytes=memory_bytes,
        may_index=may_index,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            services.close()

    app = FastAPI(
        title="vop",
        version=VERSION,
        summary="Search videos for moments by sentences, a video or a picture",
        docs_url=None,  # these pages load their scripts from another host
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    app.state.services = services
    services.read_only = read_only
    services.links = None if token is None else SignedLinks(token)
    app.add_middleware(
        SecurityMiddleware, hosts=hosts or AllowedHosts(), token=token, links=services.links, root_path=root_path
    )
    app.add_middleware(CloseUnreadRequests)  # around SecurityMiddleware, which may refuse requests without reading them
    app.add_middleware(MonitoringMiddleware, metrics=services.metrics)
    for error, status in _STATUS.items():
        app.add_exception_handler(error, _error_handler(status))
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(405, _wrong_method)
    for routes in _API:
        app.include_router(routes.router, dependencies=[Depends(check_parameters)])
        app.include_router(_heads(routes.router), dependencies=[Depends(check_parameters)])
    for router in [health_router, *([metrics_router] if metrics else [])]:
        app.include_router(router)
        app.include_router(_heads(router))
    app.add_api_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/page/search-filters.js", _page_filters, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/page/{name}", _page_file, methods=["GET", "HEAD"], include_in_schema=False)
    return app


def _heads(router: APIRouter) -> APIRouter:
    """Return routes that answer HEAD where the router only answers GET. HTTP requires both; servers omit the body."""
    heads, routes = APIRouter(), [route for route in router.routes if isinstance(route, APIRoute)]
    answered = {route.path for route in routes if route.methods and "HEAD" in route.methods}
    for route in routes:
        if route.methods and "GET" in route.methods and route.path not in answered:
            heads.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                response_class=route.response_class,
                include_in_schema=False,
            )
    return heads


_PAGE_FILES = {path.name: path for path in PAGE.iterdir() if path != SIGN_IN_PAGE}
_PAGE_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def _page() -> Response:
    return _page_file("index.html")


def _page_file(name: str) -> Response:
    if name not in _PAGE_FILES:
        raise HTTPException(404, f"the page has no file {name!r}")
    path = _PAGE_FILES[name]
    return OpenFileResponse(OpenFile(path), media_type=_PAGE_TYPES[path.suffix], headers={})


def _page_filters(request: Request) -> Response:
    """Serve the search filters of `vop.search.filters` as a JavaScript module."""
    shown = [
        {"name": filter.name, "kind": filter.kind, "label": filter.label, "placeholder": filter.placeholder}
        for filter in FILTERS
    ]
    text = f"export const FILTERS = {json.dumps(shown, indent=2)};\n"
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
    if is_unchanged(request.headers, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(text, media_type="text/javascript", headers={"ETag": etag})


# Errors as JSON with one sentence

_STATUS: dict[type[Exception], int] = {
    Unavailable: 503,
    MissingLibrary: 503,
    StorageFull: 507,
    NotFound: 404,
    UsageError: 422,
    VideoError: 422,
    VopError: 500,
}


def _error_handler(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    headers = {"Retry-After": "1"} if status == 503 else None

    async def handle(request: Request, error: Exception) -> Response:
        level = logging.ERROR if status == 500 else logging.DEBUG
        log.log(level, "%s %s: status %d, %s", request.method, request.url.path, status, error)
        return JSONResponse({"detail": str(error)}, status, headers=headers)

    return handle


_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


async def _wrong_method(request: Request, error: Exception) -> Response:
    """Name the methods of all routes of the path; the router names only those of the first one."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    allowed = ", ".join(
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    )
    detail = f"{request.method} is not a method of {request.url.path}; it has {allowed}"
    return JSONResponse({"detail": detail}, 405, headers={"Allow": allowed})


async def _invalid_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"detail": "; ".join(map(_sentence, error.errors()[:3]))}, 422)


def _sentence(problem: dict[str, Any]) -> str:
    """Describe the problem with one parameter."""
    name = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "missing":
        return f"{name} is missing"
    value, message = repr(problem["input"]), problem["msg"]
    value = value if len(value) <= 60 else f"{value[:60]}…"
    return f"{name} is {value}: {message[0].lower()}{message[1:]}"
