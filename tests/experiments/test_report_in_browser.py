"""The report in a browser: in dark mode, on a phone, and after a click on a heading."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments.documents import compare_document, typed
from server.browser import browser  # noqa: F401  # a fixture
from vop.experiments.report import write_html

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    results = typed(compare_document(names=("zero-shot", "full", "vop")))
    return write_html([results], tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser, page_path):  # noqa: F811
    """Opens the page; no script may fail, and no other file may be requested."""
    contexts, troubles = [], []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if "report.html" not in request.url else None)
        page.goto(page_path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def brightness(page, selector: str) -> tuple[float, float]:
    """The median of an element's pixels, and of the hundredth that differs most from it, 0 to 255."""
    with Image.open(io.BytesIO(page.locator(selector).first.screenshot())) as image:
        values = np.asarray(image.convert("L"), dtype=float).ravel()
    middle = float(np.median(values))
    furthest = values[np.argsort(-np.abs(values - middle))[: len(values) // 100]]
    return middle, float(np.median(furthest))


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_tables_and_figures_follow_the_colour_scheme(opened, scheme, is_dark):
    page = opened(color_scheme=scheme)
    for selector in ("table", "figure svg"):
        ground, ink = brightness(page, selector)
        assert (ground < 60, ground > 200) == (is_dark, not is_dark)
        assert abs(ground - ink) > 100


def test_only_tables_and_figures_scroll_on_a_phone(opened):
    page = opened(viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("table").first.evaluate("table => table.parentNode.clientWidth") < 390


def test_clicking_a_heading_sorts(opened):
    page = opened()
    table = page.locator("table").first
    head = table.locator("th button", has_text=re.compile(r"^t2v R@1$"))

    def names() -> list[str]:
        return table.locator("tbody th").evaluate_all("cells => cells.map(cell => cell.firstChild.textContent)")

    assert names() == ["zero-shot", "full", "vop"]
    head.click()
    assert names() == ["full", "vop", "zero-shot"]
    head.click()
    assert names() == ["zero-shot", "vop", "full"]
