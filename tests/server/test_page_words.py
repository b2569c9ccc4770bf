"""What matches: pictures, spoken words or subtitles, on cards and in the player."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.browser import open_tab, serving
from server.page_steps import QUERY, expect_no_violations, search
from vop.server.app import create_app

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def address(spoken):
    with serving(create_app([spoken.path], precision="fp32")) as address:
        yield address


def test_cards_say_what_matches(browser, address):
    with open_tab(browser, address) as tab:
        tab.goto("/")
        search(tab, "a walrus")
        kinds = {
            "red.mp4": "Seen and heard “Good morning, walrus”",
            "grey.webm": "Seen and written “a walrus sleeps”",
            "green.mp4": "Seen",
        }
        for name, words in kinds.items():
            expect(tab.locator(".card", has_text=name).locator(".matched")).to_be_visible()
            quoted = words.replace("“", "").replace("”", "")
            expect(tab.locator(".card", has_text=name).locator(".matched")).to_have_text(quoted)
        expect_no_violations(tab)
        search(tab, '"good morning"')
        expect(tab.locator(".card .matched")).to_have_text(["Heard Good morning, walrus"])
        search(tab, "a lion")  # the same cards, without words
        expect(tab.locator(".card")).to_have_count(5)
        expect(tab.locator(".matched").first).to_be_hidden()
        assert tab.problems == []


def test_the_player_says_what_matches_and_finds_more_lines(browser, address):
    with open_tab(browser, address) as tab:
        tab.goto("/?q=%22thank+you%22")
        tab.locator(".film").first.click()
        expect(tab.locator("#player .said")).to_have_text("Heard at 0:00: Thank you")
        tiles = tab.locator("#player .tiles li")
        expect(tiles.locator("q")).to_have_text(["Thank you", "Thank you again"])
        expect_no_violations(tab)
        tiles.nth(1).get_by_role("button").click()
        expect(tab.locator("#player .said")).to_have_text("Heard at 0:02: Thank you again")
        assert tab.problems == []


def test_without_words_nothing_is_said(tab):
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator(".card").first).to_be_visible()
    expect(tab.locator(".matched").first).to_be_hidden()
    tab.locator(".film").first.click()
    expect(tab.locator("#player-name")).to_be_visible()
    expect(tab.locator("#player .said")).to_have_count(0)
