"""What the page says of the library: its size, what could not be read, an indexing, that it is empty."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from server.page_steps import QUERY, answering, ask, expect_names, found, views

pytestmark = pytest.mark.xdist_group("browser")


def test_library_state_and_failures(tab, served):
    view = views(served)[0]
    failures = ask(served, f"/api/libraries/{view['library']}/failures")["failures"]
    assert failures
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto("/")
    expect(tab.locator("#library")).to_contain_text(f"{view['videos']} videos")
    tab.get_by_role("button", name=f"{view['failures']} files could not be read").click()
    expect(tab.locator("#failures li .path")).to_have_text([failure["path"] for failure in failures])
    for failure in failures:
        expect(tab.locator("#failures")).to_contain_text(failure["reason"])
    tab.get_by_role("button", name="Copy the list").click()
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied.split("\n") == ["\t".join((each["path"], each["kind"], each["reason"])) for each in failures]
    tab.keyboard.press("Escape")
    expect(tab.locator("#failures")).to_be_hidden()


def test_progress_while_indexing(tab):
    index = {
        "done": 120,
        "total": 750,
        "hours": 3.2,
        "hours_per_hour": 34.2,
        "seconds_left": 1380,
        "current": "/v/a.mp4",
    }
    failures = {"failures": 2}
    answering(tab, r"/api/state", lambda state, _: state_with(state, index=index, **failures))
    tab.goto("/")
    expect(tab.locator("#library")).to_contain_text("Indexing 120 of 750 files · 23 min left")
    assert tab.locator("progress").evaluate("bar => bar.value / bar.max") == 0.16
    unread = tab.get_by_role("button", name="2 files could not be read")
    unread.focus()
    failures["failures"], index["done"] = 3, 300
    expect(tab.locator("#library")).to_contain_text("Indexing 300 of 750 files")
    expect(tab.get_by_role("button", name="3 files could not be read")).to_be_focused()


def test_empty_library_says_what_to_do(tab, served):
    changing_views(tab, segments=0, videos=0, hours=0.0, failures=0)
    tab.goto(f"/?q={QUERY}")
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_visible()
    tab.unroute_all()  # and now it is filled
    expect_names(tab, found(served))
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_hidden()


def test_a_library_that_went_away_says_so(tab, served):
    counts = {"segments": 0, "videos": 0, "hours": 0.0, "failures": 0, "columns": []}
    changing_views(tab, error="/lib: there is no library here", **counts)
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator("#library")).to_have_text("/lib: there is no library here")
    expect_names(tab, found(served))  # whatever the server answers to that
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_hidden()
    tab.unroute_all()
    expect(tab.locator("#library")).to_contain_text(f"{views(served)[0]['videos']} videos")
    expect(tab.get_by_text("there is no library here")).to_be_hidden()


def changing_views(page: Page, **changes) -> None:
    answering(page, r"/api/state", lambda state, _: state_with(state, **changes))


def state_with(state: dict, **changes) -> dict:
    return {**state, "views": [{**view, **changes} for view in state["views"]]}
