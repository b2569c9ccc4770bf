"""Measure how long work on a device takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

ENOUGH_PASSES = 50


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Do the work once and return the seconds until the device has finished it."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], device: torch.device, *, within_seconds: float) -> float:
    """Return the median of the seconds that the work takes, after one pass that warms up.

    Passes are repeated for about `within_seconds`. If the first pass takes several times as long, it is the result,
    because warming up is then a small part of it.
    """
    first = timed(work, device)
    if first > 4 * within_seconds:
        return first
    times: list[float] = []
    while len(times) < ENOUGH_PASSES and (not times or sum(times) < within_seconds):
        times.append(timed(work, device))
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
