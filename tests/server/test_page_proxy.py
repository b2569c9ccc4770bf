"""The page below a path of a reverse proxy: nginx if it is installed, else a small proxy in Python."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

from server.browser import open_tab, serving
from server.page_steps import QUERY, film, wait_moving
from vop.server.app import create_app

pytestmark = pytest.mark.xdist_group("browser")
TOKEN = "correct-horse-battery"
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def rooted(served_folder):
    """The URL of a server with a token and the root path /videos."""
    with serving(create_app([served_folder], precision="fp32", token=TOKEN, root_path="/videos")) as address:
        yield address


@contextmanager
def nginx(upstream: str, folder: Path, *, stripped: bool):
    """Run nginx in front of a server, with the configuration of the documentation."""
    location = re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    location = location.replace("http://127.0.0.1:8000", upstream + ("/" if stripped else ""))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in names)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n"
    )
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(200):
        assert process.poll() is None, process.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nginx does not listen")


@contextmanager
def small_proxy(upstream: str, folder: Path, *, stripped: bool):
    """Forward requests below /videos, with or without this prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/videos"):
                return self.send_error(404)
            path = self.path.removeprefix("/videos") if stripped else self.path
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length) if length else None
            request = urllib.request.Request(upstream + (path or "/"), body, dict(self.headers), method=self.command)
            response = opener.open(request)
            self.send_response(response.status)
            for name, value in response.headers.items():
                if name.lower() not in ("connection", "date"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(response, self.wfile)

        do_POST = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    class KeepErrors(urllib.request.HTTPErrorProcessor):
        def http_response(self, request, response):
            return response

    opener = urllib.request.build_opener(KeepErrors)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # browsers abort requests for videos
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("stripped", [True, False])
def test_the_page_works_below_a_path(browser, rooted, tmp_path, stripped):
    proxy = nginx if shutil.which("nginx") else small_proxy
    with proxy(rooted, tmp_path, stripped=stripped) as address, open_tab(browser, address) as page:
        foreign = []
        page.on("request", lambda request: None if f"{address}/videos" in request.url else foreign.append(request.url))
        page.goto(f"/videos/?q={QUERY}")
        page.get_by_label("Token").fill("wrong-wrong-wrong-wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The token is wrong.")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator(".card").first).to_be_visible()
        assert page.url == f"{address}/videos/?q={QUERY.replace(' ', '+')}"
        assert {cookie["path"] for cookie in page.context.cookies()} == {"/videos"}
        page.wait_for_function("() => document.querySelector('.film img').naturalWidth")
        for number in range(page.locator(".film").count()):
            if "moment.mp4" in page.locator(".card").nth(number).evaluate("card => card.moment.media_url"):
                break
        film(page, number).hover()  # a clip that the server exports
        wait_moving(page, number)
        film(page, 0).click()
        page.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
        page.go_back()
        page.get_by_role("button", name="More like this").first.click()
        expect(page.locator("#subject .thumbnail")).to_be_visible()
        page.reload()
        expect(page.locator(".card").first).to_be_visible()
        page.get_by_role("link", name="vop").click()
        assert page.url == f"{address}/videos/"
        page.goto(f"/videos?token={TOKEN}")
        assert page.url == f"{address}/videos/"
        assert foreign == []
        assert TOKEN not in page.evaluate("document.referrer")
        page.problems[:] = [problem for problem in page.problems if "401" not in problem]  # before signing in
        assert page.problems == []
