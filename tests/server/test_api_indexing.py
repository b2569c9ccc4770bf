"""Indexings that clients start and stop, and the folders that they go through."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from search.owners_videos import write_video
from server.api_steps import app_of, detail
from vop.cli import build_parser
from vop.search import folders
from vop.search.store import Store
from vop.search.sync import index
from vop.server.access import may_index
from vop.server.indexing import Indexing, IndexingJob

LIMIT_SECONDS = 120.0
PATH = "/api/libraries/library/indexing"


@pytest.fixture(scope="module")
def own_library(tmp_path_factory, tiny_folder) -> Path:
    """A library that remembers a folder with one video, and one that does not exist."""
    place = tmp_path_factory.mktemp("indexing")
    write_video(place / "videos" / "a.mp4", seed=0)
    index(
        place / "library",
        [place / "videos"],
        model=str(tiny_folder),
        num_frames=2,
        precision="fp32",
        workers=1,
    )
    folders.remember(place / "library", [place / "away"])
    return place / "library"


@pytest.fixture
def api(own_library, monkeypatch):
    monkeypatch.setattr("vop.server.libraries.STATUS_SECONDS", 0)
    with TestClient(app_of(Store.open(own_library), may_index=True)) as client:
        yield client


def state_of(client) -> dict:
    return client.get("/api/state").json()["views"][0]["indexing"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for the state of another process."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < limit
        threading.Event().wait(0.05)


def test_folders_are_listed(api, own_library):
    assert api.get("/api/libraries/library/indexing/folders").json()["folders"] == [
        {"path": str(own_library.parent / "away"), "kind": "folder", "videos": 0, "available": False},
        {"path": str(own_library.parent / "videos"), "kind": "folder", "videos": 1, "available": True},
    ]


def test_an_indexing_runs_in_its_own_process(api, own_library):
    assert state_of(api) == {
        **{"allowed": True, "state": "idle", "message": None, "started_at": None, "ended_at": None, "result": None}
    }
    write_video(own_library.parent / "videos" / "b.mp4", seed=1)
    started = api.post(PATH)
    assert (started.status_code, started.json()["state"]) == (202, "running")
    assert api.post(PATH).json()["started_at"] == started.json()["started_at"]
    until(lambda: state_of(api)["ended_at"] is not None)
    ended = state_of(api)
    assert (ended["state"], ended["result"]["added"], ended["result"]["unchanged"]) == ("done", 1, 1)
    assert "away" in ended["message"]  # the folder that does not exist
    assert api.get("/api/state").json()["views"][0]["videos"] == 2


def test_it_is_off_unless_allowed(client):
    for method in (client.post, client.delete):
        assert "--indexing" in detail(method("/api/libraries/demo/indexing"), 403)
    assert client.get("/api/state").json()["views"][0]["indexing"]["allowed"] is False


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_pages_of_other_sites_cannot_start_it(api, headers):
    assert detail(api.post(PATH, headers=headers), 403)
    assert detail(api.delete(PATH, headers=headers), 403)
    assert state_of(api)["state"] == "idle"


def test_a_library_without_folders_is_refused(library, monkeypatch):
    with TestClient(app_of(library, may_index=True)) as client:
        assert "remembers no folders" in detail(client.post("/api/libraries/demo/indexing"), 422)
        assert client.get("/api/libraries/demo/indexing/folders").json() == {"folders": []}


@pytest.mark.parametrize(
    ("host", "token", "options", "allowed"),
    [
        ("127.0.0.1", None, [], True),
        ("0.0.0.0", "secret", [], True),
        ("0.0.0.0", None, [], False),
        ("0.0.0.0", None, ["--indexing"], True),
        ("127.0.0.1", "secret", ["--no-indexing"], False),
    ],
)
def test_strangers_may_not_index_by_default(host, token, options, allowed):
    chosen = build_parser().parse_args(["serve", "library", *options]).indexing
    assert may_index(host, token=token, chosen=chosen) is allowed


# -- the process, without its imports

BUSY = """
import json, signal, time
signal.signal(signal.SIGUSR1, lambda *_: print(json.dumps({"warning": "one more file"}), flush=True))
print(json.dumps({"state": "waiting"}), flush=True)
print("not JSON", flush=True)
while True:
    time.sleep(60)
"""


def job_of(code: str, *words: str, monkeypatch) -> Indexing:
    def started(indexing: Indexing) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(Indexing, "_started", started)
    return Indexing(Path("library"))


def test_a_second_stop_is_at_once(monkeypatch):
    indexing = job_of(BUSY, monkeypatch=monkeypatch)
    assert indexing.stop() == IndexingJob()
    assert indexing.start().state == "running"
    until(lambda: indexing.job.state == "waiting")
    assert indexing.stop().state == "stopping"
    until(lambda: indexing.job.message == "one more file")
    assert indexing.stop().state == "stopping"
    until(lambda: indexing.job.ended_at is not None)
    assert indexing.job.state == "stopped"
    assert indexing.start().state == "running"
    indexing.close()
    until(lambda: indexing.job.state == "failed")
    indexing.close()


@pytest.mark.parametrize(
    ("code", "message"), [('print(\'{"error": "the disk is full"}\')', "the disk is full"), ("exit(3)", "status 3")]
)
def test_failures_are_reported(monkeypatch, code, message):
    indexing = job_of(code, monkeypatch=monkeypatch)
    indexing.start()
    until(lambda: indexing.job.ended_at is not None)
    assert indexing.job.state == "failed"
    assert message in indexing.job.message
