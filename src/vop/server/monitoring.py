"""Monitoring for operators: the health check, Prometheus metrics, and the access log."""

from __future__ import annotations

import asyncio
import logging
import time
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vop.server.dependencies import ServicesDependency
from vop.server.metrics import Metrics
from vop.server.schemas import Health
from vop.server.signed_links import SIGNATURE

NO_ROUTE = "none"  # the label of requests that were refused, or that no route matches
ACCESS_LOG = "vop.server.access"

log = logging.getLogger(ACCESS_LOG)
health_router = APIRouter()
metrics_router = APIRouter()


@health_router.get("/healthz", responses={503: {"model": Health}})
async def healthz(services: ServicesDependency, response: Response) -> Health:
    """Report whether the server can answer searches: 200 if a library can be read, 503 if none can.

    It needs no token and no request slot.
    """
    libraries = services.libraries.by_name.values()
    unreadable = 0
    for served in libraries:
        status = await asyncio.to_thread(served.status)
        unreadable += status.error is not None
    if not unreadable:
        return Health(status="ok")
    reasons = [f"{unreadable} of {len(libraries)} libraries cannot be read; the server's log says why"]
    if unreadable < len(libraries):
        return Health(status="degraded", reasons=reasons)
    response.status_code = 503
    return Health(status="unavailable", reasons=reasons)


@metrics_router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: ServicesDependency) -> Response:
    """Return the server's metrics in Prometheus' text format."""
    return Response(await asyncio.to_thread(services.metrics.text), media_type=CONTENT_TYPE_LATEST)


class MonitoringMiddleware:
    """Counts each request in the metrics, and writes a line about it to the access log if that is enabled."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        target = _target(scope)  # before other middleware can change the path
        began, status, sent_bytes = time.perf_counter(), 0, 0

        async def counting_send(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.request(_route(scope), scope["method"], status, time.perf_counter() - began)
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counting_send)
        finally:
            if log.isEnabledFor(logging.INFO):
                client = scope["client"][0] if scope.get("client") else "-"
                milliseconds = 1000 * (time.perf_counter() - began)
                log.info("%s %s %s %d %d %.1f", client, scope["method"], target, status, sent_bytes, milliseconds)


def _route(scope: Scope) -> str:
    """Return the template of the route's path, such as /api/views/{view}/search."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else NO_ROUTE


def _target(scope: Scope) -> str:
    """Return the path and query of a request as one word, without the token or a signature in its place."""
    path = quote(scope["path"], safe="/:@!$&'()*+,;=~")
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in ("token", SIGNATURE)]
    return f"{path}?{urlencode(kept)}" if kept else path
