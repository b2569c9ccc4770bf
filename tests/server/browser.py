"""A real browser for the tests of the page, and a server for it to talk to."""

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

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--mute-audio")
MILLISECONDS_TO_WAIT = 8000


def find_browser() -> str | None:
    """$VOP_CHROMIUM, or the first browser on the path that will do."""
    return os.environ.get("VOP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: while Playwright is open, its thread has a running event loop, which other tests may not want."""
    path = find_browser()
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium is installed: run make browser, or say where it is in VOP_CHROMIUM")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, served) -> Iterator[Page]:
    """A page of 1280 x 800 for `served`; at the end it must have asked no other host and have had no error.

    Errors that a test expects are taken out of `tab.troubles`, which holds what the console said.
    """
    with open_tab(browser, served) as page:
        yield page
        assert page.troubles == []


@contextmanager
def open_tab(browser: Browser, served: str, **options) -> Iterator[Page]:
    """A page in a context of its own, of which `troubles` are the errors and the requests to other hosts."""
    context: BrowserContext = browser.new_context(
        **{"viewport": {"width": 1280, "height": 800}, "base_url": served, **options}
    )
    context.set_default_timeout(MILLISECONDS_TO_WAIT)
    page, host = context.new_page(), urlsplit(served).netloc
    page.troubles = []
    page.on("console", lambda said: page.troubles.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.troubles.append(request.url) if _is_foreign(request.url, host) else None)
    try:
        yield page
    finally:
        context.close()


def _is_foreign(url: str, host: str) -> bool:
    return urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != host


@contextmanager
def serving(app) -> Iterator[str]:
    """The address of a server that runs the app in a thread."""
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
