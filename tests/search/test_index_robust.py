"""Indexing with broken files, killed processes, other writers and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from clips import grey_frames, write_clip
from search.owners_videos import rows, write_video
from vop.errors import VopError
from vop.search import store
from vop.search.schema import matrix
from vop.search.segmentation import read_segments
from vop.search.store import Store
from vop.search.sync import forget, ingest, reader, restore
from vop.video.isolated import DecodingProcesses

TESTS = Path(__file__).parents[1]


def test_unreadable_files_are_listed_and_skipped(index_videos, folder, videos):
    at = videos["a"].parent
    (at / "notes.txt").write_text("not a video")
    (at / "text.mp4").write_text("not a video either")
    (at / "empty.mkv").touch()
    (at / "also empty.mkv").touch()  # empty files are not copies
    whole = videos["b"].read_bytes()
    (at / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (at / "link.mp4").symlink_to(at / "nothing.mp4")
    report = index_videos()
    assert report.added == 4
    assert report.passed_over == {"text": 1}
    kinds = {Path(failure.path).name: failure for failure in Store.open(folder).failures()}
    assert sorted(kinds) == ["also empty.mkv", "cut.mp4", "empty.mkv", "link.mp4", "text.mp4"]
    assert {failure.kind for failure in kinds.values()} == {"unreadable"}
    assert "0 bytes" in kinds["empty.mkv"].reason
    (at / "text.mp4").unlink()
    write_video(at / "empty.mkv", seed=50)
    assert index_videos().added == 1
    left = [Path(failure.path).name for failure in Store.open(folder).failures()]
    assert left == ["also empty.mkv", "cut.mp4", "link.mp4"]


def test_prune_keeps_videos_of_an_unmounted_drive(index_videos, folder, videos, tmp_path):
    write_video(videos["a"].parent / "trip" / "e.mp4", seed=60)
    index_videos()
    drive = videos["a"].parent
    drive.rename(tmp_path / "unplugged")
    drive.mkdir()  # an empty mount point
    (drive / ".DS_Store").touch()
    report = index_videos(prune=True)
    assert (report.removed, report.deleted, report.unavailable) == (0, 0, 5)
    assert len(rows(folder)) == 7
    (drive / ".DS_Store").unlink()
    drive.rmdir()
    (tmp_path / "unplugged").rename(drive)
    videos["a"].unlink()
    assert index_videos(prune=True).removed == 1  # its folder still has other files


def test_prune_keeps_videos_below_a_broken_link(index_videos, folder, videos, tmp_path):
    write_video(tmp_path / "disk" / "e.mp4", seed=60)
    (videos["a"].parent / "link").symlink_to(tmp_path / "disk")
    assert index_videos().added == 5
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert index_videos(prune=True).removed == 0
    assert len(rows(folder)) == 7


def test_files_with_impossible_times_do_not_stop_indexing(index_videos, folder, videos):
    write_clip(videos["a"].with_name("0.mkv"), grey_frames(3), stamps=[0, 40, 10**10])
    os.utime(videos["b"], (13_000_000_000, 13_000_000_000))  # the year 2381
    report = index_videos()
    assert report.added == 4
    (failure,) = report.failures
    assert "0.mkv" in failure.path
    assert "cut" in failure.reason
    assert index_videos().unchanged == 4


def test_a_video_that_became_unreadable_is_removed(index_videos, folder, videos):
    index_videos()
    videos["a"].write_text("overwritten")
    index_videos()
    assert ("a.mp4", 0) not in rows(folder)
    assert [failure.path for failure in Store.open(folder).failures()] == [str(videos["a"])]


def test_a_file_replaced_while_it_is_read_is_not_taken_for_the_new_one(index_videos, folder, videos, monkeypatch):
    """The decoder has opened the old content when the new one is hashed."""
    real, other = reader.content_id, write_video(folder.parent / "new.mp4", seed=70, seconds=8.0)

    def content_id(path):
        if path == videos["a"] and other.exists():
            other.replace(path)
        return real(path)

    monkeypatch.setattr(reader, "content_id", content_id)
    (failure,) = index_videos().failures
    assert failure.path == str(videos["a"])
    assert index_videos().added == 1
    assert rows(folder)["a.mp4", 0]["duration_seconds"] == 8.0


def test_a_file_deleted_during_indexing_is_listed(index_videos, folder, videos, monkeypatch):
    real = reader.content_id

    def content_id(path):
        if path.name == "c.mp4":
            path.unlink()
        return real(path)

    monkeypatch.setattr(reader, "content_id", content_id)
    report = index_videos()
    assert report.added == 3
    (failure,) = report.failures
    assert failure.path == str(videos["c"])
    assert "deleted" in failure.reason


@pytest.fixture
def damaged(monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_in_part)


def read_in_part(path, *args, **settings):
    """The second segment of b.mp4 is damaged."""
    read = read_segments(path, *args, **settings)
    for place in count():
        try:
            item = next(read)
        except StopIteration as end:
            return end.value
        yield None if path.name == "b.mp4" and place == 2 else item  # item 0 describes the whole video


def test_damaged_segments_are_skipped_and_reported(index_videos, folder, videos, damaged):
    report = index_videos()
    assert report.segments == 5
    (failure,) = report.failures
    assert failure.kind == "partial"
    assert "1 of 3" in failure.reason
    assert [key for key in rows(folder) if key[0] == "b.mp4"] == [("b.mp4", 0), ("b.mp4", 1)]
    assert index_videos().failures == [failure]  # reported every time
    assert Store.open(folder).failures() == [failure]
    assert (report.partial, Store.open(folder).status().partial) == (1, 1)


def test_damage_is_reported_after_a_video_moves(index_videos, folder, videos, damaged, tmp_path, no_decoding):
    index_videos()
    no_decoding()

    def listed():
        return [(failed.path, failed.kind) for failed in index_videos().failures]

    os.utime(videos["b"], (1, 1))
    assert listed() == [(str(videos["b"]), "partial")]
    moved = videos["b"].rename(videos["b"].with_name("moved.mp4"))
    assert listed() == [(str(moved), "partial")]
    moved.rename(tmp_path / "unplugged.mp4")
    assert listed() == [(str(moved), "partial")]  # the library still has its rows
    assert index_videos(prune=True).failures == []


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("commit", [1, 2, 3])
def test_damage_is_reported_after_a_kill_between_two_commits(
    index_videos, folder, videos, damaged, monkeypatch, commit
):
    numbers = count(1)

    def until_killed(write):
        def checked(*args, **settings):
            if next(numbers) >= commit:  # nothing is written any more
                raise Killed
            return write(*args, **settings)

        return checked

    with monkeypatch.context() as patch:
        for name in ("put", "put_failures", "remove"):
            patch.setattr(Store, name, until_killed(getattr(Store, name)))
        with pytest.raises(Killed):
            index_videos()
    index_videos()
    assert len(rows(folder)) == 5
    (failure,) = Store.open(folder).failures()
    assert (failure.path, failure.kind) == (str(videos["b"]), "partial")


@pytest.mark.usefixtures("real_processes")
def test_a_crash_of_the_decoder_fails_only_its_file(index_videos, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_crash)
    report = index_videos()
    assert report.added == 3
    (failure,) = report.failures
    assert failure.path == str(videos["b"])
    assert "SIGSEGV" in failure.reason
    assert [failure.path for failure in Store.open(folder).failures()] == [str(videos["b"])]


def read_or_crash(path, *args, **settings):
    if path.name == "b.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return (yield from read_segments(path, *args, **settings))


@pytest.mark.usefixtures("real_processes")
def test_a_programming_error_stops_indexing(index_videos, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_raise)
    with pytest.raises(TypeError, match="a bug"):
        index_videos(workers=1, batch_size=64)
    assert [failed.path for failed in Store.open(folder).failures()] == []
    assert {name for name, _ in rows(folder)} == {"a.mp4", "c.mp4", "d.mp4"}  # b is the largest, so it is read last
    monkeypatch.undo()
    assert index_videos().added == 1


def read_or_raise(path, *args, **settings):
    if path.name == "b.mp4":
        raise TypeError("a bug")
    return (yield from read_segments(path, *args, **settings))


def test_a_disk_error_fails_only_its_file(index_videos, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_fail)
    report = index_videos()
    assert (report.added, report.unreadable) == (3, 1)
    assert [(failed.path, failed.reason) for failed in report.failures] == [(str(videos["c"]), "Input/output error")]


def read_or_fail(path, *args, **settings):
    if path.name == "c.mp4":
        raise OSError(errno.EIO, "Input/output error")
    return (yield from read_segments(path, *args, **settings))


@pytest.mark.usefixtures("real_processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_short_videos_are_committed_while_a_long_one_is_decoded(index_videos, folder, videos, monkeypatch, workers):
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", 0.2)
    real = DecodingProcesses.iterate
    seen = []

    def iterate(self, function, path, *args, **settings):
        read = real(self, function, path, *args, **settings)
        yield next(read)
        if path.name == "b.mp4":
            until = time.monotonic() + 30
            while time.monotonic() < until and len({name for name, _ in rows(folder)}) < 3:
                time.sleep(0.1)
            seen.extend(sorted({name for name, _ in rows(folder)}))
        return (yield from read)

    monkeypatch.setattr(DecodingProcesses, "iterate", iterate)
    assert index_videos(workers=workers, batch_size=64).added == 4
    assert seen == ["a.mp4", "c.mp4", "d.mp4"]


def test_files_may_have_any_name(index_videos, folder, videos):
    names = ["it's.mp4", 'quote".mp4', "new\nline.mp4", "🎬 été.mp4", "a%b_c.mp4", "; DROP TABLE.mp4"]
    for seed, name in enumerate(names, start=20):
        write_video(videos["a"].with_name(name), seed=seed)
    os.makedirs(videos["a"].parent / "loop")
    (videos["a"].parent / "loop" / "back").symlink_to(videos["a"].parent)
    assert index_videos().added == 4 + len(names)
    for name in names:
        videos["a"].with_name(name).unlink()
    assert index_videos(prune=True, yes=True).removed == len(names)
    assert len(rows(folder)) == 6


@pytest.mark.parametrize("forward_pass", [1, 4])
def test_indexing_resumes_after_a_kill(index_videos, folder, videos, tiny_folder, tmp_path, forward_pass):
    """The process kills itself at its n-th forward pass. The committed videos are complete and stay."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from vop.models.model import TextVideoModel
