"""Processes of the server that decode and export media files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from clips import damage, grey_frames, numbers, packets_of, write_clip, write_tone
from vop.errors import UsageError, VideoError
from vop.server.media_worker import MediaWorker
from vop.video.frames import read_frames
from vop.video.picture import picture_frames
from vop.video.resizing import Resizing


@pytest.fixture(scope="module")
def worker():
    with MediaWorker(max_workers=2, seconds=60) as worker:
        worker.run(process_id, "warm")
        yield worker


# Jobs, which run in the worker's processes


def process_id(path: str) -> int:
    return os.getpid()


def sleep(path: str, seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def hold(path: str) -> None:
    """Never return, and never release the interpreter lock."""
    sum(1 for _ in iter(int, 1))


def crash(path: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fill_memory(path: str) -> int:
    return np.ones(2**33, np.uint8).nbytes


def read_memory(path: str) -> float:
    """Allocate large buffers of PyTorch, NumPy and FFmpeg within the limit."""
    large = torch.empty(2**30, dtype=torch.uint8)
    frame = av.VideoFrame.from_ndarray(np.zeros((4096, 4096, 3), np.uint8), format="rgb24")
    return len(large) + frame.width


def refuse(path: str) -> None:
    raise VideoError(path, "no reason at all")


# Tests


def test_decodes_a_video(worker, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24))
    frames = worker.decode(path, num_frames=6, resizing=Resizing(32))
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, read_frames(path, num_frames=6, size=32))
    assert numbers(
        worker.decode(str(path), num_frames=2, resizing=Resizing(8), start_seconds=0.4, end_seconds=0.8)
    ) == [12, 17]


def test_decodes_pictures(worker, tmp_path):
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, 45:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # taken upright, stored on its side
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    for name in ("a.jpg", "b.png"):
        frames = worker.decode(tmp_path / name, num_frames=3, resizing=Resizing(30))
        assert np.array_equal(frames, picture_frames(tmp_path / name, num_frames=3, resizing=Resizing(30)))
    upright = worker.decode(tmp_path / "a.jpg", num_frames=1, resizing=Resizing(30)).float()
    assert upright[..., :10, :].mean() < 20 < 150 < upright[..., -10:, :].mean()


def test_refuses_unreadable_files(worker, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("no video " * 100)
    whole = write_clip(tmp_path / "whole.mp4", grey_frames(24)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bomb.bmp").write_bytes(
        b"BM" + bytes(12) + (40).to_bytes(4, "little") + b"\xff\xff\0\0" * 2 + bytes(28)
    )
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        write_tone(container)
    damage(write_clip(tmp_path / "noise.avi", grey_frames(8), codec="mpeg4"), range(8))
    for name, reason in [
        ("empty.mp4", "empty"),
        ("notes.txt", "text file"),
        ("cut.mp4", "cut short"),
        ("bomb.bmp", "more than 64 megapixels"),
        ("song.mp4", "only audio"),
        ("noise.avi", "decoded"),
        ("gone.mp4", "not exist"),
    ]:
        with pytest.raises(VideoError, match=f"{name}.*{reason}"):
            worker.decode(tmp_path / name, num_frames=4, resizing=Resizing(8))


def test_decodes_the_readable_part_of_a_truncated_video(worker, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(24), options={"bf": "0"})
    path.write_bytes(path.read_bytes()[: packets_of(path)[12][0]])
    assert numbers(worker.decode(path, num_frames=3, resizing=Resizing(8))) == [2, 6, 10]


def test_exports_clips(worker, tmp_path):
    path = write_clip(tmp_path / "clip.avi", grey_frames(24), codec="mpeg4")
    worker.export_clip(path, tmp_path / "out.mp4", start_seconds=0.4, end_seconds=0.8)
    assert numbers(read_frames(tmp_path / "out.mp4", num_frames=5, size=8)) == [11, 13, 15, 17, 19]
    with pytest.raises(VideoError, match=r"clip.avi: nothing is shown 5.000 s after its start"):
        worker.export_clip(path, tmp_path / "out.mp4", start_seconds=5, end_seconds=6)


def test_invalid_arguments_are_refused(worker, tmp_path):
    path = write_clip(tmp_path / "clip.mkv", grey_frames(2))
    with pytest.raises(UsageError, match="num_frames is 0"):
        worker.decode(path, num_frames=0, resizing=Resizing(8))
    with pytest.raises(UsageError, match="max_workers is 0"):
        MediaWorker(max_workers=0)
    with pytest.raises(UsageError, match="seconds is -1"):
        MediaWorker(seconds=-1)


def test_a_hanging_job_is_killed(worker, monkeypatch):
    monkeypatch.setattr(worker._processes._processes, "seconds", 0.5)
    begin = time.monotonic()
    with pytest.raises(VideoError, match=r"^slow.mp4: decoding took longer than 0.5 s and was stopped$"):
        worker.run(hold, "slow.mp4")
    assert 0.5 <= time.monotonic() - begin < 10
    monkeypatch.setattr(worker._processes._processes, "seconds", 60)
    assert worker.run(sleep, "next.mp4", 0.01) == 0.01


def test_a_crash_fails_only_its_job(worker):
    with ThreadPoolExecutor(1) as threads:
        beside = threads.submit(worker.run, sleep, "beside.mp4", 0.5)
        with pytest.raises(VideoError, match=r"^bad.mp4: decoding crashed \(SIGSEGV\)$"):
            worker.run(crash, "bad.mp4")
        assert beside.result() == 0.5
    assert worker.run(sleep, "next.mp4", 0.01) == 0.01


def test_memory_is_limited(worker):
    with pytest.raises(VideoError, match=r"large.mp4: decoding .* more memory"):
        worker.run(fill_memory, "large.mp4")
    assert worker.run(read_memory, "usual.mp4") > 0


def test_errors_of_a_job_are_raised_unchanged(worker):
    with pytest.raises(VideoError) as caught:
        worker.run(refuse, "a.mp4")
    assert (caught.value.path, caught.value.reason) == (Path("a.mp4"), "no reason at all")


def test_jobs_may_outnumber_the_processes(worker):
    """The other jobs wait, and do not fail."""
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(worker.run, sleep, "a.mp4", 0.1) for _ in range(8)]
        assert [job.result() for job in jobs] == [0.1] * 8


def test_a_killed_process_is_replaced(worker):
    os.kill(worker.run(process_id, "a.mp4"), signal.SIGKILL)
    time.sleep(0.5)  # the pool looks every 0.1 s
    assert worker.run(sleep, "b.mp4", 0.01) == 0.01


IGNORING = """
import os, signal
from server_jobs import blocks, process_id
from vop.server.media_worker import MediaWorker

