"""Measure `vop serve` under load: many clients search a library of synthetic segments with different sentences.

python bench/serve.py [--segments 100000] [--clients 50] [--seconds 60] [--memory 0,] [--server-cores N]
                      [--library FOLDER] [--json]

The clients run in a separate process on the same machine and share its cores with the server, so they do as little as
possible: they read only the length of a response, and its JSON once in 50 times. With `--server-cores N` (Linux) the
server has N cores to itself, and the clients have the others. `cpu_ms` is the processor time of the server for a
request, which other work on the machine hardly changes. `--memory 0,` measures the server with the library on the disk,
and then in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import pyarrow as pa
from PIL import Image

from vop.search.manifest import Manifest
from vop.search.models import describe, open_model
from vop.search.schema import made_with, segment_id, vectors
from vop.search.store import Store

CLUSTERS, NOISE = 2000, 0.7  # of the synthetic embeddings: a segment is a cluster centre plus noise
SEGMENTS_OF_VIDEO, SEGMENT_SECONDS = 10, 8.0
SEGMENTS_OF_COMMIT = 50_000
WARM_REQUESTS = 300
READ_EVERY = 50  # responses
WORDS = ["a", "dog", "cat", "child", "ball", "car", "tree", "runs", "jumps", "falls", "up", "left", "red", "slowly"]


def make_library(folder: Path, segments: int) -> None:
    """Create a library for `mini` with clustered embeddings and without video files."""
    model = open_model("mini")
    described = describe(model, name="mini", column="embedding_0")
    size, frames = model.image_size, model.num_frames
    library = Store.create(
        folder, Manifest(table="segments_1", models=(described,), num_frames=frames, image_size=size)
    )
    random = np.random.default_rng(0)
    centres = unit(random.standard_normal((CLUSTERS, described.embed_dim), np.float32))
    for first in range(0, segments, SEGMENTS_OF_COMMIT):
        numbers = np.arange(first, min(first + SEGMENTS_OF_COMMIT, segments))
        library.table.add(rows_of(numbers, random, centres, library))  # without checksums, which take minutes
    library.keep_up()


def rows_of(numbers: np.ndarray, random: np.random.Generator, centres: np.ndarray, library: Store) -> pa.Table:
    """Return the rows of segments of videos of ten segments."""
    noise = unit(random.standard_normal((len(numbers), centres.shape[1]), np.float32))
    embeddings = vectors(unit(centres[random.integers(len(centres), size=len(numbers))] + NOISE * noise))
    videos, places = numbers // SEGMENTS_OF_VIDEO, numbers % SEGMENTS_OF_VIDEO
    starts = SEGMENT_SECONDS * places
    ids = [hashlib.sha256(str(video).encode()).hexdigest()[:32] for video in videos]
    columns = {
        "segment": [
            segment_id(video, (start, start + SEGMENT_SECONDS))
            for video, start in zip(ids, starts.tolist(), strict=True)
        ],
        "video": ids,
        "place": places,
        "path": [f"/videos/{video % 100}/{video}.mp4" for video in videos],
        "name": [f"{video}.mp4" for video in videos],
        "start_seconds": starts,
        "end_seconds": starts + SEGMENT_SECONDS,
        library.models[0].column: embeddings,
    }
    constants = {
        "num_segments": SEGMENTS_OF_VIDEO,
        "size": 1,
        "mtime_ns": 0,
        "duration_seconds": SEGMENT_SECONDS * SEGMENTS_OF_VIDEO,
        "date": "2024-05-01T10:00:00+00:00",
        "date_source": "file",
        "plays_in_browsers": True,
        "made_at": "2024-05-01T10:00:00+00:00",
        "made_with": made_with(library.models),
        "strip": STRIP,
    }
    columns |= {name: [value] * len(numbers) for name, value in constants.items()}
    wanted = library.table.schema
    return pa.table({name: columns.get(name, [None] * len(numbers)) for name in wanted.names}, schema=wanted)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def small_picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 9), (80, 120, 160)).save(out, "JPEG")
    return out.getvalue()


STRIP = small_picture()


def divide_cores(server_cores: int | None) -> tuple[set[int], set[int]]:
    """Return the cores of the server and those of the clients, which are the same if no number is given (Linux)."""
    usable = os.sched_getaffinity(0)
    if server_cores is None:
        return usable, usable
    own = set(sorted(usable)[:server_cores])
    if not usable > own:
        raise SystemExit(
            f"--server-cores {server_cores}: of {len(usable)} usable cores, the clients need at least one."
        )
    return own, usable - own


@contextmanager
def served(folder: Path, memory: str, cores: set[int]) -> Iterator[tuple[str, int]]:
    """Run a server on these cores; yield its address and the id of its process once it is idle."""
    command = [sys.executable, "-m", "vop", "serve", str(folder), "--port", "0"]
    command += ["--memory", memory] if memory else []
    os.sched_setaffinity(0, cores)  # the server inherits it, and counts its cores when it starts
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        if not re.match(r"http://", address):
            raise SystemExit(f"the server has not started: {address!r}")
        busy = 1.0
        while busy > 0.1:  # it loads the library
            before = cpu_seconds(process.pid)
            time.sleep(2)
            busy = cpu_seconds(process.pid) - before
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_gb(process: int) -> float:
    """Return the resident memory of a process (Linux)."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30


