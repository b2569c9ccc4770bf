"""Measure what a search of a library in object storage reads: requests, bytes and time, with and without the cache.

    python bench/by_address.py [--segments 10000,45000,60000] [--latency 30] [--megabits 100] [--json]

The storage is moto's server on this machine. It answers each request after `--latency` milliseconds, and sends an
answer as fast as a connection of `--megabits`. Each search runs in a process of its own, as `vop search` does.
`seconds` is the time from opening the library to the results, without loading PyTorch and the model. The library has
synthetic segments of `mini` (bench/serve.py); more than 50,000 are searched by the vector index.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from serve import make_library
from vop.storage import objects
from vop.storage.address import Address

SETTINGS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_REGION": "us-east-1"}
SEARCH = """
import sys, time
import vop.models, vop.search.library, lancedb, obstore
from vop.search.models import open_model
open_model("mini").encode_text(["warm up"])
began = time.perf_counter()
found = vop.search.library.Library.open(sys.argv[1]).search(sys.argv[2], k=10)
print(time.perf_counter() - began)
"""


class Counter:
    """A WSGI application that counts the requests and the bytes of the answers, and delays them."""

    def __init__(self, *, latency: float, bytes_a_second: float) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._latency, self._speed = latency, bytes_a_second
        self._lock = threading.Lock()
        self.is_slow = False
        self.requests = self.bytes = 0

    def __call__(self, environ: dict, start) -> list[bytes]:
        body = b"".join(self._app(environ, start))
        with self._lock:
            self.requests += 1
            self.bytes += len(body)
        if self.is_slow:
            time.sleep(self._latency + len(body) / self._speed)
        return [body]


class Connection(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


@contextmanager
def served(counter: Counter) -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, counter, threaded=True, request_handler=Connection)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()


def upload(folder: Path, library: Address) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place = library.at(f"{library.key}/{path.relative_to(folder).as_posix()}")
            objects.write(place, path.read_bytes(), replacing=None)


def search(library: Address, sentence: str, counter: Counter, cache: dict[str, str]) -> dict:
    requests, size = counter.requests, counter.bytes
    command = [sys.executable, "-c", SEARCH, str(library), sentence]
    out = subprocess.run(command, env=os.environ | cache, check=True, capture_output=True, text=True).stdout
    return {
        "seconds": round(float(out), 2),
        "requests": counter.requests - requests,
        "megabytes": round((counter.bytes - size) / 1e6, 2),
    }


def measure(segments: int, counter: Counter, folder: Path) -> Iterator[dict]:
    library = Address("s3", "benchmark", f"library-{segments}")
    make_library(folder / "library", segments)
    upload(folder / "library", library)
    own, off = {"VOP_CACHE": str(folder / "cache")}, {"VOP_CACHE_SIZE": "0"}
    counter.is_slow = True
    searches = [
        ("without the cache", "a dog runs", off),
        ("first", "a dog runs", own),
        ("the same again", "a dog runs", own),
        ("another sentence", "a red car", own),
    ]
    for name, sentence, cache in searches:
        yield {"segments": segments, "search": name, **search(library, sentence, counter, cache)}
    counter.is_slow = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", default="10000,45000,60000")
    parser.add_argument("--latency", type=float, default=30.0, help="milliseconds")
    parser.add_argument("--megabits", type=float, default=100.0, help="speed of one connection")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    counter = Counter(latency=arguments.latency / 1000, bytes_a_second=arguments.megabits * 1e6 / 8)
    rows = []
    with served(counter) as url:
        os.environ |= SETTINGS | {"AWS_ENDPOINT_URL": url}
        urlopen(Request(f"{url}/benchmark", method="PUT")).close()
        for segments in map(int, arguments.segments.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                for row in measure(segments, counter, Path(folder)):
                    rows.append(row)
                    if not arguments.json:
                        print(row, flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
