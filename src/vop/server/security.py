"""Who may ask: hosts, tokens and origins; and what browsers are told to keep to."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
from urllib.parse import urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vop.errors import UsageError

AUTO = "auto"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s\[\]:/?#@]+)(:\d{1,5})?")
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

log = logging.getLogger("vop.server")


# Before the server starts


def choose_token(host: str, *, token: str | None, no_token: bool) -> str | None:
    """The token that requests have to bring; None if they need none.

    Args:
        token: as given; "auto" for a new one.
        no_token: whether other machines may ask without one.

    Raises:
        UsageError: other machines could ask, and nothing says how; or the token is too easy.
    """
    if token is None:
        if no_token or is_loopback(host):
            return None
        raise UsageError(
            f"--host {host} lets other machines in: say --token auto (or a token of your own), so that only those who "
            "know it can search and watch the videos, or --no-token if everybody there may"
        )
    if token == AUTO:
        return secrets.token_urlsafe(32)
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"--token {token!r}: a token has 16 or more letters, digits, or characters of - . _ ~; "
            "--token auto makes one up"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_every_address(host: str) -> bool:
    """Whether an address stands for all that the machine has."""
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


class Hosts:
    """The names by which a server lets itself be called.

    A page elsewhere can have its own name lead to this machine (DNS rebinding), and the browser would let it in as if
    it were ours; only the name in the request tells.

    Args:
        host: the address that is listened on. If it stands for all of the machine's addresses, any of them is a name,
            and so is the machine's own; no attacker can move those.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        named = f"[{host}]" if ":" in host else host
        self._names = _LOCAL | {named.lower()}
        self._any_address = is_every_address(host)
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __contains__(self, header: str) -> bool:
        found = _HOST.fullmatch(header.lower())
        if found is None:
            return False
        return found["name"] in self._names or (self._any_address and _is_address(found["name"].strip("[]")))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# While it runs


class Guard:
    """Stands before the application: refuses who may not ask, adds the headers, and keeps failures to itself.

    Args:
        hosts: names by which a server without a token may be called. With one, any name will do, also that of a proxy
            in front: a page elsewhere has not got the token, and the cookie with it belongs to the name that set it.
        token: what requests have to bring, as `Authorization: Bearer TOKEN` or in the cookie that `/?token=TOKEN` sets.

    Attributes:
        cookie: its name.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, token: str | None = None) -> None:
        self._app, self._hosts, self._token = app, hosts, token
        # Servers on one machine share their cookies, whatever their port.
        self.cookie = f"vop-{hashlib.sha256((token or '').encode()).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (self._refusal(Request(scope)) or self._app)(scope, receive, sending)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await _refuse(500, "internal error")(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        """What is answered in the application's place."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self._token is None and host not in self._hosts:
            proxy = "a proxy in front of it wants a server with --token"
            return _refuse(400, f"this server is not called {host!r}; call it by the address of its --host ({proxy})")
        # Its answers stay hidden from another site's page, but it would work for that page, again and again.
        if request.url.path.startswith("/api/") and request.headers.get("sec-fetch-site") == "cross-site":
            return _refuse(403, "a page of another site may not ask this server anything; open its own page")
        if request.method not in _SAFE_METHODS and origin is not None and origin.partition("://")[2] != host:
            return _refuse(403, f"a page of {origin} may not send anything to this server")
        return None if self._token is None else self._without_token(request)

    def _without_token(self, request: Request) -> Response | None:
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and self._right(given):
            return self._let_in(request)
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._right(bearer.strip()):
            return None
        if self._right(request.cookies.get(self.cookie, "")):
            return None
        refusal = _refuse(401, "this server wants a token: open /?token=TOKEN, or send Authorization: Bearer TOKEN")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _let_in(self, request: Request) -> Response:
        """Takes the token out of the address, and what was asked along.

        The cookie is `lax`: a `strict` one would not come with the links that people click in their mail.
        """
        rest = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
        answer = RedirectResponse(f"/?{rest}" if rest else "/", status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(self.cookie, self._token, httponly=True, samesite="lax", secure=secure)
        return answer


def _refuse(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)
