"""Where things are on the page: nothing jumps, nothing sticks out, strips fill their rows."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from server.page_steps import IN_FIRST_ROW, QUERY, expect_names, film, found, search, views, wait_moving

pytestmark = pytest.mark.xdist_group("browser")


def test_nothing_jumps(tab, served):
    tab.add_init_script(
        """window.shifts = 0;
        new PerformanceObserver(list => { for (const each of list.getEntries()) window.shifts += each.value })
        .observe({type: "layout-shift", buffered: true})"""
    )
    tab.route(re.compile("/strip.jpg"), lambda route: (tab.wait_for_timeout(60), route.continue_()))  # strips come late
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


def test_what_plays_in_the_first_row_leaves_the_field_free(tab):
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
def test_no_sideways_scrolling(tab, served, width):
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
