"""Indexing that a signal stops: finished videos are kept, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.owners_videos import rows
from vop.search.segmentation import read_segments
from vop.utils.uninterrupted import uninterrupted

TESTS = Path(__file__).parents[1]


def read_forever(path, *args, **settings):
    """Never finish b.mp4; its process writes its id beside it."""
    read = read_segments(path, *args, **settings)
    yield next(read)
    if path.name == "b.mp4":
        path.with_suffix(".process").write_text(str(os.getpid()))
        time.sleep(3600)
    return (yield from read)


def is_alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def wait_for(condition, *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_signal_commits_finished_videos(index_videos, folder, videos, tiny_folder, tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from search.test_interrupted import read_forever
from vop.search.sync import ingest, reader
from vop.search.sync import index
ingest.COMMIT_SECONDS = 1e9
reader.read_segments = read_forever
real = ingest.Ingest._take
def take(self, finished, reader):
    real(self, finished, reader)
    print(finished.job.path.name, flush=True)
ingest.Ingest._take = take
index({str(folder)!r}, [{str(tmp_path / "videos")!r}], model={str(tiny_folder)!r}, num_frames=2,
      precision="fp32", workers=2, batch_size=1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        finished = {job.stdout.readline().strip() for _ in range(3)}
        assert finished == {"a.mp4", "c.mp4", "d.mp4"}
        decoder = videos["b"].with_suffix(".process")
        wait_for(lambda: decoder.exists() and decoder.read_text())
        assert is_alive(int(decoder.read_text()))
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert {name for name, _ in rows(folder)} == finished
    wait_for(lambda: not is_alive(int(decoder.read_text())))
    report = index_videos()
    assert (report.added, report.unchanged, report.failures) == (1, 3, [])


def test_a_signal_waits_until_the_block_is_done():
    done = []

    def work():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_stop_finishes_the_current_files(index_videos, videos, folder):
    asked = []

    def stopped() -> bool:
        asked.append(len(asked))
        return len(asked) == 3

    report = index_videos(stopped=stopped, workers=1, prune=True)
    assert (report.added, report.removed) == (2, 0)
    indexed = {Path(name).stem for name, _ in rows(folder)}
    videos[min(indexed)].unlink()
    report = index_videos(stopped=lambda: True, prune=True)
    assert (report.added, report.removed) == (0, 0)
    assert index_videos().added == 2
