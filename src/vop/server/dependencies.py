"""Dependencies of the routes: the services, the path parameters, and the admission of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_type_hints

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


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise a UsageError for a query parameter that the route does not have: a misspelt one would have no effect."""
    known = _query_parameters(request.scope["endpoint"]) | _LINK_PARAMETERS
    for name in request.query_params:
        if name not in known:
            raise UsageError(f"unknown parameter {name!r}; /api/openapi.json lists all parameters")


@cache
def _query_parameters(endpoint: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that the function of a route takes as `Query()`."""
    names: set[str] = set()
    for name, hint in get_type_hints(endpoint, include_extras=True).items():
        kind, *metadata = get_args(hint) or [hint]
        if any(isinstance(one, params.Query) for one in metadata):
            names |= set(getattr(kind, "model_fields", [name]))
    return frozenset(names)


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
