"""Searches on the page with a file of the user."""

from __future__ import annotations

import base64
import io
import os
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from clips import grey_frames, write_clip
from server.page_steps import change_responses, expect_names

pytestmark = pytest.mark.xdist_group("browser")


def test_a_dropped_picture_starts_a_search(tab):
    tab.goto("/")
    data = tab.evaluate_handle(
        """bytes => { const data = new DataTransfer(); const raw = Uint8Array.from(atob(bytes), c => c.charCodeAt(0));
        data.items.add(new File([raw], "red.png", {type: "image/png"})); return data }""",
        base64.b64encode(picture()).decode(),
    )
    tab.dispatch_event("main", "dragenter", {"dataTransfer": data})
    expect(tab.get_by_text("Drop a video or a picture here to search with it")).to_be_visible()
    with tab.expect_response(lambda response: "/search/file" in response.url) as response_info:
        untouched = tab.evaluate(
            """data => ["dragover", "drop"].map(kind => document.body.dispatchEvent(
            new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})))""",
            data,
        )
    assert untouched == [False, False]  # otherwise the browser would open the file
    expect(tab.get_by_text("Drop a video or a picture here to search with it")).to_be_hidden()
    assert response_info.value.request.method == "POST"
    expect_names(tab, response_info.value.json()["results"])
    expect(tab.locator("#subject")).to_have_text("red.png")
    tab.wait_for_function("() => document.querySelector('#subject img').naturalWidth === 80")
    tab.get_by_role("button", name="Remove red.png").click()
    expect(tab.get_by_text("Describe what happens in a video.")).to_be_visible()
    tab.go_back()
    expect(tab.locator("#subject")).to_have_text("red.png")
    expect(tab.locator(".card").first).to_be_visible()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (80, 60), (200, 40, 40)).save(out, "PNG")
    return out.getvalue()


def test_a_chosen_video_is_shown_on_the_chip(tab, tmp_path):
    path = write_clip(tmp_path / "mine.mp4", grey_frames(12))
    tab.goto("/")
    tab.set_input_files("#file", path)
    expect(tab.locator(".card").first).to_be_visible()
    tab.wait_for_function("() => document.querySelector('#subject video').videoWidth === 64")
    with tab.expect_response(lambda response: "/search/file" in response.url) as response_info:
        tab.reload()  # the browser has kept the file
    expect_names(tab, response_info.value.json()["results"])
    tab.wait_for_function("() => document.querySelector('#subject video').videoWidth === 64")


def test_a_file_that_the_browser_does_not_have_is_asked_for(tab):
    tab.goto("/?file=theirs.mp4")
    expect(tab.get_by_role("status")).to_have_text(
        "theirs.mp4 is not in this browser. Drop the file here to search with it."
    )


def test_a_changed_file_is_not_a_server_error(tab, tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(picture())
    tab.goto("/")
    tab.set_input_files("#file", path)
    expect(tab.locator(".card").first).to_be_visible()
    path.write_bytes(picture() * 2)
    os.utime(path, (1, 1))  # Chromium compares whole seconds
    tab.get_by_role("button", name="Search", exact=True).click()
    expect(tab.get_by_role("alert")).to_contain_text("red.png cannot be read.")
    tab.route(re.compile("/search/file"), lambda route: route.abort())
    tab.set_input_files("#file", path)
    expect(tab.get_by_role("alert")).to_contain_text("The server is not responding.")
    tab.problems.clear()


def test_a_file_that_is_too_large_is_not_sent(tab):
    change_responses(
        tab, r"/api/state", lambda state, _: {**state, "limits": {"upload_bytes": 1_000_000, "max_k": 200}}
    )
    sent = []
    tab.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    tab.goto("/")
    tab.set_input_files("#file", {"name": "big.mp4", "mimeType": "video/mp4", "buffer": bytes(2_000_000)})
    expect(tab.get_by_role("status")).to_have_text("big.mp4 has 2 MB. The maximum is 1 MB.")
    assert sent == []


def test_a_file_that_is_not_a_video_is_refused(tab):
    tab.goto("/")
    with tab.expect_response(lambda response: "/search/file" in response.url) as response_info:
        tab.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no video"})
    expect(tab.get_by_role("alert")).to_contain_text(response_info.value.json()["detail"])
    assert tab.problems.pop().startswith("Failed to load resource")
