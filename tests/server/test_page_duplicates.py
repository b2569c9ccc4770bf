"""The near-duplicates of a library on the page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from server.browser import open_tab, serving
from server.page_steps import QUERY, expect_no_violations, get_json, query_of, search
from vop.server.app import create_app

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def address(versions):
    with serving(create_app([versions.path], precision="fp32")) as address:
        yield address


def test_groups_of_near_duplicates(browser, address):
    groups = get_json(address, "/api/libraries/versions/duplicates")["groups"]
    expected = [[one["name"] for one in group["videos"] + group["parts"]] for group in groups]
    with open_tab(browser, address) as tab:
        tab.goto("/")
        tab.get_by_role("link", name="Near-duplicates").click()
        assert query_of(tab)["show"] == ["duplicates"]
        expect(tab.locator(".group")).to_have_count(len(groups))
        expect(tab.get_by_role("status").first).to_have_text("3 groups · 1 near-duplicate · 1 cut · 1 exact copy")
        shown = [
            tab.locator(".group").nth(number).locator(".film").evaluate_all(
                "films => films.map(film => film.getAttribute('aria-label').replace('Play ', ''))"
            )
            for number in range(len(groups))
        ]  # fmt: skip
        assert shown == expected
        marked = tab.locator(".group", has_text="Best version")
        expect(marked).to_have_count(1)
        expect(marked.locator(".version").first).to_contain_text("Best version")
        red = next(one for group in groups for one in group["videos"] if one["name"] == "red.mp4")
        expect(marked).to_contain_text(f"{red['width']} × {red['height']}")
        expect(tab.locator(".duplicates")).to_contain_text("A cut of blue & white.mp4, from 0:01")
        expect(tab.locator(".duplicates")).to_contain_text("The same file again: /videos/again.webm")
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            expect_no_violations(tab)
        tab.get_by_role("button", name="Play red.mp4").click()
        expect(tab.locator("#player-name")).to_have_text("red.mp4")
        tab.go_back()
        expect(tab.locator("#player")).to_be_hidden()
        expect(tab.locator(".group")).to_have_count(len(groups))
        tab.reload()
        expect(tab.locator(".group")).to_have_count(len(groups))
        search(tab)
        expect(tab.locator(".card")).not_to_have_count(0)
        expect(tab.locator(".duplicates")).to_be_hidden()
        assert query_of(tab) == {"q": [QUERY]}
        tab.go_back()
        expect(tab.locator(".group")).to_have_count(len(groups))
        assert tab.problems == []


def test_groups_are_loaded_in_parts(browser, address):
    with open_tab(browser, address) as tab:
        one = get_json(address, "/api/libraries/versions/duplicates")["groups"][0]

        def part(route):
            skip = int(re.search(r"skip=(\d+)", route.request.url)[1])
            groups = [one] * min(20, 25 - skip)
            numbers = {"near_duplicates": 25, "parts": 0, "exact_copies": 0, "were_compared": True}
            route.fulfill(json={"groups": groups, "total": 25, **numbers})

        tab.route(re.compile(r"/duplicates\?"), part)
        tab.goto("/?show=duplicates")
        expect(tab.locator(".group")).to_have_count(20)
        tab.get_by_role("button", name="Show more").click()
        expect(tab.locator(".group")).to_have_count(25)
        expect(tab.get_by_role("button", name="Show more")).to_be_hidden()


@pytest.mark.parametrize(
    ("compared", "words"),
    [(True, "No two videos of this library show the same"), (False, "have not been compared yet")],
)
def test_a_library_without_near_duplicates(browser, address, compared, words):
    nothing = {"groups": [], "total": 0, "near_duplicates": 0, "parts": 0, "exact_copies": 0, "were_compared": compared}
    with open_tab(browser, address) as tab:
        tab.route(re.compile(r"/duplicates\?"), lambda route: route.fulfill(json=nothing))
        tab.goto("/?show=duplicates")
        expect(tab.locator(".duplicates")).to_contain_text(words)
        expect(tab.locator("#order")).to_be_hidden()
