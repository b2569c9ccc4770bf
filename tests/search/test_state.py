"""How far an indexing is, for other processes."""

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


def written(folder: Path, **changes) -> None:
    document = {"done": 3, "process": os.getpid(), "written_at": time.time()} | changes
    (folder / FILE).write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def test_it_is_there_as_long_as_the_job(tmp_path):
    assert read_state(tmp_path) is None
    with state_file(tmp_path) as state:
        assert read_state(tmp_path) is None  # nothing was written yet
        state.write(IndexingStatus(done=1, total=2, current="/v/a.mp4"))
        assert read_state(tmp_path) == IndexingStatus(done=1, total=2, current="/v/a.mp4")
        state.write(IndexingStatus(done=2, total=2))  # too early to be written again
        assert read_state(tmp_path).done == 1
    assert not (tmp_path / FILE).exists()


def test_it_goes_with_a_job_that_fails(tmp_path):
    def job():
        with state_file(tmp_path) as state:
            state.write(IndexingStatus(done=1))
            raise InterruptedError(read_state(tmp_path).done)

    with pytest.raises(InterruptedError, match="1"):
        job()
    assert read_state(tmp_path) is None


def test_of_a_process_that_has_ended(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    written(tmp_path)
    assert read_state(tmp_path) == IndexingStatus(done=3)
    written(tmp_path, process=int(done.stdout))
    assert read_state(tmp_path) is None


def test_of_another_users_process(tmp_path):
    written(tmp_path, process=1)
    assert read_state(tmp_path) == IndexingStatus(done=3)


def test_of_a_later_version(tmp_path):
    written(tmp_path, rows=7)
    assert read_state(tmp_path) == IndexingStatus(done=3)


@pytest.mark.parametrize(
    "changes", [{"written_at": 0}, {"written_at": None}, {"process": None}, {"process": "one"}, {"process": 2.5}]
)
def test_too_old_or_incomplete(tmp_path, changes):
    written(tmp_path, **changes)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"{", b'{"done": 1, "proc', b"[]", b"null", b"3", b"\xff\xfe", b"\x00"])
def test_torn_or_something_else(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    assert read_state(tmp_path) is None


def test_a_disk_that_is_full_stops_no_job(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    StateFile(tmp_path).write(IndexingStatus(done=1))
    assert list(tmp_path.iterdir()) == []


class Seen(list):
    """What the bar and other processes are shown."""

    def bar(self, stage: str, done: int, total: int, note: str) -> None:
        self.append((stage, done, total, note))

    def state(self, status: IndexingStatus) -> None:
        self.status = status


def test_megabytes_files_and_hours():
    seen = Seen()
    files = [FoundFile(Path(f"/v/{name}.mp4"), size * 2**20, 0) for name, size in (("a", 30), ("b", 10), ("c", 60))]
    hours = [0.0]
    progress = IndexProgress(files, seen.bar, seen.state, hours=lambda: hours[0])
    progress.part_done(files[0], 0.5)
    assert seen[-1][:3] == ("indexing (MB)", 15, 100)
    assert seen.status.current == "/v/a.mp4"
    progress.part_done(files[1], 0.25)  # of a file that fails then
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
    progress.file_done(files[2])  # nothing of it was decoded
    assert seen[-1][:3] == ("indexing (MB)", 100, 100)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_to_do(sizes):
    seen = Seen()
    files = [FoundFile(Path(f"/v/{place}"), size, 0) for place, size in enumerate(sizes)]
    progress = IndexProgress(files, seen.bar, seen.state, hours=lambda: 0.0)
    for file in files:
        progress.part_done(file, 1.0)
        progress.file_done(file)
    assert len(seen) >= len(sizes)
    assert all(done <= total for _, done, total, _ in seen)
