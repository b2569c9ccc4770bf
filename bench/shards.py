"""Measure indexing in shards: its overhead against one process, and the speed-up of two workers over one.

python bench/shards.py [--model mini] [--videos 24] [--seconds 60] [--size 640x360] [--repeats 3] [--json]

The videos are those of bench/index.py. Every worker decodes with one process and embeds with one thread, so that two
workers need two free cores. The ways alternate: `vop index` in this process (one), the same in shards with one worker
process (shards_1), with one that has only one core (shards_1_core), and with two (shards_2).

A worker process takes seconds to start and to load its model, whatever the number of videos. `start_…_seconds` are the
times of runs with two short videos, beyond that of one process. The overhead and the speed-ups are also reported
without them, as for many videos. `machine_speed_up_of_2` is what the machine allows: two processes that only decode,
each half of the videos with PyAV, against one that decodes all of them. One worker decodes and embeds at the same time,
so it uses more than one core: `cores_of_1`. `speed_up_of_2_with_a_core_each` compares two workers on two cores with one
on one core, as batch systems give them. `…_cpu` is the processor time of all processes together, which is more reliable
than the elapsed time if other jobs share the machine. It is measured on Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported, also in the workers

from index import make_video
from vop.search.sharding.commands import index_in_processes
from vop.search.sync import index
from vop.search.sync.report import IndexReport
from vop.utils.threads import usable_cores

BATCH = 16
_PR_SET_CHILD_SUBREAPER = 36  # prctl

Way = Callable[[Path, Path], IndexReport]  # of a library and a folder


def cpu_seconds() -> float:
    """Return the processor time of this process and of its descendants, which must have been told to end."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # so that those of a killed worker count as well
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# Decodes its arguments as soon as a line arrives.
DECODE = """
import sys, av
print("ready", flush=True)
sys.stdin.readline()
for video in sys.argv[1:]:
    with av.open(video) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass
"""


def decoding_seconds(parts: Sequence[Sequence[Path]]) -> float:
    """Return how long processes decode these videos, a part each."""
    # Not by multiprocessing, whose resource tracker stays: `cpu_seconds` would wait for it.
    commands = ([sys.executable, "-c", DECODE, *map(str, part)] for part in parts)
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(one, stdin=pipe, stdout=pipe)) for one in commands]
        for process in processes:
            process.stdout.readline()
        started = time.perf_counter()
        for process in processes:
            process.stdin.close()
        for process in processes:
            process.wait()
        return time.perf_counter() - started


def machine_speed_up(folder: Path) -> float:
    """Return how much faster two processes decode these videos than one, without vop."""
    videos = sorted(folder.iterdir())
    return decoding_seconds([videos]) / decoding_seconds([videos[::2], videos[1::2]])


@contextmanager
def one_core() -> Iterator[None]:
    """Give one core to the processes that are started within."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def measure(model: str, videos: Path, short: Path, *, repeats: int) -> dict:
    def one(library: Path, folder: Path) -> IndexReport:
        return index(library, [folder], model=model, workers=1, batch_size=BATCH)

    def shards(jobs: int, library: Path, folder: Path) -> IndexReport:
        return index_in_processes(library, [folder], jobs=jobs, model=model, workers=1, batch_size=BATCH)

    def on_one_core(library: Path, folder: Path) -> IndexReport:
        with one_core():
            return shards(1, library, folder)

    in_shards: dict[str, Way] = {"1": partial(shards, 1), "1_core": on_one_core, "2": partial(shards, 2)}
    ways: dict[str, Way] = {"one": one, **{f"shards_{name}": way for name, way in in_shards.items()}}
    times: dict[str, list[float]] = {name: [] for name in [*ways, *(f"start_{name}" for name in in_shards)]}
    cpu: dict[str, list[float]] = {name: [] for name in times}
    machine: list[float] = []

    def timed(way: Way, library: Path, folder: Path) -> tuple[IndexReport, float]:
        before = cpu_seconds()
        done = way(library, folder)
        return done, cpu_seconds() - before

    cpu_seconds()
    with tempfile.TemporaryDirectory() as scratch:
        one(Path(scratch, "warm"), short)  # imports what all ways need in this process
        for number in range(repeats):
            machine.append(machine_speed_up(videos))
            cpu_seconds()
            for name, way in ways.items():
                report, used = timed(way, Path(scratch, f"{name}-{number}"), videos)
                times[name].append(report.seconds)
                cpu[name].append(used)
            shortest, least = timed(one, Path(scratch, f"short-{number}"), short)
            for name, way in in_shards.items():
                started, used = timed(way, Path(scratch, f"start-{name}-{number}"), short)
                times[f"start_{name}"].append(started.seconds - shortest.seconds)
                cpu[f"start_{name}"].append(used - least)
    seconds = {name: statistics.median(own) for name, own in times.items()}
    used_cpu = {name: statistics.median(own) for name, own in cpu.items()}
    work = {name: seconds[f"shards_{name}"] - seconds[f"start_{name}"] for name in in_shards}
    return {
        "model": model,
        "videos": report.added,
        "segments": report.segments,
        **{f"{name}_seconds": own for name, own in seconds.items()},
        **{f"{name}_cpu": own for name, own in used_cpu.items()},
        "overhead_cpu": used_cpu["shards_1"] / used_cpu["one"] - 1,
        "overhead_cpu_without_start": (used_cpu["shards_1"] - used_cpu["start_1"]) / used_cpu["one"] - 1,
        "overhead": seconds["shards_1"] / seconds["one"] - 1,
        "overhead_without_start": work["1"] / seconds["one"] - 1,
        "speed_up_of_2": seconds["shards_1"] / seconds["shards_2"],
        "speed_up_of_2_without_start": work["1"] / work["2"],
        "speed_up_of_2_with_a_core_each": work["1_core"] / work["2"],
        "cores_of_1": (used_cpu["shards_1"] - used_cpu["start_1"]) / work["1"],
        "machine_speed_up_of_2": statistics.median(machine),
        "cores": usable_cores(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        videos, short = Path(scratch, "videos"), Path(scratch, "short")
        videos.mkdir()
        short.mkdir()
        for number in range(arguments.videos):
            path = videos / f"{number:03}.mp4"
            make_video(path, number=number, seconds=arguments.seconds, width=width, height=height)
        for number in range(2):
            make_video(short / f"{number:03}.mp4", number=number, seconds=1.0, width=width, height=height)
        found = measure(arguments.model, videos, short, repeats=arguments.repeats)
    found |= {"size": arguments.size, "seconds_a_video": arguments.seconds}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:28} {value:.3f}" if isinstance(value, float) else f"{name:28} {value}")


if __name__ == "__main__":
    main()
