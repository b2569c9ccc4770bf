"""Requests to the API, and readers of its responses."""

from __future__ import annotations

import pytest

from vop.server.access import AllowedHosts
from vop.server.app import create_app

TEST_HOSTS = AllowedHosts("testserver")


def app_of(*libraries, **more):
    return create_app([library.path for library in libraries], hosts=TEST_HOSTS, precision="fp32", **more)


def search(client, *texts, view="demo", **params):
    return client.get(f"/api/views/{view}/search", params={"q": list(texts), **params})


def results(response) -> list[dict]:
    assert response.status_code == 200, response.text
    return response.json()["results"]


def found(response) -> list[tuple]:
    return [(result["segment"], result["score"]) for result in results(response)]


def scored(moments) -> list[tuple]:
    return [(moment.segment, pytest.approx(moment.score, abs=1e-5)) for moment in moments]


def detail(response, status: int) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    return response.json()["detail"]
