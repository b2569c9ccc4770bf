"""Who may ask: hosts, tokens and origins; and what browsers are told to keep to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vop.errors import UsageError
from vop.server.connections import EXPENDABLE

AUTO, VARIABLE = "auto", "VOP_TOKEN"
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 5.0  # that wrong tokens wait for their answer
FORGET_SECONDS = 300.0  # after which a client's wrong tokens do not count
FORM_SECONDS = 10.0
_ADDRESSES = 10_000
_MOST_TOKEN_BYTES = 4096  # of a file or a form with a token
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s\[\]:/?#@]+)(:\d{1,5})?")
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
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


def choose_token(
    host: str,
    *,
    token: str | None = None,
    token_file: Path | None = None,
    no_token: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """The token that requests have to bring; None if they need none.

    Args:
        token: as given; "auto" for a new one.
        token_file: holds it, on one line; `VOP_TOKEN` in the environment is read if neither is given.
        no_token: whether other machines may ask without one.

    Raises:
        UsageError: other machines could ask, and nothing says how; or the token is too easy.
    """
    if no_token:
        return None
    if token == AUTO:
        return secrets.token_hex(32)  # no option of a command begins as it does
    if token is not None:
        return _checked(token, f"--token {token!r}")
    if token_file is not None:
        return _checked(_token_in(token_file), f"--token-file {token_file}")
    if VARIABLE in environment:
        return _checked(environment[VARIABLE].strip(), VARIABLE)
    if is_loopback(host):
        return None
    raise UsageError(
        f"--host {host} lets other machines in: say --token auto (or a token of your own, in --token-file FILE or "
        f"{VARIABLE}), so that only those who know it can search and watch the videos, or --no-token if everybody "
        "there may"
    )


def _token_in(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_TOKEN_BYTES).decode(errors="replace").strip()
    except OSError as error:
        raise UsageError(f"--token-file {file}: cannot be read ({error.strerror}); name a file with a token") from None


def _checked(token: str, name: str) -> str:
    if not token:
        raise UsageError(f"{name}: the token is empty; a token has 16 or more characters, --token auto makes one up")
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"{name}: a token has 16 or more letters, digits, or characters of - . _ ~; --token auto makes one up"
        )
    return token


def check_root_path(path: str) -> str:
    """The path below which a proxy serves the page, without a slash at its end; "" for none.

    Raises:
        UsageError: it is none, or could be taken for one of the server's own.
    """
    path = path.rstrip("/")
    if path and not _ROOT_PATH.fullmatch(path):
        raise UsageError(f"--root-path {path!r}: a path as in an address, such as /videos or /tools/videos")
    if path.split("/")[1:2] in (["api"], ["page"]):
        raise UsageError(f"--root-path {path}: /api and /page are the server's own; take another path, such as /videos")
    return path


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


class Brake:
    """Makes those wait who send wrong tokens, longer each time; each client's address by itself.

    Right tokens never wait, so that nobody is kept out by others behind the same address.
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how often, and when last; the oldest first

    def seconds(self, address: str) -> float:
        """Counts one wrong token; how long its answer has to wait."""
        now, (count, last) = time.monotonic(), self._wrong.pop(address, (0, 0.0))
        count = 1 if now - last > FORGET_SECONDS else count + 1
        self._wrong[address] = count, now
        if len(self._wrong) > _ADDRESSES:
            self._wrong.popitem(last=False)
        return min(FIRST_WAIT_SECONDS * 2.0 ** min(count - 1, 20), LONGEST_WAIT_SECONDS)


def _address_of(request: Request) -> str:
    """Whose tokens are counted together: an IPv4 address, or the network of an IPv6 one, which has many."""
    host = request.client.host if request.client else ""
    if _is_address(host) and ":" in host:
        return str(ipaddress.ip_network((host.partition("%")[0], 64), strict=False))
    return host


