"""Measure PyTorch's threads beside other programs: time of training steps, embeddings and whole trainings.

    python bench/threads.py [--work mini-step:32,vit-videos:4] [--threads 1,2] [--spins 300000,0] [--loops 0,1,2]
    python bench/threads.py --train demo/data/captions.jsonl [--loops 0,2] [--epochs 2] [--repeats 1] [--json]

The first command measures single steps in long-lived processes, one process for each number of threads and of spins. A
waiting thread checks this many times before it sleeps: 300,000 times by default, 0 times in `vop`. The second command
measures `vop train` on the clips of a `vop demo`: with a spinning thread for each core, with one thread, and with vop's
settings. The weights must be equal. All measurements alternate, so that other jobs on the machine disturb all equally.

`--loops` starts endless loops in separate sessions, like programs of other users. The output has the elapsed time, the
CPU time summed over threads, and the number of cores that other programs used. Linux divides the cores among sessions.
On a busy machine, root can measure almost without disturbance after `echo -20 >/proc/self/autogroup` in a new session.
Weights are random, because only time is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

WORK = [
    *("mini-step:4", "mini-step:32", "mini-videos:1", "mini-videos:16", "mini-sentences:1"),
    *("vit-step:4", "vit-videos:1", "vit-videos:4", "vit-sentences:1"),
]
SPINS = 300_000  # default of GNU OpenMP
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SPINNING = {"GOMP_SPINCOUNT": str(SPINS)}
WAYS = {
    "before": {**SPINNING, "OMP_NUM_THREADS": str(os.cpu_count())},
    "one thread": {**SPINNING, "OMP_NUM_THREADS": "1"},
    "now": {},
}
TICK = os.sysconf("SC_CLK_TCK")
LEAST_SECONDS = 0.5  # shorter measurements are repeated
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""


# -- in the measured processes


def make_work(name: str) -> Callable[[], object]:
    """Parse a name such as mini-step:32: 32 videos, with 6 frames for mini and 12 for ViT-B/32."""
    import torch

    from train_step import Step, build, make_batch
    from vop.backbones import find_sizes
    from vop.utils.device import resolve_precision

    what, _, number = name.partition(":")
    backbone, _, kind = what.partition("-")
    sizes = find_sizes("mini" if backbone == "mini" else "ViT-B/32")
    model = build("vop-f+p", sizes, frames=6 if backbone == "mini" else 12, dtype=resolve_precision("auto", "cpu"))
    ids, frames = make_batch(sizes, videos=int(number), frames=model.num_frames, tokens=20)
    if kind == "step":
        return Step(model, ids, model.normalise(frames))
    model.eval()
    embed = {
        "videos": lambda: model.embed_frames(model.normalise(frames)),
        "sentences": lambda: model.embed_tokens(ids),
    }
    return torch.inference_mode()(embed[kind])


def answer(pipe: Connection, name: str, threads: int) -> None:
    """Do the work on every request, and report its time."""
    import torch

    torch.set_num_threads(threads)
    work = make_work(name)
    for _ in range(3):
        work()
    pipe.send("ready")
    while pipe.recv():
        start, start_cpu, calls = time.perf_counter(), time.process_time(), 0
        while calls == 0 or time.perf_counter() - start < LEAST_SECONDS:
            work()
            calls += 1
        used = time.process_time() - start_cpu
        pipe.send({"seconds": (time.perf_counter() - start) / calls, "cpu_seconds": used / calls, "used": used})


class Worker:
    """A process that repeats one kind of work on request."""

    def __init__(self, name: str, threads: int, spins: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(theirs, name, threads), daemon=True)
        with environment({"GOMP_SPINCOUNT": str(spins)}):
            self._process.start()
        theirs.close()
        self._pipe.recv()

    def __call__(self) -> dict:
        self._pipe.send(True)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set the thread variables of child processes to `values`, and remove the others."""
    before = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


# -- in the main process


class Loops:
    """Endless loops with the priority of this session."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen] = []
        self._ended = 0.0

    def set(self, number: int) -> None:
        while len(self._running) < number:
            loop = subprocess.Popen([sys.executable, "-c", LOOP], start_new_session=True)
            self._running.append(loop)
            share_priority(loop.pid)
        while len(self._running) > number:
            loop = self._running.pop()
            self._ended += cpu_seconds_of(loop.pid)
            loop.kill()
            loop.wait()

    @property
    def used(self) -> float:
        """The CPU time of all loops so far, in seconds."""
        return self._ended + sum(cpu_seconds_of(loop.pid) for loop in self._running)


def share_priority(pid: int) -> None:
    """Give the session of a process the priority of this session."""
    own = Path("/proc/self/autogroup")
    nice = own.read_text().split()[-1] if own.exists() else "0"
    if nice != "0":
        Path(f"/proc/{pid}/autogroup").write_text(nice)


def cpu_seconds_of(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / TICK


def busy_seconds() -> float:
    """Return the CPU time used by all programs so far, including time taken by a hypervisor."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK


