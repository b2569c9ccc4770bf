"""Back, Forward, Escape and the close button: the player has an entry of its own, and the results stay."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.browser import open_tab
from server.page_steps import QUERY, asked, expect_names, film, found, search

pytestmark = pytest.mark.xdist_group("browser")
SIZES = {"phone": {"width": 360, "height": 740}, "desktop": {"width": 1280, "height": 800}}


@pytest.fixture(params=SIZES)
def page(request, browser, served):
    """With results, found from the empty page, and a mark that is lost when the cards are made again."""
    phone = request.param == "phone"
    with open_tab(browser, served, viewport=SIZES[request.param], has_touch=phone, is_mobile=phone) as page:
        page.goto("/")
        search(page)
        expect_names(page, found(served))
        page.evaluate("() => document.querySelectorAll('.card').forEach(card => card.marked = true)")
        yield page
        assert page.troubles == []


def expect_results(page, served):
    expect(page.locator("#player")).to_be_hidden()
    expect_names(page, found(served))
    assert page.evaluate("() => [...document.querySelectorAll('.card')].every(card => card.marked)")
    assert asked(page) == {"q": [QUERY]}


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
    expect(page.locator(".card")).to_have_count(0)
    assert asked(page) == {}


@pytest.mark.parametrize("how", ["escape", "button", "beside"])
def test_other_ways_to_close_leave_no_entry(page, served, how):
    for _ in range(2):
        film(page, 0).click()
        expect(page.locator("#player")).to_be_visible()
        if how == "escape":
            page.keyboard.press("Escape")
        elif how == "button":
            page.locator("#player").get_by_role("button", name="Close").click()
        else:
            page.mouse.click(3, 3)
        expect(page.locator("#player")).to_be_hidden()
        page.wait_for_function("() => !history.state?.overlay")
        expect_results(page, served)
    page.go_back()
    expect(page.locator(".card")).to_have_count(0)
    page.go_forward()
    expect_names(page, found(served))
    expect(page.locator("#player")).to_be_hidden()


def test_the_next_moment_takes_the_place_of_the_one_before(page, served):
    film(page, 0).click()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#player-name")).to_have_text(found(served)[1]["name"])
    page.go_back()
    expect_results(page, served)


def test_more_like_this_leads_back_to_the_results(page, served):
    film(page, 0).click()
    page.locator("#player").get_by_role("button", name="More like this").click()
    expect(page.locator("#subject")).to_be_visible()
    expect(page.locator("#player")).to_be_hidden()
    page.wait_for_timeout(200)
    assert "like" in asked(page)
    page.go_back()
    expect_names(page, found(served))
    assert asked(page) == {"q": [QUERY]}
    expect(page.locator("#player")).to_be_hidden()


def test_loading_the_page_again_opens_the_player_again(page, served):
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
