"""The number of usable cores, and the user's number of threads, which has priority over ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vop.errors import UsageError
from vop.utils import threads
from vop.utils.threads import (
    WORK_PER_THREAD,
    free_cores,
    limit_threads,
    sleep_while_waiting,
    usable_cores,
    use_threads,
)


@pytest.fixture
def system(tmp_path, monkeypatch) -> Path:
    """A system with eight cores and an empty folder for its `proc` and `cgroup`."""
    monkeypatch.setattr(threads, "PROC", tmp_path / "proc")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return tmp_path


@pytest.fixture
def no_choice(monkeypatch):
    """The environment sets no number of threads, and the changes of a test are undone."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    yield
    torch.set_num_threads(before)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestUsableCores:
    def test_this_machine_has_at_least_one(self):
        assert 1 <= usable_cores() <= os.cpu_count()

    def test_affinity(self, system, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
        assert usable_cores() == 3

    def test_python_counts_the_cores_of_the_process(self, system, monkeypatch):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
        assert usable_cores() == 5

    @pytest.mark.parametrize(("count", "usable"), [(6, 6), (None, 1)])
    def test_without_affinity(self, system, monkeypatch, count, usable):
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        assert usable_cores() == usable

    @pytest.mark.parametrize(
        ("limit", "usable"),
        [
            ("200000 100000", 2),
            ("250000 100000", 2),
            ("50000 100000", 1),
            ("9000000 100000", 8),
            ("max 100000", 8),
            ("200000 0", 8),
            ("200000", 8),
            ("", 8),
        ],
    )
    def test_quota_of_version_2(self, system, limit, usable):
        write(system / "proc/self/cgroup", "0::/work/job\n")
        write(system / "cgroup/work/job/cpu.max", limit)
        assert usable_cores() == usable

    @pytest.mark.parametrize("group", ["work/job", "work", "."])
    def test_quota_of_a_parent_group(self, system, group):
        write(system / "proc/self/cgroup", "0::/work/job\n")
        write(system / "cgroup/work/job/cpu.max", "max 100000")
        write(system / "cgroup" / group / "cpu.max", "300000 100000")
        assert usable_cores() == 3

    @pytest.mark.parametrize(("quota", "usable"), [("150000", 1), ("400000", 4), ("-1", 8)])
    @pytest.mark.parametrize(
        "folder", ["cpu/docker/1f", "cpu,cpuacct/docker/1f", "cpu"]
    )  # the last one inside a container
    def test_quota_of_version_1(self, system, folder, quota, usable):
        write(system / "proc/self/cgroup", "9:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n3:cpuset:/\n0::/docker/1f\n")
        write(system / "cgroup" / folder / "cpu.cfs_quota_us", f"{quota}\n")
        write(system / "cgroup" / folder / "cpu.cfs_period_us", "100000\n")
        assert usable_cores() == usable

    def test_a_damaged_quota_file_is_ignored(self, system):
        write(system / "proc/self/cgroup", "0::/\n")
        (system / "cgroup").mkdir()
        (system / "cgroup/cpu.max").write_bytes(b"\xff\xfe")
        assert usable_cores() == 8


class TestFreeCores:
    """Cores that a test does not mention are idle. One second passes."""

    @pytest.fixture
    def passes(self, system, monkeypatch):
        """Set each core's ticks of user, nice, system, … during the second, and our own CPU seconds."""

        def say(*cores: list[int], own: float = 0.0) -> None:
            cores += tuple([0, 0, 0, 100] for _ in range(8 - len(cores)))
            clock = {"own": 7.0}

            def sleep(seconds: float) -> None:
                clock["own"] += own
                stat([[50 + ticks for ticks in core + [0] * (10 - len(core))] for core in cores])

            def stat(rows: list[list[int]]) -> None:
                lines = [f"cpu{number} {' '.join(map(str, row))}" for number, row in enumerate(rows)]
                write(system / "proc/stat", "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 1 2 3", "btime 4"]))

            stat([[50] * 10 for _ in cores])
            monkeypatch.setattr(threads.time, "sleep", sleep)
            monkeypatch.setattr(threads.time, "process_time", lambda: clock["own"])
            monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])

        return say

    def test_all_idle_cores_are_free(self, passes):
        passes()
        assert free_cores() == 8

    def test_cores_in_use_are_not_free(self, passes):
        passes([100, 0, 0, 0], [0, 100, 0, 0], [30, 0, 20, 50], [0, 0, 20, 80])
        assert free_cores() == 5  # 5.3

    def test_waiting_for_a_disk_is_free_and_stolen_time_is_not(self, passes):
        passes([0, 0, 0, 0, 100, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 100])
        assert free_cores() == 7

    def test_guests_are_not_counted_twice(self, passes):
        passes([100, 0, 0, 0, 0, 0, 0, 0, 100, 0])
        assert free_cores() == 7

    def test_our_own_load_is_ignored(self, passes):
        passes([100, 0, 0, 0], [100, 0, 0, 0], [100, 0, 0, 0], own=2.0)
        assert free_cores() == 7

    def test_at_least_one_core_is_free(self, passes):
        passes(*[[100, 0, 0, 0]] * 8)
        assert free_cores() == 1

    def test_cores_outside_the_affinity_do_not_count(self, passes, monkeypatch):
        passes([100, 0, 0, 0], [100, 0, 0, 0], [100, 0, 0, 0])
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 4})
        assert free_cores() == 2

    def test_the_quota_limits_free_cores(self, passes, system):
        passes([100, 0, 0, 0])
        write(system / "proc/self/cgroup", "0::/\n")
        write(system / "cgroup/cpu.max", "300000 100000")
        assert free_cores() == 3

    @pytest.mark.parametrize("stat", [None, "", "cpu0 1 2", "cpu0 a b c d e", "cpu0 1 2 3 4 5 6 7 8 9 10"])
    def test_without_statistics_all_cores_are_free(self, system, monkeypatch, stat):
        monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
        if stat is not None:
            write(system / "proc/stat", stat)
        assert free_cores() == 8


