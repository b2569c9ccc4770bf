"""Videos in object storage are indexed, kept up to date and found like files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.owners_videos import rows, write_video
from vop.errors import UsageError
from vop.search.library import Library
from vop.search.store import Store
from vop.search.sync import check, forget, preview, reembed, restore
from vop.storage import objects
from vop.storage.address import Address, parse_address
from vop.storage.errors import DeniedObject, StorageError

ROOT = "s3://films/holidays"


@pytest.fixture
def films(object_server, videos):
    """a.mp4 to d.mp4 below the root, and what is not a video."""
    object_server.make_bucket()
    for name, path in videos.items():
        object_server.put(f"{ROOT}/2024/{name}.mp4", path)
    for other in ("2024/notes.txt", "2024/.hidden.mp4", "2024/@eaDir/a.mp4", "2024/no-suffix"):
        object_server.put(f"{ROOT}/{other}", b"nothing")
    return object_server


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The objects that are read, one for each time."""
    from vop.storage import scratch

    found, original = [], scratch.download

    def download(info, path):
        found.append(info.address.name)
        original(info, path)

    monkeypatch.setattr(scratch, "download", download)
    return found


def paths(folder: Path) -> list[str]:
    return sorted(Store.open(folder).videos())


def test_objects_equal_files(films, index_videos, folder, videos, tmp_path, reads):
    report = index_videos(ROOT)
    assert (report.added, report.segments, report.unreadable) == (4, 6, 0)
    assert report.passed_over["text"] == 1
    assert report.passed_over["hidden"] == 1
    assert report.passed_over["a folder of the system"] == 1
    assert sum(report.passed_over.values()) == 4
    assert sorted(reads) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert list((tmp_path / "scratch").iterdir()) == []
    of_objects = rows(folder)
    shutil.rmtree(folder)
    index_videos(tmp_path / "videos")
    of_files = rows(folder)
    own = {"path", "mtime_ns", "volume", "date", "made_at", "checksum"}
    for key, row in of_files.items():
        assert {n: v for n, v in of_objects[key].items() if n not in own} == {
            n: v for n, v in row.items() if n not in own
        }
        assert of_objects[key]["path"] == f"{ROOT}/2024/{key[0]}"
        info = objects.head(parse_address(of_objects[key]["path"]))
        assert (info.size, info.version) == (of_objects[key]["size"], of_objects[key]["mtime_ns"])
        assert of_objects[key]["date"][:10] == info.modified_at.isoformat()[:10]


def test_unchanged_changed_moved_and_deleted(films, index_videos, folder, videos, tmp_path, reads):
    index_videos(ROOT)
    reads.clear()
    assert index_videos(ROOT).unchanged == 4
    assert reads == []
    films.put(f"{ROOT}/2024/a.mp4", write_video(tmp_path / "new.mp4", seed=20))
    films.put(f"{ROOT}/moved.mp4", videos["c"])
    films.delete(f"{ROOT}/2024/c.mp4")
    films.delete(f"{ROOT}/2024/d.mp4")
    seen = preview(folder, [ROOT])
    assert (seen.new, seen.changed) == ([f"{ROOT}/moved.mp4"], [f"{ROOT}/2024/a.mp4"])
    assert seen.deleted == [f"{ROOT}/2024/c.mp4", f"{ROOT}/2024/d.mp4"]
    report = index_videos(ROOT)
    assert (report.changed, report.moved, report.unchanged, report.deleted, report.unavailable) == (1, 1, 1, 1, 0)
    assert sorted(reads) == ["a.mp4", "moved.mp4"]
    assert paths(folder) == [f"{ROOT}/2024/{name}.mp4" for name in "abd"] + [f"{ROOT}/moved.mp4"]
    report = index_videos(ROOT, prune=True)
    assert (report.removed, report.deleted) == (1, 0)
    assert f"{ROOT}/2024/d.mp4" not in paths(folder)
    assert restore(folder) == [f"{ROOT}/2024/d.mp4"]
    assert forget(folder, [f"{ROOT}/2024"]) == 3
    assert paths(folder) == [f"{ROOT}/moved.mp4"]


