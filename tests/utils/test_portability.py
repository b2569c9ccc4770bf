"""The package works without Linux's scheduler calls, memory files, `/proc`, `poll` and `resource`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from clips import grey_frames, write_clip
from vop.utils import isolation

# sitecustomize.py: Python runs it first, also in child processes.
WITHOUT = """
import os, select, sys
for module, names in (
    (os, ("sched_getaffinity", "sched_setaffinity", "process_cpu_count", "memfd_create", "pidfd_open", "sendfile")),
    (select, ("poll", "epoll")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["resource"] = None
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])]))
    return {**os.environ, "PYTHONPATH": path}


def python(code: str, *arguments: str, environment: dict[str, str]) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_frames_are_decoded_in_another_process(tmp_path, environment):
    path = write_clip(tmp_path / "clip.mp4", grey_frames(20))
    code = """
import sys, select
from vop.video.ahead import map_ahead
from vop.video.frames import decode_frames
from vop.video.isolated import DecodingProcesses
from vop.video.resizing import Resizing
assert not hasattr(select, "poll")
with DecodingProcesses() as processes:
    work = lambda path: processes.call(decode_frames, path, num_frames=4, resizing=Resizing())
    for done in map_ahead(sys.argv[1:], work, workers=2, ahead=2):
        print(*(round(frame.mean() / 10) for frame in done.result))
"""
    assert python(code, str(path), str(path), environment=environment) == ["2", "7", "12", "17"] * 2


def test_values_that_the_system_does_not_report_have_defaults(environment):
    code = """
from pathlib import Path
from vop.experiments.work import _peak_memory
from vop.server.connections import MAX_CONNECTIONS, connections_that_fit
from vop.utils import device, threads
threads.PROC = threads.CGROUPS = device.CPU_INFO = Path("/nowhere")
print(threads.usable_cores(), threads.free_cores(), bool(device.machine_name()))
try:
    import resource
except ImportError:
    print(_peak_memory(), connections_that_fit() == MAX_CONNECTIONS)
"""
    cores = str(os.cpu_count())
    printed = python(code, environment={**environment, "CUDA_VISIBLE_DEVICES": ""})
    assert printed == [cores, cores, "True", "None", "True"]


def test_child_processes_end_with_their_parent(environment):
    code = """
import os, time
from vop.utils.isolation import Processes
from concurrent.futures import ThreadPoolExecutor
with Processes() as processes, ThreadPoolExecutor() as threads:
    print(processes.call(os.getpid), flush=True)
    threads.submit(processes.call, time.sleep, 600)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    until = time.monotonic() + 30
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Whether a process exists and is not a zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize("without", ["memfd_create", "nothing"])
@pytest.mark.parametrize("at_once", [2**30, 1000])
def test_large_arrays_are_sent_in_parts(monkeypatch, without, at_once):
    if without != "nothing":
        monkeypatch.delattr(os, without, raising=False)
    monkeypatch.setattr(isolation, "_MOST_AT_ONCE", at_once)
    ours, theirs = Pipe()
    array = np.arange(50_000, dtype=np.int32)
    isolation._send(ours, (array, "end"))
    received, end = isolation._receive(theirs)
    assert np.array_equal(received, array)
    assert end == "end"
