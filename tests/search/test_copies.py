"""Which of several files with the same content is the original, and metadata that names a copy."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from search.owners_videos import rows, write_video
from vop.search.store import Store
from vop.search.sync import reader
from vop.search.sync.reader import Copies, preference
from vop.video.find import FoundFile


def names(folder: Path) -> set[str]:
    return {name for name, _ in rows(folder)}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("IMG_0001.MOV", "IMG_0001 copy.MOV"),
        ("IMG_0001.MOV", "IMG_0001 (1).MOV"),
        ("IMG_0001.MOV", "IMG_0001 Kopie.MOV"),
        ("x/IMG_0001.MOV", "Copy of IMG_0001.MOV"),
        ("IMG_0001.MOV", "backup/IMG_0001.MOV"),
        ("a/IMG_0001.MOV", "b/IMG_0001.MOV"),
    ],
)
def test_the_original_has_the_better_name(better, worse):
    def at(path: str, mtime_ns: int) -> FoundFile:
        return FoundFile(Path("/v", path), 5, mtime_ns)

    moment = 1_700_000_000 * 10**9
    assert preference(at(better, moment)) < preference(at(worse, moment))
    assert preference(at(better, moment + 10**9)) < preference(at(worse, moment))  # FAT rounds to 2 s
    assert preference(at(better, moment + 60 * 10**9)) > preference(at(worse, moment))


@pytest.mark.parametrize("seed", range(3))
def test_originals_do_not_depend_on_the_order_of_files(tmp_path, seed):
    files = []
    for content in ("one", "two", "six"):
        for name in ("clip.mp4", "clip copy.mp4", "clip copy 2.mp4"):
            path = tmp_path / content / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
            os.utime(path, (1000, 1000))
            files.append(FoundFile(path, 3, path.stat().st_mtime_ns))
    random.Random(seed).shuffle(files)
    read = []

    def content_id(path):
        read.append(path)
        return path.read_text()

    copies = Copies(files, content_id=content_id)
    for file in files:
        original = copies.original_of(file)
        assert (original and original.path) == (
            None if file.path.name == "clip.mp4" else file.path.with_name("clip.mp4")
        )
    assert len(read) == len(set(read))


def test_files_of_different_sizes_are_not_read():
    files = [FoundFile(Path(f"/nowhere/{size}"), size, 0) for size in range(5)]
    copies = Copies(files, content_id=lambda path: pytest.fail(f"{path} was read"))
    assert [copies.original_of(file) for file in files] == [None] * 5


@pytest.mark.parametrize("workers", [1, 3])
def test_a_file_named_as_a_copy_is_the_copy(index_videos, folder, videos, workers):
    at = videos["a"].parent
    for name, copy in (("a", "a copy.mp4"), ("b", "0 b (1).mp4"), ("c", "c - Kopie.mp4")):
        shutil.copy2(videos[name], at / copy)
    report = index_videos(workers=workers)
    assert (report.added, report.duplicates, report.unreadable) == (4, 3, 0)
    assert names(folder) == {"a.mp4", "b.mp4", "c.mp4", "d.mp4"}
    assert index_videos(workers=workers).duplicates == 3


def test_a_better_name_added_later_changes_nothing(index_videos, folder, videos):
    at = videos["a"].parent
    videos["a"].rename(at / "a copy.mp4")
    index_videos()
    shutil.copy2(at / "a copy.mp4", at / "a.mp4")
    os.utime(at / "a copy.mp4")  # so that it is read again
    report = index_videos()
    assert (report.moved, report.duplicates) == (0, 1)
    assert "a copy.mp4" in names(folder)
    (at / "a copy.mp4").unlink()
    shutil.copy2(at / "a.mp4", at / "a again.mp4")
    report = index_videos()
    assert (report.moved, report.duplicates) == (1, 1)
    assert "a.mp4" in names(folder)


def test_copies_of_unreadable_files_are_unreadable(index_videos, folder, videos):
    at = videos["a"].parent
    for name in ("x.mp4", "x copy.mp4"):
        (at / name).write_text("not a video")
    report = index_videos()
    assert (report.unreadable, report.duplicates) == (2, 0)


class TestMetadata:
    def test_metadata_of_a_copy_belongs_to_the_video(self, index_videos, folder, videos, tmp_path):
        at = videos["a"].parent
        shutil.copy2(videos["a"], at / "a copy.mp4")
        shutil.copy2(videos["b"], at / "b copy.mp4")
        table = tmp_path / "about.csv"
        table.write_text("path,author,stars\na copy.mp4,Ann,3\nb copy.mp4,Bob,4\nb.mp4,Eve,\n")
        report = index_videos(metadata=table)
        assert report.unmatched == []
        found = rows(folder)
        assert (found["a.mp4", 0]["about_author"], found["a.mp4", 0]["about_stars"]) == ("Ann", "3")
        assert (found["b.mp4", 0]["about_author"], found["b.mp4", 0]["about_stars"]) == ("Eve", "4")
        assert index_videos(metadata=table).described == 0
        table.write_text("path,author\na copy.mp4,Zoe\n")
        assert index_videos(metadata=table).described == 1
        assert rows(folder)["a.mp4", 0]["about_author"] == "Zoe"

    def test_unmatched_rows_are_reported(self, index_videos, folder, videos, tmp_path):
        (videos["a"].parent / "broken.mp4").write_text("nothing")
        table = tmp_path / "about.csv"
        lines = ["videos/a.mp4", "b.mp4", "broken.mp4", "typo.mp4", "a.mov", "videos/deep/c.mp4"]
        table.write_text("path,author\n" + "".join(f"{line},x\n" for line in lines))
        report = index_videos(metadata=table)
        assert report.unmatched == ["typo.mp4", "a.mov", "videos/deep/c.mp4"]
        assert report.to_dict()["unmatched"] == report.unmatched


def test_a_copy_is_hashed_once(index_videos, folder, videos, monkeypatch):
    at = videos["a"].parent
    for number in range(3):
        shutil.copy2(videos["a"], at / f"a copy {number}.mp4")
    write_video(at / "e.mp4", seed=70)
    real, hashed = reader.content_id, []

    def content_id(path):
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(reader, "content_id", content_id)
    index_videos()
    assert len(hashed) == len(set(hashed)) == 8
    assert len(Store.open(folder).failures()) == 3


def test_metadata_of_a_second_copy_belongs_to_the_original(index_videos, folder, videos, tmp_path):
    index_videos(videos["a"])
    at = videos["a"].parent
    for name in ("b_copy.mp4", "c_copy_2.mp4"):
        shutil.copy2(videos["a"], at / name)
    (tmp_path / "about.csv").write_text("path,author\nc_copy_2.mp4,Ann\n")
    report = index_videos(videos["a"], at / "b_copy.mp4", at / "c_copy_2.mp4", metadata=tmp_path / "about.csv")
    assert report.unmatched == []
    assert Store.open(folder).videos()[str(videos["a"])].metadata == {"author": "Ann"}
    assert [str(videos["a"]) in failed.reason for failed in report.failures] == [True, True]
