"""Which videos prune removes and keeps, and how removed videos are restored."""

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
        pytest.skip("this machine has no second filesystem")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


def names(paths) -> list[str]:
    return sorted(Path(path).name for path in paths)


class TestDrives:
    def test_an_unmounted_drive_is_unavailable(self, index_videos, folder, tmp_path):
        at = tmp_path / "Volumes"
        for number in range(4):
            write_video(at / "A" / f"{number}.mp4", seed=number, seconds=2)
            write_video(at / "B" / "trips" / f"{number}.mp4", seed=10 + number, seconds=2)
        assert index_videos(at).added == 8
        (at / "B").rename(tmp_path / "unplugged")
        (at / "A" / "0.mp4").unlink()
        report = index_videos(at, prune=True, yes=True)
        assert (report.removed, report.deleted, report.unavailable) == (1, 0, 4)
        assert report.unavailable_folders == [str(at / "B")]
        (tmp_path / "unplugged").rename(at / "B")
        report = index_videos(at)
        assert (report.unchanged, report.unavailable) == (7, 0)

    def test_a_given_drive_that_is_missing_is_unavailable(self, index_videos, folder, videos, tmp_path):
        write_video(tmp_path / "drive" / "e.mp4", seed=9)
        index_videos(tmp_path / "videos", tmp_path / "drive")
        (tmp_path / "drive").rename(tmp_path / "unplugged")
        warnings = []
        report = index_videos(tmp_path / "videos", tmp_path / "drive", prune=True, warn=warnings.append)
        assert (report.removed, report.unavailable, report.unchanged) == (0, 1, 4)
        assert report.missing == {str(tmp_path / "drive"): "No such file or directory"}
        assert len(warnings) == 1
        assert str(tmp_path / "drive") in warnings[0]
        with pytest.raises(UsageError, match="drive' cannot be indexed"):
            index_videos(tmp_path / "drive")

    def test_a_drive_replaced_by_a_folder_is_unavailable(self, index_videos, folder, videos, tmp_path, elsewhere):
        """The mount point exists without the drive, so it belongs to another filesystem."""
        write_video(elsewhere / "e.mp4", seed=9)
        write_video(elsewhere / "f.mp4", seed=10)
        drive = tmp_path / "videos" / "drive"
        drive.symlink_to(elsewhere)
        assert index_videos().added == 6
        drive.unlink()
        write_video(drive / "g.mp4", seed=11)
        report = index_videos(prune=True)
        assert (report.added, report.removed, report.unavailable) == (1, 0, 2)
        assert report.unavailable_folders == [str(drive)]
        assert index_videos(prune=True).unavailable == 2  # although the folder is now known on its new filesystem
        shutil.rmtree(drive)
        drive.symlink_to(elsewhere)
        (elsewhere / "e.mp4").unlink()
        assert index_videos(prune=True).removed == 1

    def test_failures_of_unavailable_files_stay_listed(self, index_videos, folder, videos, tmp_path):
        (tmp_path / "drive").mkdir()
        (tmp_path / "drive" / "broken.mp4").write_text("nothing")
        index_videos(tmp_path / "videos", tmp_path / "drive")
        (tmp_path / "drive").rename(tmp_path / "unplugged")
        report = index_videos(tmp_path / "videos", tmp_path / "drive")
        assert names(failed.path for failed in report.failures) == ["broken.mp4"]


def a_video(path: Path, volume: str | None) -> VideoRecord:
    state = path.stat()
    return VideoRecord(
        video=path.name, path=str(path), size=state.st_size, mtime_ns=state.st_mtime_ns, metadata={}, volume=volume
    )


def test_a_filesystem_with_a_new_id_is_recognised_by_its_videos(elsewhere):
    """Some filesystems get a new id at each boot. Another drive at the same mount point has another id, too."""
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


def test_without_volumes_other_videos_identify_a_folder(tmp_path):
    """Another known video shows that the folder is the same. Other files may also lie at an empty mount point."""
    other, video = tmp_path / "other.mp4", str(tmp_path / "a.mp4")
    other.touch()
    known = {video: VideoRecord(video="a", path=video, size=1, mtime_ns=1, metadata={})}
    assert split_missing(known, known) == ([], [video])
    sibling = VideoRecord(video="b", path=str(other), size=0, mtime_ns=other.stat().st_mtime_ns, metadata={})
    assert split_missing(known, known | {sibling.path: sibling}) == ([video], [])