if __name__ == "__main__":
    with MediaWorker(max_workers=1, seconds=60) as worker:
        print(worker.run(blocks, "a.mp4"))
        try:
            worker.run(process_id, "b.mp4", crash=True)
        except Exception:
            print(worker.run(blocks, "c.mp4"))
"""


def test_processes_ignore_ctrl_c(tmp_path):
    """From their first instruction on, also a process that replaces a crashed one."""
    assert run_script(tmp_path, IGNORING) == (0, "True\nTrue\n", "")


def test_a_closed_worker_refuses_jobs():
    worker = MediaWorker(max_workers=1, seconds=20)
    worker.warm()
    process = worker.run(process_id, "a.mp4")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run, sleep, "b.mp4", 15)
        time.sleep(0.5)
        worker.close()
        assert not _alive(process)
        with pytest.raises(VideoError, match=r"^b.mp4: decoding was cut short$"):
            running.result(timeout=10)
    with pytest.raises(VideoError, match=r"^c.mp4: decoding was cut short$"):
        worker.run(process_id, "c.mp4")
    worker.close()


ENDING = """
import os, sys, threading, time
from server_jobs import sleep
from vop.server.media_worker import MediaWorker

def wait():
    try:
        worker.run(sleep, "a.mp4", 600)
    except Exception:
        pass

if __name__ == "__main__":
    worker = MediaWorker(max_workers=1, seconds=600)
    worker.run(sleep, "a.mp4", 0)
    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.5)
    worker.close()
    threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.1)
    os._exit(0)
"""


def test_closing_with_waiting_jobs_leaves_nothing_behind(tmp_path):
    """A server ends with `os._exit`, which frees nothing that `close` did not free."""
    assert run_script(tmp_path, ENDING) == (0, "", "")


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


JOBS = """
import os, signal, time

def process_id(path, crash=False):
    if crash:
        time.sleep(0.5)
        os.abort()
    return os.getpid()

def sleep(path, seconds):
    time.sleep(seconds)

def blocks(path):
    os.kill(os.getpid(), signal.SIGINT)
    return os.getpgrp() == os.getpid()
"""


def run_script(folder: Path, text: str) -> tuple[int, str, str]:
    """Run a script in its own process; return its exit status, standard output and standard error."""
    (folder / "server.py").write_text(text)
    (folder / "server_jobs.py").write_text(JOBS)
    ended = subprocess.run([sys.executable, folder / "server.py"], capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stdout, ended.stderr


SERVER = """
import sys, threading, time
from server_jobs import process_id, sleep
from vop.server.media_worker import MediaWorker

if __name__ == "__main__":
    worker = MediaWorker(max_workers=1, seconds=600)
    print(worker.run(process_id, "a.mp4"), flush=True)
    worker.run(sleep, "a.mp4", 600)
"""


def test_processes_end_with_a_killed_server(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "server_jobs.py").write_text(JOBS)
    server = subprocess.Popen([sys.executable, tmp_path / "server.py"], stdout=subprocess.PIPE, text=True)
    child = int(server.stdout.readline())
    assert _alive(child)
    time.sleep(0.5)
    server.kill()
    server.wait()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)
