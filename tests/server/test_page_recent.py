"""The first view of the page: examples, and recent searches, which stay in the browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import expect_names, found, query_of, search

pytestmark = pytest.mark.xdist_group("browser")


def test_an_example_is_searched(tab, served):
    tab.goto("/")
    example = tab.get_by_role("group", name="Examples").get_by_role("button").first
    text = example.text_content()
    example.click()
    expect_names(tab, found(served, q=text))
    assert query_of(tab)["q"] == [text]


def test_recent_searches_can_be_repeated_and_cleared(tab, served):
    tab.goto("/")
    expect(tab.get_by_text("Recent searches")).to_be_hidden()
    for text in ("a red ball", "a green square", "a red ball"):
        search(tab, text)
        expect_names(tab, found(served, q=text))
    tab.goto("/")
    recent = tab.locator(".recent")
    expect(recent.locator(".choice")).to_have_text(["a red ball", "a green square"])
    recent.get_by_role("button", name="a green square").click()
    expect_names(tab, found(served, q="a green square"))
    tab.goto("/")
    recent.get_by_role("button", name="Clear").click()
    expect(recent).to_be_hidden()
    tab.reload()
    expect(tab.get_by_role("group", name="Examples")).to_be_visible()
    expect(recent).to_be_hidden()


def test_damaged_storage_is_ignored(tab):
    tab.add_init_script("localStorage.setItem(`vop searches ${location.pathname}`, '[{\"title\": 1}, null]')")
    tab.goto("/")
    expect(tab.get_by_role("group", name="Examples")).to_be_visible()
    expect(tab.locator(".recent")).to_be_hidden()
