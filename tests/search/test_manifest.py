"""The manifest, `library.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

import vop
from search.libraries import a_manifest, a_model
from vop.backbones.embedding_config import EmbeddingConfig, TokenMerging
from vop.errors import UsageError, VopError
from vop.search import manifest
from vop.search.manifest import SegmentationConfig
from vop.video.resizing import Resizing


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    library = a_manifest(a_model(), a_model(1)).with_(
        segmentation=SegmentationConfig(by="shots", window_seconds=6.5, overlap_seconds=0.0),
        keep_frames=True,
        num_frames=12,
    )
    manifest.write(library, tmp_path / "a new folder")
    assert manifest.read(tmp_path / "a new folder") == library
    assert [path.name for path in (tmp_path / "a new folder").iterdir()] == ["library.json"]


def test_writing_replaces_the_manifest(tmp_path):
    manifest.write(a_manifest(), tmp_path)
    manifest.write(a_manifest(table="segments_new"), tmp_path)
    assert manifest.read(tmp_path).table == "segments_new"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": "scenes"}, "'scenes'; known: windows, shots"),
        ({"window_seconds": 0}, "window_seconds is 0;"),
        ({"window_seconds": -1.5}, r"window_seconds is -1\.5"),
        ({"window_seconds": float("nan")}, "window_seconds is nan"),
        ({"window_seconds": float("inf")}, "window_seconds is inf"),
        ({"overlap_seconds": -0.5}, r"overlap_seconds is -0\.5"),
        ({"overlap_seconds": 10}, r"overlap_seconds is 10; .* less than the window, 10\.0 s"),
        ({"overlap_seconds": float("nan")}, "overlap_seconds is nan"),
    ],
)
def test_invalid_segmentation_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        SegmentationConfig(**values)


def test_a_missing_library_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(UsageError, match=f"{folder}: no library.*vop index {folder}"):
            manifest.read(folder)


def write_changed(folder, **entries) -> None:
    manifest.write(a_manifest(), folder)
    document = json.loads((folder / "library.json").read_text()) | entries
    document = {name: value for name, value in document.items() if value is not None}
    (folder / "library.json").write_text(json.dumps(document))


def test_a_later_format_is_refused(tmp_path):
    write_changed(tmp_path, format=99, vop_version="9.9", models={"in": "another form"})
    message = rf"library\.json: format 99 .*\(9\.9\).*\({vop.__version__}\).* {manifest.FORMAT}:"
    with pytest.raises(VopError, match=message):
        manifest.read(tmp_path)


def test_only_libraries_with_settings_need_the_newest_format(tmp_path):
    settings = EmbeddingConfig(merge_tokens=TokenMerging(0.5))
    for model, form in [(a_model(), 2), (replace(a_model(), embedding=settings), manifest.FORMAT)]:
        manifest.write(a_manifest(model), tmp_path)
        assert json.loads((tmp_path / "library.json").read_text())["format"] == form
        assert manifest.read(tmp_path).models == (model,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"format": 1',
        "null",
        "[]",
        "3",
        '"text"',
        "{}",
        '{"format": "one"}',
        '{"format": null}',
        "\x00\x00\x00",
    ],
)
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "library.json").write_text(text)
    with pytest.raises(VopError, match=r"library\.json: not the manifest of a library"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "entries",
    [
        {"table": None},
        {"models": None},
        {"models": [{"name": "mini"}]},
        {"models": 3},
        {"models": []},
        {"models": ["mini"]},
        {"cutting": {"by": "windows", "seconds": 3}},
        {"cutting": None},
        {"cutting": {"by": "scenes"}},
        {"cutting": {"window_seconds": "ten"}},
        {"vop_version": None},
        {"something_new": 1},
        {"image_size": 0},
        {"resize": "stretch"},
        {"interpolation": "nearest"},
    ],
)
def test_invalid_entries_are_refused(tmp_path, entries):
    write_changed(tmp_path, **entries)
    with pytest.raises(VopError, match=r"library\.json: not the manifest of a library"):
        manifest.read(tmp_path)


def test_files_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "library.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VopError, match=r"library\.json: not the manifest of a library"):
        manifest.read(tmp_path)


def test_the_document_has_every_entry(tmp_path):
    manifest.write(a_manifest(), tmp_path)
    document = json.loads((tmp_path / "library.json").read_text())
    checksum = document.pop("sha256")
    assert checksum == hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert document == {
        "format": 2,
        "vop_version": vop.__version__,
        "table": "segments_0",
        "models": [
            {
                "name": "run0",
                "method": "vop",
                "fingerprint": "0123456789abcdef",
                "embed_dim": 8,
                "precision": "fp32",
                "column": "embedding_0",
            }
        ],
        "num_frames": 4,
        "image_size": 32,
        "cutting": {"by": "windows", "window_seconds": 10.0, "overlap_seconds": 2.0},
        "keep_frames": False,
        "exclude": [],
        "live_photos": False,
    }


def test_resizing_is_stored_if_it_differs_from_clips(tmp_path):
    """Earlier versions of vop can read the libraries of models that resize as CLIP does."""
    squashing = a_manifest().with_(resize="squash", interpolation="bilinear")
    assert (a_manifest().resizing, squashing.resizing) == (Resizing(32), Resizing(32, "squash", "bilinear"))
    manifest.write(squashing, tmp_path)
    document = json.loads((tmp_path / "library.json").read_text())
    assert (document["image_size"], document["resize"], document["interpolation"]) == (32, "squash", "bilinear")
    assert manifest.read(tmp_path) == squashing


def test_format_1_can_be_read(tmp_path):
    """It has no checksum, and no entry that format 2 added."""
    manifest.write(a_manifest(), tmp_path)
    document = json.loads((tmp_path / "library.json").read_text()) | {"format": 1, "vop_version": "0.1"}
    for later in ("sha256", "exclude", "live_photos"):
        del document[later]
    (tmp_path / "library.json").write_text(json.dumps(document))
    assert manifest.read(tmp_path) == a_manifest()


@pytest.mark.parametrize("digit", [0, 31, 63])
def test_a_wrong_checksum_is_refused(tmp_path, digit):
    manifest.write(a_manifest(), tmp_path)
    document = json.loads((tmp_path / "library.json").read_text())
    wrong = "0" if document["sha256"][digit] != "0" else "1"
    write_changed(tmp_path, sha256=document["sha256"][:digit] + wrong + document["sha256"][digit + 1 :])
    with pytest.raises(VopError, match="content has changed"):
        manifest.read(tmp_path)
