"""Several libraries on one server: their names, their shared backbone, and their separate files."""

from __future__ import annotations

from starlette.testclient import TestClient

from server.api_steps import app_of, results, search
from server.library_data import make_library, make_run


def test_libraries_have_unique_names_and_share_a_backbone(library, clips, run, tiny_folder, tmp_path):
    tuned = make_run(tmp_path / "other-run", tiny_folder, seed=1)
    again = make_library(tmp_path / "demo", [tuned], {"red.mp4": clips["red.mp4"]})
    odd = make_library(tmp_path / "my videos.2", [run], {"red.mp4": clips["red.mp4"]})
    app = app_of(library, again, odd)
    with TestClient(app) as client:
        ids = [view["id"] for view in client.get("/api/state").json()["views"]]
        assert ids == ["demo", "demo.2", "demo-2", "my-videos-2"]
        for view in ids:
            first = results(search(client, "a dog", view=view, name="red.mp4"))[0]
            assert client.get(first["strip_url"]).status_code == 200
    encoders = [encoder for served in app.state.services.libraries.by_name.values() for encoder in served.open.encoders]
    assert len(encoders) == 4
    assert len({id(encoder.model.clip) for encoder in encoders}) == 1
    assert len({id(encoder._thread) for encoder in encoders}) == 1


def test_ids_of_another_library_get_404(library, clips, run, tmp_path):
    other = make_library(tmp_path / "other", [run], {"red.mp4": clips["red.mp4"]})
    with TestClient(app_of(library, other)) as client:
        for result in results(search(client, "a dog", name=".mp4")):
            status = 200 if result["name"] == "red.mp4" else 404
            for url in (result["media_url"], result["strip_url"]):
                there = client.get(url.replace("/libraries/demo/", "/libraries/other/"))
                assert there.status_code == status
