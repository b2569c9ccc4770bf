"""Indexing among broken files, kills, other writers and a full disk."""

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


def test_unreadable_files_are_in_nobodys_way(bring, folder, videos):
    at = videos["a"].parent
    (at / "notes.txt").write_text("not a video")
    (at / "text.mp4").write_text("not a video either")
    (at / "empty.mkv").touch()
    (at / "also empty.mkv").touch()  # no copy of a video
    whole = videos["b"].read_bytes()
    (at / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (at / "link.mp4").symlink_to(at / "nothing.mp4")
    report = bring()
    assert report.added == 4
    assert report.passed_over == {"text": 1}
    kinds = {Path(failure.path).name: failure for failure in Store.open(folder).failures()}
    assert sorted(kinds) == ["also empty.mkv", "cut.mp4", "empty.mkv", "link.mp4", "text.mp4"]
    assert {failure.kind for failure in kinds.values()} == {"unreadable"}
    assert "0 bytes" in kinds["empty.mkv"].reason
    (at / "text.mp4").unlink()
    write_video(at / "empty.mkv", seed=50)
    assert bring().added == 1
    left = [Path(failure.path).name for failure in Store.open(folder).failures()]
    assert left == ["also empty.mkv", "cut.mp4", "link.mp4"]


def test_prune_leaves_alone_what_is_only_out_of_reach(bring, folder, videos, tmp_path):
    write_video(videos["a"].parent / "trip" / "e.mp4", seed=60)
    bring()
    drive = videos["a"].parent
    drive.rename(tmp_path / "unplugged")
    drive.mkdir()  # what a drive leaves where it was mounted
    (drive / ".DS_Store").touch()
    report = bring(prune=True)
    assert (report.removed, report.deleted, report.unavailable) == (0, 0, 5)
    assert len(rows(folder)) == 7
    (drive / ".DS_Store").unlink()
    drive.rmdir()
    (tmp_path / "unplugged").rename(drive)
    videos["a"].unlink()
    assert bring(prune=True).removed == 1  # from a folder that has other things


def test_prune_below_a_link_that_leads_nowhere_now(bring, folder, videos, tmp_path):
    write_video(tmp_path / "disk" / "e.mp4", seed=60)
    (videos["a"].parent / "link").symlink_to(tmp_path / "disk")
    assert bring().added == 5
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    assert bring(prune=True).removed == 0
    assert len(rows(folder)) == 7


def test_files_with_impossible_times_end_nothing(bring, folder, videos):
    write_clip(videos["a"].with_name("0.mkv"), grey_frames(3), stamps=[0, 40, 10**10])
    os.utime(videos["b"], (13_000_000_000, 13_000_000_000))  # the year 2381
    report = bring()
    assert report.added == 4
    (failure,) = report.failures
    assert "0.mkv" in failure.path
    assert "cut" in failure.reason
    assert bring().unchanged == 4


def test_a_video_that_became_unreadable_is_not_found_any_more(bring, folder, videos):
    bring()
    videos["a"].write_text("overwritten")
    bring()
    assert ("a.mp4", 0) not in rows(folder)
    assert [failure.path for failure in Store.open(folder).failures()] == [str(videos["a"])]


def test_a_file_that_goes_during_the_indexing(bring, folder, videos, monkeypatch):
    real = reader.content_id

    def content_id(path):
        if path.name == "c.mp4":
            path.unlink()
        return real(path)

    monkeypatch.setattr(reader, "content_id", content_id)
    report = bring()
    assert report.added == 3
    assert [(failure.path, failure.reason) for failure in report.failures] == [
        (str(videos["c"]), "it was deleted during the indexing")
    ]


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
        yield None if path.name == "b.mp4" and place == 2 else item  # after what is said of the whole video


def test_damaged_segments_are_left_out_and_said(bring, folder, videos, damaged):
    report = bring()
    assert report.segments == 5
    (failure,) = report.failures
    assert (failure.kind, failure.reason) == ("partial", "1 of 3 segments are damaged")
    assert [key for key in rows(folder) if key[0] == "b.mp4"] == [("b.mp4", 0), ("b.mp4", 1)]
    assert bring().failures == [failure]  # it is still so
    assert Store.open(folder).failures() == [failure]
    assert (report.partial, Store.open(folder).status().partial) == (1, 1)


def test_damage_is_said_wherever_the_video_goes(bring, folder, videos, damaged, tmp_path, no_decoding):
    bring()
    no_decoding()

    def listed():
        return [(failed.path, failed.kind) for failed in bring().failures]

    os.utime(videos["b"], (1, 1))
    assert listed() == [(str(videos["b"]), "partial")]
    moved = videos["b"].rename(videos["b"].with_name("moved.mp4"))
    assert listed() == [(str(moved), "partial")]
    moved.rename(tmp_path / "unplugged.mp4")
    assert listed() == [(str(moved), "partial")]  # it is in the library as it was
    assert bring(prune=True).failures == []


@pytest.mark.parametrize("commit", [1, 2, 3])
def test_damage_is_said_after_a_kill_between_two_commits(bring, folder, videos, damaged, tiny_folder, tmp_path, commit):
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from search.test_index_robust import read_in_part
from vop.search.sync import reader
from vop.search.sync import index
from vop.search.sync import forget, restore
from vop.search.store import Store
reader.read_segments = read_in_part
calls = iter(range(1, 99))
def killing(real):
    def write(*given, **settings):
        if next(calls) == {commit}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **settings)
    return write
