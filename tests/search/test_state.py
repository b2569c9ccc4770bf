"""The file that shows the progress of indexing to other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vop.search.results import IndexingStatus
from vop.search.state import FILE, IndexProgress, StateFile, read_state, state_file
from vop.video.find import FoundFile


def write_state(folder: Path, **changes) -> None:
    document = {"done": 3, "process": os.getpid(), "written_at": time.time()} | changes
    (folder / FILE).write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def test_the_file_exists_while_the_job_runs(tmp_path):
    assert read_state(tmp_path) is None
    with state_file(tmp_path) as state:
        assert read_state(tmp_path) is None  # not written yet
        state.write(IndexingStatus(done=1, total=2, current="/v/a.mp4"))
        assert read_state(tmp_path) == IndexingStatus(done=1, total=2, current="/v/a.mp4")
        state.write(IndexingStatus(done=2, total=2))  # too soon to be written again
        assert read_state(tmp_path).done == 1
    assert not (tmp_path / FILE).exists()


def test_a_failed_job_removes_the_file(tmp_path):
    def job():
        with state_file(tmp_path) as state:
            state.write(IndexingStatus(done=1))
            raise InterruptedError(read_state(tmp_path).done)

    with pytest.raises(InterruptedError, match="1"):
        job()
    assert read_state(tmp_path) is None


def test_the_file_of_an_ended_process_is_ignored(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    write_state(tmp_path)
    assert read_state(tmp_path) == IndexingStatus(done=3)
    write_state(tmp_path, process=int(done.stdout))
    assert read_state(tmp_path) is None


def test_the_process_may_belong_to_another_user(tmp_path):
    write_state(tmp_path, process=1)
    assert read_state(tmp_path) == IndexingStatus(done=3)


def test_entries_of_later_versions_are_ignored(tmp_path):
    write_state(tmp_path, rows=7)
    assert read_state(tmp_path) == IndexingStatus(done=3)


@pytest.mark.parametrize(
    "changes", [{"written_at": 0}, {"written_at": None}, {"process": None}, {"process": "one"}, {"process": 2.5}]
)
def test_old_or_incomplete_files_are_ignored(tmp_path, changes):
    write_state(tmp_path, **changes)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"{", b'{"done": 1, "proc', b"[]", b"null", b"3", b"\xff\xfe", b"\x00"])
def test_damaged_files_are_ignored(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    assert read_state(tmp_path) is None


def test_a_full_disk_does_not_stop_the_job(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    StateFile(tmp_path).write(IndexingStatus(done=1))
    assert list(tmp_path.iterdir()) == []


class Seen(list):
    """Records what the progress bar and other processes show."""

    def bar(self, stage: str, done: int, total: int, note: str) -> None:
        self.append((stage, done, total, note))

    def state(self, status: IndexingStatus) -> None:
        self.status = status


def test_progress_counts_megabytes_files_and_hours():
    seen = Seen()
    files = [FoundFile(Path(f"/v/{name}.mp4"), size * 2**20, 0) for name, size in (("a", 30), ("b", 10), ("c", 60))]
    hours = [0.0]
    progress = IndexProgress(files, seen.bar, seen.state, hours=lambda: hours[0])
    progress.part_done(files[0], 0.5)
    assert seen[-1][:3] == ("indexing (MB)", 15, 100)
    assert seen.status.current == "/v/a.mp4"
    progress.part_done(files[1], 0.25)  # this file fails later
    progress.file_done(files[1])
    assert seen[-1][1] == 25
    progress.part_done(None, 0.0)
    hours[0] = 1.5
    progress.part_done(files[0], 0.5)
    progress.file_done(files[0])
    assert seen[-1][1] == 40
    assert seen[-1][3].startswith("2 of 3 files, 1.50 h of video")
    assert (seen.status.done, seen.status.total, seen.status.hours) == (2, 3, 1.5)
    assert seen.status.seconds_left >= 0
    progress.file_done(files[2])  # without decoding it
    assert seen[-1][:3] == ("indexing (MB)", 100, 100)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_progress_never_exceeds_the_total(sizes):
    seen = Seen()
    files = [FoundFile(Path(f"/v/{place}"), size, 0) for place, size in enumerate(sizes)]
    progress = IndexProgress(files, seen.bar, seen.state, hours=lambda: 0.0)
    for file in files:
        progress.part_done(file, 1.0)
        progress.file_done(file)
    assert len(seen) >= len(sizes)
    assert all(done <= total for _, done, total, _ in seen)
