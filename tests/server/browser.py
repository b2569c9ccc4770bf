"""A browser for the tests of the page, and a server for it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio")
MILLISECONDS_TO_WAIT = 8000


def find_browser() -> str | None:
    """Return $VOP_CHROMIUM, or the first of `NAMES` on the path."""
    return os.environ.get("VOP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one module: while Playwright is open, its thread runs an event loop, which disturbs other tests."""
    path = find_browser()
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium is installed: run make browser, or set its path in VOP_CHROMIUM")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, served) -> Iterator[Page]:
    """A page of 1280 x 800 on `served`. It must cause no errors and no requests to other hosts.

    `tab.problems` lists both; a test removes the errors that it expects.
    """
    with open_tab(browser, served) as page:
        yield page
        assert page.problems == []


@contextmanager
def open_tab(browser: Browser, served: str, **options) -> Iterator[Page]:
    """Open a page in its own context. `page.problems` lists errors and requests to other hosts."""
    context: BrowserContext = browser.new_context(
        **{"viewport": {"width": 1280, "height": 800}, "base_url": served, **options}
    )
    context.set_default_timeout(MILLISECONDS_TO_WAIT)
    page, host = context.new_page(), urlsplit(served).netloc
    page.problems = []
    page.on(
        "console", lambda message: page.problems.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url) if _is_foreign(request.url, host) else None)
    try:
        yield page
    finally:
        context.close()


def _is_foreign(url: str, host: str) -> bool:
    return urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != host


@contextmanager
def serving(app) -> Iterator[str]:
    """Run the app in a thread; yield its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