Store.put, Store.put_failures, Store.remove = map(killing, (Store.put, Store.put_failures, Store.remove))
index({str(folder)!r}, [{str(tmp_path / "videos")!r}], model={str(tiny_folder)!r}, num_frames=2,
      precision="fp32", workers=2, batch_size=3)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    bring()
    assert len(rows(folder)) == 5
    (failure,) = Store.open(folder).failures()
    assert (failure.path, failure.kind) == (str(videos["b"]), "partial")


def test_a_file_that_crashes_its_decoder_ends_nothing(bring, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_crash)
    report = bring()
    assert report.added == 3
    assert [(failure.path, failure.reason) for failure in report.failures] == [
        (str(videos["b"]), "decoding crashed (SIGSEGV)")
    ]
    assert [failure.path for failure in Store.open(folder).failures()] == [str(videos["b"])]


def read_or_crash(path, *args, **settings):
    if path.name == "b.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return (yield from read_segments(path, *args, **settings))


def test_an_error_of_the_program_ends_the_job(bring, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_blunder)
    with pytest.raises(TypeError, match="a slip"):
        bring(workers=1, batch_size=64)
    assert [failed.path for failed in Store.open(folder).failures()] == []
    assert {name for name, _ in rows(folder)} == {"a.mp4", "c.mp4", "d.mp4"}  # b is the largest, and the last
    monkeypatch.undo()
    assert bring().added == 1


def read_or_blunder(path, *args, **settings):
    if path.name == "b.mp4":
        raise TypeError("a slip")
    return (yield from read_segments(path, *args, **settings))


def test_an_error_of_the_disk_ends_its_file_only(bring, folder, videos, monkeypatch):
    monkeypatch.setattr(reader, "read_segments", read_or_lose_the_disk)
    report = bring()
    assert (report.added, report.unreadable) == (3, 1)
    assert [(failed.path, failed.reason) for failed in report.failures] == [(str(videos["c"]), "Input/output error")]


def read_or_lose_the_disk(path, *args, **settings):
    if path.name == "c.mp4":
        raise OSError(errno.EIO, "Input/output error")
    return (yield from read_segments(path, *args, **settings))


@pytest.mark.parametrize("workers", [1, 2])
def test_short_videos_are_found_while_a_long_one_is_decoded(bring, folder, videos, monkeypatch, workers):
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
    assert bring(workers=workers, batch_size=64).added == 4
    assert seen == ["a.mp4", "c.mp4", "d.mp4"]


def test_names_of_every_kind(bring, folder, videos):
    names = ["it's.mp4", 'quote".mp4', "new\nline.mp4", "🎬 été.mp4", "a%b_c.mp4", "; DROP TABLE.mp4"]
    for seed, name in enumerate(names, start=20):
        write_video(videos["a"].with_name(name), seed=seed)
    os.makedirs(videos["a"].parent / "loop")
    (videos["a"].parent / "loop" / "back").symlink_to(videos["a"].parent)
    assert bring().added == 4 + len(names)
    for name in names:
        videos["a"].with_name(name).unlink()
    assert bring(prune=True, yes=True).removed == len(names)
    assert len(rows(folder)) == 6


