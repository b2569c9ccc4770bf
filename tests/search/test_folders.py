"""The folders that a library remembers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from search.libraries import a_file, make_library
from search.owners_videos import write_video
from vop.cli import main
from vop.errors import UsageError, VopError
from vop.search import folders
from vop.search.library import Library
from vop.search.store import Store
from vop.search.sync import forget
from vop.search.sync.lock import LOCK
from vop.storage.address import Address


def paths_of(library: Path) -> list[str]:
    return [str(place) for place in folders.read(library)]


def small_library(folder: Path, *paths: Path) -> Path:
    return make_library(folder, [a_file(str(path)) for path in paths]).path


HOME, BUCKET = Path("/home/ann"), Address("s3", "films", "a")


@pytest.mark.parametrize(
    ("given", "exclude", "kept"),
    [
        ([HOME / "a/b", HOME / "a", HOME / "ab"], [], [HOME / "a", HOME / "ab"]),
        ([HOME / "a", HOME / "a/b.mp4", HOME / "c.mp4"], [], [HOME / "a", HOME / "c.mp4"]),
        ([HOME / "a", HOME / "a/private/x"], ["private"], [HOME / "a", HOME / "a/private/x"]),
        ([HOME / "a", HOME / "a/private/x"], ["b/private"], [HOME / "a"]),
        ([HOME / "a", HOME / "a/.hidden"], [], [HOME / "a", HOME / "a/.hidden"]),
        ([BUCKET, BUCKET.at("a/b"), BUCKET.at("ab"), HOME], [], [HOME, BUCKET, BUCKET.at("ab")]),
        ([BUCKET, BUCKET.at("a/raw/b")], ["raw"], [BUCKET, BUCKET.at("a/raw/b")]),
        ([HOME / "caf\u00e9", HOME / unicodedata.normalize("NFD", "caf\u00e9") / "x"], [], [HOME / "caf\u00e9"]),
    ],
)
def test_what_another_place_covers_is_not_kept(given, exclude, kept):
    assert folders.merged(given, exclude=exclude) == kept
    assert folders.merged([*reversed(given), *kept], exclude=exclude) == kept


def test_they_are_remembered_as_absolute_paths(index_videos, videos, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lone = write_video(tmp_path / "lone.mp4", seed=7)
    index_videos(Path("videos"), Path("lone.mp4"), videos["a"], tmp_path / "nowhere")
    assert paths_of(folder) == [str(lone), str(tmp_path / "videos")]
    manifest = json.loads((folder / "library.json").read_text())
    assert "folders" not in manifest
    index_videos(tmp_path)
    assert paths_of(folder) == [str(tmp_path)]


def test_index_without_paths_goes_through_them(index_videos, videos, folder, tmp_path, no_decoding):
    index_videos(tmp_path / "videos", videos["a"])
    library = Library.open(folder)
    write_video(tmp_path / "videos" / "new.mp4", seed=8)
    videos["a"].unlink()
    preview = library.preview()
    assert (preview.new, preview.deleted) == ([str(tmp_path / "videos" / "new.mp4")], [str(videos["a"])])
    report = library.index(prune=True, workers=1)
    assert (report.added, report.removed, report.unchanged) == (1, 1, 3)
    no_decoding()
    assert library.index(workers=1).unchanged == 4


def test_a_dropped_folder_keeps_its_videos(index_videos, folder, videos, tmp_path, capsys):
    lone = write_video(tmp_path / "lone.mp4", seed=7)
    index_videos(tmp_path / "videos", lone)
    assert main(["library", "folders", str(folder), "--json", "--drop", str(tmp_path / "videos")]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "library": str(folder),
        "folders": [{"path": str(lone), "kind": "file", "videos": 1, "available": True}],
    }
    assert Library.open(folder).status().videos == 5
    with pytest.raises(UsageError, match=str(lone)):
        Library.open(folder).folders(drop=videos["a"])
    assert main(["library", "folders", str(folder), "--drop", str(lone)]) == 0
    said, noted = capsys.readouterr()
    assert "no folder is remembered" in said
    assert f"library forget {folder} {lone}" in noted


def test_forgetting_a_folder_or_pruning_a_file_drops_it(index_videos, folder, videos, tmp_path):
    lone = write_video(tmp_path / "more" / "lone.mp4", seed=7)
    write_video(tmp_path / "more" / "other.mp4", seed=8)
    index_videos(tmp_path / "videos", lone)
    lone.unlink()
    index_videos(tmp_path / "videos", lone, prune=True)
    assert paths_of(folder) == [str(tmp_path / "videos")]
    forget(folder, [videos["a"]])
    assert paths_of(folder) == [str(tmp_path / "videos")]
    forget(folder, [tmp_path / "videos"])
    assert paths_of(folder) == []


def test_a_killed_forgetting_can_be_repeated(tmp_path, monkeypatch):
    library = Library.open(small_library(tmp_path / "library", tmp_path / "videos" / "a.mp4"))
    folders.remember(library.path, [tmp_path / "videos"])

    def die(*_):
        raise KeyboardInterrupt

    for place, step in ((folders, "drop_below"), (Store, "move_to_removed"), (Store, "remove")):
        with monkeypatch.context() as patch:
            patch.setattr(place, step, die)
            with pytest.raises(KeyboardInterrupt):
                forget(library.path, [tmp_path / "videos"])
    assert forget(library.path, [tmp_path / "videos"]) == 1
    assert paths_of(library.path) == []
    assert list(library.restore()) == [str(tmp_path / "videos" / "a.mp4")]


def test_a_library_that_cannot_be_written_is_named(tmp_path):
    library = small_library(tmp_path / "library", tmp_path / "a.mp4")
    (library / LOCK).unlink(missing_ok=True)
    (library / LOCK).mkdir()  # stands for a disk that is read only
    with pytest.raises(VopError, match="library cannot be changed"):
        forget(library, [tmp_path / "a.mp4"])
    assert Library.open(library).check().sound


def test_unavailable_folders_are_told(tmp_path):
    full, emptied, missing = (tmp_path / name for name in ("full", "emptied", "missing"))
    library = small_library(tmp_path / "library", full / "a.mp4", emptied / "b.mp4", missing / "c.mp4")
    for folder in (full, emptied, tmp_path / "new"):
        folder.mkdir()
    (full / "a.mp4").touch()
    (emptied / ".hidden").touch()
    folders.remember(library, [full, emptied, missing, tmp_path / "new"])
    found = {Path(one.path).name: (one.videos, one.is_available) for one in Library.open(library).folders()}
    assert found == {"full": (1, True), "emptied": (1, False), "missing": (1, False), "new": (0, True)}


def test_videos_are_counted_below_each(tmp_path):
    decomposed = unicodedata.normalize("NFD", "/home/caf\u00e9/a.mp4")
    paths = [
        "/home/ann/a.mp4",
        "/home/ann/b/c.mp4",
        "/home/anna.mp4",
        decomposed,
        "s3://films/a/b.mp4",
        "s3://films/ab.mp4",
    ]
    places = [HOME, HOME / "b", Path("/home/caf\u00e9"), BUCKET, Path("/")]
    assert [folders._count_videos(places, paths)[place] for place in places] == [2, 1, 1, 1, 4]


def test_a_library_without_folders_says_what_to_do(tmp_path, capsys):
    library = small_library(tmp_path / "library", tmp_path / "a.mp4")
    with pytest.raises(UsageError, match=f"vop index {library} FOLDER"):
        Library.open(library).index()
    assert main(["index", str(library)]) == 2
    assert "remembers no folders" in capsys.readouterr().err
    assert not (library / folders.FILE).exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1, "folders": [3]}', '{"format": 9, "folders": []}'])
def test_a_damaged_list_is_an_error(tmp_path, content):
    library = small_library(tmp_path / "library")
    (library / folders.FILE).write_text(content)
    with pytest.raises(VopError, match=folders.FILE):
        folders.read(library)
