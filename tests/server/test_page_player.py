"""Playing moments: in place of a strip, and in the player."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from server.page_steps import QUERY, change_responses, film, found, get_json, views, wait_moving

pytestmark = pytest.mark.xdist_group("browser")


def test_hover_plays_the_moment_muted_and_in_a_loop(tab, served):
    long = next(result for result in found(served) if result["duration_seconds"] > 20)
    inside = {"start_seconds": 4.0, "end_seconds": 6.0, "media_start_seconds": 4.0}
    change_responses(
        tab, r"/search\?", lambda response, _: {**response, "results": [response["results"][0], {**long, **inside}]}
    )
    tab.goto(f"/?q={QUERY}")
    film(tab, 1).hover()
    wait_moving(tab, 1)
    playing = moving(tab)
    assert playing["muted"]
    assert playing["place"] == 1
    assert 4 <= playing["seconds"] <= 5.5
    tab.evaluate("() => { document.querySelector('.moving').currentTime = 5.7 }")
    tab.wait_for_function("() => document.querySelector('.moving').currentTime < 4.5", timeout=3000)
    tab.wait_for_function("() => document.querySelector('.moving').currentTime > 4.1")
    assert moving(tab)["seconds"] < 6.4
    tab.mouse.move(640, 5)
    expect(tab.locator(".moving")).to_have_count(0)


def moving(page: Page) -> dict | None:
    """Return what plays in place of a strip."""
    return page.evaluate(
        """() => { const video = document.querySelector(".playing .moving");
        const films = [...document.querySelectorAll(".film")];
        return video && {seconds: video.currentTime, muted: video.muted, place: films.indexOf(video.parentNode)} }"""
    )


def test_click_plays_from_the_start_and_seeks_anywhere(tab, served):
    results = found(served)
    late = next(n for n, result in enumerate(results) if result["media_start_seconds"] > 0)
    tab.goto(f"/?q={QUERY}")
    responses = []
    tab.on(
        "response",
        lambda response: (
            responses.append(response) if results[late]["media_url"] == urlsplit(response.url).path else None
        ),
    )
    film(tab, late).click()
    expect(tab.locator("#player-name")).to_have_text(results[late]["name"])
    player = tab.locator("#player video")
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    playing = player.evaluate("({currentTime, muted, paused}) => ({currentTime, muted, paused})")
    assert results[late]["start_seconds"] <= playing["currentTime"] < results[late]["start_seconds"] + 2
    assert not playing["muted"]
    assert not playing["paused"]
    tab.get_by_label("Seek in the whole video").fill("0.5")
    sought = "({seeking, currentTime}) => !seeking && currentTime < 2"
    tab.wait_for_function(f"() => ({sought})(document.querySelector('#player video'))")
    assert {response.status for response in responses} == {206}
    assert all("range" in response.request.headers for response in responses)
    tab.get_by_role("button", name="Close").click()
    expect(tab.locator("#player")).to_be_hidden()
    expect(tab.locator("#player video[src]")).to_have_count(0)


def test_the_player_has_one_bar_and_keys(tab, served):
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    player = tab.locator("#player video")
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    assert tab.locator("#player input[type=range]").count() == 1
    assert not player.evaluate("video => video.controls")
    tab.keyboard.press("Space")  # the focus is on the button
    expect(tab.get_by_role("button", name="Play", exact=True)).to_be_focused()
    assert player.evaluate("video => video.paused")
    tab.keyboard.press("m")
    expect(tab.get_by_role("button", name="Unmute")).to_be_visible()
    assert player.evaluate("video => video.muted")
    here = float(tab.get_by_label("Seek in the whole video").input_value())
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    end = found(served)[0]["duration_seconds"]
    after = float(tab.get_by_label("Seek in the whole video").input_value())
    assert min(here + 5, end) - 0.2 <= after <= min(here + 7, end)
    player.click()
    assert player.evaluate("video => video.paused")


def test_an_unplayable_file_is_played_in_clips(tab, served):
    results = found(served)
    number = next(n for n, result in enumerate(results) if "/moment.mp4" in result["media_url"])
    tab.goto(f"/?q={QUERY}")
    film(tab, number).hover()
    wait_moving(tab, number)
    film(tab, number).click()
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    elsewhere = 1 if results[number]["start_seconds"] > 4 else 9
    with tab.expect_response(
        lambda response: f"/moment.mp4?start_seconds={elsewhere}&" in response.url
    ) as response_info:
        tab.get_by_label("Seek in the whole video").fill(str(elsewhere))
    assert response_info.value.ok
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    assert elsewhere <= float(tab.get_by_label("Seek in the whole video").input_value()) < elsewhere + 2


def test_the_player_shows_the_next_moment(tab, served):
    results = found(served)
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    expect(tab.get_by_role("button", name="Previous")).to_be_disabled()
    tab.get_by_role("button", name="Next").click()
    expect(tab.locator("#player-name")).to_have_text(results[1]["name"])
    column, value = next(iter(results[1]["columns"].items()))
    expect(tab.locator("#player dl")).to_contain_text(f"{column}{value}")
    tab.locator("#player").get_by_role("button", name="More like this").click()
    expect(tab.locator("#player")).to_be_hidden()
    expect(tab.locator("#subject")).to_have_text(f"like {results[1]['name']}")


def test_the_player_shows_more_moments_of_the_video(tab, served):
    """As tiles below it, and as marks on its bar, for sentences and for a moment."""
    view = views(served)[0]["id"]
    results = found(served)
    number, moments = next(
        (number, moments)
        for number, result in enumerate(results)
        if len(moments := moments_of(served, view, result["video"], q=QUERY)) > 1
    )
    tab.goto(f"/?q={QUERY}")
    film(tab, number).click()
    tiles = tab.locator("#player .tiles li")
    expect(tiles).to_have_count(len(moments))
    assert tab.locator("#player .tick").count() == len(moments)
    other = next(place for place, moment in enumerate(moments) if moment["segment"] != results[number]["segment"])
    tiles.nth(other).get_by_role("button").click()
    expect(tiles.nth(other)).to_have_attribute("aria-current", "true")
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    at = float(tab.get_by_label("Seek in the whole video").input_value())
    assert moments[other]["start_seconds"] <= at < moments[other]["start_seconds"] + 3


def moments_of(served: str, view: str, video: str, **query) -> list[dict]:
    results = get_json(served, f"/api/views/{view}/videos/{video}/moments", **query)["results"]
    return sorted(results, key=lambda moment: moment["start_seconds"])


def test_an_error_is_not_shown_for_the_next_moment(tab, served):
    results = found(served)
    held = []

    def fail(route):
        asks_for_reason = route.request.headers.get("range") == "bytes=0-0"
        return held.append(route) if asks_for_reason else route.fulfill(status=404, json={"detail": "deleted"})

    tab.route(re.compile(f"/videos/{results[0]['video']}"), fail)
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#player")).to_be_visible()
    while not held:
        tab.wait_for_timeout(20)
    tab.get_by_role("button", name="Next").click()
    tab.wait_for_function("() => document.querySelector('#player video').currentTime > 0")
    with tab.expect_response(lambda response: response.status == 404):
        held[0].fulfill(status=404, json={"detail": "the first was deleted"})
    tab.wait_for_timeout(300)
    assert tab.locator("#player").get_by_role("alert").count() == 0  # once: playing on would hide it
    tab.problems.clear()


def test_the_player_shows_the_servers_error(tab):
    tab.route(re.compile("/videos/"), lambda route: route.fulfill(status=404, json={"detail": "the file was deleted"}))
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    expect(tab.locator("#player").get_by_role("alert")).to_have_text("the file was deleted")
    assert tab.problems
    assert all("404" in problem for problem in tab.problems)
    tab.problems.clear()


def test_a_path_is_copied_where_the_browser_refuses_the_clipboard(tab):
    tab.add_init_script(
        "navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    tab.get_by_role("button", name="Copy path").click()
    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