class TestUseThreads:
    @pytest.fixture(autouse=True)
    def _eight_threads(self, system, no_choice):
        torch.set_num_threads(8)

    def test_a_given_number_wins_over_the_environment(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert use_threads(3) == torch.get_num_threads() == 3
        assert os.environ["OMP_NUM_THREADS"] == "3"  # for child processes

    @pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
    def test_the_environment_wins_over_the_cores(self, monkeypatch, name):
        monkeypatch.setenv(name, "8")  # PyTorch has read it
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
        assert use_threads(processes=2) == torch.get_num_threads() == 8

    @pytest.mark.parametrize(("processes", "share"), [(1, 6), (2, 3), (4, 1), (50, 1)])
    def test_the_default_is_one_thread_per_usable_core(self, system, processes, share):
        write(system / "proc/self/cgroup", "0::/\n")
        write(system / "cgroup/cpu.max", "600000 100000")
        assert use_threads(processes=processes) == torch.get_num_threads() == share

    def test_a_smaller_number_set_before_is_kept(self):
        torch.set_num_threads(2)
        assert use_threads() == torch.get_num_threads() == 2

    @pytest.mark.parametrize("number", [0, -1])
    def test_numbers_below_one_are_refused(self, number):
        with pytest.raises(UsageError, match=f"threads is {number};"):
            use_threads(number)
        assert torch.get_num_threads() == 8


class TestLimitThreads:
    @pytest.fixture(autouse=True)
    def _eight_threads(self, no_choice):
        torch.set_num_threads(8)

    @pytest.mark.parametrize(("share", "limited"), [(0, 1), (1, 1), (2.9, 2), (8, 8), (1000, 8)])
    def test_threads_are_limited_by_the_work(self, share, limited):
        with limit_threads(int(share * WORK_PER_THREAD)):
            assert torch.get_num_threads() == limited
        assert torch.get_num_threads() == 8

    def test_threads_are_restored_after_an_error(self):
        with pytest.raises(KeyError), limit_threads(0):
            raise KeyError
        assert torch.get_num_threads() == 8

    def test_the_users_number_is_kept(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        with limit_threads(0):
            assert torch.get_num_threads() == 8


@pytest.mark.parametrize(("policy", "then"), [(None, "passive"), ("active", "active")])
def test_idle_threads_sleep_unless_the_user_wants_spinning(monkeypatch, policy, then):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy or "")
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == then