class Guard:
    """Stands before the application: refuses who may not ask, adds the headers, and keeps failures to itself.

    Args:
        hosts: names by which a server without a token may be called. With one, any name will do, also that of a proxy
            in front: a page elsewhere has not got the token, and the cookie with it belongs to the name that set it.
        token: what requests have to bring, as `Authorization: Bearer TOKEN` or in the cookie that `/?token=TOKEN` and
            the form for it set.
        root_path: below which a proxy serves the page, such as "/videos"; requests may have it in their path or not.

    Attributes:
        cookie: its name.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, token: str | None = None, root_path: str = "") -> None:
        self._app, self._hosts, self._token, self._root_path = app, hosts, token, root_path
        self._brake = Brake()
        # Servers on one machine share their cookies, whatever their port.
        self.cookie = f"vop-{hashlib.sha256((token or '').encode()).hexdigest()[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._rooted(scope)
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
            await (await self._refusal(Request(scope, receive)) or self._app)(scope, receive, sending)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await _refuse(500, "internal error")(scope, receive, sending)

    def _rooted(self, scope: Scope) -> Scope:
        """The path with the one that a proxy serves it below, whether the proxy has taken that away or not."""
        root, path = self._root_path, scope["path"]
        if not root or path == root or path.startswith(f"{root}/"):
            return {**scope, "root_path": root}
        raw = root.encode() + scope.get("raw_path", path.encode())
        return {**scope, "root_path": root, "path": root + path, "raw_path": raw}

    async def _refusal(self, request: Request) -> Response | None:
        """What is answered in the application's place."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        path = request.scope["path"].removeprefix(self._root_path)
        if self._token is None and host not in self._hosts:
            proxy = "a proxy in front of it wants a server with --token"
            return _refuse(400, f"this server is not called {host!r}; call it by the address of its --host ({proxy})")
        # Its answers stay hidden from another site's page, but it would work for that page, again and again.
        if path.startswith("/api/") and request.headers.get("sec-fetch-site") == "cross-site":
            return _refuse(403, "a page of another site may not ask this server anything; open its own page")
        if request.method not in _SAFE_METHODS and origin is not None and origin.partition("://")[2] != host:
            return _refuse(403, f"a page of {origin} may not send anything to this server")
        if not path:  # what the page asks for is relative to it, so that its address ends with a slash
            query = request.scope["query_string"].decode("latin-1")
            return RedirectResponse(f"{self._root_path}/" + (f"?{query}" if query else ""), status_code=308)
        return None if self._token is None else await self._without_token(request, path)

    async def _without_token(self, request: Request, path: str) -> Response | None:
        given = request.query_params.get("token")
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        bearer = bearer.strip() if kind.lower() == "bearer" else ""
        cookie = request.cookies.get(self.cookie, "")
        if path == "/" and given and self._right(given):
            return self._let_in(request)
        typed = None
        if path == "/" and _is_form(request):
            state = request.scope.setdefault("state", {})
            state[EXPENDABLE] = True  # nobody keeps others out with a form that never ends
            typed = await _typed_token(request)
            state[EXPENDABLE] = False
        if self._right(typed or ""):
            return self._let_in(request)
        if self._right(bearer) or self._right(cookie) or path in _PUBLIC:
            return None
        wrong = bearer or cookie or typed or (given if path == "/" else "")
        if wrong:
            request.scope.setdefault("state", {})[EXPENDABLE] = True  # it holds its place for no one else
            await asyncio.sleep(self._brake.seconds(_address_of(request)))
        if _wants_page(request, path):
            if given:  # a wrong one shall not stay in the address either
                return RedirectResponse(self._page_address(request, token=""), status_code=303)
            return self._form(request, failed=typed is not None or given is not None)
        refusal = _refuse(
            401, "this server wants a token: open its page and type it, or send Authorization: Bearer TOKEN"
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _let_in(self, request: Request) -> Response:
        """Takes the token out of the address, and what was asked along.

        The cookie is `lax`: a `strict` one would not come with the links that people click in their mail.
        """
        answer = RedirectResponse(self._page_address(request), status_code=303)
        secure, path = request.scope["scheme"] == "https", self._root_path or "/"
        answer.set_cookie(self.cookie, self._token, httponly=True, samesite="lax", secure=secure, path=path)
        return answer

    def _page_address(self, request: Request, **more: str) -> str:
        """The page with what was asked, but without the token."""
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        query = urlencode([*rest, *more.items()])
        return f"{self._root_path}/" + (f"?{query}" if query else "")

    def _form(self, request: Request, *, failed: bool) -> Response:
        words = {"address": escape(self._page_address(request)), "root": escape(self._root_path)}
        text = _FORM.format(**words, trouble=_WRONG if failed else "")
        answer = HTMLResponse(text, 401, headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})
        answer.headers["Referrer-Policy"] = "same-origin"  # without any, browsers send a form from no origin
        return answer


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.method == "POST" and kind == "application/x-www-form-urlencoded"


def _wants_page(request: Request, path: str) -> bool:
    return not path.startswith(("/api/", "/page/")) and "text/html" in request.headers.get("accept", "").lower()


async def _typed_token(request: Request) -> str:
    """What was typed into the form; "" where it is too much, or does not come."""
    body = b""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_TOKEN_BYTES:
                    return ""
            return parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
    return ""


def _refuse(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


_PUBLIC = frozenset({"/page/style.css", "/page/icon.svg"})  # of the form
_WRONG = '<p class="warn" role="alert">That is not the token.</p>'
_FORM = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>vop</title>
  <link rel="icon" href="{root}/page/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="{root}/page/style.css">
</head>
<body>
  <main class="welcome sign-in">
    <h1>This server wants a token.</h1>
    <p>It is what vop serve was started with, or has printed behind token= in its address.</p>
    {trouble}
    <form method="post" action="{address}">
      <label for="token">Token</label>
      <input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
      <button class="button strong" type="submit">Open</button>
    </form>
  </main>
</body>
</html>
"""