@pytest.mark.parametrize("moment", [1, 4])
def test_killed_and_run_again(bring, folder, videos, tiny_folder, tmp_path, moment):
    """The process kills itself when it embeds for the n-th time; what it had committed is whole, and is kept."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from vop.models.model import TextVideoModel
from vop.search.sync import commands, ingest
ingest.COMMIT_SECONDS = 0.0
times = iter(range(99))
real = TextVideoModel.encode_frames
def encode_frames(*given, **settings):
    if next(times) == {moment}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **settings)
TextVideoModel.encode_frames = encode_frames
commands.index({str(folder)!r}, [{str(tmp_path / "videos")!r}], model={str(tiny_folder)!r}, num_frames=2,
            precision="fp32", workers=2, batch_size=1)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = rows(folder)
    assert 0 < len(before) < 6 or moment == 1
    for name in {name for name, _ in before}:
        assert len([key for key in before if key[0] == name]) == (3 if name == "b.mp4" else 1)
    report = bring()
    assert report.added == 4 - len({name for name, _ in before})
    assert len(rows(folder)) == 6


def test_the_second_one_waits(bring, folder, videos, tmp_path):
    bring()
    code = f"""
import sys, time
from pathlib import Path
from vop.search.sync.lock import library_lock
with library_lock(Path({str(folder)!r})):
    print("held", flush=True)
    time.sleep(1.5)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        said = []
        started = time.monotonic()
        bring(waiting=lambda: said.append(time.monotonic() - started))
        assert len(said) == 1
        assert holder.wait(timeout=10) == 0


def test_a_full_disk_keeps_what_was_there(bring, folder, videos, monkeypatch):
    bring()
    write_video(videos["a"].with_name("more.mp4"), seed=40)
    table = type(Store.open(folder).table)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(table, "add", full)
        with pytest.raises(VopError, match="no space left"):
            bring()
    assert len(rows(folder)) == 6
    assert bring().added == 1


def test_it_says_how_far_it_is(bring, folder, videos, monkeypatch):
    from vop.search import state

    seen, notes = [], []
    real = state.StateFile.write

    def spy(self, status):
        self._written = 0.0
        real(self, status)
        seen.append(Store.open(folder).status().index)

    monkeypatch.setattr(state.StateFile, "write", spy)
    bring(progress=lambda stage, done, total, note="": notes.append((stage, done, total, note)))
    stages = [stage for stage, *_ in notes]
    assert stages[-2:] == ["tidying up"] * 2
    notes = notes[:-2]
    assert seen[-1].done == seen[-1].total == 4
    assert 0 < seen[-1].hours < 1
    assert "4 of 4 files" in notes[-1][3]
    assert notes[-1][1] == notes[-1][2]
    assert all(done < total for _, done, total, _ in notes[:-1])
    assert Store.open(folder).status().index is None


def test_frequent_commits_become_one_file(bring, folder, videos, monkeypatch):
    monkeypatch.setattr(ingest, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(ingest, "TIDY_COMMITS", 2)
    bring()
    assert len(rows(folder)) == 6
    assert matrix(store.Store.open(folder).table.to_arrow().column("embedding_1")).shape == (6, 16)


def test_an_older_library_gets_what_it_lacks_and_can_put_back(bring, folder, videos):
    bring()
    before = Store.open(folder).videos()
    Store.open(folder).table.drop_columns(["checksum", "num_segments", "volume"])
    report = bring()
    assert report.unchanged == len(before)
    library = Store.open(folder)
    assert library.videos() == before  # volumes among it
    rows = library.table.search().select(["checksum", "num_segments"]).to_arrow()
    assert rows.column("checksum").null_count == rows.column("num_segments").null_count == 0
    library.table.drop_columns(["checksum", "num_segments", "volume"])
    path = next(iter(before))
    assert forget(folder, [path]) == 1
    assert restore(folder) == [path]


def test_what_another_process_has_changed_meanwhile_stays(bring, folder):
    bring()
    early = Store.open(folder)
    Store.open(folder).change(exclude=("private",))
    early.change(live_photos=True)
    about = Store.open(folder).manifest
    assert (about.exclude, about.live_photos) == (("private",), True)
