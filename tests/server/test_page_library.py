"""The state of the library on the page: its size, failures, progress of indexing, an empty library."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from server.page_steps import QUERY, change_responses, expect_names, found, get_json, views

pytestmark = pytest.mark.xdist_group("browser")
NEXT_STATE = 16_000  # milliseconds after which the page has asked for the state again


def test_the_page_shows_size_and_failures(tab, served):
    view = views(served)[0]
    failures = get_json(served, f"/api/libraries/{view['library']}/failures")["failures"]
    assert failures
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto("/")
    expect(tab.locator("#library")).to_contain_text(f"{view['videos']} videos")
    tab.get_by_role("button", name=f"{view['failures']} files could not be read").click()
    expect(tab.locator("#failures li .path")).to_have_text([failure["path"] for failure in failures])
    for failure in failures:
        expect(tab.locator("#failures")).to_contain_text(failure["reason"])
        expect(tab.locator("#failures")).to_contain_text(f"{failure['explanation']} {failure['next_step']}")
    tab.get_by_role("button", name="Copy the list").click()
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied.split("\n") == ["\t".join((each["path"], each["kind"], each["reason"])) for each in failures]
    tab.keyboard.press("Escape")
    expect(tab.locator("#failures")).to_be_hidden()


def test_the_page_shows_the_progress_of_indexing(tab):
    index = {
        "done": 120,
        "total": 750,
        "hours": 3.2,
        "hours_per_hour": 34.2,
        "seconds_left": 1380,
        "current": "/v/a.mp4",
    }
    failures = {"failures": 2}
    change_responses(tab, r"/api/state", lambda state, _: state_with(state, index=index, **failures))
    tab.clock.install()
    tab.goto("/")
    expect(tab.locator("#library")).to_contain_text("Indexing 120 of 750 files · 23 min left")
    assert tab.locator("progress").evaluate("bar => bar.value / bar.max") == 0.16
    unread = tab.get_by_role("button", name="2 files could not be read")
    unread.focus()
    failures["failures"], index["done"] = 3, 300
    tab.clock.run_for(NEXT_STATE)
    expect(tab.locator("#library")).to_contain_text("Indexing 300 of 750 files")
    expect(tab.get_by_role("button", name="3 files could not be read")).to_be_focused()


def test_an_empty_library_shows_the_next_step(tab, served):
    tab.clock.install()
    changing_views(tab, segments=0, videos=0, hours=0.0, failures=0)
    tab.goto(f"/?q={QUERY}")
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_visible()
    tab.unroute_all()  # the library now has videos
    tab.clock.run_for(NEXT_STATE)
    expect_names(tab, found(served))
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_hidden()


def test_a_missing_library_is_reported(tab, served):
    counts = {"segments": 0, "videos": 0, "hours": 0.0, "failures": 0, "columns": []}
    tab.clock.install()
    changing_views(tab, error="/lib: no library exists here", **counts)
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator("#library")).to_have_text("/lib: no library exists here")
    expect_names(tab, found(served))  # searches still work
    expect(tab.get_by_text("vop index LIBRARY FOLDER")).to_be_hidden()
    tab.unroute_all()
    tab.clock.run_for(NEXT_STATE)
    expect(tab.locator("#library")).to_contain_text(f"{views(served)[0]['videos']} videos")
    expect(tab.get_by_text("no library exists here")).to_be_hidden()


def changing_views(page: Page, **changes) -> None:
    change_responses(page, r"/api/state", lambda state, _: state_with(state, **changes))


def state_with(state: dict, **changes) -> dict:
    return {**state, "views": [{**view, **changes} for view in state["views"]]}


def test_an_update_is_started_and_stopped(tab):
    indexing = {"allowed": True, "state": "idle", "message": None, "started_at": None, "ended_at": None, "result": None}
    change_responses(tab, r"/api/state", lambda state, _: state_with(state, indexing=indexing))
    sent = []

    def answer(route):
        sent.append(route.request.method)
        indexing["state"] = {"POST": "running", "DELETE": "stopping"}[route.request.method]
        route.fulfill(status=202, json=indexing)

    tab.route("**/indexing", answer)
    tab.clock.install()
    tab.goto("/")
    tab.get_by_role("button", name="Update", exact=True).click()
    tab.get_by_role("button", name="Stop", exact=True).click()
    expect(tab.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    assert sent == ["POST", "DELETE"]
    indexing.update(state="failed", message="the disk is full")
    tab.clock.run_for(NEXT_STATE)
    expect(tab.locator("#library")).to_contain_text("The update failed: the disk is full")
    expect(tab.get_by_role("button", name="Update", exact=True)).to_be_visible()
