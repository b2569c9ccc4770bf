"""Near-duplicates in groups, in parts."""

from __future__ import annotations

import io

from PIL import Image
from starlette.testclient import TestClient

from server.api_steps import app_of, detail

PATH = "/api/libraries/versions/duplicates"


def names(group: dict) -> tuple[list[str], list[str]]:
    return [one["name"] for one in group["videos"]], [one["name"] for one in group["parts"]]


def test_groups_of_versions(versions, clips):
    with TestClient(app_of(versions)) as client:
        found = client.get(PATH).json()
        sizes = {name: path.stat().st_size for name, path in clips.items()}
        largest = sorted(["red.mp4", "green.mp4"], key=lambda name: -sizes[name])
        assert sorted(map(names, found["groups"])) == sorted(
            [(largest, []), (["blue & white.mp4"], ["yellow.avi"]), (["grey.webm"], [])]
        )
        counts = {name: found[name] for name in ("total", "near_duplicates", "parts", "exact_copies", "were_compared")}
        assert counts == {
            "total": 3, "near_duplicates": 1, "parts": 1, "exact_copies": 1, "were_compared": True
        }  # fmt: skip
        every = {one["name"]: one for group in found["groups"] for one in group["videos"] + group["parts"]}
        assert {(one["width"], one["height"]) for one in every.values()} == {(64, 48)}
        assert every["red.mp4"]["size"] == sizes["red.mp4"]
        assert every["grey.webm"]["exact_copies"] == ["/videos/again.webm"]
        assert every["yellow.avi"]["part_of"] == str(clips["blue & white.mp4"])
        assert every["yellow.avi"]["start_seconds"] == 1.5
        assert every["yellow.avi"]["segment"].endswith("-2000-4000")
        strip = client.get(every["yellow.avi"]["strip_url"]).content
        assert Image.open(io.BytesIO(strip)).size == (320, 45)
        parts = [client.get(PATH, params={"k": 1, "skip": skip}).json() for skip in range(4)]
        assert [group for part in parts for group in part["groups"]] == found["groups"]
        assert {part["total"] for part in parts} == {3}
        assert "k is '0'" in detail(client.get(PATH, params={"k": 0}), 422)


def test_a_library_without_near_duplicates(client):
    found = client.get("/api/libraries/demo/duplicates").json()
    assert (found["groups"], found["total"], found["were_compared"]) == ([], 0, False)


def test_a_deleted_file_has_no_size(clips, run, tmp_path):
    from server.library_data import make_library, put_versions

    copies = {name: tmp_path / path.name for name, path in clips.items()}
    for name, path in copies.items():
        path.write_bytes(clips[name].read_bytes())
    library = make_library(tmp_path / "versions", [run], copies)
    put_versions(library)
    copies["red.mp4"].unlink()
    with TestClient(app_of(library)) as client:
        found = client.get(PATH).json()["groups"]
    (group,) = (group for group in found if "red.mp4" in names(group)[0])
    assert names(group)[0] == ["green.mp4", "red.mp4"]
    assert [one["width"] for one in group["videos"]] == [64, None]
