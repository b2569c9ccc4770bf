"""A library with several models: one at a time, and side by side."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import QUERY, change_responses, expect_names, found, query_of, views

pytestmark = pytest.mark.xdist_group("browser")


def test_the_view_can_be_selected(tab, served):
    tab.goto(f"/?q={QUERY}")
    tab.get_by_label("View").select_option(views(served)[1]["id"])
    expect_names(tab, found(served, view=1))
    assert query_of(tab)["view"] == [views(served)[1]["id"]]


def test_comparing_marks_changes_of_rank(tab, served):
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
    assert query_of(tab)["compare"] == [views(served)[1]["id"]]
    tab.reload()
    expect(tab.locator(".column")).to_have_count(2)
    tab.get_by_label("Compare with").select_option(label="none")
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


def test_more_like_this_searches_the_library_of_the_moment(tab, served):
    one, other = views(served)

    def apart(state: dict, _) -> dict:
        return {**state, "views": [one, {**other, "library": "another"}]}

    change_responses(tab, r"/api/state", apart)
    for column, view in ((1, one["id"]), (2, other["id"])):
        for in_player in (False, True):
            tab.goto(f"/?q={QUERY}&compare={other['id']}")
            card = tab.locator(f".column:nth-child({column}) .card").first
            if in_player:
                card.locator(".film").click()
            with tab.expect_response(lambda response: "/like/" in response.url) as response_info:
                (tab.locator("#player") if in_player else card).get_by_role("button", name="More like this").click()
            assert f"/api/views/{view}/like/" in response_info.value.url
            expect(tab.locator(".column")).to_have_count(1)
            expect_names(tab, response_info.value.json()["results"])
            assert query_of(tab)["view"] == [view]
            assert "compare" not in query_of(tab)


def test_more_like_this_keeps_both_views_of_a_library(tab, served):
    tab.goto(f"/?q={QUERY}&compare={views(served)[1]['id']}")
    tab.locator(".column:nth-child(2) .card").first.get_by_role("button", name="More like this").click()
    expect(tab.locator("#subject")).to_be_visible()
    expect(tab.locator(".column")).to_have_count(2)
    assert query_of(tab)["compare"] == [views(served)[1]["id"]]


def test_a_view_added_later_appears(tab, served):
    here = views(served)[:1]
    index = {
        "done": 1,
        "total": 2,
        "hours": 1,
        "hours_per_hour": 1,
        "seconds_left": 1,
        "current": "x",
    }  # so that the page polls often
    change_responses(
        tab, r"/api/state", lambda state, _: {**state, "views": [{**view, "index": index} for view in here]}
    )
    tab.clock.install()
    tab.goto("/")
    expect(tab.locator("#library")).to_contain_text("Indexing")
    expect(tab.locator("#views")).to_be_hidden()
    here.append(views(served)[1])
    tab.clock.run_for(16_000)
    expect(tab.locator("#views")).to_be_visible()
    expect(tab.locator("#view option")).to_have_count(2)


def test_comparing_marks_results_of_one_view(tab, served):
    gone = found(served, view=1)[0]["video"]

    def without(response: dict, _) -> dict:
        return {**response, "results": [result for result in response["results"] if result["video"] != gone]}

    change_responses(tab, f"/api/views/{views(served)[0]['id']}/search", without)
    tab.goto(f"/?q={QUERY}&compare={views(served)[1]['id']}")
    expect(tab.locator(".column:nth-child(2) .mark").first).to_have_text("only here")
    expect(tab.locator(".mark.only")).to_have_count(1)
