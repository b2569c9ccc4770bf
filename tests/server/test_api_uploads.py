"""Searches with an uploaded file."""

from __future__ import annotations

import asyncio
import io
import json
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from server.api_steps import app_of, detail, found, results, scored
from server.library_data import CLIPS
from vop.search.queries import embed_frames
from vop.video.frames import read_frames

BEGINNING = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch):
    """After an early response, the server lets a client read it before it closes the connection."""
    monkeypatch.setattr("vop.server.connections.LINGER_SECONDS", 0.01)


def test_an_uploaded_video_finds_similar_ones(client, library, models, clips):
    path = clips["blue & white.mp4"]
    model = models[0]
    frames = read_frames(path, num_frames=model.num_frames, size=model.image_size)
    wanted = library.search(embed_frames(model, frames), k=4)
    assert found(send(client, path.read_bytes(), k=4)) == scored(wanted)


def test_all_moments_of_a_video_like_an_upload(client, library, models, clips):
    path, model = clips["blue & white.mp4"], models[0]
    vector = embed_frames(model, read_frames(path, num_frames=model.num_frames, size=model.image_size))
    (video,) = {moment.video for moment in library.search(vector, k=9) if moment.path == str(path)}
    response = client.post(f"/api/views/demo/videos/{video}/moments/file", files={"file": ("a.mp4", path.read_bytes())})
    assert found(response) == scored(library.moments(vector, video).moments)
    assert len(response.json()["segments"]) == 2


def test_a_picture_may_have_any_name(client):
    response = send(client, picture((40, 60, 220)), name="../../clip.mp4")
    assert len(results(response)) == len(CLIPS)


def test_filters_apply_to_uploads(client):
    response = send(client, picture((40, 60, 220)), folder="old")
    assert {result["name"] for result in results(response)} == {"yellow.avi", "grey.webm"}


@pytest.mark.parametrize("content", [b"only text\n" * 50, b"\x00" * 5000, b"\x89PNG\r\n\x1a\n", b"{"])
def test_files_that_are_not_videos_are_refused(client, content):
    sentence = detail(send(client, content), 422)
    assert sentence.startswith("the file cannot be used for a search: ")
    assert "/tmp" not in sentence


def test_invalid_forms_are_refused(client):
    assert "'file' is empty" in detail(send(client, b""), 422)
    assert "'file' is missing" in detail(send(client, b"x", field="video"), 422)
    url = "/api/views/demo/search/file"
    assert "multipart/form-data" in detail(client.post(url, content=b"abc"), 415)
    assert "multipart/form-data" in detail(client.post(url, json={}), 415)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert "not a multipart form" in detail(client.post(url, content=b"abc", headers=broken), 400)


def test_uploaded_files_are_deleted(client):
    send(client, picture((1, 2, 3)))
    send(client, b"text")
    assert not list(client.app.state.services.folder.glob("upload-*"))


def send(client, content: bytes, *, name="clip", field="file", **params):
    return client.post("/api/views/demo/search/file", files={field: (name, content)}, params=params)


def picture(colour) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(("announced", "parts"), [(None, 5), (2**40, 0)])
def test_a_large_upload_is_refused_early(library, announced, parts):
    app = app_of(library, max_upload_bytes=2**20)
    body = [BEGINNING] + [bytes(2**18)] * 100
    headers = FORM | ({"content-length": str(announced)} if announced else {})
    status, response, unread = asyncio.run(post_in_parts(app, "/api/views/demo/search/file", headers, body))
    assert status == 413
    assert "1 MiB" in response["detail"]
    assert len(body) - unread <= 1 + parts
    assert not list(app.state.services.folder.glob("upload-*"))
    app.state.services.close()


def test_a_full_disk_is_reported_without_a_path(client, monkeypatch):
    full = partial(Path("/dev/full").open, "wb")
    monkeypatch.setattr("vop.server.uploads.tempfile.NamedTemporaryFile", lambda **_: full())
    sentence = detail(send(client, picture((1, 2, 3))), 507)
    assert "disk is full" in sentence
    assert "/" not in sentence
    monkeypatch.undo()
    assert results(send(client, picture((1, 2, 3))))


