"""Another process moves the library to another model while it is served."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, found, results, scored, search
from server.library_data import make_library, make_run, manifest_of, open_all, put_clips
from vop.search.queries import Sentence, embed_sentences
from vop.search.store import Store


@pytest.fixture
def clips(clips):
    return {name: path for name, path in clips.items() if name.endswith(".mp4")}


def test_no_response_mixes_two_models(clips, run, tiny_folder, tmp_path):
    made = make_library(tmp_path / "moving", [run], clips)
    app = app_of(made)
    with TestClient(app) as client:
        before = app.state.services.libraries.by_name["moving"].open.encoders[0].model
        old = found(search(client, "a dog", view="moving"))
        model = move(Store.open(made.path), clips, tiny_folder, table="segments_2")
        response = search(client, "a dog", view="moving")
        assert response.status_code == 503
        response = until_open(client, "a dog", view="moving")
        new = Store.open(made.path).search(embed_sentences(model, [Sentence("a dog")]), k=20)
        assert found(response) == scored(new) != old
        assert [view["method"] for view in client.get("/api/state").json()["views"]] == ["zero-shot"]
        after = app.state.services.libraries.by_name["moving"].open.encoders[0].model
        assert after.clip is before.clip
        segment = results(response)[0]["segment"]
        assert client.get(f"/api/views/moving/like/{segment}").status_code == 200


def test_a_missing_model_is_reported_and_loaded_later(clips, run, tiny_folder, tmp_path):
    made = make_library(tmp_path / "moving", [run], clips)
    lost = make_run(tmp_path / "lost", tiny_folder, seed=3)
    with TestClient(app_of(made)) as client:
        move(Store.open(made.path), clips, lost, table="segments_2")
        hidden = lost.rename(tmp_path / "hidden")
        response = until_open(client, "a dog", view="moving")
        assert "lost" in response.json()["detail"]
        assert response.status_code in (422, 500)
        hidden.rename(lost)
        assert results(until_open(client, "a dog", view="moving"))


def test_a_search_during_the_switch_gets_503(clips, run, tiny_folder, tmp_path, monkeypatch):
    """The table changes between the encoding of a sentence and the search."""
    made = make_library(tmp_path / "moving", [run], clips)
    search_of = Store.search

    def overtaken(library, *args, **kwargs):
        if library.models[0].method == "vop":
            move(Store.open(made.path), clips, tiny_folder, table="segments_2")
        return search_of(library, *args, **kwargs)

    with TestClient(app_of(made)) as client:
        monkeypatch.setattr(Store, "search", overtaken)
        assert "moved" in detail(search(client, "a dog", view="moving"), 503)


def move(library, clips, model, *, table):
    opened = open_all([model])
    staged = library.staging(manifest_of([model], opened, table=table))
    put_clips(staged, opened, clips)
    staged.publish()
    return opened[0]


def until_open(client, *texts, **params):
    for _ in range(200):
        response = search(client, *texts, **params)
        if response.status_code != 503:
            return response
        assert response.headers["retry-after"] == "1"
        assert "moved" in detail(response, 503)
    raise AssertionError(response.text)
