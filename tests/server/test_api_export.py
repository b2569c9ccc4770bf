"""Clips as downloads, and lists of chosen segments."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from urllib.parse import unquote, urlparse

import av
import opentimelineio as otio
import pytest
from starlette.testclient import TestClient

from server.api_steps import app_of, detail, results, search
from server.library_data import make_library
from vop.server.export_routes import attachment


@pytest.fixture(scope="module")
def by_name(client):
    return {result["name"]: result for result in results(search(client, "a dog"))}


def clip_url(result: dict) -> str:
    return f"/api/libraries/demo/videos/{result['video']}/clip"


@pytest.mark.parametrize(
    ("name", "exact", "suffix", "kind"),
    [
        ("red.mp4", False, ".mp4", "video/mp4"),
        ("red.mp4", True, ".mp4", "video/mp4"),
        ("grey.webm", False, ".webm", "video/webm"),
        ("yellow.avi", False, ".mkv", "video/matroska"),
    ],
)
def test_a_clip_is_a_download_with_a_name(client, by_name, tmp_path, name, exact, suffix, kind):
    params = {"start_seconds": 0.2, "end_seconds": 0.6, "exact": exact}
    response = client.get(clip_url(by_name[name]), params=params)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    stem = name.partition(".")[0]
    assert f'filename="{stem} 00.00.00-00.00.00{suffix}"' in response.headers["content-disposition"]
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(response.content)
    with av.open(str(path)) as container:
        seconds = container.duration / av.time_base
    assert 0.399 <= seconds <= (0.401 if exact else 1.1)
    part = client.get(clip_url(by_name[name]), params=params, headers={"range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, response.content[:10])


def test_a_clip_says_how_early_it_begins(client, tmp_path):
    """A copy begins at the key frame before the moment; both requests of a clip say so, the second from the cache."""
    blue = next(one for one in results(search(client, "a dog")) if one["name"] == "blue & white.mp4")
    params = {"start_seconds": 2.5, "end_seconds": 3.0}
    for _ in range(2):
        response = client.get(clip_url(blue), params=params)
        path = tmp_path / "copied.mp4"
        path.write_bytes(response.content)
        with av.open(str(path)) as container:
            seconds = container.duration / av.time_base
        lead = float(response.headers["vop-lead-seconds"])
        assert lead == 2.5  # its only key frame is the first
        assert lead + 0.5 <= seconds <= lead + 0.5 + 0.5
    assert client.head(clip_url(blue), params=params).headers["vop-lead-seconds"] == "2.500"
    exact = client.get(clip_url(blue), params={**params, "exact": True})
    assert exact.headers["vop-lead-seconds"] == "0.000"


def test_names_of_downloads_are_not_only_ascii():
    assert attachment('Übung "1".mp4') == (
        "attachment; filename=\"_bung _1_.mp4\"; filename*=UTF-8''%C3%9Cbung%20%221%22.mp4"
    )


@pytest.mark.parametrize(
    ("clip", "words"), [((2, 1), "end_seconds is 1.0"), ((0, 1, "perhaps"), "exact is 'perhaps'"), ((9, 10), "ends at")]
)
def test_invalid_clips_are_refused(client, by_name, clip, words):
    params = dict(zip(("start_seconds", "end_seconds", "exact"), clip, strict=False))
    assert words in detail(client.get(clip_url(by_name["red.mp4"]), params=params), 422)
    assert (
        client.get("/api/libraries/demo/videos/" + "0" * 32 + "/clip", params=params | {"exact": 0}).status_code == 404
    )


def export(client, kind: str, moments: list[dict], library: str = "demo", **more):
    return client.post(f"/api/libraries/{library}/export", json={"format": kind, "moments": moments, **more})


def test_a_table_of_chosen_segments(client, by_name):
    chosen = [by_name["yellow.avi"], by_name["red.mp4"]]
    moments = [{"segment": one["segment"], "start_seconds": 0.5, "score": one["score"]} for one in chosen]
    response = export(client, "csv", moments, name="Ü 1")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "filename*=UTF-8''%C3%9C%201.csv" in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["path"], float(row["start_seconds"]), float(row["score"])) for row in rows] == [
        (one["path"], 0.5, one["score"]) for one in chosen
    ]


def test_moments_end_with_their_video(client, by_name):
    red = by_name["red.mp4"]
    moments = [{"segment": red["segment"], "end_seconds": end} for end in (0.5, 99)]
    rows = list(csv.DictReader(io.StringIO(export(client, "csv", moments).text)))
    assert [float(row["end_seconds"]) for row in rows] == [0.5, red["duration_seconds"]]


@pytest.mark.parametrize(("kind", "adapter"), [("edl", "cmx_3600"), ("fcpxml", "fcpx_xml"), ("otio", "otio_json")])
def test_lists_of_chosen_segments(client, by_name, kind, adapter):
    chosen = [by_name["grey.webm"], by_name["red.mp4"]]
    response = export(client, kind, [{"segment": one["segment"]} for one in chosen])
    assert (response.status_code, response.headers["vop-skipped"]) == (200, "0")
    found = otio.adapters.read_from_string(response.text, adapter)
    clips = list((found[0] if kind == "fcpxml" else found).tracks[0].find_clips())
    assert [clip.name for clip in clips] == ["grey.webm", "red.mp4"]
    if kind != "edl":
        urls = [unquote(urlparse(clip.media_reference.target_url).path) for clip in clips]
        assert urls == [one["path"] for one in chosen]


def test_invalid_exports_are_refused(client, by_name):
    segment = by_name["red.mp4"]["segment"]
    moments = [{"segment": segment}]
    assert "format" in detail(export(client, "xls", moments), 422)
    assert "moments" in detail(export(client, "csv", []), 422)
    assert "moments" in detail(export(client, "csv", moments * 1001), 422)
    assert "is not the id" in detail(export(client, "csv", [{"segment": "x"}]), 404)
    assert "has no segment" in detail(export(client, "csv", [{"segment": "0" * 32 + "-0-5"}]), 404)
    assert "begins at 9" in detail(export(client, "csv", [{"segment": segment, "start_seconds": 9}]), 422)
    body = b'{"moments": "' + b"x" * 2**20
    assert "1,048,576" in detail(client.post("/api/libraries/demo/export", content=body), 413)


def test_missing_files_are_counted(clips, run, tmp_path):
    copies = {name: tmp_path / name for name in ("red.mp4", "gone.mp4")}
    copies["red.mp4"].write_bytes(clips["red.mp4"].read_bytes())
    copies["gone.mp4"].write_bytes(clips["green.mp4"].read_bytes() if "green.mp4" in clips else b"")
    with TestClient(app_of(make_library(tmp_path / "moving", [run], copies))) as client:
        found = results(search(client, "a dog", view="moving"))
        moments = [{"segment": one["segment"]} for one in found]
        copies["gone.mp4"].unlink()
        response = export(client, "edl", moments, "moving")
        assert (response.status_code, response.headers["vop-skipped"]) == (200, "1")
        gone = [{"segment": one["segment"]} for one in found if Path(one["path"]).name == "gone.mp4"]
        assert "gone.mp4" in detail(export(client, "edl", gone, "moving"), 404)
