"""Cores and threads: count usable and free cores, and set the number of PyTorch's threads.

PyTorch's number of threads does not follow the load: it changes the last bits of results, which would then depend on
other programs of the machine. On a busy machine it is enough that threads sleep while they wait
(`sleep_while_waiting`). Work that cannot change a result, such as decoding, can use `free_cores`.

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
SAMPLE_SECONDS = 0.1  # for measuring the load: ten ticks of the kernel's clock
# Multiply-adds of a forward pass. Below about twice this number, two threads are no faster than one (bench/threads.py).
WORK_PER_THREAD = 750_000_000
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # with which users set PyTorch's threads


def usable_cores() -> int:
    """Return the number of cores that this process may use, from its affinity and its CPU quota; at least 1."""
    limits = [_allowed_cores(), *map(int, _quotas())]  # rounded down: threads above a quota are stopped midway
    return max(1, min(limits))


def free_cores(*, sample_seconds: float = SAMPLE_SECONDS) -> int:
    """Return the number of idle usable cores, at least 1; all usable cores if the system does not report the load.

    Measures the load for `sample_seconds`. This process does not count as load, but its children do.
    """
    usable = usable_cores()
    before, own_before = _core_seconds(), time.process_time()
    if usable == 1 or before is None:
        return usable
    time.sleep(sample_seconds)
    after, own = _core_seconds(), time.process_time() - own_before
    if after is None or after.total <= before.total:  # in a sandbox whose clocks do not advance
        return usable
    seconds_of_a_core = (after.total - before.total) / after.cores
    free = (after.idle - before.idle + own) / seconds_of_a_core
    return max(1, min(usable, round(free)))


def sleep_while_waiting() -> None:
    """Make PyTorch's threads sleep while they wait for each other. Call this before PyTorch is imported.

    By default they spin for milliseconds. On a busy machine, spinning threads take processor time from the thread that
    they wait for. A setting in the user's environment takes precedence.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def use_threads(threads: int | None = None, *, processes: int = 1) -> int:
    """Set the number of threads that PyTorch uses on the CPU, and return it.

    Args:
        threads: the number, for this process and its child processes. By default the value of OMP_NUM_THREADS or
            MKL_NUM_THREADS, else the number of usable cores.
        processes: number of processes that share the cores.

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
    """Limit PyTorch to the number of threads that `work` multiply-adds keep busy. More threads would be slower.

    A number in the user's environment takes precedence.
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
    """Return the cores that this process may run on; None if the system does not report them, as on macOS."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@dataclass(frozen=True)
class _CoreSeconds:
    """The idle and total seconds of `cores` since the kernel started."""

    cores: int
    idle: float
    total: float


def _core_seconds() -> _CoreSeconds | None:
    """Return the seconds of the cores that this process may run on; None if the system does not report them."""
    affinity = _affinity()
    clocks = []
    try:
        for line in (PROC / "stat").read_text(encoding="ascii").splitlines():
            name, *ticks = line.split()
            core = name.removeprefix("cpu")
            if name != core and core.isdigit() and (affinity is None or int(core) in affinity):
                clocks.append([int(count) for count in ticks[:8]])  # these include virtual machines
    except (OSError, ValueError):
        return None
    if not clocks or min(map(len, clocks)) < 5:
        return None
    tick = 1 / os.sysconf("SC_CLK_TCK")
    idle = sum(clock[3] + clock[4] for clock in clocks)  # idle and iowait
    return _CoreSeconds(len(clocks), idle * tick, sum(map(sum, clocks)) * tick)


def _quotas() -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's control groups and their parents."""
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
    """Return a control group and its parents. A container often has its own group at `mount`, whatever its path."""
    group = mount / path.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]


def _quota_v2(group: Path) -> float | None:
    """Read a quota from a file such as `150000 100000`: microseconds per period. `max` means no quota."""
    quota, period, *_ = [*_words(group / "cpu.max"), "max", "max"]
    return _ratio(quota, period)


def _quota_v1(group: Path) -> float | None:
    """Read a quota from two files with microseconds. -1 means no quota."""
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
