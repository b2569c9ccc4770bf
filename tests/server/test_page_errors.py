"""The page with a server that is busy, refuses, has stopped, or responds late."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from playwright.sync_api import Error, expect

from server.page_steps import QUERY, expect_names, found, get_json, names, search, views

pytestmark = pytest.mark.xdist_group("browser")


def test_requests_to_a_busy_server_are_retried(tab, served):
    tries = []

    def busy(route):
        tries.append(route)
        if len(tries) > 2:
            return route.continue_()
        wait = {"Retry-After": str(2 - len(tries))}
        return route.fulfill(status=503, headers=wait, json={"detail": "too many searches at once"})

    tab.route(re.compile(r"/search\?"), busy)
    tab.goto(f"/?q={QUERY}")
    expect(tab.get_by_text("The server is busy. Trying again in 1 s …")).to_be_visible()
    expect_names(tab, found(served))
    expect(tab.get_by_text("The server is busy")).to_be_hidden()
    assert len(tries) == 3
    assert len(tab.problems) == 2
    assert all("503" in problem for problem in tab.problems)
    tab.problems.clear()


def test_errors_are_shown_with_a_retry_button(tab, served):
    tab.route(
        re.compile(r"/search\?"), lambda route: route.fulfill(status=422, json={"detail": "the <b>query</b> is odd"})
    )
    tab.goto(f"/?q={QUERY}")
    expect(tab.get_by_role("alert")).to_contain_text("the <b>query</b> is odd")
    tab.unroute_all()
    tab.route(re.compile(r"/search\?"), lambda route: route.abort())
    tab.get_by_role("button", name="Try again").click()
    expect(tab.get_by_role("alert")).to_contain_text("The server is not responding. Is vop serve still running?")
    tab.unroute_all()
    tab.get_by_role("button", name="Try again").click()
    expect_names(tab, found(served))
    assert len(tab.problems) == 2
    tab.problems.clear()


def test_videos_that_cannot_be_listed_are_asked_for_once(tab, served):
    library = views(served)[0]["library"]
    videos, asked = get_json(served, f"/api/libraries/{library}/videos")["results"], []

    def refuse(route):
        asked.append(route)
        route.abort()

    def serve(route):
        skip = int(route.request.url.partition("skip=")[2].partition("&")[0])
        route.fulfill(json={"results": [{**videos[0], "name": f"{skip}.mp4"}] * 100, "total": 10_000})

    tab.route(re.compile(r"/videos\?"), refuse)
    tab.goto("/")
    message = tab.get_by_role("alert")
    expect(message).to_contain_text("The server is not responding")
    expect(tab.get_by_role("status")).to_have_text("")
    tab.unroute_all()
    tab.route(re.compile(r"/videos\?"), serve)
    tab.get_by_role("button", name="Try again").click()
    expect(tab.get_by_role("status")).to_have_text("10,000 videos")
    tab.unroute_all()
    tab.route(re.compile(r"/videos\?"), refuse)
    asked.clear()
    tab.evaluate("() => scrollTo(0, document.documentElement.scrollHeight / 2)")
    expect(message).to_be_in_viewport()
    tab.wait_for_timeout(500)
    assert 1 <= len(asked) <= 2  # the rows of the window may lie on two pages
    tab.unroute_all()
    tab.route(re.compile(r"/videos\?"), serve)
    tab.get_by_role("button", name="Try again").click()
    expect(tab.locator(".card .name").first).not_to_have_text("0.mp4")
    expect(message).to_be_hidden()
    assert all("ERR_FAILED" in problem for problem in tab.problems)
    tab.problems.clear()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda route: route.abort(), "The server is not responding. Is vop serve still running?"),
        (lambda route: route.fulfill(body='{"views": ['), "The server's response was incomplete."),
    ],
)
def test_a_stopped_server_is_reported_until_it_is_back(tab, served, broken, message):
    tab.clock.install()
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    size = tab.locator("#library").inner_text()
    tab.route(re.compile("/api/state"), broken)
    tab.clock.run_for(16_000)
    expect(tab.locator("#library")).to_contain_text(message)
    expect(tab.locator("#library")).not_to_contain_text("videos", use_inner_text=True)
    tab.unroute_all()
    tab.clock.run_for(3_000)
    expect(tab.locator("#library")).to_have_text(size, use_inner_text=True)
    expect_names(tab, found(served))
    tab.problems.clear()


def test_a_late_response_is_ignored(tab, served):
    held = []
    tab.route(re.compile(r"/search\?q=slow"), lambda route: held.append(route))
    tab.goto("/")
    search(tab, "slow")
    for _ in range(200):  # the page may not have sent its request yet
        if held:
            break
        tab.wait_for_timeout(20)
    search(tab, "a green square")
    expect_names(tab, found(served, q="a green square"))
    with suppress(Error):  # the page has cancelled it
        held[0].fulfill(json={"results": [], "seconds": 0.1, "notes": []})
    tab.wait_for_timeout(100)
    assert names(tab) == [result["name"] for result in found(served, q="a green square")]