def questions() -> Iterator[str]:
    """Yield different sentences."""
    random = np.random.default_rng(1)
    for number in itertools.count():
        yield f"{' '.join(random.choice(WORDS, 6))} {number}"


class Client:
    """One connection that sends one request after the other."""

    def __init__(self, address: str) -> None:
        self._host, self._port = address.removeprefix("http://").rstrip("/").split(":")

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def get(self, path: str, **params: str) -> tuple[float, int, bytes]:
        """Return the response time in seconds, the status and the body."""
        query = f"?{urlencode(params)}" if params else ""
        began = time.perf_counter()
        self._writer.write(f"GET {path}{query} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        return time.perf_counter() - began, int(head.split(maxsplit=2)[1]), body


async def warm(address: str, path: str, words: Iterator[str]) -> dict:
    """Run one client, which sends one request after the other: searches, then thumbnail strips of the results."""
    searches, strips = [], []
    async with Client(address) as client:
        for _ in range(10):
            await client.get(path, q=next(words))
        for _ in range(WARM_REQUESTS):
            seconds, _, body = await client.get(path, q=next(words))
            searches.append(seconds)
            if len(strips) < WARM_REQUESTS // 10:
                seconds, *_ = await client.get(json.loads(body)["results"][0]["strip_url"])
                strips.append(seconds)
    return {"search": percentiles(searches), "strip": percentiles(strips)}


async def load(address: str, path: str, words: Iterator[str], *, clients: int, seconds: float) -> dict:
    """Run several clients for some seconds, each with sequential requests on its own connection."""
    times, errors = [], 0
    end = time.perf_counter() + seconds

    async def work() -> None:
        nonlocal errors
        async with Client(address) as client:
            while time.perf_counter() < end:
                taken, status, body = await client.get(path, q=next(words))
                times.append(taken)
                errors += status != 200 or (len(times) % READ_EVERY == 0 and not json.loads(body)["results"])

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    per_second = len(times) / (time.perf_counter() - began)
    return {"requests": len(times), "errors": errors, "requests_per_second": round(per_second, 1), **percentiles(times)}


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": round(1000 * float(np.percentile(seconds, share)), 1) for share in (50, 95, 99)}


def measure(folder: Path, memory: str, *, clients: int, seconds: float, cores: tuple[set[int], set[int]]) -> dict:
    words = questions()
    of_server, of_clients = cores
    with served(folder, memory, of_server) as (address, process):
        os.sched_setaffinity(0, of_clients)
        state = httpx.get(f"{address}/api/state", timeout=60).json()["views"][0]
        path = f"/api/views/{state['id']}/search"
        alone = asyncio.run(warm(address, path, words))
        before = cpu_seconds(process)
        together = asyncio.run(load(address, path, words, clients=clients, seconds=seconds))
        together["cpu_ms"] = round(1000 * (cpu_seconds(process) - before) / together["requests"], 2)
        memory_used = round(memory_gb(process), 2)
    found = {"segments": state["segments"], "memory": memory or "default", "memory_used_gb": memory_used}
    found |= {"server_cores": len(of_server), "client_cores": len(of_clients), "shared": of_server == of_clients}
    return {**found, "one client": alone, f"{clients} clients": together}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--memory", default="", help="Values of `vop serve --memory`, with commas (default: its own).")
    parser.add_argument("--server-cores", type=int, metavar="N", help="Cores that only the server uses.")
    parser.add_argument("--library", type=Path, help="Folder that keeps the library for later runs.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores = divide_cores(arguments.server_cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.library or Path(temporary) / "library"
        if not (folder / "library.json").exists():
            make_library(folder, arguments.segments)
        for memory in arguments.memory.split(","):
            result = measure(folder, memory, clients=arguments.clients, seconds=arguments.seconds, cores=cores)
            if arguments.json:
                print(json.dumps(result, indent=2))
                continue
            for name, numbers in result.items():
                print(f"{name}: {json.dumps(numbers)}", flush=True)


if __name__ == "__main__":
    main()
