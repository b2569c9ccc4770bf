"""Steps and checks on the page. Expected results come from the API."""

from __future__ import annotations

import json
import re
import urllib.request
from functools import cache
from urllib.parse import parse_qs, urlencode, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

QUERY = "a red ball"
IN_FIRST_ROW = """() => { const films = [...document.querySelectorAll(".film")];
    const tops = films.map(film => film.getBoundingClientRect().top);
    return tops.filter(top => top === tops[0]).length }"""


def get_json(served: str, path: str, **parameters) -> dict:
    with urllib.request.urlopen(f"{served}{path}?{urlencode(parameters, doseq=True)}") as response:
        return json.load(response)


@cache
def views(served: str) -> list[dict]:
    return get_json(served, "/api/state")["views"]


def found(served: str, *, view: int = 0, q: str | list[str] = QUERY, **parameters) -> list[dict]:
    return get_json(served, f"/api/views/{views(served)[view]['id']}/search", q=q, k=20, **parameters)["results"]


def search(page: Page, text: str = QUERY) -> None:
    page.get_by_label("What happens in the video").fill(text)
    page.keyboard.press("Enter")


def names(page: Page, scope: str = "") -> list[str]:
    return page.locator(f"{scope} .card .name").all_text_contents()


def expect_names(page: Page, results: list[dict], scope: str = "") -> None:
    expect(page.locator(f"{scope} .card .name")).to_have_text([result["name"] for result in results])


def film(page: Page, number: int) -> Locator:
    return page.locator(".film").nth(number)


def wait_moving(page: Page, number: int) -> None:
    page.wait_for_function(
        """number => { const video = document.querySelectorAll(".film")[number].querySelector(".moving");
        return video && !video.paused && video.currentTime > 0 && video.parentNode.classList.contains("playing") }""",
        arg=number,
    )


def query_of(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def change_responses(page: Page, pattern: str, change) -> None:
    """Replace the JSON of responses whose URL matches `pattern` by `change(json, url)`."""

    def handle(route):
        response = route.fetch()
        route.fulfill(response=response, json=change(response.json(), route.request.url))

    page.route(re.compile(pattern), handle)


def expect_no_violations(page: Page) -> None:
    """Check the accessibility of the page as it is (https://github.com/dequelabs/axe-core)."""
    page.wait_for_function("() => document.getAnimations().every(each => each.playState !== 'running')")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
