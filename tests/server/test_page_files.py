"""The files of the page."""

from __future__ import annotations

import re

import pytest

from vop.server.app import PAGE


def test_the_page_has_no_inline_code_and_no_other_hosts():
    files = sorted(PAGE.iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js", ".svg"}
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), file
        if file.suffix == ".html":
            assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*src=)", text), file


def test_the_page_is_served(client):
    response = client.get("/")
    assert response.status_code == 200
    assert "text/html" in response.headers["content-type"]
    assert client.get("/page/index.html").content == response.content


@pytest.mark.parametrize("path", ["/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page//etc/passwd"])
def test_paths_outside_the_page_get_404(client, path):
    assert (PAGE / "../app.py").exists()
    assert client.get(path).status_code == 404
