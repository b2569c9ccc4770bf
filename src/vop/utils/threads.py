"""Cores and threads: how many cores this process may use, how many are free, how many threads PyTorch gets.

PyTorch's number does not follow the load: results can depend on it in their last bits, and would then depend on what
else the machine does. On a busy machine it is enough that threads sleep while they wait (`sleep_while_waiting`). Work
that cannot change a result, such as decoding, can follow `free_cores`.

PyTorch is imported only where its threads are set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vop.errors import UsageError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
SAMPLE_SECONDS = 0.1  # of load: ten ticks of the kernel's clock
# Multiply-adds of a forward pass. Two threads are no faster than one below about twice as many (bench/threads.py).
WORK_PER_THREAD = 750_000_000
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which users choose PyTorch's threads


def usable_cores() -> int:
    """Cores that this process may use, at least 1: by its affinity, and in a container by its CPU quota."""
    limits = [_allowed_cores(), *map(int, _quotas())]  # rounded down: threads above a quota are stopped midway
    return max(1, min(limits))


def free_cores(*, sample_seconds: float = SAMPLE_SECONDS) -> int:
    """Usable cores that no other process uses now, at least 1; all of them where the system does not tell.

    Measures for `sample_seconds`. What this process uses itself does not count as load; what its children use does.
    """
    usable = usable_cores()
    before, own_before = _core_seconds(), time.process_time()
    if usable == 1 or before is None:
        return usable
    time.sleep(sample_seconds)
    after, own = _core_seconds(), time.process_time() - own_before
    if after is None or after.total <= before.total:  # a sandbox whose clocks stand still
        return usable
    seconds_of_a_core = (after.total - before.total) / after.cores
    free = (after.idle - before.idle + own) / seconds_of_a_core
    return max(1, min(usable, round(free)))


def sleep_while_waiting() -> None:
    """Makes PyTorch's threads sleep while they wait for each other; has an effect only before PyTorch is imported.

    By default they spin for milliseconds. On a busy machine the spinning threads use up the processor time that the one
    they wait for needs. What the user's environment says stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def use_threads(threads: int | None = None, *, processes: int = 1) -> int:
    """Sets how many threads PyTorch computes with on the CPU, and returns the number.

    Args:
        threads: also for processes that this one starts. By default what OMP_NUM_THREADS or MKL_NUM_THREADS says, or
            as many as there are usable cores.
        processes: that compute side by side, and share the cores.

    Raises:
        UsageError: `threads` is less than 1.
    """
    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be 1 or more")
        os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    elif not _chosen_by_user():
        share = max(1, usable_cores() // processes)
        torch.set_num_threads(min(torch.get_num_threads(), share))
    return torch.get_num_threads()


@contextmanager
def limit_threads(work: int) -> Iterator[None]:
    """Inside, PyTorch has no more threads than `work` multiply-adds keep busy: more take longer than fewer.

    A number that the user has chosen stays.
    """
    import torch

    before, useful = torch.get_num_threads(), max(1, work // WORK_PER_THREAD)
    if _chosen_by_user() or useful >= before:
        yield
        return
    torch.set_num_threads(useful)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _chosen_by_user() -> bool:
    return any(os.environ.get(name) for name in _VARIABLES)


def _allowed_cores() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13; also knows PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    affinity = _affinity()
    return len(affinity) if affinity else os.cpu_count() or 1


def _affinity() -> set[int] | None:
    """The cores that this process may run on; None where the system has no such thing, as macOS."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@dataclass(frozen=True)
class _CoreSeconds:
    """What the kernel has counted of `cores` since it started, in seconds: how long they were idle, and all in all."""

    cores: int
    idle: float
    total: float


def _core_seconds() -> _CoreSeconds | None:
    """Of the cores that this process may run on; None where nothing counts them."""
    affinity = _affinity()
    clocks = []
    try:
        for line in (PROC / "stat").read_text(encoding="ascii").splitlines():
            name, *ticks = line.split()
            core = name.removeprefix("cpu")
            if name != core and core.isdigit() and (affinity is None or int(core) in affinity):
                clocks.append([int(count) for count in ticks[:8]])  # the rest, of guests, is counted in these
    except (OSError, ValueError):
        return None
    if not clocks or min(map(len, clocks)) < 5:
        return None
    tick = 1 / os.sysconf("SC_CLK_TCK")
    idle = sum(clock[3] + clock[4] for clock in clocks)  # nothing to do, and nothing to do but wait for a disk
    return _CoreSeconds(len(clocks), idle * tick, sum(map(sum, clocks)) * tick)


def _quotas() -> Iterator[float]:
    """The CPU quotas, in cores, of this process's control groups and of the groups that these are in."""
    try:
        lines = (PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            yield from filter(None, map(_quota_v2, _groups(CGROUPS, path)))
        elif "cpu" in controllers.split(","):  # version 1, mounted under either name
            for mount in {CGROUPS / "cpu", CGROUPS / controllers}:
                yield from filter(None, map(_quota_v1, _groups(mount, path)))


def _groups(mount: Path, path: str) -> list[Path]:
    """A control group and those that it is in. A container often sees its own group as `mount`, whatever its path."""
    group = mount / path.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def _quota_v2(group: Path) -> float | None:
    """Of a file such as `150000 100000`, microseconds of each period; `max` is no quota."""
    quota, period, *_ = [*_words(group / "cpu.max"), "max", "max"]
    return _ratio(quota, period)


def _quota_v1(group: Path) -> float | None:
    """-1 is no quota."""
    quota, period, *_ = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us"), "-1", "-1"]
    return _ratio(quota, period)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _ratio(quota: str, period: str) -> float | None:
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None