from vop.search.sync import commands, ingest
ingest.COMMIT_SECONDS = 0.0
times = iter(range(99))
real = TextVideoModel.encode_frames
def encode_frames(*given, **settings):
    if next(times) == {forward_pass}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **settings)
TextVideoModel.encode_frames = encode_frames
commands.index({str(folder)!r}, [{str(tmp_path / "videos")!r}], model={str(tiny_folder)!r}, num_frames=2,
            precision="fp32", workers=2, batch_size=1)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = rows(folder)
    assert 0 < len(before) < 6 or forward_pass == 1
    for name in {name for name, _ in before}:
        assert len([key for key in before if key[0] == name]) == (3 if name == "b.mp4" else 1)
    report = index_videos()
    assert report.added == 4 - len({name for name, _ in before})
    assert len(rows(folder)) == 6


def test_a_second_process_waits_for_the_lock(index_videos, folder, videos):
    index_videos()
    code = f"""
import sys
from pathlib import Path
from vop.search.sync.lock import library_lock
with library_lock(Path({str(folder)!r})):
    print("locked", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        calls = []

        def waiting() -> None:
            calls.append(holder.poll())
            holder.stdin.close()

        index_videos(waiting=waiting)
        assert calls == [None]
        assert holder.wait(timeout=10) == 0


def test_a_full_disk_keeps_the_indexed_videos(index_videos, folder, videos, monkeypatch):
    index_videos()
    write_video(videos["a"].with_name("more.mp4"), seed=40)
    table = type(Store.open(folder).table)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(table, "add", full)
        with pytest.raises(VopError, match="no space left"):
            index_videos()
    assert len(rows(folder)) == 6
    assert index_videos().added == 1


def test_progress_is_reported_while_indexing(index_videos, folder, videos, monkeypatch):
    from vop.search import state

    seen, notes = [], []
    real = state.StateFile.write

    def spy(self, status):
        self._written = 0.0
        real(self, status)
        seen.append(Store.open(folder).status().index)

    monkeypatch.setattr(state.StateFile, "write", spy)
    index_videos(progress=lambda stage, done, total, note="": notes.append((stage, done, total, note)))
    stages = [stage for stage, *_ in notes]
    assert stages[-2:] == ["tidying up"] * 2
    notes = [note for note in notes if note[0] == stages[0]]
    assert seen[-1].done == seen[-1].total == 4
    assert 0 < seen[-1].hours < 1
    assert "4 of 4 files" in notes[-1][3]
    assert notes[-1][1] == notes[-1][2]
    assert all(done < total for _, done, total, _ in notes[:-1])
    assert Store.open(folder).status().index is None


def test_compaction_keeps_every_row(index_videos, folder, videos, monkeypatch):
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(ingest, "TIDY_COMMITS", 2)
    index_videos()
    assert len(rows(folder)) == 6
    assert matrix(store.Store.open(folder).table.to_arrow().column("embedding_1")).shape == (6, 16)


def test_an_older_library_gets_new_columns_and_can_restore(index_videos, folder, videos):
    index_videos()
    before = Store.open(folder).videos()
    Store.open(folder).table.drop_columns(["checksum", "num_segments", "volume"])
    report = index_videos()
    assert report.unchanged == len(before)
    library = Store.open(folder)
    assert library.videos() == before  # including their volumes
    rows = library.table.search().select(["checksum", "num_segments"]).to_arrow()
    assert rows.column("checksum").null_count == rows.column("num_segments").null_count == 0
    library.table.drop_columns(["checksum", "num_segments", "volume"])
    path = next(iter(before))
    assert forget(folder, [path]) == 1
    assert restore(folder) == [path]


def test_changes_of_another_process_are_kept(index_videos, folder):
    index_videos()
    early = Store.open(folder)
    Store.open(folder).change(exclude=("private",))
    early.change(live_photos=True)
    manifest = Store.open(folder).manifest
    assert (manifest.exclude, manifest.live_photos) == (("private",), True)
