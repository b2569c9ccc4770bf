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


def results(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def found(answer) -> list[tuple]:
    return [(result["segment"], result["score"]) for result in results(answer)]


def scored(moments) -> list[tuple]:
    return [(moment.segment, pytest.approx(moment.score, abs=1e-5)) for moment in moments]


def detail(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    return answer.json()["detail"]
