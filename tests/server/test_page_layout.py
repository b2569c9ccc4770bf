"""Layout of the page: nothing shifts, nothing overflows, tiles fill their rows."""

from __future__ import annotations

import io
import re
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from server.page_steps import (
    IN_FIRST_ROW,
    QUERY,
    change_responses,
    expect_names,
    film,
    found,
    search,
    views,
    wait_moving,
)

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


def test_a_moment_plays_in_its_tile(tab):
    tab.goto(f"/?q={QUERY}")
    film(tab, 1).hover()
    wait_moving(tab, 1)
    assert tab.locator(".moving").bounding_box() == pytest.approx(film(tab, 1).bounding_box(), abs=0.5)


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


@pytest.mark.parametrize(("width", "columns"), [(1366, 4), (1000, 3), (700, 2), (390, 2)])
def test_tiles_have_one_shape_and_fill_their_rows(tab, served, width, columns):
    """Whatever the shape of the videos. Upright frames are in one row, others in two, uncut and in order."""
    sizes = [(4 * 60, 90), (4 * 90, 90), (4 * 160, 90), (4 * 300, 90)]  # upright, square, wide, widest
    shapes = {result["strip_url"]: sizes[n % 4] for n, result in enumerate(found(served))}
    tab.route(
        re.compile("/strip.jpg"), lambda route: route.fulfill(body=strip(shapes[urlsplit(route.request.url).path]))
    )
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    for number in range(4):
        film(tab, number).scroll_into_view_if_needed()
    tab.wait_for_function("() => document.querySelectorAll('.film.loaded').length >= 4")
    assert tab.evaluate(IN_FIRST_ROW) == columns
    tiles = [film(tab, number).bounding_box() for number in range(4)]
    assert len({(round(tile["width"]), round(tile["height"])) for tile in tiles}) == 1
    assert tiles[0]["width"] / tiles[0]["height"] == pytest.approx(16 / 9, rel=0.01)
    for number, (strip_width, height) in enumerate(sizes):
        rows, shape = (1, strip_width / height) if number == 0 else (2, strip_width / height / 4)
        box = tab.locator(".film .strip").nth(number).bounding_box()
        assert box["width"] / box["height"] == pytest.approx(shape, rel=0.03)
        assert box["width"] <= tiles[number]["width"] + 0.5
        assert box["height"] <= tiles[number]["height"] + 0.5
        assert seen(tab, number) == [list(range(4 // rows * row, 4 // rows * (row + 1))) for row in range(rows)]


def strip(size: tuple[int, int]) -> bytes:
    """Draw a strip of four frames."""
    out = io.BytesIO()
    Image.new("RGB", size, (90, 140, 90)).save(out, "JPEG")
    return out.getvalue()


def seen(page: Page, number: int) -> list[list[int]]:
    """Return the numbers of the frames that each row of a tile shows."""
    return (
        page.locator(".film")
        .nth(number)
        .evaluate(
            """film => [...film.querySelectorAll(".row")].filter(row => row.offsetParent).map(row => {
        const [outer, inner] = [row, row.firstChild].map(node => node.getBoundingClientRect());
        const frame = inner.width / 4;
        return [0, 1, 2, 3].filter(n => inner.left + (n + 0.5) * frame > outer.left &&
            inner.left + (n + 0.5) * frame < outer.right) })"""
        )
    )


def test_a_name_from_right_to_left_is_cut_at_its_end(tab, served):
    name = "كلب " * 20 + ".mp4"
    first = found(served)[0]
    change_responses(tab, r"/search\?", lambda response, _: {**response, "results": [{**first, "name": name}]})
    tab.goto(f"/?q={QUERY}")
    shown = tab.locator(".card .name")
    expect(shown).to_have_text(name)
    assert shown.evaluate("name => name.scrollWidth > name.clientWidth")
    assert shown.evaluate("name => getComputedStyle(name).direction") == "rtl"
    film(tab, 0).click()
    assert tab.locator("#player-name").evaluate("name => getComputedStyle(name).direction") == "rtl"


def test_keys_are_explained_where_they_are_shown(tab):
    tab.goto("/")
    keys = tab.locator(".welcome .keys")
    expect(keys).to_be_visible()
    tab.set_viewport_size({"width": 320, "height": 568})
    expect(keys).to_be_hidden()
