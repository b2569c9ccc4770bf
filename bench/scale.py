"""Measure what scale costs a library: commits, the manifest, the storage and the maintenance of its table.

    python bench/scale.py [--fragments 10,1000,100000] [--rows 20000] [--json]

Fragments: a table whose manifest lists this many fragments. They are entries for copies of one small file, which is all
that a commit, an opening and a count look at. `manifest_bytes` is the size of the file that every commit writes again
and every reader of a new version reads. `commit_ms` is the median time in which LanceDB adds a video of ten segments,
`version_ms` that of finding out whether there is a new version, `open_ms` that of opening the table anew.

Rows: segments with embeddings of 512 numbers and strips of 5 kB (random bytes, as JPEG does not compress further), in
commits of 1,000 videos of ten segments: the time of making rows with checksums, of commits, of merging small files and
of building the indexes, in seconds per million segments; and the bytes on the disk for each segment.

Searches at scale: bench/search.py --rows N. A server: bench/serve.py --segments N.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa
from lance.fragment import write_fragments

from vop.search.manifest import LibraryModel, Manifest
from vop.search.schema import VideoFile, make_rows, with_checksums
from vop.search.store import Store
from vop.search.vector_index import build_index, tidy_up

WIDTH, SEGMENTS, STRIP_BYTES, VIDEOS_OF_COMMIT = 512, 10, 5000, 1000
REPEATS = 5
MODEL = LibraryModel(
    name="model", method="zero-shot", fingerprint="0" * 16, embed_dim=WIDTH, precision="bf16", column="embedding_0"
)


def make_library(folder: Path) -> Store:
    return Store.create(folder, Manifest(table="segments_0", models=(MODEL,), num_frames=12, image_size=224))


def video(number: int, random: np.random.Generator, library: Store) -> pa.Table:
    """Return the rows of one video, without checksums."""
    file = VideoFile(
        video=f"{number:032x}",
        path=Path(f"/videos/{number % 1000:03}/{number:09}.mp4"),
        size=10**7,
        mtime_ns=number,
        duration_seconds=10.0 * SEGMENTS,
        date="2024-05-01T10:00:00+00:00",
        date_source="file",
        plays_in_browsers=True,
        metadata={},
    )
    clips = [(10.0 * place, 10.0 * place + 10) for place in range(SEGMENTS)]
    vectors = random.standard_normal((SEGMENTS, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strips = [random.bytes(STRIP_BYTES) for _ in clips]
    wanted = library.table.schema
    return make_rows(file, clips, strips, {MODEL.column: vectors}, wanted=wanted, models=library.models)


# -- fragments


def with_fragments(folder: Path, count: int) -> dict:
    library, random = make_library(folder), np.random.default_rng(0)
    one = with_checksums(video(0, random, library))
    uri = str(library.table_folder)
    (written,) = write_fragments(one, uri, schema=one.schema, data_storage_version="2.1")
    dataset = lance.dataset(uri)
    began = time.perf_counter()
    lance.LanceDataset.commit(uri, lance.LanceOperation.Append([written] * count), read_version=dataset.version)
    first = time.perf_counter() - began
    newest = max((library.table_folder / "_versions").glob("*.manifest"), key=lambda path: path.stat().st_mtime)
    cpu = time.process_time()
    commits = [
        milliseconds(lambda number=number: library.put(video(number, random, library)))
        for number in range(1, 1 + REPEATS)
    ]
    cpu = time.process_time() - cpu
    opened = [milliseconds(lambda: reopened(folder).count_rows()) for _ in range(REPEATS)]
    checked = [milliseconds(lambda: library.table.version) for _ in range(10 * REPEATS)]
    return {
        "fragments": count,
        "manifest_bytes": newest.stat().st_size,
        "bytes_a_fragment": round(newest.stat().st_size / count),
        "commit_of_all_ms": round(1000 * first, 1),
        "commit_ms": statistics.median(commits),
        "commit_cpu_ms": round(1000 * cpu / REPEATS, 1),
        "open_ms": statistics.median(opened),
        "version_ms": statistics.median(checked),
    }


def reopened(folder: Path):
    return lancedb.connect(folder / "database").open_table("segments_0")


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(1000 * (time.perf_counter() - began), 2)


# -- rows


def with_rows(folder: Path, rows: int) -> dict:
    library, random = make_library(folder), np.random.default_rng(0)
    stages: dict[str, list[float]] = {}

    def timed(stage: str, work: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        own = stages.setdefault(stage, [0.0, 0.0])
        own[0] += time.perf_counter() - wall
        own[1] += time.process_time() - cpu
        return result

    for first in range(0, rows // SEGMENTS, VIDEOS_OF_COMMIT):
        numbers = range(first, min(first + VIDEOS_OF_COMMIT, rows // SEGMENTS))
        made = [video(number, random, library) for number in numbers]
        timed("commit with checksums", lambda made=made: library.put(pa.concat_tables(made)))
    table = library.table
    timed("merging files", lambda: tidy_up(table))
    before = size_of(folder)
    timed("vector index", lambda: build_index(table, MODEL.column))
    timed("indexes of columns", lambda: index_columns(table))
    return {
        "rows": rows,
        "seconds_a_million": {stage: round(1e6 * wall / rows) for stage, (wall, _) in stages.items()},
        "cpu_seconds_a_million": {stage: round(1e6 * cpu / rows) for stage, (_, cpu) in stages.items()},
        "bytes_a_row": round(before / rows),
        "index_bytes_a_row": round((size_of(folder) - before) / rows),
    }


def index_columns(table) -> None:
    from lancedb.index import BTree

    for column in ("date", "duration_seconds", "segment", "video"):
        table.create_index(column, config=BTree())


def size_of(folder: Path) -> int:
    return sum(os.path.getsize(Path(root, name)) for root, _, names in os.walk(folder) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fragments", default="10,1000,100000", help="Numbers of fragments; empty for none.")
    parser.add_argument("--rows", type=int, default=20_000, help="Rows to write; 0 for none.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            with_fragments(Path(scratch, count), int(count)) for count in filter(None, arguments.fragments.split(","))
        ]
        found += [with_rows(Path(scratch, "rows"), arguments.rows)] if arguments.rows else []
    for one in found:
        print(json.dumps(one, indent=2 if arguments.json else None))


if __name__ == "__main__":
    main()
