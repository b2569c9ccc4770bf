"""Searches on the page: by sentences, and by a moment."""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from server.page_steps import QUERY, change_responses, expect_names, found, get_json, names, query_of, search, views

pytestmark = pytest.mark.xdist_group("browser")


def test_results_are_shown_in_order(tab, served):
    tab.goto("/")
    expect(tab.get_by_text("Describe what happens in a video.")).to_be_visible()
    search(tab)
    results = found(served)
    assert len(results) > 5
    expect_names(tab, results)
    for number, result in enumerate(results):
        title = f"similarity {result['score']:.3f}, confidence {100 * result['confidence']:.0f} %"
        expect(tab.locator(".film").nth(number)).to_have_attribute("title", title)
    expect(tab.get_by_role("status")).to_have_text(re.compile(rf"^{len(results)} moments in \d+ ms$"))
    expect(tab.get_by_text("Describe what happens in a video.")).to_be_hidden()
    first = results[0]
    assert (
        tab.locator(".card").first.locator(".time").text_content()
        == f"{clock(first['start_seconds'])}–{clock(first['end_seconds'])}"
    )
    date = datetime.fromisoformat(first["date"])
    expect(tab.locator(".card").first.locator(".date")).to_have_text(f"{date:%b} {date.day}, {date.year}")
    tab.wait_for_function("() => document.querySelector('.film img').naturalWidth > 100")


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def test_the_url_holds_the_query(tab, served):
    tab.goto("/")
    search(tab, "a red ball")
    expect_names(tab, found(served, q="a red ball"))
    assert query_of(tab) == {"q": ["a red ball"]}
    assert tab.title() == "a red ball · vop"
    search(tab, "a green square")
    expect_names(tab, found(served, q="a green square"))
    tab.go_back()
    expect_names(tab, found(served, q="a red ball"))
    expect(tab.get_by_label("What happens in the video")).to_have_value("a red ball")
    tab.go_forward()
    tab.reload()
    expect_names(tab, found(served, q="a green square"))
    expect(tab.get_by_label("What happens in the video")).to_have_value("a green square")


def test_markup_in_a_name_is_text(tab, served):
    name = next(result["name"] for result in found(served) if "<img" in result["name"])
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator(".card .name", has_text=name)).to_be_visible()
    tab.locator(".card", has_text=name).locator(".film").click()
    expect(tab.locator("#player-name")).to_have_text(name)
    assert tab.locator("main img[src=x], dialog img, main script").count() == 0


def test_sentences_have_weights(tab, served):
    tab.goto("/")
    search(tab, "a ball")
    expect(tab.get_by_label("Weight of sentence 1")).to_be_hidden()
    tab.get_by_role("button", name="Add a sentence").click()
    tab.keyboard.type("rolls to the right")
    tab.get_by_label("Weight of sentence 2").fill("-0.5")
    tab.keyboard.press("Enter")
    expected = found(served, q=["a ball", "rolls to the right"], w=[1, -0.5])
    expect_names(tab, expected)
    assert query_of(tab) == {"q": ["a ball", "rolls to the right"], "w": ["1", "-0.5"]}
    tab.reload()
    expect_names(tab, expected)
    expect(tab.get_by_label("Weight of sentence 2")).to_have_value("-0.5")
    tab.get_by_role("button", name="Remove sentence 2").click()
    expect_names(tab, found(served, q="a ball"))
    assert query_of(tab) == {"q": ["a ball"]}


def test_weights_in_the_url_are_limited_and_shown(tab):
    with tab.expect_response(lambda response: "/search?" in response.url) as response_info:
        tab.goto("/?q=a+ball&q=rolls+to+the+right&w=7&w=-0.4567")
    assert parse_qs(urlsplit(response_info.value.url).query)["w"] == ["2", "-0.5"]
    expect(tab.get_by_label("Weight of sentence 1")).to_have_value("2")
    expect(tab.get_by_label("Weight of sentence 2")).to_have_value("-0.5")


