"""Strips, videos and moments of them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import av
import pytest
from PIL import Image
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import CLIPS, make_library
from vop.errors import UsageError, VopError
from vop.server.answers import AskedForMoment


@pytest.fixture(scope="module")
def by_name(client):
    return {result["name"]: result for result in results(search(client, "a dog"))}


def test_strips_are_kept_by_browsers(client, by_name):
    answer = client.get(by_name["red.mp4"]["strip_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).size == (320, 45)
    assert "immutable" in answer.headers["cache-control"]
    again = client.get(by_name["red.mp4"]["strip_url"], headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(("name", "kind"), [("red.mp4", "video/mp4"), ("grey.webm", "video/webm")])
def test_videos_come_whole_and_in_ranges(client, by_name, clips, name, kind):
    url = by_name[name]["media_url"]
    content = clips[name if name in clips else f"old/{name}"].read_bytes()
    whole = client.get(url)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, kind, content)
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(url, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(url, headers={"range": f"bytes={len(content)}-"}).status_code == 416


def test_a_moment_that_browsers_do_not_play_is_made_into_mp4(client, by_name, tmp_path):
    answer = client.get(by_name["yellow.avi"]["media_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    (tmp_path / "moment.mp4").write_bytes(answer.content)
    with av.open(str(tmp_path / "moment.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.duration / av.time_base == pytest.approx(2, abs=0.2)
    part = client.get(by_name["yellow.avi"]["media_url"], headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, answer.content[:10])


@pytest.mark.parametrize(
    ("span", "words"),
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
def test_moments_that_are_not_there(client, by_name, span, words):
    start, end = span
    params = {"start_seconds": start} | ({} if end is None else {"end_seconds": end})
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    assert words in detail(client.get(url, params=params), 422)


def test_an_end_after_the_videos_own_is_its_own(client, by_name):
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    assert client.get(url, params={"start_seconds": 3, "end_seconds": 10**6}).status_code == 200


def test_a_moment_has_a_longest_length():
    with pytest.raises(UsageError, match="61 s long; at most 60 s"):
        AskedForMoment(start_seconds=5, end_seconds=66).within(100)
    assert AskedForMoment(start_seconds=5, end_seconds=65).within(100) == (5, 65)


def test_what_is_there_is_told_without_it(client, by_name):
    yellow = by_name["yellow.avi"]
    for url in ("/", yellow["strip_url"], by_name["red.mp4"]["media_url"], yellow["media_url"]):
        whole, head = client.get(url), client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert head.headers[name] == whole.headers[name]
    assert client.head(yellow["strip_url"].replace("demo", "dem")).status_code == 404


def test_a_full_disk_is_told_without_its_place(client, by_name, monkeypatch):
    def full(path, out, **span):
        raise VopError(f"{out}: no space left")

    monkeypatch.setattr(client.app.state.desk.moments, "_write", full)
    url = by_name["yellow.avi"]["media_url"].partition("?")[0]
    sentence = detail(client.get(url, params={"start_seconds": 0.25, "end_seconds": 0.75}), 507)
    assert sentence == "the server has no room for the moment now; try again later"


def test_moments_take_a_part_of_what_is_free(library, monkeypatch):
    monkeypatch.setattr("vop.server.desk.shutil.disk_usage", lambda folder: SimpleNamespace(free=4000))
    app = app_of(library)
    assert app.state.desk.moments.max_bytes == 1000
    app.state.desk.close()


def test_files_that_are_gone_or_others_by_now(clips, run, tmp_path):
    copies = {name: tmp_path / name for name in CLIPS if name.endswith(".mp4")}
    for name, copy in copies.items():
        copy.write_bytes(clips[name].read_bytes())
    made = make_library(tmp_path / "moving", [run], copies)
    with TestClient(app_of(made)) as client:
        by_name = {result["name"]: result for result in results(search(client, "a dog", view="moving"))}
        red, green, blue = (by_name[name]["media_url"] for name in ("red.mp4", "green.mp4", "blue & white.mp4"))
        copies["red.mp4"].unlink()
        assert f"{copies['red.mp4']}: the file cannot be had" in detail(client.get(red), 404)
        secret = tmp_path / "secret"
        secret.write_text("secret")
        copies["green.mp4"].unlink()
        copies["green.mp4"].symlink_to(secret)
        assert f"{copies['green.mp4']}: the file has changed" in detail(client.get(green), 404)
        copies["blue & white.mp4"].unlink()
        copies["blue & white.mp4"].mkdir()
        assert f"{copies['blue & white.mp4']}: the file has changed" in detail(client.get(blue), 404)
