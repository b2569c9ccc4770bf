"""Filters on the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import QUERY, expect_names, found, query_of

pytestmark = pytest.mark.xdist_group("browser")


def test_filters_are_applied_kept_and_removed(tab, served):
    results = found(served)
    folder = results[0]["path"].rsplit("/", 1)[0]
    inside = found(served, folder=folder)
    assert 0 < len(inside) < len(results)
    tab.goto(f"/?q={QUERY}")
    tab.locator("#show-filters").click()
    tab.get_by_label("Folder", exact=True).fill(folder)
    tab.keyboard.press("Enter")
    expect_names(tab, inside)
    assert query_of(tab)["folder"] == [folder]
    tab.get_by_label("Not longer than").fill("0:10")
    tab.keyboard.press("Enter")
    expect_names(tab, found(served, folder=folder, max_seconds=10))
    assert query_of(tab)["max_seconds"] == ["10"]
    tab.reload()
    expect(tab.locator("#chips li")).to_have_text([f"folder {folder}", "not longer than 0:10"])
    tab.get_by_role("button", name="Remove filter: folder").click()
    expect_names(tab, found(served, max_seconds=10))
    assert "folder" not in query_of(tab)


def test_filters_by_metadata_and_date(tab, served):
    results = found(served)
    column, value = next(iter(results[0]["columns"].items()))
    date = sorted(result["date"] for result in results)[-1][:10]
    expected = found(served, where=f"{column}={value}", before=date)
    assert 0 < len(found(served, where=f"{column}={value}")) < len(results)
    tab.goto(f"/?q={QUERY}")
    tab.locator("#show-filters").click()
    tab.get_by_label("Column").select_option(column)
    tab.get_by_label("Value").fill(value)
    tab.keyboard.press("Enter")
    expect(tab.get_by_label("Value")).to_have_count(2)  # a field for another condition
    tab.get_by_label("Before date").fill(date)
    expect_names(tab, expected)
    assert query_of(tab)["where"] == [f"{column}={value}"]
    assert query_of(tab)["before"] == [date]


def test_an_invalid_time_is_reported_at_its_field(tab, served):
    tab.goto(f"/?q={QUERY}")
    tab.locator("#show-filters").click()
    tab.get_by_label("Not shorter than").fill("soon")
    tab.keyboard.press("Enter")
    message = tab.get_by_label("Not shorter than").evaluate("field => field.validationMessage")
    assert "“soon”" in message
    assert "1:30" in message
    assert query_of(tab) == {"q": [QUERY]}


def test_filters_can_be_cleared_if_nothing_matches(tab, served):
    tab.goto(f"/?q={QUERY}&folder=no-such-folder&min_seconds=3")
    expect(tab.get_by_text("No moments match the filters.")).to_be_visible()
    tab.get_by_role("button", name="Clear filters").click()
    expect_names(tab, found(served))
    assert query_of(tab) == {"q": [QUERY]}


def test_a_click_on_a_folder_filters_by_it(tab, served):
    folder = found(served)[0]["path"].rsplit("/", 1)[0]
    tab.goto(f"/?q={QUERY}")
    tab.locator(".card .folder").first.click()
    expect_names(tab, found(served, folder=folder))
