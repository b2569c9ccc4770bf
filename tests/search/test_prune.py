"""What is taken out of a library, what is left alone, and how it comes back."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from search.owners_videos import embeddings, rows, write_video
from vop.errors import UsageError
from vop.search.failures import PARTIAL, failure
from vop.search.results import VideoRecord
from vop.search.store import Store
from vop.search.sync import forget, preview, restore
from vop.search.sync.scanner import missing_folders, split_missing
from vop.video.find import mount_point, volume_of


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another filesystem than the tests' own."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


def names(paths) -> list[str]:
    return sorted(Path(path).name for path in paths)


class TestDrives:
    def test_one_of_two_goes_with_its_mount_point(self, bring, folder, tmp_path):
        at = tmp_path / "Volumes"
        for number in range(4):
            write_video(at / "A" / f"{number}.mp4", seed=number, seconds=2)
            write_video(at / "B" / "trips" / f"{number}.mp4", seed=10 + number, seconds=2)
        assert bring(at).added == 8
        (at / "B").rename(tmp_path / "unplugged")
        (at / "A" / "0.mp4").unlink()
        report = bring(at, prune=True, yes=True)
        assert (report.removed, report.deleted, report.unavailable) == (1, 0, 4)
        assert report.unavailable_folders == [str(at / "B")]
        (tmp_path / "unplugged").rename(at / "B")
        report = bring(at)
        assert (report.unchanged, report.unavailable) == (7, 0)

    def test_one_that_was_given_by_itself(self, bring, folder, videos, tmp_path):
        write_video(tmp_path / "drive" / "e.mp4", seed=9)
        bring(tmp_path / "videos", tmp_path / "drive")
        (tmp_path / "drive").rename(tmp_path / "unplugged")
        warnings = []
        report = bring(tmp_path / "videos", tmp_path / "drive", prune=True, warn=warnings.append)
        assert (report.removed, report.unavailable, report.unchanged) == (0, 1, 4)
        assert report.missing == {str(tmp_path / "drive"): "No such file or directory"}
        assert len(warnings) == 1
        assert str(tmp_path / "drive") in warnings[0]
        with pytest.raises(UsageError, match="drive' cannot be indexed"):
            bring(tmp_path / "drive")

    def test_something_else_lies_in_its_place(self, bring, folder, videos, tmp_path, elsewhere):
        """As where a system keeps a file below a mount point: the folder is there, on another filesystem."""
        write_video(elsewhere / "e.mp4", seed=9)
        write_video(elsewhere / "f.mp4", seed=10)
        drive = tmp_path / "videos" / "drive"
        drive.symlink_to(elsewhere)
        assert bring().added == 6
        drive.unlink()
        write_video(drive / "g.mp4", seed=11)
        report = bring(prune=True)
        assert (report.added, report.removed, report.unavailable) == (1, 0, 2)
        assert report.unavailable_folders == [str(drive)]
        assert bring(prune=True).unavailable == 2  # not although the folder is known on its new filesystem
        shutil.rmtree(drive)
        drive.symlink_to(elsewhere)
        (elsewhere / "e.mp4").unlink()
        assert bring(prune=True).removed == 1

    def test_a_failure_of_what_is_unavailable_stays_listed(self, bring, folder, videos, tmp_path):
        (tmp_path / "drive").mkdir()
        (tmp_path / "drive" / "broken.mp4").write_text("nothing")
        bring(tmp_path / "videos", tmp_path / "drive")
        (tmp_path / "drive").rename(tmp_path / "unplugged")
        report = bring(tmp_path / "videos", tmp_path / "drive")
        assert names(failed.path for failed in report.failures) == ["broken.mp4"]


def a_video(path: Path, volume: str | None) -> VideoRecord:
    state = path.stat()
    return VideoRecord(
        video=path.name, path=str(path), size=state.st_size, mtime_ns=state.st_mtime_ns, metadata={}, volume=volume
    )


def test_a_filesystem_with_another_identity_is_told_by_its_videos(elsewhere):
    """Some filesystems get a new identity whenever the system starts; another stick in the same place has one, too."""
    now = volume_of(elsewhere)
    assert mount_point(now) == "/dev/shm"
    before = f"123abc {mount_point(now)}"
    paths = [elsewhere / name for name in ("a", "b", "other")]
    for path in paths:
        path.touch()
    known = {str(path): a_video(path, before) for path in paths[:2]}
    paths[0].unlink()
    assert split_missing(known, known) == ([str(paths[0])], [])
    paths[1].unlink()
    assert split_missing(known, known) == ([], [str(path) for path in paths[:2]])
    same = {path: VideoRecord(**{**vars(video), "volume": now}) for path, video in known.items()}
    assert split_missing(same, same) == ([str(path) for path in paths[:2]], [])


def test_libraries_that_know_no_filesystem(tmp_path):
    """Another video of the folder tells that it is the same one; any other file may lie where a drive was mounted."""
    other, video = tmp_path / "other.mp4", str(tmp_path / "a.mp4")
    other.touch()
    known = {video: VideoRecord(video="a", path=video, size=1, mtime_ns=1, metadata={})}
    assert split_missing(known, known) == ([], [video])
    sibling = VideoRecord(video="b", path=str(other), size=0, mtime_ns=other.stat().st_mtime_ns, metadata={})
    assert split_missing(known, known | {sibling.path: sibling}) == ([video], [])


def test_missing_folders_are_named_by_the_topmost_one(tmp_path):
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "drive" / "x" / "y" / "a.mp4", tmp_path / "drive" / "b.mp4", tmp_path / "empty" / "c.mp4"]
    assert missing_folders([str(path) for path in paths]) == [tmp_path / "drive", tmp_path / "empty"]


class TestShare:
    @pytest.fixture
    def half_deleted(self, bring, folder, videos):
        at = videos["a"].parent
        more = [write_video(at / f"more {number}.mp4", seed=30 + number, seconds=2) for number in range(6)]
        bring()
        for path in more:
            path.unlink()
        return more

    def test_a_large_one_wants_a_word(self, bring, folder, half_deleted):
        before = rows(folder)
        report = bring(prune=True)
        assert (report.removed, report.deleted) == (0, 6)
        assert report.unconfirmed == [str(path) for path in half_deleted]
        assert rows(folder) == before
        report = bring(prune=True, yes=True)
        assert (report.removed, report.deleted, report.unconfirmed) == (6, 0, [])

    def test_a_preview_lists_it_and_changes_nothing(self, bring, folder, half_deleted, tmp_path, no_decoding):
        at = half_deleted[0].parent
        (at / "a.mp4").rename(at / "renamed.mp4")
        os.utime(at / "c.mp4", (1, 1))
        (at / "new.mp4").write_text("new")
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        no_decoding()
        found = preview(folder, [at, tmp_path / "nowhere"])
        assert found.deleted == [str(path) for path in half_deleted]
        assert found.needs_confirmation
        assert (names(found.new), names(found.changed)) == (["new.mp4"], ["c.mp4"])
        assert found.moved == [(str(at / "a.mp4"), str(at / "renamed.mp4"))]
        assert list(found.missing) == [str(tmp_path / "nowhere")]
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_a_preview_of_a_new_library_makes_none(self, folder, videos):
        assert names(preview(folder, [videos["a"].parent]).new) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
        assert not folder.exists()


class TestRestoring:
    def test_everything_is_as_it_was(self, bring, folder, videos):
        bring()
        before, vectors = rows(folder), embeddings(folder)
        videos["b"].unlink()
        assert bring(prune=True).removed == 1
        forget(folder, [videos["a"]])
        assert len(rows(folder)) == 2
        assert restore(folder, [videos["a"]]) == [str(videos["a"])]
        assert restore(folder) == [str(videos["b"])]
        after = rows(folder)
        assert after.keys() == before.keys()
        for key, row in before.items():
            np.testing.assert_array_equal(after[key].pop("embedding_1"), vectors[key])
            assert after[key] == {name: value for name, value in row.items() if name != "embedding_1"}
        with pytest.raises(UsageError, match="nothing to restore"):
            restore(folder)

    def test_what_came_back_by_itself_is_not_there_twice(self, bring, folder, videos):
        bring()
        forget(folder, [videos["a"], videos["c"]])
        videos["a"].rename(videos["a"].with_name("renamed.mp4"))
        write_video(videos["c"], seed=77)
        bring()
        before = rows(folder)
        with pytest.raises(UsageError, match="all are back"):
            restore(folder)
        assert rows(folder) == before

    def test_the_last_content_of_a_path(self, bring, folder, videos):
        bring()
        forget(folder, [videos["a"]])
        write_video(videos["a"], seed=77)
        bring()
        before = rows(folder)
        forget(folder, [videos["a"]])
        assert restore(folder) == [str(videos["a"])]
        assert rows(folder) == before

    def test_a_damaged_video_is_listed_again(self, bring, folder, videos, tmp_path):
        bring()
        state = videos["a"].stat()
        listed = failure(videos["a"], PARTIAL, "1 of 2", size=state.st_size, mtime_ns=state.st_mtime_ns)
        Store.open(folder).put_failures([listed])
        videos["a"].rename(tmp_path / "a.mp4")
        bring(prune=True)
        assert Store.open(folder).failures() == []
        restore(folder)
        (again,) = Store.open(folder).failures()
        assert (again.path, again.kind, again.reason) == (listed.path, PARTIAL, "1 of 2")

    def test_columns_that_have_come_since(self, bring, folder, videos, tmp_path):
        bring()
        forget(folder, [videos["a"]])
        videos["a"].unlink()
        (tmp_path / "about.csv").write_text("path,author\nb.mp4,Ann\n")
        bring(metadata=tmp_path / "about.csv")
        forget(folder, [videos["b"]])
        assert len(restore(folder)) == 2
        found = rows(folder)
        assert (found["a.mp4", 0]["about_author"], found["b.mp4", 2]["about_author"]) == (None, "Ann")

    def test_it_goes_for_good_in_the_end(self, bring, folder, videos):
        bring()
        forget(folder, [videos["a"]])
        library = Store.open(folder)
        table = library.removed._open()
        table.update(values={"removed_at": "2024-01-01T00:00:00+00:00"})
        forget(folder, [videos["b"]])
        assert list(library.removed.videos()) == [str(videos["b"])]

    def test_or_at_once(self, bring, folder, videos):
        bring()
        forget(folder, [videos["a"]])
        assert forget(folder, [videos["a"], videos["b"]], for_good=True) == 2
        assert not Store.open(folder).removed.videos()
        with pytest.raises(UsageError, match="nothing to restore"):
            restore(folder)
