"""Jobs that run in other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vop.errors import VideoError
from vop.utils.isolation import Crashed, Ended, Processes, TookTooLong
from vop.video.isolated import DecodingProcesses


@pytest.fixture(scope="module")
def processes():
    with Processes(seconds=60) as processes:
        yield processes


def number() -> int:
    return os.getpid()


def echo(value):
    return value


def die():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(error):
    raise error


def count_up(to: int, shape=(2,)):
    for step in range(to):
        yield np.full(shape, step % 256, np.uint8)
    return "done"


def count_and_die():
    yield 1
    die()


def wait(started: Path):
    started.touch()
    time.sleep(60)


def unpicklable():
    return lambda: None


def test_results_and_arrays_are_returned_unchanged(processes):
    assert processes.call(echo, {"a": [1, None, "é"]}) == {"a": [1, None, "é"]}
    for shape in ((3,), (4, 3, 224, 224), (0,)):
        array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        assert np.array_equal(processes.call(echo, array), array)
    transposed = np.arange(300_000, dtype=np.int64).reshape(300, 1000).T
    assert np.array_equal(processes.call(echo, transposed), transposed)


def test_arrays_outlive_the_job_and_the_process():
    with Processes() as processes:
        kept = list(processes.iterate(count_up, 5, (3, 224, 224)))
    assert [int(array[0, 0, 0]) for array in kept] == [0, 1, 2, 3, 4]
    kept[0][:] = 9
    assert kept[0].max() == 9


def test_processes_are_reused(processes):
    assert processes.call(number) == processes.call(number)
    with ThreadPoolExecutor(3) as threads:
        assert (
            len(set(threads.map(lambda _: (processes.call(time.sleep, 0.1), processes.call(number))[1], range(3)))) <= 3
        )


def test_generators_give_items_and_their_return_value(processes):
    def all_of():
        ended = yield from processes.iterate(count_up, 3)
        yield ended

    *arrays, ended = all_of()
    assert [int(array[0]) for array in arrays] == [0, 1, 2]
    assert ended == "done"


def test_closing_a_generator_frees_its_process():
    with Processes() as processes:
        process = processes.call(number)
        items = processes.iterate(count_up, 10**9)
        next(items)
        items.close()
        items = processes.iterate(count_up, 10**9)
        assert [int(next(items)[0]) for _ in range(5)] == [0, 1, 2, 3, 4]
        items.close()
        assert processes.call(number) == process


def test_a_crash_ends_only_its_own_job(processes):
    with pytest.raises(Crashed, match="SIGSEGV"):
        processes.call(die)
    items = processes.iterate(count_and_die)
    assert next(items) == 1
    with pytest.raises(Crashed, match="SIGSEGV"):
        next(items)
    with pytest.raises(Crashed, match="exit status 3"):
        processes.call(os._exit, 3)
    assert processes.call(echo, 5) == 5


def test_errors_of_a_job_are_raised_unchanged(processes):
    with pytest.raises(VideoError) as caught:
        processes.call(fail, VideoError("a.mp4", "no reason"))
    assert (str(caught.value.path), caught.value.reason) == ("a.mp4", "no reason")
    with pytest.raises(KeyError, match="nothing") as caught:
        processes.call(fail, KeyError("nothing"))
    assert "in fail" in caught.value.__notes__[0]  # the traceback of the other process
    for error in (EOFError(), BrokenPipeError(), SystemExit(2)):
        with pytest.raises(type(error)):
            processes.call(fail, error)
    with pytest.raises(RuntimeError, match="cannot be sent"):
        processes.call(unpicklable)
    assert processes.call(echo, 5) == 5


def test_a_job_that_takes_too_long_is_stopped():
    with Processes(seconds=60) as processes:
        processes.call(number)  # a process that has started takes no time to start
        processes.seconds = 0.1
        with pytest.raises(TookTooLong):
            processes.call(time.sleep, 60)
        processes.seconds = 60
        assert processes.call(echo, 5) == 5


def test_after_close_every_job_ends(tmp_path):
    processes = Processes()
    items = processes.iterate(count_up, 10**9)
    next(items)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(processes.call, wait, tmp_path / "started")
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        processes.close()
        with pytest.raises(Ended):
            running.result(timeout=10)
    with pytest.raises(Ended):
        list(items)
    with pytest.raises(Ended):
        processes.call(number)
    processes.close()


def test_decoding_imports_neither_pytorch_nor_a_database():
    code = """
from vop.search.segmentation import read_segments
from vop.video.frames import decode_frames
from vop.video.picture import picture_frames
import sys
print(*({"torch", "lancedb", "pyarrow", "transformers"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_scripts_need_no_main_guard(tmp_path):
    """The other process does not run the script again."""
    (tmp_path / "jobs.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "script.py").write_text(
        "import jobs\nfrom vop.utils.isolation import Processes\nprint('once')\n"
        "with Processes() as processes:\n    print(processes.call(jobs.double, 4))\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("once\n8\n", "")


def test_a_crash_of_the_decoder_is_a_video_error():
    with DecodingProcesses() as processes, pytest.raises(VideoError, match=r"^a\.mp4: .*SIGABRT"):
        processes.call(crash_by_abort, "a.mp4")


def crash_by_abort(path):
    os.abort()
