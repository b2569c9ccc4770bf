"""Responses to requests that fail: unknown addresses, bugs, damaged libraries."""

from __future__ import annotations

import logging
import re

import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import make_library
from vop.errors import VopError
from vop.search import manifest
from vop.search.store import Store


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api/nowhere", "/api/docs", "/docs", "/redoc", "/api/libraries/x/failures"]
)
def test_unknown_paths_get_404(client, path):
    assert detail(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "videos/..%2f..%2f..%2fetc%2fpasswd",
        "videos/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "videos/%2Fetc%2Fpasswd",
        "videos//etc/passwd",
        "videos/' OR '1'='1",
        "videos/" + "0" * 32,
        "videos/" + "0" * 32 + "/moment.mp4?start_seconds=0&end_seconds=1",
        "segments/..%2f..%2flibrary.json/strip.jpg",
        "segments/" + "0" * 32 + "-0-1/strip.jpg",
    ],
)
def test_paths_outside_the_library_get_404(client, path):
    assert client.get(f"/api/libraries/demo/{path}").status_code == 404


def test_a_parameter_without_effect_is_refused(client):
    found = results(search(client, "a dog"))[0]
    segment, video = found["segment"], found["video"]
    view, library = "/api/views/demo", "/api/libraries/demo"
    clip = "start_seconds=0&end_seconds=0.5"
    refused = {
        "words": [f"{view}/like/{segment}?words=both", f"{view}/videos/{video}/moments?like={segment}&words=only"],
        "min_confidence": [f"{view}/like/{segment}?q=a&min_confidence=0.5", f"{library}/videos?min_confidence=0.5"],
        "weight": [f"{view}/like/{segment}?weight=2", f"{view}/search?q=a&weight=2"],
        "w": [f"{view}/videos/{video}/moments?like={segment}&w=1"],
        "exact": [f"{library}/videos/{video}/moment.mp4?{clip}&exact=true"],
        "foldr": [f"{library}/videos/{video}/clip?{clip}&foldr=x", f"{library}/failures?foldr=x", "/api/state?foldr=x"],
    }
    for name, paths in refused.items():
        for path in paths:
            assert name in detail(client.get(path), 422), path
    assert client.head(f"{library}/videos/{video}/moment.mp4?{clip}&exact=true").status_code == 422
    for path in (f"{view}/videos/{video}/moments/file?q=a", f"{view}/search/file?words=none"):
        assert "unknown parameter" in detail(client.post(path, files={"file": b"x"}), 422)
    assert client.put(f"{library}/marks/{video}/tags/a?q=b").status_code == 422
    assert client.get(f"{library}/marks/{video}").json()["tags"] == []


def test_an_address_that_is_not_utf_8_is_refused(client, library):
    address = f"/api/libraries/demo/marks/{library.ids()[0]}"
    for method, path in [
        ("PUT", f"{address}/tags/caf%E9"),
        ("GET", "/api/views/demo/search?q=caf%E9"),
        ("GET", "/api/views/demo/search?q=%ED%A0%80"),
    ]:
        assert "UTF-8" in detail(client.request(method, path), 400)
    assert client.get(address).json()["tags"] == []
    assert results(client.get("/api/views/demo/search?q=caf%C3%A9+%EF%BF%BD"))


def test_a_parameter_that_counts_once_is_refused_twice(client):
    found = results(search(client, "a dog"))[0]
    view, library = "/api/views/demo", f"/api/libraries/demo/videos/{found['video']}"
    for name, path in {
        "k": f"{view}/search?q=a&k=1&k=3",
        "folder": f"{view}/search?q=a&folder=/x&folder=/y",
        "weight": f"{view}/like/{found['segment']}?q=a&weight=1&weight=1",
        "start_seconds": f"{library}/clip?start_seconds=0&start_seconds=0.5&end_seconds=1",
        "limit": "/api/libraries/demo/failures?limit=1&limit=2",
    }.items():
        assert detail(client.get(path), 422).startswith(f"{name} is given 2 times"), path
    assert client.get(f"{view}/search?q=a&q=b&w=1&w=-1&tag=x&tag=y&where=author%3Dbob&where=stars>1").status_code == 200


def test_head_has_the_headers_of_get_everywhere(client):
    found = results(search(client, "a dog"))[0]
    for path in (
        "/healthz",
        "/api/state",
        "/api/libraries/demo/tags",
        f"/api/libraries/demo/segments/{found['segment']}",
        f"/api/views/demo/videos/{found['video']}/moments?q=a",
        "/api/libraries/demo/folders",
        "/api/libraries/unknown/tags",
        "/api/state?foldr=x",
    ):
        response, whole = client.head(path), client.get(path)
        assert (response.status_code, response.content) == (whole.status_code, b""), path
        assert response.headers["content-type"] == whole.headers["content-type"]
        assert int(response.headers["content-length"]) > 0


def test_a_wrong_method_gets_all_methods_of_the_path(client):
    library = "/api/libraries/demo"
    for method, path, allowed in [
        ("POST", f"{library}/videos/0", "GET, HEAD"),
        ("DELETE", f"{library}/segments/0/strip.jpg", "GET, HEAD"),
        ("PUT", f"{library}/indexing", "DELETE, POST"),
        ("GET", f"{library}/marks/0/tags/a/b", "DELETE, PUT"),
        ("PUT", f"{library}/marks/0", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ]:
        response = client.request(method, path)
        assert method in detail(response, 405)
        assert response.headers["allow"] == allowed


def test_a_bug_keeps_its_traceback_in_the_log(library, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("secret of /etc/passwd")

    monkeypatch.setattr(Store, "search", broken)
    with TestClient(app_of(library)) as client, caplog.at_level(logging.ERROR):
        response = search(client, "a dog")
    assert response.status_code == 500
    body = response.json()
    assert list(body) == ["detail", "request_id"]
    assert body["detail"].startswith("internal error")
    assert "passwd" not in response.text
    assert len(body["request_id"]) == 16
    assert body["request_id"] in body["detail"]
    assert body["request_id"] in caplog.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret of /etc/passwd" in caplog.text
    assert "Traceback" in caplog.text


def test_a_vop_error_is_returned_as_its_message(library, monkeypatch):
    def broken(*args, **kwargs):
        raise VopError("the library is damaged; restore it")

    monkeypatch.setattr(Store, "search", broken)
    with TestClient(app_of(library)) as client:
        assert detail(search(client, "a dog"), 500) == "the library is damaged; restore it"


def test_a_library_from_a_later_version_is_not_served(tmp_path, clips, run):
    made = make_library(tmp_path / "later", [run], {"red.mp4": clips["red.mp4"]})
    file = made.path / manifest.FILE
    file.write_text(re.sub(r'"format": \d+', '"format": 99', file.read_text()))
    with pytest.raises(VopError, match="format 99 "):
        app_of(made)