def test_missing_folders_are_the_topmost_ones(tmp_path):
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "drive" / "x" / "y" / "a.mp4", tmp_path / "drive" / "b.mp4", tmp_path / "empty" / "c.mp4"]
    assert missing_folders([str(path) for path in paths]) == [tmp_path / "drive", tmp_path / "empty"]


class TestShare:
    @pytest.fixture
    def half_deleted(self, index_videos, folder, videos):
        at = videos["a"].parent
        more = [write_video(at / f"more {number}.mp4", seed=30 + number, seconds=2) for number in range(6)]
        index_videos()
        for path in more:
            path.unlink()
        return more

    def test_pruning_a_large_share_needs_confirmation(self, index_videos, folder, half_deleted):
        before = rows(folder)
        report = index_videos(prune=True)
        assert (report.removed, report.deleted) == (0, 6)
        assert report.unconfirmed == [str(path) for path in half_deleted]
        assert rows(folder) == before
        report = index_videos(prune=True, yes=True)
        assert (report.removed, report.deleted, report.unconfirmed) == (6, 0, [])

    def test_a_preview_lists_changes_only(self, index_videos, folder, half_deleted, tmp_path, no_decoding):
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

    def test_a_preview_does_not_create_a_library(self, folder, videos):
        assert names(preview(folder, [videos["a"].parent]).new) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
        assert not folder.exists()


class TestRestoring:
    def test_restored_rows_are_unchanged(self, index_videos, folder, videos):
        index_videos()
        before, vectors = rows(folder), embeddings(folder)
        videos["b"].unlink()
        assert index_videos(prune=True).removed == 1
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

    def test_videos_that_were_indexed_again_are_not_restored(self, index_videos, folder, videos):
        index_videos()
        forget(folder, [videos["a"], videos["c"]])
        videos["a"].rename(videos["a"].with_name("renamed.mp4"))
        write_video(videos["c"], seed=77)
        index_videos()
        before = rows(folder)
        with pytest.raises(UsageError, match="nothing to restore"):
            restore(folder)
        assert rows(folder) == before

    def test_the_latest_content_of_a_path_is_restored(self, index_videos, folder, videos):
        index_videos()
        forget(folder, [videos["a"]])
        write_video(videos["a"], seed=77)
        index_videos()
        before = rows(folder)
        forget(folder, [videos["a"]])
        assert restore(folder) == [str(videos["a"])]
        assert rows(folder) == before

    def test_the_failure_of_a_restored_video_is_listed_again(self, index_videos, folder, videos, tmp_path):
        index_videos()
        state = videos["a"].stat()
        listed = failure(videos["a"], PARTIAL, "1 of 2", size=state.st_size, mtime_ns=state.st_mtime_ns)
        Store.open(folder).put_failures([listed])
        videos["a"].rename(tmp_path / "a.mp4")
        index_videos(prune=True)
        assert Store.open(folder).failures() == []
        restore(folder)
        (again,) = Store.open(folder).failures()
        assert (again.path, again.kind, again.reason) == (listed.path, PARTIAL, "1 of 2")

    def test_restored_rows_get_columns_added_later(self, index_videos, folder, videos, tmp_path):
        index_videos()
        forget(folder, [videos["a"]])
        videos["a"].unlink()
        (tmp_path / "about.csv").write_text("path,author\nb.mp4,Ann\n")
        index_videos(metadata=tmp_path / "about.csv")
        forget(folder, [videos["b"]])
        assert len(restore(folder)) == 2
        found = rows(folder)
        assert (found["a.mp4", 0]["about_author"], found["b.mp4", 2]["about_author"]) == (None, "Ann")

    def test_removed_videos_expire(self, index_videos, folder, videos):
        index_videos()
        forget(folder, [videos["a"]])
        library = Store.open(folder)
        table = library.removed._open()
        table.update(values={"removed_at": "2024-01-01T00:00:00+00:00"})
        forget(folder, [videos["b"]])
        assert list(library.removed.videos()) == [str(videos["b"])]

    def test_forget_can_delete_permanently(self, index_videos, folder, videos):
        index_videos()
        forget(folder, [videos["a"]])
        assert forget(folder, [videos["a"], videos["b"]], for_good=True) == 2
        assert not Store.open(folder).removed.videos()
        with pytest.raises(UsageError, match="nothing to restore"):
            restore(folder)