def test_a_silent_client_loses_its_slot(library, monkeypatch):
    monkeypatch.setattr("vop.server.uploads.SILENT_SECONDS", 0.5)
    app = app_of(library)
    body = [BEGINNING, *[b"slow"] * 4, None]  # the slow parts take 0.75 s and do not end the upload
    began = time.monotonic()
    status, response, _ = asyncio.run(post_in_parts(app, "/api/views/demo/search/file", FORM, body, seconds=0.15))
    assert status == 408
    assert "0.5 s" in response["detail"]
    assert time.monotonic() - began > 1.2
    assert app.state.services.uploads.active == 0
    app.state.services.close()


def test_a_slow_client_loses_its_slot(library, monkeypatch):
    monkeypatch.setattr("vop.server.uploads.GRACE_SECONDS", 0.5)
    app = app_of(library)
    sending = post_in_parts(app, "/api/views/demo/search/file", FORM, [BEGINNING, *[b"slow"] * 100], seconds=0.1)
    status, response, _ = asyncio.run(sending)
    assert status == 408
    assert "4 KiB a second" in response["detail"]
    app.state.services.close()


def test_slow_uploads_make_room_for_others(library, monkeypatch):
    monkeypatch.setattr("vop.server.rate_limiter.YIELD_AFTER_SECONDS", 0.3)
    app = app_of(library, max_uploads=3)
    url = "/api/views/demo/search/file"

    async def send_all():
        slow = [asyncio.create_task(post_in_parts(app, url, FORM, [BEGINNING, b"slow", None])) for _ in range(4)]
        await asyncio.sleep(0.6)
        good = await post_in_parts(app, url, FORM, [BEGINNING, picture((40, 60, 220)), b"\r\n--x--\r\n"])
        ended = [task.result()[:2] for task in slow if task.done()]
        for task in slow:
            task.cancel()
        return good, ended

    good, ended = asyncio.run(send_all())
    assert good[0] == 200
    statuses = sorted(status for status, _ in ended)
    assert statuses == [408, 503]  # one lost its slot, one came while new uploads held all slots
    assert "another upload took its slot" in next(response["detail"] for status, response in ended if status == 408)
    app.state.services.close()


def test_uploads_together_have_a_maximum_size(library, monkeypatch):
    monkeypatch.setattr("vop.server.services.LARGE_UPLOADS", 1)
    app = app_of(library, max_upload_bytes=2**16)
    url = "/api/views/demo/search/file"

    async def send_two():
        first = asyncio.create_task(post_in_parts(app, url, FORM, [BEGINNING, bytes(2**15), None]))
        await asyncio.sleep(0.2)
        second = await post_in_parts(app, url, FORM, [BEGINNING, bytes(2**15 + 100), None])
        first.cancel()
        return second

    status, response, _ = asyncio.run(send_two())
    assert (status, "other large files" in response["detail"]) == (503, True)
    app.state.services.close()


def test_forms_with_many_parts_or_headers_are_refused(client):
    url = "/api/views/demo/search/file"
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(1000))
    assert "more than 64 parts" in detail(client.post(url, content=parts + b"--x--\r\n", headers=FORM), 413)
    headers = b"--x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n\r\n--x--\r\n"
    assert "not a multipart form" in detail(client.post(url, content=headers, headers=FORM), 400)


async def post_in_parts(app, path: str, headers: dict[str, str], body: list[bytes | None], *, seconds: float = 0.0):
    """Send a body in parts; return the status, the JSON and the number of unread parts.

    Args:
        body: the parts. None is a part that never arrives.
        seconds: pause before each part.
    """
    waiting, sent = list(body), []
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"},
        **{"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""},
        "headers": [(b"host", b"testserver"), *((name.encode(), value.encode()) for name, value in headers.items())],
    }

    async def receive():
        if not waiting:  # the client waits for the response
            await asyncio.sleep(60)
        part = waiting.pop(0)
        await asyncio.sleep(seconds if part is not None else 60)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def keep(message):
        sent.append(message)

    await app(scope, receive, keep)
    return sent[0]["status"], json.loads(b"".join(part["body"] for part in sent[1:])), len(waiting)
