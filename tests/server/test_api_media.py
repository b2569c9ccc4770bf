"""Thumbnail strips, videos, and clips of them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from PIL import Image
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import make_library
from vop.errors import UsageError, VopError
from vop.server.schemas import ClipParameters


@pytest.fixture(scope="module")
def by_name(client):
    return {result["name"]: result for result in results(search(client, "a dog"))}


def test_strips_are_cached_by_browsers(client, by_name):
    response = client.get(by_name["red.mp4"]["strip_url"])
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(response.content)).size == (320, 45)
    assert "immutable" in response.headers["cache-control"]
    again = client.get(by_name["red.mp4"]["strip_url"], headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    unknown = by_name["red.mp4"]["strip_url"].replace(by_name["red.mp4"]["segment"], "f" * 32 + "-0-1000")
    for known in (f'"{"f" * 32}-0-1000"', "*"):
        assert client.get(unknown, headers={"if-none-match": known}).status_code == 404


@pytest.mark.parametrize(("name", "kind"), [("red.mp4", "video/mp4"), ("grey.webm", "video/webm")])
def test_videos_are_sent_whole_and_in_ranges(client, by_name, clips, name, kind):
    url = by_name[name]["media_url"]
    content = clips[name if name in clips else f"old/{name}"].read_bytes()
    whole = client.get(url)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, kind, content)
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(url, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(url, headers={"range": f"bytes={len(content)}-"}).status_code == 416


def test_unplayable_moments_are_converted_to_mp4(client, by_name, tmp_path):
    response = client.get(by_name["yellow.avi"]["media_url"])
    assert (response.status_code, response.headers["content-type"]) == (200, "video/mp4")
    (tmp_path / "moment.mp4").write_bytes(response.content)
    with av.open(str(tmp_path / "moment.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.duration / av.time_base == pytest.approx(2, abs=0.2)
    part = client.get(by_name["yellow.avi"]["media_url"], headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, response.content[:10])


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ((2, 1), "end_seconds is 1.0"),
        ((1, 1), "end_seconds is 1.0"),
        ((4, 5), "start_seconds is 4.0; the video ends at 4.000 s"),
        ((-1, 1), "start_seconds is '-1'"),
        (("nan", 1), "start_seconds is 'nan'"),
        ((0, "inf"), "end_seconds is 'inf'"),
        ((0, None), "end_seconds is missing"),
    ],
)
def test_invalid_clips_are_refused(client, by_name, clip, words):
    start, end = clip
    params = {"start_seconds": start} | ({} if end is None else {"end_seconds": end})
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    assert words in detail(client.get(url, params=params), 422)


def test_an_end_after_the_videos_end_is_accepted(client, by_name):
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    assert client.get(url, params={"start_seconds": 3, "end_seconds": 10**6}).status_code == 200


def test_clips_have_a_maximum_length():
    with pytest.raises(UsageError, match="61 s long; the maximum is 60 s"):
        ClipParameters(start_seconds=5, end_seconds=66).within(100)
    assert ClipParameters(start_seconds=5, end_seconds=65).within(100) == (5, 65)


def test_head_requests_return_no_body(client, by_name):
    yellow = by_name["yellow.avi"]
    for url in ("/", yellow["strip_url"], by_name["red.mp4"]["media_url"], yellow["media_url"]):
        whole, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert head.headers[name] == whole.headers[name]
    assert client.head(yellow["strip_url"].replace("demo", "dem")).status_code == 404


def test_a_full_disk_is_reported_without_a_path(client, by_name, monkeypatch):
    def full(path, out, **clip):
        raise VopError(f"{out}: no space left")

    monkeypatch.setattr(client.app.state.services.clips, "_write", full)
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    sentence = detail(client.get(url, params={"start_seconds": 0.25, "end_seconds": 0.75}), 507)
    assert "disk is full" in sentence
    assert "/" not in sentence


def test_the_clip_cache_takes_a_share_of_the_free_space(library, monkeypatch):
    monkeypatch.setattr("vop.server.services.shutil.disk_usage", lambda folder: SimpleNamespace(free=4000))
    app = app_of(library)
    assert app.state.services.clips.max_bytes == 1000
    app.state.services.close()


@pytest.fixture
def moving(clips, run, tmp_path):
    """A client of a library whose files a test may replace, the files, and their URLs."""
    copies = {name: tmp_path / name.replace("/", "-") for name in ("red.mp4", "old/yellow.avi")}
    for name, copy in copies.items():
        copy.write_bytes(clips[name].read_bytes())
    with TestClient(app_of(make_library(tmp_path / "moving", [run], copies))) as client:
        found = results(search(client, "a dog", view="moving"))
        urls = {Path(result["path"]): result["media_url"] for result in found}
        yield client, copies, {name: urls[copy] for name, copy in copies.items()}


def test_a_deleted_file_gets_404(moving):
    client, files, urls = moving
    files["red.mp4"].unlink()
    assert f"{files['red.mp4']}: the file cannot be opened" in detail(client.get(urls["red.mp4"]), 404)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("red.mp4", how) for how in ("replaced", "linked", "touched", "larger", "folder", "fifo", "device")),
        *(("old/yellow.avi", how) for how in ("replaced", "touched", "fifo")),
    ],
)
def test_only_the_indexed_file_is_served(moving, name, how):
    client, files, urls = moving
    assert client.get(urls[name]).status_code == 200  # its clip is now cached
    path = files[name]
    secret = path.with_name("secret")
    secret.write_bytes(b"s" * path.stat().st_size)
    before = path.stat()
    if how == "touched":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif how == "larger":
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.unlink()
    if how == "replaced":
        secret.rename(path)
    elif how == "linked":
        path.symlink_to(secret)
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    for method in ("GET", "HEAD"):
        response = client.request(method, urls[name])
        assert response.status_code == 404
        assert b"sss" not in response.content
    assert f"{path}: the file has changed since it was indexed" in detail(client.get(urls[name]), 404)


def test_a_link_to_the_indexed_file_is_served(moving):
    client, files, urls = moving
    path = files["red.mp4"]
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    assert client.get(urls["red.mp4"]).status_code == 200


def test_a_file_that_changes_during_export_is_not_served(moving, monkeypatch):
    client, files, urls = moving
    path, cache = files["old/yellow.avi"], client.app.state.services.clips
    write, kept = cache._write, path.with_name("kept")

    def swapped(source, out, **clip):
        path.rename(kept)
        path.write_bytes(b"s" * kept.stat().st_size)
        Path(out).write_bytes(b"a clip of another file")

    monkeypatch.setattr(cache, "_write", swapped)
    assert "has changed" in detail(client.get(urls["old/yellow.avi"]), 404)
    kept.replace(path)
    monkeypatch.setattr(cache, "_write", write)
    assert b"another" not in client.get(urls["old/yellow.avi"]).content


class TestConditionalRequests:
    @pytest.fixture(params=["red.mp4", "yellow.avi", "strip", "/", "/page/app.js"])
    def url(self, request, by_name):
        if request.param == "strip":
            return by_name["red.mp4"]["strip_url"]
        return request.param if request.param.startswith("/") else by_name[request.param]["media_url"]

    def test_cached_content_is_not_sent_again(self, client, url):
        etag = client.get(url).headers["etag"]
        for known in (etag, f"W/{etag}", f'"x", {etag}', f'W/"a,b" ,W/{etag}', "*", f'"x",{etag},"y"'):
            for method in ("GET", "HEAD"):
                response = client.request(method, url, headers={"if-none-match": known})
                assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag), known
        for other in ('"x"', etag.strip('"'), f'"{etag.strip(chr(34))}x"', "", '"*"', f"w/x{etag[:-1]}"):
            assert client.get(url, headers={"if-none-match": other}).status_code == 200, other
        both = {"if-none-match": etag, "range": "bytes=0-1"}
        assert client.get(url, headers=both).status_code == 304

    def test_if_range_sends_a_part_of_unchanged_content(self, client, by_name):
        url = by_name["red.mp4"]["media_url"]
        whole = client.get(url)
        for known in (whole.headers["etag"], whole.headers["last-modified"]):
            response = client.get(url, headers={"range": "bytes=0-9", "if-range": known})
            assert (response.status_code, len(response.content)) == (206, 10)
        for other in ('"x"', f"W/{whole.headers['etag']}", "Mon, 01 Jan 2001 00:00:00 GMT", "*"):
            response = client.get(url, headers={"range": "bytes=0-9", "if-range": other})
            assert (response.status_code, response.content) == (200, whole.content)

    @pytest.mark.parametrize(
        "wanted",
        [
            *("bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "items=0-1", "bytes 0-1", "0-1", "bytes=1"),
            *("bytes=0-1,4-5", "bytes=--1", "bytes=0x0-0x9", "bytes=1-2-3", "bytes=0-1;", "bytes=+1-2", "="),
            *("bytes=" + "0-0," * 2000, "bytes=9-" + "1" * 6000 + "x"),
        ],
    )
    def test_invalid_ranges_are_ignored(self, client, by_name, wanted):
        url = by_name["red.mp4"]["media_url"]
        response = client.get(url, headers={"range": wanted})
        assert (response.status_code, response.content) == (200, client.get(url).content)

    @pytest.mark.parametrize(
        ("wanted", "part"),
        [
            *(("bytes=0-0", slice(0, 1)), ("bytes=-5", slice(-5, None)), ("BYTES = 3-", slice(3, None))),
            *(("bytes=0-99999999999", slice(None)), ("bytes=-" + "9" * 5000, slice(None))),
            *(("bytes=2-" + "9" * 5000, slice(2, None)), ("bytes=" + "0" * 50 + "7-8", slice(7, 9))),
        ],
    )
    def test_valid_ranges_are_sent(self, client, by_name, wanted, part):
        url = by_name["red.mp4"]["media_url"]
        response = client.get(url, headers={"range": wanted})
        assert (response.status_code, response.content) == (206, client.get(url).content[part])

    @pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
    def test_ranges_after_the_end_get_416(self, client, by_name, wanted):
        url = by_name["red.mp4"]["media_url"]
        size = len(client.get(url).content)
        response = client.get(url, headers={"range": wanted})
        assert (response.status_code, response.content) == (416, b"")
        assert response.headers["content-range"] == f"bytes */{size}"
        head = client.head(url, headers={"range": wanted})  # ranges are for GET alone
        assert (head.status_code, head.headers["content-length"]) == (200, str(size))
