"""What routes depend on: the server's services, a slot among the requests, and a client that still waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, HTTPException, Request

from vop.server.errors import CLIENT_CLOSED_REQUEST
from vop.server.schemas import InternalError, Problem
from vop.server.services import Services

Responses: TypeAlias = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    **{status: {"model": Problem} for status in (401, 403, 404, 422, 503)},
    500: {"model": InternalError},
}
MEDIA_PROBLEMS: Responses = {507: {"model": Problem}}
UPLOAD_PROBLEMS: Responses = {status: {"model": Problem} for status in (400, 408, 413, 415, 507)}

T = TypeVar("T")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDependency = Annotated[Services, Depends(_services)]


async def admit(request: Request, services: Services, work: Callable[[], Awaitable[T]]) -> T:
    """Does a request's work if there is a free slot, and as long as its client waits for it.

    The request's body has to be read before.

    Raises:
        Unavailable: all slots are taken.
        HTTPException: the client has disconnected.
    """
    with services.requests.slot():
        task, gone = asyncio.ensure_future(work()), asyncio.ensure_future(disconnected(request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise HTTPException(CLIENT_CLOSED_REQUEST, "the client has disconnected")
            return task.result()
        finally:
            task.cancel()
            gone.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
