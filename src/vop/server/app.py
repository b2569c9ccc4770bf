"""The server as one application: the page, its API, and what guards both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from vop.errors import UsageError, VideoError, VopError
from vop.search.store import Store
from vop.server import api, media_api
from vop.server.batching import TryAgain
from vop.server.bodies import CloseUnread
from vop.server.desk import QUEUE, UPLOADS, Desk
from vop.server.media import NoRoom
from vop.server.security import Guard, Hosts
from vop.server.sending import FileAnswer, OpenFile
from vop.server.views import Unknown, Views
from vop.version import VERSION

PAGE = Path(__file__).with_name("page")
MAX_UPLOAD_BYTES = 512 * 2**20


def create_app(
    libraries: Sequence[str | Path],
    *,
    token: str | None = None,
    hosts: Hosts | None = None,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    queue: int = QUEUE,
    uploads: int = UPLOADS,
    root_path: str = "",
    precision: str = "auto",
) -> FastAPI:
    """The application, with the libraries and their models open.

    Args:
        libraries: folders; those of one name get a number.
        token: what requests have to bring; None for none.
        hosts: names by which it may be called; those of this machine by default.
        queue: how many requests may be in work or wait before others are answered with 503.
        uploads: how many files may be on their way at once.
        root_path: below which a proxy serves the page, such as "/videos".
        precision: bf16, fp32 or auto, of the models.

    Raises:
        UsageError: a library or a model is not there.
        VopError: a library is damaged, from a later version, or was made with another model.
    """
    views = Views([Store.open(folder) for folder in libraries], precision=precision)
    desk = Desk(views, queue=queue, uploads=uploads, max_upload_bytes=max_upload_bytes)
    app = FastAPI(
        title="vop",
        version=VERSION,
        summary="Moments of videos, found by what happens in them",
        docs_url=None,  # these pages load their scripts from another host
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_closing(desk),
    )
    app.state.desk = desk
    app.add_middleware(Guard, hosts=hosts or Hosts(), token=token, root_path=root_path)
    app.add_middleware(CloseUnread)  # around the guard, too
    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, _telling(status))
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.include_router(api.router)
    app.include_router(media_api.router)
    app.add_api_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/page/{name}", _page_file, methods=["GET", "HEAD"], include_in_schema=False)
    return app


_PAGE_FILES = {path.name: path for path in PAGE.iterdir()}
_PAGE_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def _page() -> Response:
    return _page_file("index.html")


def _page_file(name: str) -> Response:
    if name not in _PAGE_FILES:
        raise HTTPException(404, f"there is no file {name!r} of the page")
    path = _PAGE_FILES[name]
    return FileAnswer(OpenFile(path), media_type=_PAGE_TYPES[path.suffix], headers={})


def _closing(desk: Desk) -> AbstractAsyncContextManager:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            desk.close()

    return lifespan


# Errors, each as a sentence

_STATUS = {TryAgain: 503, NoRoom: 507, Unknown: 404, UsageError: 422, VideoError: 422, VopError: 500}


def _telling(status: int):
    headers = {"Retry-After": "1"} if status == 503 else None

    async def tell(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status, headers=headers)

    return tell


async def _misunderstood(request: Request, error: RequestValidationError) -> Response:
    return JSONResponse({"detail": "; ".join(map(_sentence, error.errors()[:3]))}, 422)


def _sentence(problem: dict) -> str:
    """What is wrong with one parameter, in words."""
    name = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] == "extra_forbidden":
        return f"there is no parameter {name!r}; /api/openapi.json lists those that there are"
    value, message = repr(problem["input"]), problem["msg"]
    value = value if len(value) <= 60 else f"{value[:60]}…"
    return f"{name} is {value}: {message[0].lower()}{message[1:]}"
