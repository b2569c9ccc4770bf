"""library.json."""

from __future__ import annotations

import json

import pytest

import vop
from search.libraries import a_model, an_about
from vop.errors import UsageError, VopError
from vop.search import manifest as describing
from vop.search.manifest import SegmentationConfig


def test_it_is_read_as_it_was_written(tmp_path):
    about = an_about(a_model(), a_model(1)).with_(
        cutting=SegmentationConfig(by="shots", window_seconds=6.5, overlap_seconds=0.0), keep_frames=True, num_frames=12
    )
    describing.write(about, tmp_path / "a new folder")
    assert describing.read(tmp_path / "a new folder") == about
    assert [path.name for path in (tmp_path / "a new folder").iterdir()] == ["library.json"]


def test_writing_over_another_one(tmp_path):
    describing.write(an_about(), tmp_path)
    describing.write(an_about(table="segments_new"), tmp_path)
    assert describing.read(tmp_path).table == "segments_new"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"by": "scenes"}, "segments are cut by 'scenes'; known: windows, shots"),
        ({"window_seconds": 0}, "window_seconds is 0;"),
        ({"window_seconds": -1.5}, r"window_seconds is -1\.5"),
        ({"window_seconds": float("nan")}, "window_seconds is nan"),
        ({"window_seconds": float("inf")}, "window_seconds is inf"),
        ({"overlap_seconds": -0.5}, r"overlap_seconds is -0\.5"),
        ({"overlap_seconds": 10}, r"overlap_seconds is 10; .* less than the window, 10\.0 s"),
        ({"overlap_seconds": float("nan")}, "overlap_seconds is nan"),
    ],
)
def test_how_videos_cannot_be_cut(values, message):
    with pytest.raises(UsageError, match=message):
        SegmentationConfig(**values)


def test_no_library(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(UsageError, match=f"{folder}: there is no library; make one: vop index {folder}"):
            describing.read(folder)


def changed(folder, **entries) -> None:
    describing.write(an_about(), folder)
    document = json.loads((folder / "library.json").read_text()) | entries
    document = {name: value for name, value in document.items() if value is not None}
    (folder / "library.json").write_text(json.dumps(document))


def test_of_a_later_version(tmp_path):
    changed(tmp_path, format=99, vop_version="9.9", models={"in": "another form"})
    said = rf"library\.json: format 99 is of a later vop \(9\.9\); this one \({vop.__version__}\) reads up to 2"
    with pytest.raises(VopError, match=said):
        describing.read(tmp_path)


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
def test_torn_or_something_else(tmp_path, text):
    (tmp_path / "library.json").write_text(text)
    with pytest.raises(VopError, match=r"library\.json: not the description of a library"):
        describing.read(tmp_path)


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
    ],
)
def test_entries_that_are_not_as_they_should_be(tmp_path, entries):
    changed(tmp_path, **entries)
    with pytest.raises(VopError, match=r"library\.json: not the description of a library"):
        describing.read(tmp_path)


def test_not_utf8(tmp_path):
    (tmp_path / "library.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VopError, match=r"library\.json: not the description of a library"):
        describing.read(tmp_path)
