"""Python processes that tests start, forked from one that has imported PyTorch: importing takes seconds in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# None of them starts threads, which would not exist after a fork.
IMPORTED = ["torch", "torch.distributed", "accelerate", "vop.training.trainer", "vop.evaluation.evaluating"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTED)


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        returncode: its exit status, or the negative number of the signal that ended it.
        stdout, stderr: what it has written.
    """

    pid: int
    returncode: int
    stdout: str
    stderr: str


def run(
    code: str, words: Sequence[str] = (), *, environments: Sequence[Mapping[str, str]] = ({},), seconds: float = 300
) -> list[Ended]:
    """Run `code` in a process for each of `environments`, at the same time, with `words` as `sys.argv[1:]`.

    The environments are added to that of the tests. Processes that run after `seconds` are killed.
    """
    with tempfile.TemporaryDirectory(prefix="vop-test-") as folder:
        files = [[Path(folder, f"{number}.{name}") for name in ("out", "err")] for number in range(len(environments))]
        started: list[BaseProcess] = []
        try:
            for written, environment in zip(files, environments, strict=True):
                given = (code, list(words), os.environ | environment, os.getcwd(), written)
                started.append(_context.Process(target=_run, args=given))
                started[-1].start()
            for process in started:
                process.join(seconds)
        finally:
            for process in started:
                process.kill()
                process.join()
        said = [[file.read_text() if file.exists() else "" for file in written] for written in files]
        return [Ended(process.pid, process.exitcode, *texts) for process, texts in zip(started, said, strict=True)]


def run_ranks(code: str, words: Sequence[str] = (), *, ranks: int) -> list[Ended]:
    """Run `code` in each of `ranks` processes, with the environment that torchrun gives them."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(some.getsockname()[1])}
    common |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    places = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    return run(code, words, environments=places)


def _run(code: str, words: list[str], environment: dict[str, str], folder: str, files: list[Path]) -> None:
    import torch

    for descriptor, path in enumerate(files, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the first process may have started as a background job
    sys.argv[:] = ["-c", *words]
    torch.set_num_threads(1)
    exec(compile(code, "<code of a test>", "exec"), {"__name__": "__main__"})
