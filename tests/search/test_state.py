"""How far an indexing is, for other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vop.search.state import IndexProgress, State, read_progress, state_of
from vop.video.find import FoundFile

FILE = "progress.json"


def written(folder: Path, **changes) -> None:
    said = {"done": 3, "process": os.getpid(), "written_at": time.time()} | changes
    (folder / FILE).write_text(json.dumps({name: value for name, value in said.items() if value is not None}))


def test_it_is_there_as_long_as_the_job(tmp_path):
    assert read_progress(tmp_path) is None
    with state_of(tmp_path) as state:
        assert read_progress(tmp_path) is None  # nothing was said yet
        state(done=1, total=2)
        assert read_progress(tmp_path) == {"done": 1, "total": 2}
        state(done=2, total=2)  # too early to be written again
        assert read_progress(tmp_path) == {"done": 1, "total": 2}
    assert not (tmp_path / FILE).exists()


def test_it_goes_with_a_job_that_fails(tmp_path):
    def job():
        with state_of(tmp_path) as state:
            state(done=1)
            raise InterruptedError(read_progress(tmp_path))

    with pytest.raises(InterruptedError, match="{'done': 1}"):
        job()
    assert read_progress(tmp_path) is None


def test_of_a_process_that_is_gone(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    written(tmp_path)
    assert read_progress(tmp_path) == {"done": 3}
    written(tmp_path, process=int(done.stdout))
    assert read_progress(tmp_path) is None


def test_of_another_users_process(tmp_path):
    written(tmp_path, process=1)
    assert read_progress(tmp_path) == {"done": 3}


@pytest.mark.parametrize(
    "changes", [{"written_at": 0}, {"written_at": None}, {"process": None}, {"process": "one"}, {"process": 2.5}]
)
def test_too_old_or_incomplete(tmp_path, changes):
    written(tmp_path, **changes)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize("text", [b"", b"{", b'{"done": 1, "proc', b"[]", b"null", b"3", b"\xff\xfe", b"\x00"])
def test_torn_or_something_else(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    assert read_progress(tmp_path) is None


def test_a_disk_that_is_full_stops_no_job(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    State(tmp_path)(done=1)
    assert list(tmp_path.iterdir()) == []


class Heard(list):
    """What a bar and a state are told."""

    def bar(self, what: str, done: int, total: int, note: str) -> None:
        self.append((what, done, total, note))

    def state(self, **said) -> None:
        self.said = said


def test_megabytes_files_and_hours():
    heard = Heard()
    files = [FoundFile(Path(f"/v/{name}.mp4"), size * 2**20, 0) for name, size in (("a", 30), ("b", 10), ("c", 60))]
    hours = [0.0]
    progress = IndexProgress(heard.bar, hours=lambda: hours[0])
    progress.start(files, heard.state)
    progress.piece(files[0], 0.5)
    assert heard[-1][:3] == ("indexing (MB)", 15, 100)
    assert heard.said["current"] == "/v/a.mp4"
    progress.piece(files[1], 0.25)  # of a file that fails then
    progress.file(files[1])
    assert heard[-1][1] == 25
    progress.piece(None, 0.0)
    hours[0] = 1.5
    progress.piece(files[0], 0.5)
    progress.file(files[0])
    assert heard[-1][1] == 40
    assert heard[-1][3].startswith("2 of 3 files, 1.50 h of video")
    assert (heard.said["done"], heard.said["total"], heard.said["hours"]) == (2, 3, 1.5)
    assert heard.said["seconds_left"] >= 0
    progress.file(files[2])  # nothing of it was decoded
    assert heard[-1][:3] == ("indexing (MB)", 100, 100)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_nothing_to_do(sizes):
    heard = Heard()
    files = [FoundFile(Path(f"/v/{place}"), size, 0) for place, size in enumerate(sizes)]
    progress = IndexProgress(heard.bar, hours=lambda: 0.0)
    progress.start(files, heard.state)
    for file in files:
        progress.piece(file, 1.0)
        progress.file(file)
    assert len(heard) >= len(sizes)
    assert all(done <= total for _, done, total, _ in heard)
