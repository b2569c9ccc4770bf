"""All videos by date on the page, with folders, favourites, tags, clips and lists to keep."""

from __future__ import annotations

import csv
import io
import json
import re
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import url2pathname, urlopen

import av
import pytest
from playwright.sync_api import expect

from server.page_steps import (
    QUERY,
    change_responses,
    expect_names,
    expect_no_violations,
    film,
    found,
    get_json,
    names,
    query_of,
    views,
)

pytestmark = pytest.mark.xdist_group("browser")


def videos(served: str, **parameters) -> list[dict]:
    return get_json(served, f"/api/libraries/{views(served)[0]['library']}/videos", **parameters)["results"]


def test_without_a_query_all_videos_are_shown_by_date(tab, served):
    newest = videos(served)
    assert len(newest) > 5
    tab.goto("/")
    expect_names(tab, newest)
    expect(tab.get_by_role("status")).to_have_text(f"{len(newest)} videos")
    tab.get_by_label("Order").select_option("oldest")
    expect_names(tab, videos(served, order="oldest"))
    assert query_of(tab) == {"order": ["oldest"]}
    folder = tab.get_by_role("navigation", name="Folders").get_by_role("button").first
    place = folder.get_attribute("title")
    folder.click()
    expect_names(tab, videos(served, order="oldest", folder=place))
    assert query_of(tab)["folder"] == [place]
    expect(tab.get_by_role("group", name="Examples")).to_be_hidden()
    film(tab, 0).click()
    expect(tab.locator("#player-name")).to_have_text(videos(served, order="oldest", folder=place)[0]["name"])


def test_200_000_videos_need_few_cards(tab, served):
    first = videos(served)[0]

    def many(response: dict, url: str) -> dict:
        skip = int(url.partition("skip=")[2].partition("&")[0])
        results = [{**first, "segment": f"s{n}", "video": f"v{n}", "name": f"{n}.mp4"} for n in range(skip, skip + 100)]
        return {**response, "results": results, "total": 200_000}

    change_responses(tab, r"/videos\?", many)
    tab.goto("/?folder=videos")
    expect(tab.get_by_role("status")).to_have_text("200,000 videos")
    expect(tab.locator(".card .name").first).to_have_text("0.mp4")
    for share in (0.5, 1):
        tab.evaluate("share => scrollTo(0, share * document.documentElement.scrollHeight)", share)
        tab.wait_for_function(
            """share => { const names = [...document.querySelectorAll(".card .name")];
            const numbers = names.map(name => parseInt(name.textContent));
            return numbers.length > 4 && Math.max(...numbers) > share * 200000 - 50 }""",
            arg=share,
        )
        assert tab.locator(".card").count() < 100
    assert max(int(name.removesuffix(".mp4")) for name in names(tab)) == 199_999


def test_favourites_and_tags_are_kept(tab, served):
    result = found(served)[0]
    marks = f"/api/libraries/{views(served)[0]['library']}/marks/{result['segment']}"
    times = {name: result[name] for name in ("start_seconds", "end_seconds")}
    tab.goto(f"/?q={QUERY}")
    card = tab.locator(".card").first
    card.get_by_role("button", name="Add to favourites").click()
    expect(card.get_by_role("button", name="Remove from favourites")).to_be_visible()
    film(tab, 0).click()
    tab.get_by_label("Add a tag").fill("beach day")
    tab.keyboard.press("Enter")
    tag = tab.get_by_role("button", name="Remove tag: beach day")
    expect(tag).to_be_visible()
    state = get_json(served, marks, **times)
    assert (state["tags"], state["is_favourite"]) == (["beach day"], True)
    tab.goto(f"/?q={QUERY}&favourites=true&tag={quote('beach day')}")
    expect_names(tab, [result])
    film(tab, 0).click()
    tag.click()
    expect(tag).to_have_count(0)
    tab.keyboard.press("Escape")
    card.get_by_role("button", name="Remove from favourites").click()
    expect(card.get_by_role("button", name="Add to favourites")).to_be_visible()
    assert get_json(served, marks, **times)["tags"] == []


