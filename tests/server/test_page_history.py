"""Back, Forward, Escape and the close button: the player has its own history entry, and the results stay."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.browser import open_tab
from server.page_steps import QUERY, change_responses, expect_names, film, found, query_of, search

pytestmark = pytest.mark.xdist_group("browser")
SIZES = {"phone": {"width": 360, "height": 740}, "desktop": {"width": 1280, "height": 800}}


@pytest.fixture
def page(request, browser, served):
    """The page with results on a desktop, or the size of the parameter; the cards are marked, to see that they stay."""
    size = getattr(request, "param", "desktop")
    phone = size == "phone"
    with open_tab(browser, served, viewport=SIZES[size], has_touch=phone, is_mobile=phone) as page:
        page.goto("/")
        search(page)
        expect_names(page, found(served))
        page.evaluate("() => document.querySelectorAll('.card').forEach(card => card.marked = true)")
        yield page
        assert page.problems == []


def expect_results(page, served):
    expect(page.locator("#player")).to_be_hidden()
    expect_names(page, found(served))
    assert page.evaluate("() => [...document.querySelectorAll('.card')].every(card => card.marked)")
    assert query_of(page) == {"q": [QUERY]}


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_back_closes_the_player_and_keeps_the_results(page, served):
    film(page, 1).click()
    expect(page.locator("#player")).to_be_visible()
    page.go_back()
    expect_results(page, served)
    page.go_forward()
    expect(page.locator("#player-name")).to_have_text(found(served)[1]["name"])
    expect(page.locator("#player")).to_be_visible()
    page.go_back()
    expect_results(page, served)
    page.go_back()
    expect(page.get_by_role("group", name="Examples")).to_be_visible()
    assert query_of(page) == {}


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_other_ways_to_close_leave_no_history_entry(page, served):
    for close in (
        lambda: page.keyboard.press("Escape"),
        lambda: page.locator("#player").get_by_role("button", name="Close").click(),
        lambda: page.mouse.click(3, 3),  # beside the player
    ):
        film(page, 0).click()
        expect(page.locator("#player")).to_be_visible()
        close()
        expect(page.locator("#player")).to_be_hidden()
        page.wait_for_function("() => !history.state?.overlay")
        expect_results(page, served)
    page.go_back()
    expect(page.get_by_role("group", name="Examples")).to_be_visible()
    page.go_forward()
    expect_names(page, found(served))
    expect(page.locator("#player")).to_be_hidden()


def test_the_next_moment_replaces_the_history_entry(page, served):
    film(page, 0).click()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#player-name")).to_have_text(found(served)[1]["name"])
    page.go_back()
    expect_results(page, served)


def test_back_from_more_like_this_shows_the_results(page, served):
    film(page, 0).click()
    page.locator("#player").get_by_role("button", name="More like this").click()
    expect(page.locator("#subject")).to_be_visible()
    expect(page.locator("#player")).to_be_hidden()
    page.wait_for_timeout(200)
    assert "like" in query_of(page)
    page.go_back()
    expect_names(page, found(served))
    assert query_of(page) == {"q": [QUERY]}
    expect(page.locator("#player")).to_be_hidden()


def test_a_reload_opens_the_player_again(page, served):
    film(page, 1).click()
    expect(page.locator("#player")).to_be_visible()
    page.reload()
    expect(page.locator("#player-name")).to_have_text(found(served)[1]["name"])
    page.go_back()
    expect(page.locator("#player")).to_be_hidden()
    expect_names(page, found(served))


def test_back_closes_the_list_of_failures(page, served):
    page.get_by_role("button", name="could not be read").click()
    expect(page.locator("#failures")).to_be_visible()
    page.go_back()
    expect(page.locator("#failures")).to_be_hidden()
    expect_results(page, served)


def test_the_address_of_the_player_is_a_link(tab, served):
    first, second = found(served)[:2]
    tab.goto(f"/?q={QUERY}")
    film(tab, 1).click()
    assert query_of(tab) == {"q": [QUERY], "play": [second["segment"]]}
    link = tab.url
    tab.goto("about:blank")
    tab.goto(link)
    expect(tab.locator("#player-name")).to_have_text(second["name"])
    tab.get_by_role("button", name="Previous").click()
    assert query_of(tab)["play"] == [first["segment"]]
    tab.keyboard.press("Escape")
    tab.wait_for_function("() => !location.search.includes('play')")
    assert query_of(tab) == {"q": [QUERY]}
    expect_names(tab, found(served))


def test_a_link_needs_no_query(tab, served):
    moment = found(served)[1]
    tab.goto(f"/?play={moment['segment']}")
    expect(tab.locator("#player-name")).to_have_text(moment["name"])
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("group", name="Examples")).to_be_visible()
    tab.wait_for_function("() => !location.search")
    tab.goto(f"/?play={'0' * 32}-0-1000")
    expect(tab.locator("#notes li")).to_contain_text("The moment of this link cannot be played")
    assert query_of(tab) == {}
    assert "404" in tab.problems.pop()


def test_back_and_reload_return_to_the_place(tab, served):
    def many(response: dict, url: str) -> dict:
        first = response["results"][0]
        return {**response, "results": [first] * 100, "total": 500}

    change_responses(tab, r"/videos\?", many)

    def expect_place(place: int) -> None:
        near = "place => Math.abs(scrollY - place) < 20 && document.querySelector('.card .name')"  # rows are rounded
        tab.wait_for_function(near, arg=place)

    tab.goto("/")
    expect_place(0)
    tab.evaluate("scrollTo(0, 3000)")
    tab.wait_for_timeout(500)  # until the rows are measured
    place = tab.evaluate("scrollY")
    assert place > 2000
    tab.reload()
    expect_place(place)
    tab.evaluate(  # a click by Playwright may scroll
        """() => { const buttons = [...document.querySelectorAll(".card .like")];
        buttons.find(button => button.getBoundingClientRect().top > 0).click() }"""
    )
    expect(tab.locator("#subject")).to_be_visible()
    expect_place(0)
    tab.go_back()
    expect_place(place)
    tab.go_forward()
    expect_place(0)