def test_copies_are_listed_once(films, index_videos, folder, videos, reads):
    films.put(f"{ROOT}/2025/a again.mp4", videos["a"])
    assert index_videos(ROOT, workers=1).duplicates == 1
    reads.clear()
    report = index_videos(ROOT)
    assert (report.duplicates, report.unchanged) == (1, 4)
    assert reads == []


def test_files_replace_objects_with_the_same_content(films, index_videos, folder, videos, tmp_path):
    index_videos(ROOT)
    for name in videos:
        films.delete(f"{ROOT}/2024/{name}.mp4")
    warnings = []
    report = index_videos(ROOT + "/2024/a.mp4", tmp_path / "videos", prune=True, warn=warnings.append)
    assert (report.moved, report.unavailable, report.removed) == (4, 0, 0)
    assert "s3://films/holidays/2024/a.mp4" in warnings[0]
    with pytest.raises(UsageError, match="'s3://films/nothing' cannot be indexed"):
        index_videos("s3://films/nothing")


def test_objects_of_an_address_below_which_nothing_is_listed_are_unavailable(films, index_videos, videos, tmp_path):
    films.put("s3://films/other/e.mp4", write_video(tmp_path / "e.mp4", seed=9))
    assert index_videos("s3://films/other", tmp_path / "videos").added == 5
    films.delete("s3://films/other/e.mp4")
    report = index_videos("s3://films/other", tmp_path / "videos", prune=True)
    assert (report.unavailable, report.removed, report.unchanged) == (1, 0, 4)
    assert report.unavailable_folders == ["s3://films/other"]


def test_one_object_and_excluded_ones(films, index_videos, folder, videos):
    films.put(f"{ROOT}/raw/e", videos["a"])
    assert index_videos(f"{ROOT}/raw/e").added == 1
    report = index_videos(ROOT, exclude=["a.mp4", "holidays/2024/b.mp4"])
    assert report.passed_over["excluded"] == 2
    assert paths(folder) == [f"{ROOT}/2024/{name}.mp4" for name in "cd"] + [f"{ROOT}/raw/e"]
    assert index_videos(ROOT).deleted == 0  # its name is no video's, but it exists
    report = index_videos(ROOT, exclude=["2024"])
    assert report.excluded == 2


def test_a_damaged_object_is_listed_with_its_address(films, index_videos, folder):
    films.put(f"{ROOT}/broken.mp4", b"not a video" * 100)
    films.put(f"{ROOT}/empty.mp4", b"")
    report = index_videos(ROOT)
    assert report.added == 4
    failed = {failure.path: failure.reason for failure in report.failures}
    assert failed == {
        f"{ROOT}/broken.mp4": "this is not a video that FFmpeg can read",
        f"{ROOT}/empty.mp4": "the file is empty (0 bytes)",
    }
    films.delete(f"{ROOT}/empty.mp4")
    assert [failure.path for failure in index_videos(ROOT).failures] == [f"{ROOT}/broken.mp4"]


def test_an_object_that_changes_while_it_is_read(films, index_videos, folder, videos, monkeypatch):
    original, changes = objects.read_range, {"a.mp4": 1, "b.mp4": 99}

    def changing(info, start, end):
        if changes.get(info.address.name, 0) > 0:
            changes[info.address.name] -= 1
            films.put(str(info.address), videos["c"].read_bytes() + b"%d" % changes[info.address.name])
        return original(info, start, end)

    monkeypatch.setattr(objects, "read_range", changing)
    report = index_videos(ROOT)
    assert {failure.path for failure in report.failures} == {f"{ROOT}/2024/b.mp4"}
    assert "changed while it was read" in report.failures[0].reason
    record = Store.open(folder).videos()[f"{ROOT}/2024/a.mp4"]
    now = objects.head(Address("s3", "films", "holidays/2024/a.mp4"))
    assert (record.size, record.mtime_ns) == (now.size, now.version)
    monkeypatch.setattr(objects, "read_range", original)
    report = index_videos(ROOT)
    assert (report.added, report.unchanged, report.failures) == (1, 3, [])


