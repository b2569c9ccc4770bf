"""Access: host names, tokens and origins; and the headers that browsers get."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import ClassVar

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from vop.errors import UsageError
from vop.server import security
from vop.server.access import AllowedHosts, check_root_path, choose_token, is_loopback
from vop.server.connections import EXPENDABLE
from vop.server.rate_limiter import TokenThrottle
from vop.server.security import SecurityMiddleware, TokenAuthentication

TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr("vop.server.rate_limiter.MAX_DELAY_SECONDS", 0.01)


def client(*, token=None, root_path="", address="testclient") -> TestClient:
    async def respond(request):
        return PlainTextResponse(f"{request.method} {request.url.path}")

    async def fail(request):
        raise RuntimeError("secret")

    everywhere = Route("/{path:path}", respond, methods=["GET", "POST"])
    guard = Middleware(SecurityMiddleware, hosts=AllowedHosts("testserver"), token=token, root_path=root_path)
    app = Starlette(routes=[Route("/fail", fail), everywhere], middleware=[guard])
    return TestClient(app, follow_redirects=False, client=(address, 1234))


def cookie_of(token: str) -> str:
    return TokenAuthentication(token).cookie


class TestHosts:
    @pytest.mark.parametrize(
        "name", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "testserver"]
    )
    def test_names_of_this_machine_are_allowed(self, name):
        assert client().get("/", headers={"host": name}).status_code == 200

    @pytest.mark.parametrize(
        "name",
        [
            *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "10.0.0.7", "evil@localhost"),
            *("localhost:8000@evil.example", "localhost/evil", "", "localhost:port", "[::1", "[::1]evil", "::1"),
        ],
    )
    def test_other_names_are_refused(self, name):
        response = client().get("/api/state", headers={"host": name})
        assert response.status_code == 400
        assert repr(name) in response.json()["detail"]
        assert "--token" in response.json()["detail"]

    def test_the_servers_address_is_allowed(self):
        hosts = AllowedHosts("192.168.0.7")
        assert "192.168.0.7:8000" in hosts
        assert "localhost" in hosts
        assert "192.168.0.8" not in hosts

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_a_server_on_all_addresses_allows_each(self, host, monkeypatch):
        monkeypatch.setattr("socket.gethostname", lambda: "Attic")
        hosts = AllowedHosts(host)
        for name in ("192.168.0.7:8000", "[fe80::1]:8000", "attic:8000", "localhost"):
            assert name in hosts
        assert "evil.example" not in hosts


class TestToken:
    def test_every_path_needs_the_token(self):
        guarded = client(token=TOKEN)
        for path in ("/", "/page/app.js", "/api/state", "/api/libraries/x/videos/y", "/nowhere"):
            response = guarded.get(path)
            assert response.status_code == 401
            assert "needs a token" in response.json()["detail"]
            assert response.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize("given", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 21])
    def test_wrong_tokens_are_refused(self, given):
        guarded = client(token=TOKEN)
        assert guarded.get("/api/state", headers={"authorization": f"Bearer {given}".encode()}).status_code == 401
        assert guarded.get("/", params={"token": given}).status_code == 401
        cookie = f"{cookie_of(TOKEN)}={given}".encode()
        assert guarded.get("/", headers={"cookie": cookie}).status_code == 401

    def test_programs_send_the_token_in_a_header(self):
        guarded = client(token=TOKEN)
        assert guarded.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert guarded.get("/api/state", headers={"authorization": f"Basic {TOKEN}"}).status_code == 401
        assert guarded.get("/api/state", params={"token": TOKEN}).status_code == 401  # it would stay in logs

    def test_browsers_get_a_cookie_and_a_url_without_the_token(self):
        guarded = client(token=TOKEN)
        response = guarded.get("/", params={"token": TOKEN, "q": "a dog & a cat"})
        assert (response.status_code, response.headers["location"]) == (303, "/?q=a+dog+%26+a+cat")
        assert guarded.get("/", params={"token": TOKEN}).headers["location"] == "/"
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie  # browsers also send it for links in mails
        assert "Secure" not in cookie
        assert guarded.get("/api/state").status_code == 200  # the client keeps cookies

    def test_a_proxy_may_have_any_name(self):
        """A foreign name that resolves to this server comes with neither the token nor the cookie."""
        guarded = client(token=TOKEN)
        proxied = {"host": "videos.example", "origin": "https://videos.example"}
        assert guarded.post("/", headers=proxied).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert guarded.post("/", headers={**proxied, **bearer}).status_code == 200
        others = {**proxied, **bearer, "origin": "https://evil.example"}
        assert guarded.post("/", headers=others).status_code == 403
        signed_in = guarded.get("/", params={"token": TOKEN}, headers=proxied)
        assert signed_in.status_code == 303
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        assert guarded.get("/api/state", headers={**proxied, "cookie": cookie}).status_code == 200

    def test_servers_on_one_machine_have_different_cookies(self):
        assert cookie_of(TOKEN) != cookie_of(TOKEN * 2)


class TestForm:
    """The form that browsers get without the token."""

    HTML: ClassVar = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

    def test_browsers_get_the_form_and_programs_get_json(self):
        guarded = client(token=TOKEN)
        response = guarded.get("/", params={"q": 'a "dog"'}, headers=self.HTML)
        assert (response.status_code, response.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert '<form method="post" action="/?q=a+%22dog%22">' in response.text
        assert "token is wrong" not in response.text
        assert response.headers["referrer-policy"] == "same-origin"
        assert guarded.get("/").json()["detail"]
        for path in ("/api/state", "/page/app.js"):
            assert guarded.get(path, headers=self.HTML).json()["detail"]
        for path in ("/page/style.css", "/page/icon.svg"):
            assert guarded.get(path).status_code == 200

    def test_an_endless_form_does_not_block_others(self, monkeypatch):
        """Its connection is the first to be closed when all slots are taken."""
        states = []

        async def typed(request):
            states.append(dict(request.scope["state"]))
            return TOKEN

        monkeypatch.setattr(security, "_submitted_token", typed)
        assert client(token=TOKEN).post("/", data={"token": TOKEN}, headers=self.HTML).status_code == 303
        assert [state[EXPENDABLE] for state in states] == [True]

    @pytest.mark.parametrize("typed", [f" {TOKEN} ", f"http://attic:8000/?token={TOKEN}", f"/?token={TOKEN}&q=dog"])
    def test_typing_the_token_or_the_address_opens_the_page(self, typed):
        guarded = client(token=TOKEN)
        headers = {**self.HTML, "origin": "http://testserver"}
        response = guarded.post("/?q=dog&token=x", data={"token": typed}, headers=headers)
        assert (response.status_code, response.headers["location"]) == (303, "/?q=dog")
        assert "HttpOnly" in response.headers["set-cookie"]
        assert guarded.get("/api/state").status_code == 200
        again = guarded.post("/", data={"token": TOKEN}, headers=headers)  # from another tab
        assert again.status_code == 303

    @pytest.mark.parametrize(
        "body", ["token=wrong", "token=", "", "token=" + "x" * 10_000, "%ff&=&token", "a=b&" * 500]
    )
    def test_a_wrong_token_shows_the_form_again(self, body):
        headers = {**self.HTML, "content-type": "application/x-www-form-urlencoded"}
        response = client(token=TOKEN).post("/", content=body, headers=headers)
        assert response.status_code == 401
        assert "The token is wrong." in response.text
        assert "set-cookie" not in response.headers

    def test_a_wrong_token_is_removed_from_the_url(self):
        guarded = client(token=TOKEN)
        response = guarded.get("/?q=dog&token=wrong-wrong-wrong", headers=self.HTML)
        assert (response.status_code, response.headers["location"]) == (303, "/?q=dog&token=")
        assert "The token is wrong." in guarded.get("/?q=dog&token=", headers=self.HTML).text

    def test_other_sites_cannot_send_the_form(self):
        response = client(token=TOKEN).post("/", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
        assert response.status_code == 403


class TestTokenThrottle:
    def test_only_wrong_tokens_wait_and_longer_each_time(self, monkeypatch):
        waited = []

        async def sleep(seconds):
            waited.append(seconds)

        monkeypatch.setattr("vop.server.rate_limiter.MAX_DELAY_SECONDS", 5.0)
        # asyncio.sleep itself is also used by servers in other threads.
        monkeypatch.setattr(security, "asyncio", SimpleNamespace(sleep=sleep, timeout=asyncio.timeout))
        guarded = client(token=TOKEN)
        wrong = {"authorization": "Bearer wrong-wrong-wrong"}
        for _ in range(8):
            assert guarded.get("/api/state", headers=wrong).status_code == 401
        assert waited == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert guarded.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert guarded.get("/api/state").status_code == 401  # a request without a token guesses nothing
        assert len(waited) == 8

    def test_each_address_is_counted_separately(self, monkeypatch):
        throttle = TokenThrottle()
        monkeypatch.setattr("vop.server.rate_limiter.MAX_DELAY_SECONDS", 5.0)
        assert [throttle.delay_seconds("10.0.0.1") for _ in range(3)] == [0.1, 0.2, 0.4]
        assert throttle.delay_seconds("10.0.0.2") == 0.1
        monkeypatch.setattr("vop.server.rate_limiter.FORGET_SECONDS", -1)
        assert throttle.delay_seconds("10.0.0.1") == 0.1

    def test_the_number_of_addresses_is_limited(self, monkeypatch):
        monkeypatch.setattr("vop.server.rate_limiter._MAX_CLIENTS", 3)
        throttle = TokenThrottle()
        for number in range(10):
            throttle.delay_seconds(str(number))
        assert list(throttle._wrong) == ["7", "8", "9"]


class TestRootPath:
    """Behind a proxy that removes the path or keeps it."""

    @pytest.mark.parametrize("prefix", ["", "/videos"])
    def test_a_proxy_may_remove_or_keep_the_path(self, prefix):
        guarded = client(token=TOKEN, root_path="/videos")
        response = guarded.get(f"{prefix}/", params={"token": TOKEN, "q": "dog"})
        assert (response.status_code, response.headers["location"]) == (303, "/videos/?q=dog")
        assert "Path=/videos;" in response.headers["set-cookie"]
        guarded.headers["authorization"] = f"Bearer {TOKEN}"
        assert guarded.get(f"{prefix}/api/state").text == "GET /videos/api/state"
        foreign = {"sec-fetch-site": "cross-site"}
        assert guarded.get(f"{prefix}/api/state", headers=foreign).status_code == 403
        assert guarded.get(f"{prefix}/videosx").status_code == 200

    @pytest.mark.parametrize("token", [None, TOKEN])
    def test_the_page_redirects_to_a_slash(self, token):
        response = client(token=token, root_path="/videos").get("/videos?q=a%20dog")
        assert (response.status_code, response.headers["location"]) == (308, "/videos/?q=a%20dog")

    def test_the_form_posts_to_the_root_path(self):
        text = client(token=TOKEN, root_path="/videos").get("/", headers=TestForm.HTML).text
        assert 'action="/videos/"' in text
        assert 'href="/videos/page/style.css"' in text

    @pytest.mark.parametrize(
        ("given", "path"), [("", ""), ("/", ""), ("/videos", "/videos"), ("/a/b-c/", "/a/b-c"), ("/apis", "/apis")]
    )
    def test_valid_paths_are_normalised(self, given, path):
        assert check_root_path(given) == path

    @pytest.mark.parametrize("given", ["videos", "/a//b", "/..", "/a/./b", "/a b", "/a?b", "/api", "/page/x", "/ü"])
    def test_invalid_paths_are_refused(self, given):
        with pytest.raises(UsageError, match="--root-path"):
            check_root_path(given)


class TestOrigin:
    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "null", "http://testserver:81", "http://testserver.evil.example", "", "http://["],
    )
    def test_other_sites_cannot_post(self, origin):
        response = client().post("/api/views/demo/search/file", headers={"origin": origin})
        assert response.status_code == 403
        assert "may not send" in response.json()["detail"]

    def test_the_page_and_programs_can_post(self):
        assert client().post("/", headers={"origin": "http://testserver"}).status_code == 200
        assert client().post("/").status_code == 200
        assert client().get("/", headers={"origin": "http://evil.example"}).status_code == 200

    @pytest.mark.parametrize("token", [None, TOKEN])
    def test_other_sites_can_link_but_not_call_the_api(self, token):
        guarded = client(token=token)
        guarded.headers["authorization"] = f"Bearer {TOKEN}"
        for method in ("GET", "HEAD", "POST"):
            response = guarded.request(method, "/api/state", headers={"sec-fetch-site": "cross-site"})
            assert response.status_code == 403
        assert guarded.get("/?q=dog", headers={"sec-fetch-site": "cross-site"}).status_code == 200
        for site in ("same-origin", "same-site", "none"):
            assert guarded.get("/api/state", headers={"sec-fetch-site": site}).status_code == 200

    def test_other_sites_cannot_read(self):
        response = client().get("/", headers={"origin": "http://evil.example"})
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/fail"])
def test_every_response_has_the_security_headers(path):
    response = client().get(path)
    policy = response.headers["content-security-policy"]
    for part in ("default-src 'self'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    refused = client(token=TOKEN).get("/")
    assert refused.headers["content-security-policy"] == policy


class TestChooseToken:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
    def test_loopback_addresses_need_no_token(self, host):
        assert is_loopback(host)
        assert choose_token(host, token=None, no_token=False) is None

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "attic.local"])
    def test_other_addresses_need_a_token_or_a_waiver(self, host):
        with pytest.raises(UsageError, match=f"--host {host}.*--token.*--no-token"):
            choose_token(host, token=None, no_token=False)
        assert choose_token(host, token=None, no_token=True) is None
        assert choose_token(host, token=TOKEN, no_token=False) == TOKEN

    @pytest.mark.parametrize("token", ["", "short", "fifteen-letters", "with space in it!!", "semi;colon;semi;colon"])
    def test_weak_or_invalid_tokens_are_refused(self, token):
        with pytest.raises(UsageError, match=f"--token {token!r}.*16 or more"):
            choose_token("127.0.0.1", token=token, no_token=False)

    def test_the_token_may_come_from_a_file(self, tmp_path):
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        assert choose_token("0.0.0.0", token_file=file, environment={"VOP_TOKEN": "x"}) == TOKEN
        for content in ("", " \n\n", "short", "auto", f"{TOKEN}\n{TOKEN}\n"):
            file.write_text(content)
            with pytest.raises(UsageError, match=f"--token-file {file}") as caught:
                choose_token("127.0.0.1", token_file=file, environment={})
            assert TOKEN not in str(caught.value)
        for other in (tmp_path, tmp_path / "none"):
            with pytest.raises(UsageError, match=f"--token-file {other}: cannot be read"):
                choose_token("127.0.0.1", token_file=other, environment={})

    def test_the_token_may_come_from_the_environment(self):
        assert choose_token("0.0.0.0", environment={"VOP_TOKEN": f"{TOKEN}\n"}) == TOKEN
        assert choose_token("127.0.0.1", environment={"VOP_TOKEN": TOKEN}) == TOKEN
        assert choose_token("0.0.0.0", token=TOKEN * 2, environment={"VOP_TOKEN": TOKEN}) == TOKEN * 2
        assert choose_token("0.0.0.0", no_token=True, environment={"VOP_TOKEN": TOKEN}) is None
        for value in ("", "  ", "short"):
            with pytest.raises(UsageError, match="VOP_TOKEN: "):
                choose_token("127.0.0.1", environment={"VOP_TOKEN": value})

    def test_auto_generates_a_token(self):
        made = {choose_token("0.0.0.0", token="auto", no_token=False) for _ in range(3)}
        assert len(made) == 3
        assert all(len(token) >= 40 for token in made)
