"""The page by keyboard alone: the focus stays near what was changed, and keys do what a pointer does."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from server.page_steps import QUERY, change_responses, expect_names, film, found, names

pytestmark = pytest.mark.xdist_group("browser")


def test_the_list_of_formats_opens_and_saves_only_what_is_chosen(tab, served):
    downloads = []
    tab.on("download", lambda download: downloads.append(download.suggested_filename))
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    tab.locator("#save-list").focus()
    tab.keyboard.press("ArrowDown")
    tab.wait_for_timeout(300)
    assert downloads == []
    with tab.expect_download() as download_info:
        for key in ("ArrowDown", "ArrowDown", "Enter"):
            tab.keyboard.press(key)
            tab.wait_for_timeout(100)
    assert download_info.value.suggested_filename.endswith(".otio")


def test_removing_a_filter_or_a_tag_moves_the_focus_to_the_next(tab, served):
    tab.goto(f"/?q={QUERY}&min_seconds=1&max_seconds=1000")
    remove = tab.get_by_role("button", name="Remove filter:")
    for left in (1, 0):
        remove.first.press("Enter")
        expect(remove).to_have_count(left)
        expect(remove if left else tab.get_by_role("button", name="Filters")).to_be_focused()
    film(tab, 0).click()
    field = tab.get_by_label("Add a tag")
    field.fill("one, two")
    field.press("Enter")
    tags = tab.get_by_role("button", name="Remove tag:")
    expect(tags).to_have_count(2)
    for left in (1, 0):
        tags.first.press("Enter")
        expect(tags).to_have_count(left)
        expect(tags if left else field).to_be_focused()


def test_after_results_were_replaced_the_keys_go_on(tab, served):
    field = tab.get_by_label("What happens in the video")
    for address, button in (("/", ".folders button"), (f"/?q={QUERY}", ".card .like"), ("/", ".examples button")):
        tab.goto(address)
        tab.locator(button).first.press("Enter")
        expect(field).to_be_focused()
    tab.goto(f"/?q={QUERY}")
    expect_names(tab, found(served))
    tab.locator(".card .like").first.click()  # on a phone, the focus would open a keyboard
    expect(tab.locator("#subject")).to_be_visible()
    tab.wait_for_timeout(300)
    expect(field).not_to_be_focused()


def test_show_more_goes_on_at_the_first_new_moment(tab, served):
    result = found(served)[0]

    def many(response: dict, url: str) -> dict:
        k = int(url.partition("&k=")[2])
        results = [{**result, "segment": f"s{n}", "video": f"v{n}", "name": f"{n}.mp4"} for n in range(k)]
        return {**response, "results": results}

    change_responses(tab, r"/search\?", many)
    tab.goto(f"/?q={QUERY}")
    for number in (20, 60):
        tab.get_by_role("button", name="Show more").press("Enter")
        expect(film(tab, number)).to_be_focused()
    assert len(names(tab)) == 200


def test_the_player_keeps_the_focus_on_its_keys(tab, served):
    tab.goto(f"/?q={QUERY}")
    film(tab, 0).press("Enter")
    following = tab.get_by_role("button", name="Next")
    for number in (1, 2):
        following.press("Enter")
        expect(tab.locator("#player-name")).to_have_text(found(served)[number]["name"])
        expect(following).to_be_focused()
    bar = tab.get_by_label("Seek in the whole video")
    video = tab.locator("#player video")
    video.evaluate("video => video.pause()")
    video.evaluate("video => video.dispatchEvent(new Event('timeupdate'))")
    start, end = float(bar.input_value()), float(bar.get_attribute("max"))
    tab.evaluate(
        """() => { for (let n = 0; n < 3; n++) document.querySelector(".seek").dispatchEvent(
            new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true, cancelable: true })) }"""
    )
    assert float(bar.input_value()) == pytest.approx(min(start + 15, end), abs=0.2)
    bar.press("M")  # Caps Lock
    assert video.evaluate("video => video.muted")
