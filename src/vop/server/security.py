"""Middleware that protects the application: host names, origins, the token, headers for browsers, and errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, unquote_to_bytes, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vop.server.access import MAX_TOKEN_BYTES, AllowedHosts
from vop.server.connections import EXPENDABLE
from vop.server.rate_limiter import TokenThrottle
from vop.server.signed_links import SignedLinks

SIGN_IN_PAGE = Path(__file__).with_name("page") / "sign-in.html"
FORM_SECONDS = 10.0  # for the sign-in form to arrive
_WRONG_TOKEN = '<p class="warn" role="alert">The token is wrong.</p>'
_PUBLIC = frozenset({"/healthz", "/page/style.css", "/page/icon.svg"})  # need no token
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


class SecurityMiddleware:
    """Refuses unauthorised requests, adds security headers, and logs the details of internal errors.

    Args:
        hosts: allowed host names of a server without a token. With a token any name is allowed, also a proxy's:
            a page of another site does not have the token, and browsers send the cookie only to the name that set it.
        token: the access token that clients must send, as `Authorization: Bearer TOKEN` or in the cookie that
            `/?token=TOKEN` and the sign-in form set.
        links: signs links that work without the token, for players.
        root_path: path at which a proxy serves the page, such as "/videos". Requests may contain it or not.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: AllowedHosts,
        token: str | None = None,
        links: SignedLinks | None = None,
        root_path: str = "",
    ) -> None:
        self._app, self._hosts, self._root_path = app, hosts, root_path
        self._token = None if token is None else TokenAuthentication(token, links=links, root_path=root_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._add_root_path(scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refusal = await self._refusal(Request(scope, receive))
            await (refusal or self._app)(scope, receive, send_with_headers)
        except Exception:
            request_id = secrets.token_hex(8)
            log.exception("%s %s failed (request id %s)", scope["method"], scope["path"], request_id)
            if started:
                raise
            await _internal_error(request_id)(scope, receive, send_with_headers)

    def _add_root_path(self, scope: Scope) -> None:
        """Add the root path to the request's path if the proxy has removed it."""
        root, path = self._root_path, scope["path"]
        scope["root_path"] = root
        if root and path != root and not path.startswith(f"{root}/"):
            scope["raw_path"] = root.encode() + scope.get("raw_path", path.encode())
            scope["path"] = root + path

    async def _refusal(self, request: Request) -> Response | None:
        """Return a response if the request must not reach the application, else None."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        path = request.scope["path"].removeprefix(self._root_path)
        if self._token is None and host not in self._hosts:
            hint = "use the address of --host; behind a proxy, start the server with a --token"
            return _refuse(400, f"the host name {host!r} is not allowed; {hint}")
        if not _is_utf8(request.scope.get("raw_path") or b"") or not _is_utf8(request.scope["query_string"]):
            return _refuse(400, "the address of the request is not UTF-8: encode names as UTF-8, then by %XX")
        # A page of another site could not read the responses, but it could keep the server busy.
        if path.startswith(("/api/", "/metrics")) and request.headers.get("sec-fetch-site") == "cross-site":
            return _refuse(403, "pages of other sites may not send requests to this server; open its own page")
        if request.method not in _SAFE_METHODS and origin is not None and origin.partition("://")[2] != host:
            return _refuse(403, f"a page of {origin} may not send data to this server")
        if not path:  # the page's links are relative, so its address must end with a slash
            query = request.scope["query_string"].decode("latin-1")
            return RedirectResponse(f"{self._root_path}/" + (f"?{query}" if query else ""), status_code=308)
        return None if self._token is None else await self._token.refusal(request, path)


class TokenAuthentication:
    """Admits requests with the token or a signed link, and browsers that send the token in the sign-in form.

    Attributes:
        cookie: the name of the cookie that holds the token.
    """

    def __init__(self, token: str, *, links: SignedLinks | None = None, root_path: str = "") -> None:
        self._token, self._links, self._root_path = token, links, root_path
        self._throttle = TokenThrottle()
        # Servers on one machine share cookies, even with different ports.
        self.cookie = f"vop-{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    async def refusal(self, request: Request, path: str) -> Response | None:
        """Return a response to a request without the token or with the sign-in form; None admits the request."""
        given = request.query_params.get("token")
        if path == "/" and self._is_right(given):
            return self._signed_in(request)
        submitted = None
        if path == "/" and _is_form(request):
            state = request.scope.setdefault("state", {})
            state[EXPENDABLE] = True  # an endless form must not block other clients
            submitted = await _submitted_token(request)
            state[EXPENDABLE] = False
        if self._is_right(submitted):
            return self._signed_in(request)
        bearer, cookie = _bearer_token(request), request.cookies.get(self.cookie)
        if self._is_right(bearer) or self._is_right(cookie) or path in _PUBLIC or self._is_signed(request, path):
            return None
        if bearer or cookie or submitted or (path == "/" and given):
            request.scope.setdefault("state", {})[EXPENDABLE] = True
            address = request.client.host if request.client else ""
            log.info("a wrong token from %s", address)
            await asyncio.sleep(self._throttle.delay_seconds(address))
        if _wants_html(request, path):
            if given:  # remove a wrong token from the address, too
                return RedirectResponse(self._page_url(request, token=""), status_code=303)
            return self._sign_in_form(request, failed=submitted is not None or given is not None)
        refusal = _refuse(401, "this server needs a token: sign in on its page, or send Authorization: Bearer TOKEN")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _is_right(self, given: str | None) -> bool:
        return hmac.compare_digest((given or "").encode(), self._token.encode())

    def _is_signed(self, request: Request, path: str) -> bool:
        if self._links is None or request.method not in ("GET", "HEAD"):
            return False
        return self._links.is_right(path, request.query_params)

    def _signed_in(self, request: Request) -> Response:
        """Set the cookie and remove the token from the address.

        The cookie is `lax`: browsers do not send a `strict` one when a link in a mail is clicked.
        """
        response = RedirectResponse(self._page_url(request), status_code=303)
        secure, path = request.scope["scheme"] == "https", self._root_path or "/"
        response.set_cookie(self.cookie, self._token, httponly=True, samesite="lax", secure=secure, path=path)
        return response

    def _page_url(self, request: Request, **more: str) -> str:
        """Return the page's address with the request's query, without the token."""
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        query = urlencode([*rest, *more.items()])
        return f"{self._root_path}/" + (f"?{query}" if query else "")

    def _sign_in_form(self, request: Request, *, failed: bool) -> Response:
        html = SIGN_IN_PAGE.read_text(encoding="utf-8").format(
            address=escape(self._page_url(request)),
            root=escape(self._root_path),
            message=_WRONG_TOKEN if failed else "",
        )
        response = HTMLResponse(html, 401, headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})
        response.headers["Referrer-Policy"] = "same-origin"  # without a referrer, browsers submit with no origin
        return response


def _is_utf8(encoded: bytes) -> bool:
    """Return whether a part of an address is UTF-8. Servers replace other bytes by U+FFFD, which is another name."""
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


def _bearer_token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.method == "POST" and kind == "application/x-www-form-urlencoded"


def _wants_html(request: Request, path: str) -> bool:
    is_page = not path.startswith(("/api/", "/page/", "/metrics"))
    return is_page and "text/html" in request.headers.get("accept", "").lower()


async def _submitted_token(request: Request) -> str:
    """Return the token in the sign-in form; "" if the form is too long or arrives too late.

    People also paste the whole address, which has the token at its end.
    """
    body = b""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_TOKEN_BYTES:
                    return ""
            text = parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
            return text.rpartition("token=")[2].partition("&")[0]
    return ""


def _refuse(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _internal_error(request_id: str) -> JSONResponse:
    detail = f"internal error; the server's log has the details under request id {request_id}"
    return JSONResponse({"detail": detail, "request_id": request_id}, 500)