def test_a_full_scratch_stops_and_keeps_what_is_finished(films, index_videos, folder, monkeypatch):
    from vop.storage.scratch import Scratch

    original = Scratch._download

    def download(self, info, path):
        if info.address.name == "b.mp4":  # the largest
            raise self._full(info)
        original(self, info, path)

    monkeypatch.setattr(Scratch, "_download", download)
    with pytest.raises(StorageError, match=r"no space left for the copy of s3://films/holidays/2024/b.mp4"):
        index_videos(ROOT, workers=1)
    assert paths(folder) == [f"{ROOT}/2024/{name}.mp4" for name in "acd"]


def test_wrong_credentials_change_nothing(films, index_videos, folder, monkeypatch):
    import moto.settings

    index_videos(ROOT)
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(StorageError, match="credentials are wrong"):
        index_videos(ROOT, prune=True)
    assert len(paths(folder)) == 4
    with pytest.raises(StorageError, match="credentials are wrong"):
        index_videos("s3://no-such-bucket")


def test_credentials_that_end_during_the_indexing(films, index_videos, folder, videos, monkeypatch):
    import moto.settings

    from vop.storage import scratch

    index_videos(ROOT)
    films.put(f"{ROOT}/2024/a.mp4", videos["b"])
    original = scratch.head

    def head(address):
        monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        return original(address)

    monkeypatch.setattr(scratch, "head", head)
    with pytest.raises(StorageError, match="credentials are wrong"):
        index_videos(ROOT)
    assert len(paths(folder)) == 4


def test_a_changed_object_that_is_refused_keeps_its_rows(films, index_videos, folder, videos, monkeypatch):
    from vop.storage import scratch

    index_videos(ROOT)
    films.put(f"{ROOT}/2024/a.mp4", videos["b"])

    def refused(address):
        raise DeniedObject(address, "access is denied")

    monkeypatch.setattr(scratch, "head", refused)
    monkeypatch.setattr(objects, "head", refused)
    assert index_videos(ROOT).unreadable == 1
    assert len(paths(folder)) == 4


def test_a_missing_bucket_is_named(films, index_videos):
    with pytest.raises(StorageError, match="s3://no-such-bucket: this bucket does not exist"):
        index_videos("s3://no-such-bucket/holidays")


def test_search_metadata_check_and_reembed(films, index_videos, folder, tmp_path, tiny_folder, squashing_folder):
    (tmp_path / "about.csv").write_text(f"path,stars\n{ROOT}/2024/a.mp4,5\nb.mp4,3\n")
    report = index_videos(ROOT, metadata=tmp_path / "about.csv")
    assert report.unmatched == []
    library = Library.open(folder)
    vector = library.segment(rows(folder)["a.mp4", 0]["segment"]).embeddings[0]
    found = library.search(vector, folder=ROOT)
    assert (found[0].path, found[0].columns, len(found)) == (f"{ROOT}/2024/a.mp4", {"stars": "5"}, 4)
    assert library.search(vector, folder="s3://films/holi") == []
    assert len(library.search(vector, folder="2024", where="stars=3")) == 1
    films.delete(f"{ROOT}/2024/d.mp4")
    report = check(folder)
    assert (report.deleted, report.changed, report.sound) == ([f"{ROOT}/2024/d.mp4"], [], True)
    moved = reembed(folder, str(squashing_folder), drop_unreadable=True, precision="fp32")
    assert (moved.videos, [failure.path for failure in moved.dropped]) == (3, [f"{ROOT}/2024/d.mp4"])


def test_no_secret_is_written(films, index_videos, folder):
    from object_server import KEY_ID, SECRET

    index_videos(ROOT)
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"2024/a.mp4" in content
    assert SECRET.encode() not in content
    assert KEY_ID.encode() not in content
