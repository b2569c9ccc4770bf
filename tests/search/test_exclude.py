"""Globs of files and folders that are not indexed."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from search.owners_videos import rows, write_video
from vop.errors import UsageError
from vop.search.store import Store
from vop.search.sync import change_excluded, preview
from vop.video import find
from vop.video.find import Exclude, find_videos, normal_globs

FILES = [
    "a.mp4",
    "IMG_1.MOV",
    "private/b.mp4",
    "2024/private/c.mp4",
    "2024/raw/d.mov",
    "2024/raw/deep/e.mov",
    "private.mp4",
    "[x]/f.mp4",
]


@pytest.fixture
def at(tmp_path) -> Path:
    for name in FILES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("glob", "excluded"),
    [
        ("private", {"private/b.mp4", "2024/private/c.mp4"}),
        ("private/", {"private/b.mp4", "2024/private/c.mp4"}),
        ("./private/", {"private/b.mp4", "2024/private/c.mp4"}),
        ("priv*", {"private/b.mp4", "2024/private/c.mp4", "private.mp4"}),
        ("IMG_?.MOV", {"IMG_1.MOV"}),
        ("2024/private", {"2024/private/c.mp4"}),
        ("videos/private", {"private/b.mp4"}),
        ("2024/*", {"2024/private/c.mp4", "2024/raw/d.mov", "2024/raw/deep/e.mov"}),
        ("2024/raw/*.mov", {"2024/raw/d.mov"}),
        ("*/raw", {"2024/raw/d.mov", "2024/raw/deep/e.mov"}),
        ("raw/d.mov", set()),
        ("**/raw/*.mov", {"2024/raw/d.mov"}),
        ("**/*.mov", {"2024/raw/d.mov", "2024/raw/deep/e.mov"}),
        ("2024/**/e.mov", {"2024/raw/deep/e.mov"}),
        ("2024/**", {"2024/private/c.mp4", "2024/raw/d.mov", "2024/raw/deep/e.mov"}),
        ("[[]x]", {"[x]/f.mp4"}),
        ("nothing", set()),
    ],
)
def test_what_a_glob_excludes(at, glob, excluded):
    found = find_videos([at], exclude=[glob])
    assert {str(file.path.relative_to(at)) for file in found.files} == set(FILES) - excluded
    assert found.skipped["excluded"] == len(found.left_out)
    assert bool(excluded) == bool(found.left_out)


def test_a_glob_may_be_an_absolute_path(at):
    found = find_videos([at], exclude=[f"{at}/2024/raw"])
    assert {str(file.path.relative_to(at)) for file in found.files} == {name for name in FILES if "raw" not in name}


def test_globs_exclude_given_files_but_not_given_folders(at):
    assert len(find_videos([at / "private"], exclude=["private"]).files) == 1  # the folder was given
    found = find_videos([at / "a.mp4", at / "private.mp4"], exclude=["private*"])
    assert [file.path.name for file in found.files] == ["a.mp4"]
    assert found.skipped == {"excluded": 1}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_globs_match_both_unicode_forms(tmp_path, form):
    (tmp_path / unicodedata.normalize("NFD", "été")).mkdir()
    (tmp_path / unicodedata.normalize("NFD", "été") / "a.mp4").touch()
    assert find_videos([tmp_path], exclude=[unicodedata.normalize(form, "été")]).files == []
    assert find_videos([tmp_path], exclude=[unicodedata.normalize(form, "été/a.*")]).files == []


def test_globs_follow_the_case_rule_of_the_filesystem(at, monkeypatch):
    assert len(find_videos([at], exclude=["PRIVATE", "2024/RAW"]).files) == len(FILES)
    monkeypatch.setattr(find, "ignores_case", lambda path: True)
    assert len(find_videos([at], exclude=["PRIVATE", "2024/RAW"]).files) == len(FILES) - 4


def test_filesystems_that_ignore_case_are_detected(tmp_path):
    (tmp_path / "Abc").mkdir()
    assert not find.ignores_case(str(tmp_path / "Abc"))
    (tmp_path / "aBC").symlink_to("Abc")  # as if the filesystem ignored case
    find.ignores_case.cache_clear()
    assert find.ignores_case(str(tmp_path / "Abc"))
    (tmp_path / "Abc" / "123").mkdir()
    assert find.ignores_case(str(tmp_path / "Abc" / "123"))  # digits have no case, so the name of its folder decides


@pytest.mark.parametrize("glob", ["", "/", ".", "../other", "a/../b"])
def test_invalid_globs_are_refused(glob):
    with pytest.raises(UsageError, match="--exclude"):
        normal_globs([glob])


def test_globs_are_normalised():
    assert normal_globs(["b/", "a//c", "./b", "/x/"]) == ("b", "a/c", "/x")
    assert Exclude(["/x"], "/x")("/x")


class TestLibrary:
    def test_a_library_keeps_its_globs(self, index_videos, folder, videos):
        at = videos["a"].parent
        write_video(at / "private" / "e.mp4", seed=9)
        report = index_videos(exclude=["private"])
        assert (report.added, report.passed_over) == (4, {"excluded": 1})
        assert Store.open(folder).manifest.exclude == ("private",)
        assert index_videos().passed_over == {"excluded": 1}
        assert index_videos(exclude=["d.mp4"]).excluded == 1
        assert change_excluded(folder) == ("private", "d.mp4")
        assert change_excluded(folder, drop=["private/"], add=["x*"]) == ("d.mp4", "x*")
        assert index_videos().added == 1
        with pytest.raises(UsageError, match=r"does not exclude 'private'; it excludes: d\.mp4, x\*"):
            change_excluded(folder, drop=["private"])

    def test_only_prune_removes_excluded_videos(self, index_videos, folder, videos):
        index_videos()
        report = index_videos(exclude=["[ab].mp4"])
        assert (report.excluded, report.removed, report.deleted) == (2, 0, 0)
        assert len(rows(folder)) == 6
        assert preview(folder, [videos["a"].parent]).excluded == [str(videos["a"]), str(videos["b"])]
        report = index_videos(prune=True)
        assert (report.excluded, report.removed) == (0, 2)
        assert {name for name, _ in rows(folder)} == {"c.mp4", "d.mp4"}

    def test_a_preview_applies_new_globs(self, index_videos, folder, videos):
        index_videos()
        assert preview(folder, [videos["a"].parent], exclude=["a.*"]).excluded == [str(videos["a"])]
        assert Store.open(folder).manifest.exclude == ()
