"""Videos in object storage are sent in ranges and as clips."""

from __future__ import annotations

from urllib.parse import urlsplit

import av
import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from vop.search.store import Store
from vop.search.sync import index
from vop.server import object_files
from vop.storage import objects


@pytest.fixture
def by_name(client):
    return {result["name"]: result for result in results(search(client, "a dog"))}


@pytest.fixture
def films(object_server, clips):
    object_server.make_bucket()
    for name in ("red.mp4", "old/yellow.avi"):
        object_server.put(f"s3://films/{name}", clips[name])
    return object_server


@pytest.fixture
def client(films, tmp_path, tiny_folder):
    index(tmp_path / "demo", ["s3://films"], model=str(tiny_folder), precision="fp32", workers=1)
    with TestClient(app_of(Store.open(tmp_path / "demo"))) as client:
        yield client


@pytest.fixture
def requested(monkeypatch):
    """The ranges that are read of objects."""
    ranges, original = [], objects.read_range

    def read_range(info, start, end):
        ranges.append((start, end))
        return original(info, start, end)

    monkeypatch.setattr(object_files, "read_range", read_range)
    return ranges


def test_videos_are_sent_in_ranges(client, by_name, clips, requested):
    red, content = by_name["red.mp4"], clips["red.mp4"].read_bytes()
    assert red["path"] == "s3://films/red.mp4"
    part = client.get(red["media_url"], headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content, requested) == (206, content[100:200], [(100, 200)])
    whole = client.get(red["media_url"])
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    assert client.get(red["media_url"], headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    assert client.head(red["media_url"]).headers["content-length"] == str(len(content))


def test_a_library_in_object_storage_is_served(films, tiny_folder, clips):
    index("s3://films/libraries/demo", ["s3://films/red.mp4"], model=str(tiny_folder), precision="fp32", workers=1)
    with TestClient(app_of(Store.open("s3://films/libraries/demo"))) as client:
        (red,) = results(search(client, "a dog"))
        assert client.get(red["strip_url"]).headers["content-type"] == "image/jpeg"
        assert client.get(red["media_url"]).content == clips["red.mp4"].read_bytes()
        assert client.get("/healthz").json()["status"] == "ok"


def test_reading_in_sequence_grows_the_ranges(films, clips, requested):
    content = clips["red.mp4"].read_bytes()
    file = object_files.OpenObject(objects.head(objects.Address("s3", "films", "red.mp4")))
    assert b"".join(file.read(start, 100) for start in range(0, 1000, 100)) == content[:1000]
    assert requested == [(0, 100), (100, 300), (300, 700), (700, 1500)]
    assert file.read(5, 10) == content[5:15]
    assert requested[-1] == (5, 15)


def test_moments_of_other_formats_are_cut_from_a_copy(client, by_name, tmp_path, monkeypatch):
    downloads, original = [], objects.download
    monkeypatch.setattr("vop.storage.scratch.download", lambda *given: downloads.append(1) or original(*given))
    url = by_name["yellow.avi"]["media_url"]
    assert urlsplit(url).path.endswith("/moment.mp4")
    first, again = client.get(url), client.get(url)
    assert (first.status_code, first.content, len(downloads)) == (200, again.content, 1)
    (tmp_path / "moment.mp4").write_bytes(first.content)
    with av.open(str(tmp_path / "moment.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"


def test_changed_and_deleted_objects_are_not_served(client, by_name, films, clips):
    films.put("s3://films/red.mp4", clips["green.mp4"])
    assert "has changed" in detail(client.get(by_name["red.mp4"]["media_url"]), 404)
    films.delete("s3://films/old/yellow.avi")
    reason = detail(client.get(by_name["yellow.avi"]["media_url"]), 404)
    assert "s3://films/old/yellow.avi: the object does not exist" in reason
    assert reason.endswith("s3://films/old")


def test_an_unreachable_storage_is_unavailable(client, by_name, monkeypatch):
    monkeypatch.setitem(objects._RETRIES, "max_retries", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("red.mp4", "yellow.avi"):
        assert "cannot be reached at 127.0.0.1:9" in detail(client.get(by_name[name]["media_url"]), 503)
