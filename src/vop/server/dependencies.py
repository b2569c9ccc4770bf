"""Dependencies of the routes: the services, the path parameters, and the admission of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from fastapi import Depends, HTTPException, Path, Request, params

from vop.errors import UsageError
from vop.server.errors import CLIENT_CLOSED_REQUEST
from vop.server.schemas import InternalError, Problem
from vop.server.services import Services
from vop.server.signed_links import EXPIRES, SIGNATURE

Responses: TypeAlias = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    **{status: {"model": Problem} for status in (400, 401, 403, 404, 422, 503)},
    500: {"model": InternalError},
}
MEDIA_PROBLEMS: Responses = {507: {"model": Problem}}
UPLOAD_PROBLEMS: Responses = {status: {"model": Problem} for status in (400, 408, 413, 415, 507)}

T = TypeVar("T")
_LINK_PARAMETERS = {EXPIRES, SIGNATURE}  # of signed links, which `SecurityMiddleware` reads


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDependency = Annotated[Services, Depends(_services)]
ViewId = Annotated[str, Path(description="A view's id, from /api/state.")]
LibraryName = Annotated[str, Path(description="A library's name, from /api/state.")]
SegmentId = Annotated[str, Path(description="A segment's id, from the results of a search.")]
VideoId = Annotated[str, Path(description="A video's id, from the results of a search.")]


async def check_parameters(request: Request) -> None:
    """Raise a UsageError for a query parameter without effect: an unknown one, or one that is given again."""
    repeatable = _query_parameters(request.scope["endpoint"]) | dict.fromkeys(_LINK_PARAMETERS, False)
    for name in request.query_params:
        values = request.query_params.getlist(name)
        if name not in repeatable:
            raise UsageError(f"unknown parameter {name!r}; /api/openapi.json lists all parameters")
        if len(values) > 1 and not repeatable[name]:
            raise UsageError(
                f"{name} is given {len(values)} times, as {', '.join(map(repr, values[:3]))}; give it once"
            )


@cache
def _query_parameters(endpoint: Callable[..., Any]) -> dict[str, bool]:
    """Return the names of the parameters that the function of a route takes as `Query()`, and which can be repeated."""
    found: dict[str, bool] = {}
    for name, hint in get_type_hints(endpoint, include_extras=True).items():
        kind, *metadata = get_args(hint) or [hint]
        if any(isinstance(one, params.Query) for one in metadata):
            fields = getattr(kind, "model_fields", None)
            kinds = {name: kind} if fields is None else {field: info.annotation for field, info in fields.items()}
            found |= {field: get_origin(annotation) is list for field, annotation in kinds.items()}
    return found


async def admit(request: Request, services: Services, work: Callable[[], Awaitable[T]]) -> T:
    """Run a request's work in a free slot. Cancel it if the client disconnects.

    The request's body must have been read already.

    Raises:
        Unavailable: all slots are taken.
        HTTPException: the client has disconnected.
    """
    with services.requests.slot():
        task, client = asyncio.ensure_future(work()), asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({task, client}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise HTTPException(CLIENT_CLOSED_REQUEST, "the client has disconnected")
            return task.result()
        finally:
            task.cancel()
            client.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
