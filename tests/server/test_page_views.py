"""A library under several models: one at a time, and side by side."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import QUERY, answering, asked, expect_names, found, views

pytestmark = pytest.mark.xdist_group("browser")


def test_view_selector(tab, served):
    tab.goto(f"/?q={QUERY}")
    tab.get_by_label("View").select_option(views(served)[1]["id"])
    expect_names(tab, found(served, view=1))
    assert asked(tab)["view"] == [views(served)[1]["id"]]


def test_compare_marks_what_moved(tab, served):
    one, other = found(served, view=0), found(served, view=1)
    tab.goto(f"/?q={QUERY}")
    tab.get_by_label("Compare with").select_option(views(served)[1]["id"])
    expect(tab.locator(".column")).to_have_count(2)
    columns = [".column:nth-child(1)", ".column:nth-child(2)"]
    for column, mine, theirs in zip(columns, (one, other), (other, one), strict=True):
        expect_names(tab, mine, column)
        expect(tab.locator(f"{column} .mark")).to_have_text(expected_marks(mine, theirs))
    assert any("▲" in mark for mark in expected_marks(one, other))
    left, right = (tab.locator(column).bounding_box() for column in columns)
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert asked(tab)["compare"] == [views(served)[1]["id"]]
    tab.reload()
    expect(tab.locator(".column")).to_have_count(2)
    tab.get_by_label("Compare with").select_option(label="nothing")
    expect(tab.locator(".column")).to_have_count(1)
    expect(tab.locator(".mark").first).to_be_hidden()


def expected_marks(mine: list[dict], theirs: list[dict]) -> list[str]:
    places = {result["video"]: place for place, result in enumerate(theirs)}

    def mark(place: int, video: str) -> str:
        if video not in places:
            return "only here"
        step = places[video] - place
        return "=" if step == 0 else f"▲ {step}" if step > 0 else f"▼ {-step}"

    return [mark(place, result["video"]) for place, result in enumerate(mine)]


def test_compare_marks_what_is_only_in_one(tab, served):
    gone = found(served, view=1)[0]["video"]

    def without(answer: dict, _) -> dict:
        return {**answer, "results": [result for result in answer["results"] if result["video"] != gone]}

    answering(tab, f"/api/views/{views(served)[0]['id']}/search", without)
    tab.goto(f"/?q={QUERY}&compare={views(served)[1]['id']}")
    expect(tab.locator(".column:nth-child(2) .mark").first).to_have_text("only here")
    expect(tab.locator(".mark.only")).to_have_count(1)
