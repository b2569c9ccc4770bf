"""The URLs that `vop serve` prints, and their QR code."""

from __future__ import annotations

import numpy as np
import pytest
import segno

from vop.cli import page_urls
from vop.cli.page_urls import PageURLs, qr_code


@pytest.fixture(autouse=True)
def _attic(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "attic")
    monkeypatch.setattr(page_urls, "network_address", lambda: "192.168.0.7")


@pytest.mark.parametrize(
    ("host", "shown", "here", "for_phones"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ("0.0.0.0", "http://attic:8000", "http://localhost:8000", "http://192.168.0.7:8000"),
        ("192.168.0.9", "http://192.168.0.9:8000", "http://192.168.0.9:8000", "http://192.168.0.9:8000"),
        ("fe80::1", "http://[fe80::1]:8000", "http://[fe80::1]:8000", "http://[fe80::1]:8000"),
    ],
)
def test_urls_follow_the_address(host, shown, here, for_phones):
    assert PageURLs.of(host, 8000, token=None, root_path="") == PageURLs(shown, here, for_phones)


def test_urls_have_the_token_and_the_root_path():
    urls = PageURLs.of("0.0.0.0", 8000, token="x" * 16, root_path="/videos")
    assert urls.for_phones == "http://192.168.0.7:8000/videos/?token=xxxxxxxxxxxxxxxx"


def test_without_a_network_there_is_no_url_for_phones(monkeypatch):
    monkeypatch.setattr(page_urls, "network_address", lambda: "")
    assert PageURLs.of("0.0.0.0", 8000, token=None, root_path="").for_phones == ""


def test_the_code_is_that_of_the_url():
    """Half blocks are two rows of the code."""
    url = "http://192.168.0.7:8000/?token=" + "0a" * 32
    lines = [line for line in qr_code(url).replace("\x1b[0m", "").splitlines() if line.strip()]
    dark = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
    drawn = (
        np.array([[dark[letter] for letter in line] for line in lines]).transpose(0, 2, 1).reshape(2 * len(lines), -1)
    )
    wanted = np.array([[int(cell) for cell in row] for row in segno.make(url, error="l").matrix])
    border = (drawn.shape[1] - wanted.shape[1]) // 2
    assert (drawn[border : border + len(wanted), border : border + len(wanted)] == wanted).all()
