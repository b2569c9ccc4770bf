"""Out of memory, in any library: one line with the next step, and status 1. Other errors keep their traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from vop.cli import main, memory

resource = pytest.importorskip("resource")
SOURCES = str(Path(memory.__file__).parents[2])


def run_with(limit_bytes: int, *words: object) -> subprocess.CompletedProcess:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); del sys.argv[1]; "
        "from vop.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": SOURCES}
    words = [sys.executable, "-c", code, str(limit_bytes), *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, env=environment)


@pytest.mark.parametrize("gigabytes", [0.25, 0.75])
@pytest.mark.parametrize("command", ["params", "train", "evaluate", "index", "search", "library"])
def test_too_low_limits_are_reported_before_work(table, tmp_path, command, gigabytes):
    words = {
        "params": ["--backbone", "mini"],
        "train": ["--data", table, "--backbone", "mini", "--out", tmp_path / "run"],
        "evaluate": ["mini", "--data", table],
        "index": [tmp_path / "library", table.parent, "--model", "mini"],
        "search": [tmp_path / "library", "a dog"],
        "library": ["info", tmp_path / "library"],
    }
    done = run_with(int(gigabytes * 2**30), command, *words[command])
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vop: out of memory: the limit is {gigabytes:.2f} GiB of address space (ulimit -v)")
    assert "(ulimit -v unlimited)" in line


def test_the_stated_limit_suffices(tmp_path):
    done = run_with(memory._FOR_PYTORCH, "params", "--backbone", "mini", "--json")
    assert (done.returncode, done.stderr) == (0, "")


def test_limits_reached_during_work_are_reported(table, tmp_path):
    given = ["--data", table, "--backbone", "mini", "--workers", 0, "--threads", 1, "--epochs", 1]
    words = ["train", *given, "--method", "full", "--num-frames", 900, "--out", tmp_path / "run"]
    done = run_with(memory._FOR_PYTORCH + 2**28, *words)
    *_, last = done.stderr.splitlines()
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    ways = "a smaller --batch-size or fewer --workers or fewer --threads"
    assert last.startswith(f"vop: out of memory: use {ways}; the limit is 1.50 GiB of address space (ulimit -v) (")


def no_memory_of_pytorch() -> None:
    torch.empty(2**50, dtype=torch.uint8)


def no_memory_of_numpy() -> None:
    np.empty(2**50, np.uint8)


def no_memory_of_arrow() -> None:
    pa.allocate_buffer(2**50)


def raising(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "run",
    [
        no_memory_of_pytorch,
        no_memory_of_numpy,
        no_memory_of_arrow,
        raising(MemoryError()),
        raising(RuntimeError("std::bad_alloc")),
        raising(RuntimeError("can't start new thread")),
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")),
        raising(OSError(12, "Cannot allocate memory")),
        raising(ImportError("libtorch_cpu.so: failed to map segment from shared object")),
    ],
)
def test_out_of_memory_errors_of_all_libraries_are_recognised(vop, monkeypatch, run):
    monkeypatch.setattr("vop.training.job.train", lambda *_, **settings: run())
    status, out, err = vop("train", "--data", "x.csv", "--out", "run")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "out of memory: use a smaller --batch-size" in err


def test_only_options_of_the_command_are_suggested(vop, monkeypatch):
    monkeypatch.setattr("vop.cli.data.load_data", lambda *_: raising(MemoryError())())
    error = vop("data", "check", "x.csv")[2]
    assert error.startswith("vop: out of memory")
    assert "--" not in error
    assert error.endswith("(MemoryError)\n")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("unsupported memory format option Preserve"),
        RuntimeError("out of memory"),  # no library uses these words
        ValueError("can't allocate memory"),
        ImportError("cannot import name 'x'"),
        AttributeError("x"),
        KeyError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_programming_errors_keep_their_traceback(monkeypatch, error):
    monkeypatch.setattr("vop.training.job.train", lambda *_, **settings: raising(error)())
    with pytest.raises(type(error)) as caught:
        main(["train", "--data", "x.csv", "--out", "run"])
    assert caught.value is error