def test_the_weight_of_one_sentence_beside_a_moment_counts(tab, served):
    segment, view = found(served)[0]["segment"], views(served)[0]["id"]
    tab.goto(f"/?like={segment}&q=a+ball&w=-1")
    path = f"/api/views/{view}/like/{segment}"
    expected = get_json(served, path, q="a ball", w=-1)["results"]
    assert expected != get_json(served, path, q="a ball")["results"]
    expect_names(tab, expected)
    expect(tab.get_by_label("Weight of sentence 1")).to_have_value("-1")
    with tab.expect_response(lambda response: "/like/" in response.url) as response_info:
        tab.get_by_role("button", name="Search", exact=True).click()
    assert parse_qs(urlsplit(response_info.value.url).query)["w"] == query_of(tab)["w"] == ["-1"]


def test_more_like_this_shows_similar_moments(tab, served):
    first = found(served)[0]
    tab.goto(f"/?q={QUERY}")
    tab.locator(".card", has_text=first["name"]).get_by_role("button", name="More like this").click()
    view = views(served)[0]["id"]
    expected = get_json(served, f"/api/views/{view}/like/{first['segment']}", k=20)["results"]
    expect_names(tab, expected)
    assert first["name"] not in names(tab)
    expect(tab.locator("#subject")).to_have_text(f"like {first['name']}")
    tab.reload()
    expect_names(tab, expected)
    tab.wait_for_function("() => document.querySelector('#subject img').naturalWidth > 100")
    search(tab, "a green square")  # is combined with the moment
    path = f"/api/views/{view}/like/{first['segment']}"
    expect_names(tab, get_json(served, path, k=20, q="a green square")["results"])
    tab.get_by_role("button", name=f"Remove like {first['name']}").click()
    expect_names(tab, found(served, q="a green square"))
    expect(tab.locator("#subject")).to_be_hidden()


def test_more_moments_are_added_below(tab):
    def many(response: dict, url: str) -> dict:
        first, k = response["results"][0], int(parse_qs(urlsplit(url).query)["k"][0])
        copies = [{**first, "segment": f"s{n}", "video": f"v{n}", "name": f"{n}.mp4"} for n in range(min(k, 30))]
        return {**response, "results": copies}

    change_responses(tab, r"/search\?", many)
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator(".card")).to_have_count(20)
    tab.evaluate("document.querySelector('.card').kept = true")
    tab.get_by_role("button", name="Show more").click()
    expect(tab.locator(".card")).to_have_count(30)
    assert names(tab) == [f"{n}.mp4" for n in range(30)]
    assert tab.evaluate("document.querySelector('.card').kept")
    expect(tab.get_by_role("button", name="Show more")).to_be_hidden()
    assert query_of(tab)["k"] == ["60"]


def test_notes_are_shown(tab):
    note = "only the first 77 tokens of <b>a very long sentence</b> were read"
    change_responses(tab, r"/search\?", lambda response, _: {**response, "notes": [note]})
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator("#notes li")).to_have_text([note])


def test_weaker_matches_stand_below_a_divider(tab):
    weak_from = [2]

    def judged(response: dict, _) -> dict:
        results = [
            {**result, "confidence": 0.96 if place < weak_from[0] else 0.4, "is_weak": place >= weak_from[0]}
            for place, result in enumerate(response["results"])
        ]
        return {**response, "results": results}

    change_responses(tab, r"/search\?", judged)
    tab.goto(f"/?q={QUERY}")
    expect(tab.locator(".results > li:nth-child(3)")).to_have_text("Weaker matches")
    expect(tab.locator(".film").first).to_have_attribute("title", re.compile(", confidence 96 %$"))
    first, divider, third = (tab.locator(f".results > li:nth-child({n})").bounding_box() for n in (1, 3, 4))
    assert first["y"] + first["height"] <= divider["y"]
    assert divider["y"] + divider["height"] <= third["y"]
    tab.evaluate("document.querySelector('.card').kept = true")
    weak_from[0] = 0
    search(tab, "a walrus waters a cactus")
    expect(tab.locator(".results > li:nth-child(1)")).to_have_text("Nothing matches well. Weaker matches:")
    weak_from[0] = 100
    search(tab, QUERY)
    expect(tab.locator(".card").first).to_be_visible()
    expect(tab.locator(".divider")).to_have_count(0)
    assert tab.evaluate("[...document.querySelectorAll('.card')].some(card => card.kept)")
