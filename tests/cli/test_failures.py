"""The files that a library lacks: the same number in the same words, wherever it is asked for."""

from __future__ import annotations

import json
import shutil

import pytest

from search.owners_videos import write_video
from vop.search.failures import PARTIAL, failure
from vop.search.library import Library


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A sound video and two copies, one that will be damaged in part, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("failures") / "videos"
    write_video(folder / "a.mp4", seed=1)
    shutil.copy(folder / "a.mp4", folder / "a copy.mp4")
    shutil.copy(folder / "a.mp4", folder / "another.mp4")
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<html>")
    write_video(folder / "cut.mp4", seed=2)
    return folder


def lines_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if "in the library" in line or "duplicate" in line]


def test_everywhere(vop, videos, tiny_folder, tmp_path):
    library = tmp_path / "library"
    words = ["index", library, videos, "--model", tiny_folder, "--num-frames", 2]
    assert vop(*words)[0] == 0
    Library.open(library).put_failures([failure(videos / "cut.mp4", PARTIAL, "1 of 3 segments are damaged")])
    first, again = vop(*words)[1], vop(*words)[1]
    listed = json.loads(vop("library", "failures", library, "--json")[1])
    counts = listed["counts"]
    assert counts == {"unreadable": 2, "partial": 1, "duplicate": 2}
    assert [one["kind"] for one in listed["duplicates"]] == ["duplicate"] * 2
    assert len(listed["failures"]) == 3
    expected = [
        "3 files are not, or not wholly, in the library: 2 unreadable, 1 partial",
        "2 duplicates are copies of files that are in it",
    ]
    for out in (first, again, vop("library", "info", library)[1]):
        assert lines_of(out) == expected
    table = vop("library", "failures", library)[1]
    assert lines_of(table)[-2:] == expected
    assert [table.count(f" {kind} ") for kind in ("unreadable", "partial")] == [2, 1]

    index, info = (json.loads(vop(*command, "--json")[1]) for command in (words, ["library", "info", library]))
    assert index["counts"] == info["counts"] == counts
    assert (len(index["failures"]), info["failures"]) == (3, 3)
    assert index["failures"] == listed["failures"]


def test_of_the_whole_library_whatever_was_indexed_last(vop, videos, tiny_folder, tmp_path):
    library, other = tmp_path / "library", write_video(tmp_path / "other" / "one.mp4", seed=5)
    model = ["--model", tiny_folder, "--num-frames", 2]
    vop("index", library, videos / "a.mp4", videos / "empty.mp4", *model)
    assert lines_of(vop("index", library, other)[1]) == [
        "1 file is not, or not wholly, in the library: 1 unreadable",
    ]
    assert "1 missing" not in vop("library", "info", library)[1]


def test_none(vop, videos, tiny_folder, tmp_path):
    out = vop("index", tmp_path / "library", videos / "a.mp4", "--model", tiny_folder, "--num-frames", 2)[1]
    assert "failures" not in out
    assert vop("library", "failures", tmp_path / "library")[1] == "every file could be read\n"
