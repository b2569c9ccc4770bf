"""Shards on worker processes that are killed, and the commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from search import dying
from search.test_shards import assert_equal
from vop.cli import main
from vop.errors import VopError
from vop.search.sharding.plan import Plan
from vop.search.sharding.runners import local
from vop.search.store import Store

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")


@pytest.fixture
def words(folder, videos, tiny_folder, tmp_path) -> list[str]:
    small = ["--model", tiny_folder, "--num-frames", 2, "--precision", "fp32", "--workers", 1, "--batch-size", 3]
    return list(map(str, ["index", folder, tmp_path / "videos", *small, "--threads", 1, "--json"]))


@pytest.fixture
def other(index_videos, folder, tmp_path) -> Path:
    """The library that one process makes."""
    index_videos()
    return folder.rename(tmp_path / "other")


def children() -> set[int]:
    threads = Path("/proc/self/task").iterdir()
    return {int(child) for thread in threads for child in (thread / "children").read_text().split()}


@pytest.mark.usefixtures("real_processes")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in /proc")
def test_killed_workers_are_replaced(words, folder, other, capsys):
    killed: list[int] = []
    before = children()

    def kill_workers():
        until = time.monotonic() + 120
        while not list(folder.glob("shards/*/*.progress.json")) and time.monotonic() < until:
            time.sleep(0.01)
        for child in children() - before:
            os.kill(child, signal.SIGKILL)
            killed.append(child)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    status = main([*words, "--jobs", "2"])
    killer.join()
    out, err = capsys.readouterr()
    assert status == 0, err
    assert len(killed) == 2
    assert (json.loads(out)["added"], json.loads(out)["segments"]) == (4, 6)
    assert_equal(folder, other)
    assert not (folder / "shards").exists()


@pytest.fixture
def plan(words, folder, capsys) -> Plan:
    assert main([*words, "--shard", "1/1"]) == 0
    capsys.readouterr()
    (found,) = map(Plan.read, Plan.all_of(folder))
    found.drop_result(0)
    return found


def test_a_shard_that_always_kills_its_worker(plan, monkeypatch, videos):
    monkeypatch.setattr(local, "_work", dying.die)
    with pytest.raises(VopError, match=f"3 times .*exit status 9.* 4 files, such as .*{videos['b'].parent}"):
        list(local.run(plan, [0], jobs=2, workers=1, batch_size=1))
    assert (plan.folder / "deaths").read_text().split() == ["0"] * 3


def test_an_error_of_a_worker_ends_the_work(plan, monkeypatch):
    monkeypatch.setattr(local, "_work", dying.fail)
    with pytest.raises(VopError, match="node7: no space left for shard 0"):
        list(local.run(plan, [0], jobs=1, workers=1, batch_size=1))


def test_a_batch_job_and_its_publication(words, folder, other, capsys):
    for part in (1, 2):
        assert main([*words, "--shard", f"{part}/2"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["part"], report["parts"], report["shards"]) == (part, 2, 2)
        assert report["finished"] == part
        assert Store.open(folder).status().videos == 0
    assert main(["library", "publish", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 shards published" in out
    assert "4 added" in out
    assert_equal(folder, other)
    assert main(["library", "publish", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "library": str(folder),
        "published": 0,
        "committed": 0,
        "shards": 0,
        "discarded": 0,
        "index_left": 0,
        "completed": [],
        "reembedded": [],
    }


@pytest.mark.parametrize(
    "given",
    [
        ["--shard", "0/2"],
        ["--shard", "half"],
        ["--jobs", "0"],
        ["--jobs", "-4", "--dry-run"],
        ["--shard", "half", "--dry-run"],
        ["--workers", "0", "--jobs", "2"],
        ["--gpus-per-worker", "2", "--shard", "1/2"],
    ],
)
def test_bad_numbers_are_refused(words, given, capsys, folder):
    assert main([*words, *given]) == 2
    assert given[1] in capsys.readouterr().err
    assert not folder.exists()


def test_discarding_takes_no_other_option(words, capsys, folder):
    assert main([*words, "--shard", "1/2"]) == 0
    for other in (["--index-parts", "2"], ["--drop-unreadable"]):
        assert main(["library", "publish", str(folder), "--discard", *other]) == 2
        assert "do not go with it" in capsys.readouterr().err


def test_without_pylance(words, monkeypatch, capsys, folder):
    monkeypatch.setitem(sys.modules, "lance", None)
    assert main([*words, "--jobs", "2"]) == 2
    assert "vop[shards]" in capsys.readouterr().err
    assert not folder.exists()
    assert main(words) == 0  # one process does not need it
