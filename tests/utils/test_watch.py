"""Processes of a job without a launcher, which would end the others itself."""

from __future__ import annotations

import socket

import pytest

from forked import run_ranks
from vop.utils.watch import watched

# Rank 1 fails while rank 0 waits for it, in an exchange or without one.
JOB = """
import os, signal, sys, time
from vop.utils import watch
from vop.errors import VopError
from vop.utils.ranks import Ranks, join

how, where = sys.argv[1:]
watch.SIGNAL_SECONDS = 1.0
watch.SILENT_SECONDS = 3.0
try:
    with watch.watched():
        ranks = join()
        assert ranks.gather(ranks.rank * 10) == [0, 10]
        assert ranks.share("abcde", lambda part: [letter * 2 for letter in part]) == ["aa", "bb", "cc", "dd", "ee"]
        while not all(watch._current._numbers() or [0]):  # until both count
            time.sleep(0.1)
        if ranks.rank == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"error": RuntimeError("the disk broke"), "stopped": KeyboardInterrupt()}[how]
        if where == "exchange":
            ranks.gather(None)
        while True:
            time.sleep(0.1)
except VopError as error:
    print(error)
    sys.stdout.flush()
    os._exit(1)
except BaseException as error:
    print("own:", type(error).__name__)
    sys.stdout.flush()
    os._exit(3)
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize(
    ("how", "where", "cause"),
    [
        ("error", "exchange", "RuntimeError: the disk broke"),
        ("killed", "work", "it has not responded for 3 s"),
        ("stopped", "work", "it was stopped"),
    ],
)
def test_a_failed_rank_ends_the_others_with_its_cause(how, where, cause):
    waiting, failed = run_ranks(JOB, [how, where], ranks=2)
    assert waiting.returncode == 1
    assert waiting.stdout.startswith("rank 1 of 2")
    assert waiting.stdout.strip().endswith(f"failed: {cause}")
    assert (f"process {failed.pid} on {socket.gethostname()}" in waiting.stdout) == (how != "killed")
    own = {"killed": "", "error": "own: RuntimeError\n", "stopped": "own: KeyboardInterrupt\n"}
    assert (failed.returncode, failed.stdout) == (-9 if how == "killed" else 3, own[how])


def test_one_process_is_not_watched(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ZeroDivisionError), watched():
        _ = 1 / 0
