"""The state of the server and its libraries, and the OpenAPI document."""

from __future__ import annotations

from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import make_library
from vop.search.results import IndexingStatus
from vop.search.state import state_file
from vop.search.store import Store


def test_each_model_of_a_library_is_a_view(client, run, tiny_folder):
    state = client.get("/api/state").json()
    assert [view["id"] for view in state["views"]] == ["demo", "demo.2"]
    assert [view["method"] for view in state["views"]] == ["vop", "zero-shot"]
    assert [view["model"] for view in state["views"]] == ["/".join(folder.parts[-2:]) for folder in (run, tiny_folder)]
    first = state["views"][0]
    assert first["library"] == "demo"
    assert (first["segments"], first["videos"], first["failures"]) == (7, 5, 2)
    assert first["columns"] == ["author", "stars"]
    assert first["index"] is None
    assert state["limits"] == {"upload_bytes": 512 * 2**20, "max_k": 1000, "read_only": False}


def test_the_state_shows_the_progress_of_indexing(client, library, monkeypatch):
    monkeypatch.setattr("vop.server.libraries.STATUS_SECONDS", 0)
    with state_file(library.path) as state:
        state.write(
            IndexingStatus(done=3, total=9, hours=0.5, hours_per_hour=90.0, seconds_left=60, current="/videos/x.mp4")
        )
        index = client.get("/api/state").json()["views"][1]["index"]
    assert index == {
        **{"done": 3, "total": 9, "hours": 0.5, "hours_per_hour": 90.0, "seconds_left": 60.0},
        "current": "/videos/x.mp4",
    }
    assert client.get("/api/state").json()["views"][1]["index"] is None


def test_the_status_is_cached(client, monkeypatch):
    monkeypatch.setattr("vop.server.libraries.STATUS_SECONDS", 60)
    calls = []
    status = Store.status
    monkeypatch.setattr(Store, "status", lambda library: calls.append(library) or status(library))
    states = [client.get("/api/state").json() for _ in range(5)]
    assert states == states[:1] * 5
    assert len(calls) <= 1


def test_a_missing_library_does_not_affect_others(library, clips, run, tmp_path, monkeypatch):
    monkeypatch.setattr("vop.server.libraries.STATUS_SECONDS", 0)
    made = make_library(tmp_path / "moving", [run], {"red.mp4": clips["red.mp4"]})
    with TestClient(app_of(library, made)) as client:
        before = client.get("/api/state").json()["views"]
        assert [(view["segments"], view["error"]) for view in before] == [(7, None), (7, None), (1, None)]
        away = made.path.rename(tmp_path / "away")
        *others, missing = client.get("/api/state").json()["views"]
        assert others == before[:2]
        assert str(made.path) in missing["error"]
        assert [missing[name] for name in ("segments", "videos", "hours", "failures", "columns")] == [0, 0, 0, 0, []]
        assert str(made.path) in detail(search(client, "a dog", view="moving"), 503)
        away.rename(made.path)
        assert client.get("/api/state").json()["views"] == before


def test_no_request_mistakes_a_missing_library_for_an_empty_one(clips, run, tmp_path):
    made = make_library(tmp_path / "moving", [run], {"red.mp4": clips["red.mp4"]})
    (video,) = made.ids()
    with TestClient(app_of(made, may_index=True)) as client:
        library, view = "/api/libraries/moving", "/api/views/moving"
        (found,) = results(search(client, "a dog", view="moving"))
        tag, segment = f"{library}/marks/{video}/tags/kept", found["segment"]
        assert client.put(tag).json()["tags"] == ["kept"]
        exported = client.get(f"{library}/marks").json()
        requests = [
            *(
                ("GET", f"{library}/{name}")
                for name in ("videos", "folders", "duplicates", "failures", "marks", "tags")
            ),
            *(("GET", f"{library}/videos/{video}{name}") for name in ("", "/lines", "/playlist.m3u")),
            *(("GET", f"{library}/segments/{segment}{name}") for name in ("", "/strip.jpg")),
            *(("GET", f"{view}/{name}") for name in ("search?q=a", f"like/{segment}", f"videos/{video}/moments?q=a")),
            *((method, tag) for method in ("PUT", "DELETE")),
            ("GET", f"{library}/marks/{video}"),
            ("GET", f"{library}/indexing/folders"),
            ("POST", f"{library}/indexing"),
        ]
        away = made.path.rename(tmp_path / "away")
        for method, path in requests:
            response = client.request(method, path)
            assert str(made.path) in detail(response, 503), path
            assert "retry-after" in response.headers
        assert not made.path.exists()
        away.rename(made.path)
        assert client.get(f"{library}/marks").json() == exported
        assert client.get(f"{library}/videos/{video[:-1]}x").status_code == 404


def test_failures_have_reasons(client):
    response = client.get("/api/libraries/demo/failures", params={"limit": 1}).json()
    assert response["total"] == 2
    assert [(one["path"], one["kind"], one["reason"]) for one in response["failures"]] == [
        ("/videos/cut.mp4", "partial", "it ends early")
    ]


def test_openapi_describes_every_path(client):
    document = client.get("/api/openapi.json").json()
    assert set(document["paths"]) == {
        "/healthz",
        "/api/state",
        "/api/libraries/{library}/segments/{segment}",
        "/api/views/{view}/examples",
        "/api/views/{view}/search",
        "/api/views/{view}/like/{segment}",
        "/api/views/{view}/search/file",
        "/api/views/{view}/videos/{video}/moments",
        "/api/views/{view}/videos/{video}/moments/file",
        "/api/libraries/{library}/duplicates",
        "/api/libraries/{library}/failures",
        "/api/libraries/{library}/folders",
        "/api/libraries/{library}/marks",
        "/api/libraries/{library}/marks/{id}",
        "/api/libraries/{library}/marks/{id}/favourite",
        "/api/libraries/{library}/marks/{id}/tags/{tag}",
        "/api/libraries/{library}/tags",
        "/api/libraries/{library}/videos",
        "/api/libraries/{library}/indexing/folders",
        "/api/libraries/{library}/indexing",
        "/api/libraries/{library}/segments/{segment}/strip.jpg",
        "/api/libraries/{library}/videos/{video}",
        "/api/libraries/{library}/videos/{video}/lines",
        "/api/libraries/{library}/videos/{video}/moment.mp4",
        "/api/libraries/{library}/videos/{video}/clip",
        "/api/libraries/{library}/videos/{video}/playlist.m3u",
        "/api/libraries/{library}/export",
    }
    sentences = document["paths"]["/api/views/{view}/search"]["get"]
    assert {one["name"] for one in sentences["parameters"]} == {
        *("view", "q", "w", "words", "k", "order", "folder", "name", "min_seconds", "max_seconds", "after", "before"),
        *("where", "near", "tag", "favourites", "per_video", "copies", "min_confidence"),
    }
    assert sentences["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/SearchResponse")
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["description"] for operation in operations)
    parameters = [parameter for operation in operations for parameter in operation.get("parameters", [])]
    assert [parameter["name"] for parameter in parameters if not parameter.get("description")] == []
    upload = document["paths"]["/api/views/{view}/search/file"]["post"]
    assert "multipart/form-data" in upload["requestBody"]["content"]
