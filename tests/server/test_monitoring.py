"""The health check, the metrics and the access log."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import make_library

TOKEN = "correct-horse-battery"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def moving(clips, run, tmp_path):
    """A library of one clip whose folder can be moved."""
    return make_library(tmp_path / "moving", [run], {"red.mp4": clips["red.mp4"]})


@pytest.fixture(autouse=True)
def _fresh_status(monkeypatch):
    monkeypatch.setattr("vop.server.libraries.STATUS_SECONDS", 0)


def metrics(client, **headers) -> dict[tuple, float]:
    """The samples by name and label values, sorted by label name."""
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class TestHealth:
    def test_a_healthy_server_is_ok(self, client):
        response = client.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"status": "ok", "reasons": []})

    def test_the_health_check_needs_no_token_and_reveals_nothing(self, moving, tmp_path):
        with TestClient(app_of(moving, token=TOKEN)) as client:
            assert client.get("/healthz").status_code == 200
            moving.path.rename(tmp_path / "away")
            response = client.get("/healthz")
        assert (response.status_code, response.json()["status"]) == (503, "unavailable")
        assert "1 of 1" in response.json()["reasons"][0]
        assert "moving" not in response.text

    def test_a_missing_library_of_two_degrades_the_server(self, library, moving, tmp_path):
        with TestClient(app_of(library, moving)) as client:
            away = moving.path.rename(tmp_path / "away")
            response = client.get("/healthz")
            assert (response.status_code, response.json()["status"]) == (200, "degraded")
            assert "1 of 2" in response.json()["reasons"][0]
            away.rename(moving.path)
            assert client.get("/healthz").json()["status"] == "ok"

    def test_the_health_check_works_below_a_root_path(self, library):
        with TestClient(app_of(library, root_path="/videos", token=TOKEN)) as client:
            for path in ("/healthz", "/videos/healthz"):
                assert client.get(path).json()["status"] == "ok"

    def test_the_health_check_works_while_all_slots_are_taken(self, library):
        app = app_of(library, max_requests=1)
        with TestClient(app) as client, app.state.services.requests.slot():
            assert client.get("/api/state").status_code == 503
            assert client.get("/healthz").status_code == 200


class TestMetrics:
    def test_metrics_are_off_by_default(self, client):
        assert detail(client.get("/metrics"), 404)

    def test_requests_searches_and_libraries_are_counted(self, library):
        with TestClient(app_of(library, metrics=True)) as client:
            segment = results(search(client, "a dog", "a cat"))[0]["segment"]
            client.get(f"/api/views/demo.2/like/{segment}")
            search(client, "a dog", k=0)
            for path in ("/nowhere", "/secret"):
                client.get(path)
            found = metrics(client)
        route = "/api/views/{view}/search"
        assert found["vop_http_requests_total", "GET", route, "200"] == 1
        assert found["vop_http_requests_total", "GET", route, "422"] == 1
        assert found["vop_http_requests_total", "GET", "none", "404"] == 2
        assert found["vop_http_request_duration_seconds_count", "GET", route] == 2
        assert found["vop_searches_total", "sentences", "demo"] == 1
        assert found["vop_searches_total", "segment", "demo.2"] == 1
        assert found["vop_encoded_queries_total", "text"] == 2
        assert found["vop_encode_duration_seconds_count", "text"] == 1
        assert found[("vop_requests_in_progress",)] == 0
        assert found[("vop_requests_limit",)] == 256
        assert found["vop_library_segments", "demo"] == 7
        assert found["vop_library_videos", "demo"] == 5
        assert found["vop_library_failures", "demo"] == 2
        assert found["vop_library_readable", "demo"] == 1
        assert not [key for key in found if "secret" in str(key)]

    def test_all_metrics_are_documented(self, library):
        text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
        cells = re.findall(r"^\| (`vop_\w+`.*?) \|", text, re.MULTILINE)
        documented = {name for cell in cells for name in re.findall(r"`(vop_\w+?)(?:_total)?`", cell)}
        app = app_of(library)
        families = text_string_to_metric_families(app.state.services.metrics.text().decode())
        app.state.services.close()
        assert documented == {family.name.removesuffix("_created") for family in families}

    def test_the_clip_cache_is_counted(self, library):
        with TestClient(app_of(library, metrics=True)) as client:
            url = next(r["media_url"] for r in results(search(client, "x")) if r["name"] == "yellow.avi")
            for _ in range(3):
                assert client.get(url).status_code == 200
            found = metrics(client)
            size = int(client.head(url).headers["content-length"])
        assert found["vop_clip_cache_requests_total", "miss"] == 1
        assert found["vop_clip_cache_requests_total", "hit"] == 2
        assert found[("vop_clip_cache_bytes",)] == size

    def test_an_unreadable_library_is_reported(self, moving, tmp_path):
        with TestClient(app_of(moving, metrics=True)) as client:
            moving.path.rename(tmp_path / "away")
            found = metrics(client)
        assert found["vop_library_readable", "moving"] == 0
        assert ("vop_library_segments", "moving") not in found

    def test_metrics_need_the_token(self, library):
        with TestClient(app_of(library, metrics=True, token=TOKEN)) as client:
            assert client.get("/metrics").status_code == 401
            found = metrics(client, authorization=f"Bearer {TOKEN}")
        assert found["vop_http_requests_total", "GET", "none", "401"] == 1

    def test_other_sites_cannot_read_metrics(self, library):
        with TestClient(app_of(library, metrics=True)) as client:
            assert client.get("/metrics", headers={"sec-fetch-site": "cross-site"}).status_code == 403


class TestAccessLog:
    @pytest.fixture
    def lines(self, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("vop.server.access"), "propagate", True)
        with caplog.at_level(logging.INFO, logger="vop.server.access"):
            yield lambda: [record.getMessage() for record in caplog.records if record.name == "vop.server.access"]

    def test_each_request_has_a_line(self, client, lines):
        response = search(client, "a dog")
        client.get("/nowhere")
        first, second = lines()
        found = re.fullmatch(r"testclient GET (\S+) (\d+) (\d+) \d+\.\d", first)
        assert found[1] == "/api/views/demo/search?q=a+dog"
        assert (int(found[2]), int(found[3])) == (200, len(response.content))
        assert second.startswith("testclient GET /nowhere 404 ")

    def test_lines_omit_the_token_and_cannot_be_forged(self, library, lines):
        app = app_of(library, token=TOKEN)
        with TestClient(app, follow_redirects=False) as client:
            assert client.get("/", params={"token": TOKEN, "q": "dog\nx"}).status_code == 303
            client.get("/a%0Ab c")
        first, second = lines()
        assert first.startswith("testclient GET /?q=dog%0Ax 303 0 ")
        assert second.startswith("testclient GET /a%0Ab%20c 404 ")

    def test_the_access_log_is_off_by_default(self, client, caplog):
        search(client, "a dog")
        assert not [record for record in caplog.records if record.name == "vop.server.access"]


def test_failed_requests_are_counted_and_logged(library, caplog, monkeypatch):
    monkeypatch.setattr("vop.server.search_routes._response", lambda *_, **__: 1 / 0)

    async def ask():
        app = app_of(library, metrics=True)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            response = await client.get("/api/views/demo/search", params={"q": "dog"})
        text = app.state.services.metrics.text().decode()
        app.state.services.close()
        return response, text

    response, text = asyncio.run(ask())
    assert response.status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert 'vop_http_requests_total{method="GET",route="/api/views/{view}/search",status="500"} 1.0' in text
