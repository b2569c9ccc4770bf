"""Tables and folders of videos that spell names in different forms of Unicode."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from vop.datasets import load
from vop.datasets.videofolder import FileTree, VideoFolder, needed_folder
from vop.errors import UsageError


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


FORMS = pytest.mark.parametrize(("on_disk", "typed"), [(nfc, nfd), (nfd, nfc), (nfd, nfd)])


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_table(path: Path, ids: list[str], *, columns=("video", "caption")) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *((video, f"caption {row}") for row, video in enumerate(ids))])
    return path


def found(table: Path, **settings) -> list[Path]:
    return [video.path for video in load(str(table), **settings).split("train").videos]


@FORMS
@pytest.mark.parametrize("wanted", ["été/한글.mp4", "./été/한글.mp4", "été/한글", "été/한글.webm", "한글.mp4", "한글"])
def test_paths_and_bare_names_are_found(tmp_path, on_disk, typed, wanted):
    path = touch(tmp_path / on_disk("été") / on_disk("한글.mp4"))
    assert found(write_table(tmp_path / "t.csv", [typed(wanted)])) == [path]


@FORMS
@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_absolute_paths_are_found(tmp_path, on_disk, typed, suffix):
    path = touch(tmp_path / "elsewhere" / on_disk("été") / on_disk("한글.mp4"))
    (tmp_path / "tables").mkdir()
    table = write_table(tmp_path / "tables" / "t.csv", [f"{tmp_path}/elsewhere/{typed('été/한글')}{suffix}"])
    assert found(table) == [path]


@FORMS
def test_the_table_and_the_video_folder_are_found(tmp_path, on_disk, typed):
    path = touch(tmp_path / on_disk("vidéos") / "a.mp4")
    table = write_table(tmp_path / on_disk("légendes.csv"), ["a.mp4"])
    assert found(tmp_path / typed(table.name), videos=tmp_path / typed("vidéos")) == [path]
    assert needed_folder("msvd", tmp_path / typed("vidéos")) == path.parent


def test_forms_may_be_mixed_along_a_path(tmp_path):
    path = touch(tmp_path / nfc("é") / nfd("ü") / nfd("ö.mp4"))
    for typed in (nfc("é/ü/ö.mp4"), nfd("é/ü/ö.mp4"), nfd("é/") + nfc("ü/ö"), nfc("ö")):
        assert VideoFolder(tmp_path).find(typed) == path


def test_the_given_extension_wins(tmp_path):
    for name in ("é/a.avi", "é/a.mp4", "é.avi", "é.mp4"):
        touch(tmp_path / nfd(name))
    for name in ("é/a.mp4", "é.mp4", "é/a.avi", "é.avi"):
        assert VideoFolder(tmp_path).find(nfc(name)) == tmp_path / nfd(name)


def test_a_missing_file_keeps_its_path(tmp_path):
    for name in ("é.mp4", "é/ü.mp4"):
        assert VideoFolder(tmp_path).find(nfd(name)) == tmp_path / nfd(name)
        assert VideoFolder(tmp_path).find(nfd(name).removesuffix(".mp4")) == tmp_path / nfd(name)


def test_two_forms_of_a_name_are_one_video(tmp_path):
    touch(tmp_path / nfd("é.mp4"))
    split = load(str(write_table(tmp_path / "t.csv", [nfc("é.mp4"), nfd("é.mp4"), nfc("é.mp4")]))).split("train")
    assert ([video.id for video in split.videos], split.targets) == ([nfc("é.mp4")], (0, 0, 0))


def test_a_video_in_two_splits_is_noted(tmp_path):
    write_table(tmp_path / "train.csv", [nfc("é.mp4")])
    write_table(tmp_path / "test.csv", [nfd("é.mp4")])
    assert load(str(tmp_path)).notes == (f"1 video is in both train and test, for example {nfc('é.mp4')}",)


@FORMS
def test_named_columns_are_found(tmp_path, on_disk, typed):
    table = write_table(tmp_path / "t.csv", ["a.mp4"], columns=(on_disk("vidéo"), on_disk("légende")))
    split = load(str(table), video_column=typed("vidéo"), caption_column=typed("légende")).split("train")
    assert (split.videos[0].id, split.captions) == ("a.mp4", ("caption 0",))
    with pytest.raises(UsageError, match="'x'"):
        load(str(table), video_column="x")


def test_files_of_a_benchmark_are_found(tmp_path):
    path = touch(tmp_path / "sub" / nfd("é.json"))
    assert FileTree(tmp_path).nearest(nfc("é.json")) == str(path)


def test_a_large_folder_is_listed_once(tmp_path, monkeypatch):
    ids = [f"{tmp_path}/elsewhere/{nfc('é')}{number}.mp4" for number in range(50)]
    for name in ids:
        touch(Path(nfd(name)))
    listed: Counter = Counter()
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.update([str(path)]) or real(path))
    (tmp_path / "tables").mkdir()
    folder = VideoFolder(tmp_path / "tables")
    assert [folder.find(video_id) for video_id in ids] == [Path(nfd(video_id)) for video_id in ids]
    assert listed == {f"{tmp_path}/elsewhere": 1}
