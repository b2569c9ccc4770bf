"""Bodies of requests that are answered before they were read."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vop.server.connections import EXPENDABLE

LINGER_SECONDS = 1.0


class CloseUnread:
    """Closes the connection behind an answer to a request of which a part is still to come.

    The client gets the answer first and a moment to read it: closing at once, with bytes on their way, would reset the
    connection, and many clients then report that instead of the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(Headers(scope=scope)):
            body = _Body(scope, receive, send)
            await self._app(scope, body.receive, body.send)
        else:
            await self._app(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class _Body:
    """A request's body, and whether it has been read to its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._ended = self._closes = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._ended = self._ended or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._ended:
            self._closes = True
            MutableHeaders(scope=message)["connection"] = "close"
        if self._closes and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            self._scope.setdefault("state", {})[EXPENDABLE] = True
            await asyncio.sleep(LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)
