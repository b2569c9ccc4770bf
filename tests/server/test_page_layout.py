"""Layout of the page: nothing shifts, nothing overflows, strips fill their rows."""

from __future__ import annotations

import io
import re
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from server.page_steps import IN_FIRST_ROW, QUERY, expect_names, film, found, search, views, wait_moving

pytestmark = pytest.mark.xdist_group("browser")


def test_loading_causes_no_layout_shift(tab, served):
    tab.add_init_script(
        """window.shifts = 0;
        new PerformanceObserver(list => { for (const each of list.getEntries()) window.shifts += each.value })
        .observe({type: "layout-shift", buffered: true})"""
    )
    tab.route(re.compile("/strip.jpg"), lambda route: (tab.wait_for_timeout(60), route.continue_()))  # late strips
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.film img')].slice(0, 6).every(image => image.naturalWidth)"
    )
    search(tab, "a green square")
    expect_names(tab, found(served, q="a green square"))
    film(tab, 2).hover()
    wait_moving(tab, 2)
    tab.wait_for_timeout(200)
    assert tab.evaluate("PerformanceObserver.supportedEntryTypes.includes('layout-shift')")
    assert tab.evaluate("window.shifts") < 0.05


def test_a_playing_moment_does_not_cover_the_search_field(tab):
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).hover()
    wait_moving(tab, 0)
    head, moving = tab.locator(".top").bounding_box(), tab.locator(".moving").bounding_box()
    assert moving["y"] >= head["y"] + head["height"]
    below = tab.evaluate(IN_FIRST_ROW)
    film(tab, below).hover()
    wait_moving(tab, below)
    strip, moving = film(tab, below).bounding_box(), tab.locator(".moving").bounding_box()
    assert moving["y"] < strip["y"]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_has_no_horizontal_scrolling(tab, served, width):
    tab.set_viewport_size({"width": width, "height": 740})
    tab.goto(f"/?q={QUERY}&q=street&w=1&w=-0.5&folder=videos&compare={views(served)[1]['id']}")
    tab.locator("#show-filters").click()
    expect(tab.locator(".card").first).to_be_visible()
    room = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    needed, there = tab.evaluate(room)
    assert needed <= there
    outside = tab.evaluate(
        """() => { const room = document.documentElement.clientWidth + 1;
        return [...document.querySelectorAll(".top *, main *")].filter(each => !each.closest(".strip") &&
        each.getBoundingClientRect().right > room).map(each => each.outerHTML.slice(0, 80)) }"""
    )
    assert outside == []
    film(tab, 0).click()
    assert tab.locator("#player").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


@pytest.mark.parametrize(("size", "columns"), [((640, 90), {1100: 2, 1000: 1}), ((360, 90), {1280: 3})])
def test_columns_follow_the_shape_of_the_strips(tab, served, size, columns):
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "JPEG")
    tab.route(re.compile("/strip.jpg"), lambda route: route.fulfill(body=out.getvalue(), content_type="image/jpeg"))
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    for width, expected in columns.items():
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate(IN_FIRST_ROW) == expected
        box = film(tab, 0).bounding_box()
        assert box["width"] / box["height"] == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.parametrize(
    "first", [(60, 90), (320, 90), (640, 90), (1200, 90)], ids=["upright", "square", "wide", "widest"]
)
def test_strips_of_mixed_shapes_keep_their_grid(tab, served, first):
    """The first four strips decide the shape of all. The others fit in, with lines between their frames."""
    mixed = [first] * 4 + [(60, 90), (640, 90), (320, 90), (1200, 90)] * 3
    sizes = dict(zip([result["strip_url"] for result in found(served)], mixed, strict=False))

    def draw(route):
        out = io.BytesIO()
        Image.new("RGB", sizes[urlsplit(route.request.url).path], (90, 140, 90)).save(out, "JPEG")
        route.fulfill(body=out.getvalue(), content_type="image/jpeg")

    tab.route(re.compile("/strip.jpg"), draw)
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    for number in range(tab.locator(".film").count()):
        film(tab, number).scroll_into_view_if_needed()
    tab.wait_for_function("() => [...document.querySelectorAll('.film img')].every(image => image.naturalWidth)")
    for width in (1280, 700, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        check_strips(tab, width)


def check_strips(page: Page, width: int) -> None:
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".film")].map(film => {
        const size = node => { const box = node.getBoundingClientRect();
            return {y: box.y, width: box.width, height: box.height} };
        const image = film.querySelector("img"), lines = getComputedStyle(film.querySelector(".strip"), "::after");
        return {film: size(film), strip: size(film.querySelector(".strip")), image: size(image),
            shape: image.naturalWidth / image.naturalHeight,
            lines: [lines.width, lines.height].map(parseFloat)} })"""
    )
    assert len({round(box["film"]["width"]) for box in boxes}) == 1
    assert len({round(box["film"]["height"]) for box in boxes}) == 1
    for box in boxes:
        outer, strip, image = box["film"], box["strip"], box["image"]
        assert strip["width"] <= outer["width"] + 1
        assert strip["height"] <= outer["height"] + 1
        assert strip["y"] >= outer["y"] - 1
        assert image["width"] / image["height"] == pytest.approx(box["shape"], rel=0.03)  # neither squeezed nor padded
        assert box["lines"] == pytest.approx([image["width"], image["height"]], abs=1.5)
        if width > 620:
            assert strip["width"] == pytest.approx(image["width"], abs=1.5)  # not cropped
