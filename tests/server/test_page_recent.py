"""The first view of the page: examples, and recent searches, which stay in the browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import change_responses, expect_names, found, get_json, query_of, search, views

pytestmark = pytest.mark.xdist_group("browser")


def examples(page):
    return page.get_by_role("group", name="Examples").get_by_role("button")


def test_an_example_finds_something_in_the_library(tab, served):
    change_responses(tab, "/examples", lambda response, _: {"seen": ["a red ball"], "said": ['"good morning"']})
    tab.goto("/")
    expect(examples(tab)).to_have_text(["a red ball", '"good morning"'])
    examples(tab).first.click()
    expect_names(tab, found(served, q="a red ball"))
    assert query_of(tab)["q"] == ["a red ball"]


def test_examples_come_from_the_server_or_are_fixed(tab, served):
    tab.goto("/")
    own = get_json(served, f"/api/views/{views(served)[0]['id']}/examples")
    if texts := own["seen"] + own["said"]:
        expect(examples(tab)).to_have_text(texts)
    change_responses(tab, "/examples", lambda response, _: {"seen": [], "said": []})
    tab.reload()
    expect(examples(tab)).to_have_count(3)
    expect(examples(tab).first).to_have_text("a dog runs on the beach")


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