def sample(run: Callable[[], dict], loops: Loops, number: int) -> dict:
    """Call `run` beside some loops. Add the number of cores that other programs used to its result."""
    loops.set(number)
    start, busy, looped = time.perf_counter(), busy_seconds(), loops.used
    found = run()
    passed = time.perf_counter() - start
    others = busy_seconds() - busy - (loops.used - looped) - found.pop("used")
    loops.set(0)
    return found | {"other_cores": max(0.0, others / passed)}


def measure_work(name: str, args: argparse.Namespace, loops: Loops) -> list[dict]:
    ways = list(product(args.spins, args.threads))
    workers = {way: Worker(name, threads=way[1], spins=way[0]) for way in ways}
    samples: dict[tuple, list[dict]] = {(number, *way): [] for number in args.loops for way in ways}
    for _ in range(args.repeats):
        for (number, *way), found in samples.items():
            time.sleep(args.pause)
            found.append(sample(workers[tuple(way)], loops, number))
    for worker in workers.values():
        worker.close()
    return [
        {"work": name, "loops": number, "spins": spins, "threads": threads, **medians(found)}
        for (number, spins, threads), found in samples.items()
    ]


def measure_training(args: argparse.Namespace, loops: Loops) -> list[dict]:
    samples: dict[tuple, list[dict]] = {pair: [] for pair in product(args.loops, WAYS)}
    for _ in range(args.repeats):
        for (number, way), found in samples.items():
            time.sleep(args.pause)
            found.append(sample(partial(train, args.train, args.epochs, WAYS[way]), loops, number))
    weights = {one["weights"] for found in samples.values() for one in found}
    if len(weights) > 1:
        raise SystemExit(f"the weights differ: {', '.join(sorted(weights))}")
    return [
        {"work": "vop train", "loops": number, "way": way, "weights": found[0]["weights"], **medians(found)}
        for (number, way), found in samples.items()
    ]


def train(table: Path, epochs: int, variables: dict[str, str]) -> dict:
    """Run a whole `vop train`. Return its times and the digest of its weights."""
    with tempfile.TemporaryDirectory() as folder, environment(variables):
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "vop", "train", "--data", table, "--backbone", "mini", "--out", run]
        command += ["--cache", table.parent.parent / "cache", "--num-frames", "6", "--learning-rate", "3e-2"]
        command += ["--validation", "0.1", "--epochs", str(epochs)]
        start, used = time.perf_counter(), children_seconds()
        subprocess.run(command, check=True, capture_output=True)
        passed, used = time.perf_counter() - start, children_seconds() - used
        digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    return {"seconds": passed, "cpu_seconds": used, "used": used, "weights": digest}


def children_seconds() -> float:
    """Return the CPU time of the finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def medians(samples: list[dict]) -> dict:
    return {name: statistics.median(one[name] for one in samples) for name in ("seconds", "cpu_seconds", "other_cores")}


def print_rows(rows: list[dict]) -> None:
    for row in rows:
        way = row.get("way") or f"{row['threads']} threads, {row['spins']} spins"
        times = f"{1000 * row['seconds']:9.1f} ms, processor {1000 * row['cpu_seconds']:9.1f} ms"
        print(
            f"{row['work']:16} {row['loops']} loops  {way:24} {times}, others {row['other_cores']:.2f} cores",
            flush=True,
        )


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=lambda text: text.split(","), default=WORK, help=f"Work to measure (default: {','.join(WORK)})."
    )
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--spins", type=numbers, default=[SPINS, 0])
    parser.add_argument("--loops", type=numbers, default=[0, 1, 2], help="Numbers of endless loops beside the work.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.3, help="Seconds before each measurement.")
    parser.add_argument(
        "--train", metavar="TABLE", type=Path, help="Measure `vop train` on data/captions.jsonl of a demo."
    )
    parser.add_argument("--epochs", type=int, default=2, help="Epochs of `vop train`.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of lines.")
    args = parser.parse_args()
    loops, rows = Loops(), []
    try:
        for name in [None] if args.train else args.work:
            found = measure_training(args, loops) if args.train else measure_work(name, args, loops)
            rows += found
            if not args.json:
                print_rows(found)
    finally:
        loops.set(0)
    if args.json:
        print(json.dumps({"cores": os.cpu_count(), "repeats": args.repeats, "rows": rows}))


if __name__ == "__main__":
    main()