def test_a_tag_with_a_comma_is_suggested_and_found(tab, served):
    result = found(served)[0]
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    field = tab.get_by_label("Add a tag")
    field.fill('"Paris, France"')
    field.press("Enter")
    remove = tab.get_by_role("button", name="Remove tag: Paris, France")
    expect(remove).to_be_visible()
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="Filters").click()
    tab.get_by_label("Tag", exact=True).focus()
    suggestions = tab.locator("#own-tags option")
    expect(suggestions).to_have_count(1)
    tab.get_by_label("Tag", exact=True).fill(suggestions.get_attribute("value"))
    tab.keyboard.press("Enter")
    expect_names(tab, [result])
    assert query_of(tab)["tag"] == ["Paris, France"]
    tab.reload()
    expect_names(tab, [result])
    film(tab, 0).click()
    remove.click()
    expect(remove).to_have_count(0)


def test_a_tag_that_is_refused_stays_in_its_field(tab, served):
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    field = tab.get_by_label("Add a tag")
    field.fill("a;b, c")
    field.press("Enter")
    expect(tab.locator("#player .own-tags").get_by_role("alert")).to_contain_text("'a;b' cannot be a tag")
    expect(field).to_have_value("a;b, c")
    assert len(tab.problems) == 1
    tab.problems.clear()


def test_clips_and_lists_are_downloads(tab, served):
    results = found(served)
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, results)
    with tab.expect_download() as download_info:
        tab.locator("#save-list").select_option("csv")
    text = download_info.value.path().read_text(encoding="utf-8-sig")
    assert download_info.value.suggested_filename.endswith(".csv")
    assert [row["path"] for row in csv.DictReader(io.StringIO(text))] == [result["path"] for result in results]
    with tab.expect_download() as download_info:
        tab.locator("#save-list").select_option("otio")
    assert json.loads(download_info.value.path().read_text(encoding="utf-8"))["OTIO_SCHEMA"].startswith("Timeline")
    film(tab, 0).click()
    with tab.expect_download() as download_info:
        tab.get_by_role("link", name="Save clip").click()
    assert download_info.value.path().stat().st_size > 1000
    with tab.expect_download() as download_info:
        tab.get_by_role("link", name="Open in player").click()
    *_, start, address = download_info.value.path().read_text(encoding="utf-8").splitlines()
    assert download_info.value.suggested_filename.endswith(".m3u")
    assert start == f"#EXTVLCOPT:start-time={results[0]['start_seconds']:.3f}"
    assert url2pathname(urlsplit(address).path) == results[0]["path"]


def test_the_page_says_how_early_a_copied_clip_begins(tab, served):
    moment = next(result for result in found(served) if "/moment.mp4" not in result["media_url"])
    times = {"start_seconds": 3.3, "end_seconds": 4.3}
    change_responses(tab, r"/search\?", lambda response, _: {**response, "results": [{**moment, **times}]})
    with urlopen(f"{served}{moment['media_url']}/clip?{urlencode(times)}") as response:
        lead = float(response.headers["Vop-Lead-Seconds"])
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).click()
    note = tab.locator("#player .clip-note")
    with tab.expect_download():
        tab.get_by_role("link", name="Save clip").click()
    expect(note).to_contain_text(f"begins {lead:.1f} s before the moment")
    expect_no_violations(tab)
    with tab.expect_download() as download_info:
        note.get_by_role("link", name="Cut exactly").click()
    expect(note).to_be_empty()
    with av.open(str(download_info.value.path())) as container:
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.05)
    tab.route(re.compile("/clip"), lambda route: route.fulfill(status=404, json={"detail": "the file was deleted"}))
    tab.get_by_role("link", name="Save clip").click()
    expect(note).to_have_text("the file was deleted")
    assert all("404" in problem for problem in tab.problems)
    tab.problems.clear()
