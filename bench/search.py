"""Compare searches of many segments: exact scan, `vop.search.vector_index`, LanceDB's other indexes, and FAISS.

    python bench/search.py [--rows 200000] [--ways exact,vop,faiss-hnsw] [--queries 200] [--folder DIR] [--json]

The script generates vectors of 512 numbers in 20,000 clusters. The size of the i-th cluster is proportional to i^-0.8.
Centres and deviations are normal, with a variance proportional to 1/i along the i-th axis; the sums are scaled to unit
length. Deviations are 0.8 times as long as centres. `near` queries have the same distribution as the vectors. `far`
queries have deviations of 1.6 times, because sentences are farther from videos. No query is one of the vectors.

A row has the columns of a result and a thumbnail strip of 1 kB. Every index answers one query at a time with the 50
nearest rows and the columns of a result (or only their ids: `ids`), on two threads. One process builds it. Another one
searches, and reports the time of opening and the first search, and the peak memory. recall@10 is relative to the exact
scan. `vop` reads the database, `vop-memory` is what `vop serve` uses, and `vop-light` the same if the vectors do not
fit in its memory. These and `exact` also search with conditions that hold for a share of the rows; `is_new` are
conditions that no earlier query had. `vop-visited` visits other shares of the partitions, with the vectors in memory
if they fit in half of the machine's. `cpu` is the CPU time of all threads, which is more reliable than the elapsed time
if other jobs share the machine. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are removed from the environment, because they
would change NumPy's product.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import faiss
import lancedb
import lancedb.index
import numpy as np
import pyarrow as pa

from vop.search import vector_index as nearest
from vop.search.loaded import LoadedTable
from vop.search.results import LIGHT
from vop.search.schema import clip_of, segment_id, video_of

WIDTH, CLUSTERS, SPREAD = 512, 20_000, {"near": 0.8, "far": 1.6}
BLOCK = 50_000
SEGMENTS = 8  # of a video
LIMIT, COUNTED = 50, 10
SHARES = [0.5, 0.1, 0.01, 0.001]  # shares of the rows for which a condition holds
VISITED = [0.02, 0.04, 0.08, 0.16, 0.24, 0.32]  # shares of the partitions
LONGEST_SECONDS = 1000.0  # durations are uniform below this, so that a condition on them selects a share of the rows
Search = Callable[..., pa.Table]


# -- the data


class Mixture:
    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.scale = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
        self.centres = self._normal(CLUSTERS)
        share = np.arange(1, CLUSTERS + 1) ** -0.8
        self.share = share / share.sum()

    def _normal(self, rows: int) -> np.ndarray:
        return self.scale * self.random.standard_normal((rows, WIDTH), np.float32)

    def draw(self, rows: int, spread: float) -> np.ndarray:
        vectors = self.centres[self.random.choice(CLUSTERS, rows, p=self.share)] + spread * self._normal(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_data(folder: Path, rows: int, queries: int) -> None:
    """Write vectors, queries and the exact answers to files, and create the table."""
    mixture = Mixture()
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, WIDTH))
    for start in range(0, rows, BLOCK):
        vectors[start : start + BLOCK] = mixture.draw(min(BLOCK, rows - start), SPREAD["near"])
    durations = np.repeat(mixture.random.uniform(0, LONGEST_SECONDS, -(-rows // SEGMENTS)), SEGMENTS)[:rows]
    table = pa.RecordBatchReader.from_batches(next(batches(vectors, durations)).schema, batches(vectors, durations))
    lancedb.connect(folder / "database").create_table("segments", table, mode="overwrite")
    asked = {kind: mixture.draw(queries, spread) for kind, spread in SPREAD.items()}
    shares = {f"near {share:.1%}": share for share in SHARES}
    answers = {kind: nearest_of(vectors, asked[kind]) for kind in SPREAD}
    answers |= {
        kind: nearest_of(vectors, asked["near"], durations < share * LONGEST_SECONDS) for kind, share in shares.items()
    }
    np.savez(folder / "queries.npz", **asked)
    np.savez(folder / "answers.npz", **answers)
    np.save(folder / "durations.npy", durations)


def batches(vectors: np.ndarray, durations: np.ndarray) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(1)
    for start in range(0, len(vectors), 10_000):
        part = vectors[start : start + 10_000]
        numbers = np.arange(start, start + len(part))
        strips = random.bytes(1000 * len(part))
        columns = {
            "path": [f"/videos/{n // SEGMENTS % 100:03d}/{n // SEGMENTS:07d}.mp4" for n in numbers],
            "name": [f"{n // SEGMENTS:07d}.mp4" for n in numbers],
            "segment": [
                segment_id(f"{n // SEGMENTS:032x}", (8.0 * (n % SEGMENTS), 8.0 * (n % SEGMENTS) + 10)) for n in numbers
            ],
            "duration_seconds": durations[start : start + len(part)],
            "date": [f"2026-{1 + n // SEGMENTS % 12:02}-{1 + n // SEGMENTS % 28:02}T12:00:00+00:00" for n in numbers],
            "plays_in_browsers": numbers // SEGMENTS % 8 != 0,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(part)), WIDTH),
            "strip": pa.array([strips[1000 * place : 1000 * place + 1000] for place in range(len(part))], pa.binary()),
        }
        yield pa.record_batch(columns)


def nearest_of(vectors: np.ndarray, queries: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return the row numbers (queries, COUNTED) of the exact answers, padded with -1."""
    best = np.full((len(queries), COUNTED), -1)
    scores = np.full((len(queries), COUNTED), -np.inf, np.float32)
    for start in range(0, len(vectors), BLOCK):
        own = queries @ vectors[start : start + BLOCK].T
        if allowed is not None:
            own[:, ~allowed[start : start + BLOCK]] = -np.inf
        scores = np.concatenate([scores, own], 1)
        numbers = np.concatenate([best, np.broadcast_to(np.arange(start, start + own.shape[1]), own.shape)], 1)
        kept = np.argpartition(-scores, COUNTED, axis=1)[:, :COUNTED]
        scores, best = np.take_along_axis(scores, kept, 1), np.take_along_axis(numbers, kept, 1)
    return np.where(np.isfinite(scores), best, -1)


# -- the indexes


@dataclass(frozen=True)
class Way:
    """How to build an index, and how to open it as a function of a query and search settings."""

    build: Callable[[Path], None]
    open: Callable[[Path], Search]
    settings: tuple[dict, ...] = ({},)
    filters: tuple[dict, ...] = ()  # settings of searches with a condition; none if there are no such searches
    most: int | None = None  # maximum number of timed queries; None for all


def open_table(folder: Path):
    return lancedb.connect(folder / "database").open_table("segments")


def nothing(folder: Path) -> None:
    """Do nothing: an exact scan needs no index."""


def open_exact(folder: Path) -> Search:
    exact = nearest.Exact(np.load(folder / "vectors.npy"))
    rows, durations = open_table(folder).search().select(LIGHT).to_arrow(), np.load(folder / "durations.npy")

    def search(query: np.ndarray, share: float | None = None) -> pa.Table:
        mask = None if share is None else durations < share * LONGEST_SECONDS
        return rows.take(pa.array(exact.search(query, LIMIT, mask)[0]))

    return search


def build_vop(folder: Path) -> None:
    table = open_table(folder)
    index = table.index_stats("embedding_idx")
    if index is None or index.index_type != "IVF_RQ":
        nearest.build_index(table, "embedding")
    if table.index_stats("duration_seconds_idx") is None:  # `vop index` makes it too
        table.create_index("duration_seconds", config=lancedb.index.BTree())


def open_vop(folder: Path) -> Search:
    indexed = nearest.Indexed(folder / "database", {}, table="segments")

    def search(query: np.ndarray, share: float | None = None, ids: bool = False) -> pa.Table:
        where = None if share is None else condition(share)
        columns = ["segment"] if ids else LIGHT
        return indexed.search("embedding", query, limit=LIMIT, where=where, columns=columns)

    return search


def open_memory(folder: Path, *, max_bytes: int = 2**40) -> Search:
    indexed = nearest.Indexed(folder / "database", {}, table="segments")
    loaded = LoadedTable(indexed, "embedding", max_bytes=max_bytes)

    def search(query: np.ndarray, share: float | None = None, is_new: bool = False) -> pa.Table:
        if is_new:
            loaded._masks.clear()
        return loaded.nearest(query, None if share is None else condition(share), LIMIT)

    return search


def open_visited(folder: Path) -> Search:
    search_memory = open_memory(folder, max_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)

    def search(query: np.ndarray, visited: float) -> pa.Table:
        nearest.visited_partitions = lambda rows, matching: round(visited * rows / nearest._PARTITION_ROWS)
        return search_memory(query)

    return search


def condition(share: float) -> str:
    return f"duration_seconds < {share * LONGEST_SECONDS}"


def open_lance(folder: Path) -> Search:
    table = open_table(folder)

    def search(
        query: np.ndarray, nprobes: int = 1, ef: int | None = None, refine: int = 0, flat: bool = False
    ) -> pa.Table:
        found = table.search(query, vector_column_name="embedding").distance_type("cosine").nprobes(nprobes)
        found = found.select([*LIGHT, "_distance"]).limit(LIMIT)
        found = found.ef(ef) if ef else found
        found = found.refine_factor(refine) if refine else found
        return (found.bypass_vector_index() if flat else found).to_arrow()

    return search


def lance(kind: str, settings: list[dict], **config) -> Way:
    def build(folder: Path) -> None:
        made = getattr(lancedb.index, kind)(distance_type="cosine", **config)
        open_table(folder).create_index("embedding", config=made, name="embedding_idx", replace=True)

    return Way(build, open_lance, tuple(settings))


def with_faiss(make: Callable[[int], faiss.Index], setting: str, values: list[int]) -> Way:
    """Return a FAISS index with the vectors in memory. `setting` trades time for recall."""

    def build(folder: Path) -> None:
        vectors = np.load(folder / "vectors.npy")
        index = make(len(vectors))
        index.train(vectors[:: max(1, len(vectors) // 200_000)])
        index.add(vectors)
        faiss.write_index(index, str(folder / "faiss.index"))

    def open_faiss(folder: Path) -> Search:
        index = faiss.read_index(str(folder / "faiss.index"))
        rows = open_table(folder).search().select(LIGHT).to_arrow()

        def search(query: np.ndarray, **chosen: int) -> pa.Table:
            faiss.ParameterSpace().set_index_parameter(index, setting, chosen[setting])
            return rows.take(pa.array(index.search(query[None], LIMIT)[1][0]))

        return search

    return Way(build, open_faiss, tuple({setting: value} for value in values))


def faiss_hnsw(rows: int) -> faiss.Index:
    index = faiss.IndexHNSWFlat(WIDTH, 32)
    index.hnsw.efConstruction = 200
    return index


def faiss_ivf(rows: int) -> faiss.Index:
    return faiss.index_factory(WIDTH, f"IVF{int(4 * rows**0.5)},Flat", faiss.METRIC_INNER_PRODUCT)


def ways(rows: int) -> dict[str, Way]:
    lists = round(rows**0.5)
    probes = [{"nprobes": lists // part, "refine": 1} for part in (20, 5, 2)]
    walks = [{"ef": 200, "refine": 1}, {"ef": 1000, "refine": 1}]
    return {
        "exact": Way(nothing, open_exact, filters=({},), most=50),
        "lance-flat": Way(nothing, open_lance, ({"flat": True},), most=50),
        "vop": Way(build_vop, open_vop, ({}, {"ids": True}), filters=({},)),
        "vop-light": Way(build_vop, partial(open_memory, max_bytes=0), filters=({"is_new": True},)),
        "vop-memory": Way(build_vop, open_memory, filters=({}, {"is_new": True})),
        "vop-visited": Way(
            build_vop, open_visited, tuple({"visited": share} for share in (0.02, 0.04, 0.08, 0.16, 0.24, 0.32))
        ),
        "lance-hnsw-sq": lance("HnswSq", walks, num_partitions=1, m=20, ef_construction=150),
        "lance-hnsw-sq-4": lance(
            "HnswSq", [{**walk, "nprobes": 4} for walk in walks], num_partitions=4, m=20, ef_construction=150
        ),
        "lance-hnsw-flat": lance("HnswFlat", walks, num_partitions=1, m=20, ef_construction=150),
        "lance-ivf-sq": lance("IvfSq", probes, num_partitions=lists),
        "lance-ivf-pq": lance("IvfPq", [{**probe, "refine": 8} for probe in probes], num_partitions=lists),
        "faiss-hnsw": with_faiss(faiss_hnsw, "efSearch", [200, 1000]),
        "faiss-ivf": with_faiss(faiss_ivf, "nprobe", [lists // 5, lists // 2, lists]),
    }


# -- measurement


def built(name: str, rows: int, folder: Path) -> dict:
    started, cpu = time.perf_counter(), time.process_time()
    ways(rows)[name].build(folder)
    taken = {"build_seconds": time.perf_counter() - started, "build_cpu_seconds": time.process_time() - cpu}
    return {**taken, "build_peak_gb": peak_gb()}


def searched(names: list[str], rows: int, folder: Path) -> list[dict]:
    """Search with these indexes by turns: each query with one after the other."""
    queries, answers = np.load(folder / "queries.npz"), np.load(folder / "answers.npz")
    opened, first = {}, {}
    for name in names:
        started = time.perf_counter()
        opened[name] = ways(rows)[name].open(folder)
        opened[name](queries["near"][0], **ways(rows)[name].settings[0])
        first[name] = time.perf_counter() - started
    found = []
    for kind, answer in answers.items():
        share = float(kind.split()[1].rstrip("%")) / 100 if " " in kind else None
        runs = []
        for name in names:
            way = ways(rows)[name]
            settings = way.settings if share is None else [{"share": share, **setting} for setting in way.filters]
            runs += [(name, setting, partial(opened[name], **setting)) for setting in settings]
        most = [ways(rows)[name].most for name, *_ in runs]
        taken = timed([search for *_, search in runs], most, queries[kind.split()[0]], answer)
        found += [
            {"way": name, "setting": setting, "queries": kind, **times, "first_seconds": first[name]}
            for (name, setting, _), times in zip(runs, taken, strict=True)
        ]
    return [{**row, "search_peak_gb": peak_gb()} for row in found]


def timed(searches: list[Search], most: list[int | None], queries: np.ndarray, answers: np.ndarray) -> list[dict]:
    """Return the milliseconds per query, and recall@10, of each search."""
    times: list[list[tuple[float, float, float]]] = [[] for _ in searches]
    for place, query in enumerate(queries[-10:]):
        for number, search in enumerate(searches):
            if most[number] is None or place < 3:
                search(query)
    for place, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        wanted = set(answer.tolist()) - {-1}
        for number, search in enumerate(searches):
            if most[number] is None or place < most[number]:
                started, cpu = time.perf_counter(), time.process_time()
                found = search(query)
                milliseconds = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - cpu)
                recall = len(row_numbers(found.slice(0, COUNTED)) & wanted) / len(wanted)
                times[number].append((*milliseconds, recall))
    return [
        {
            **{f"p{share}_ms": np.percentile([wall for wall, *_ in own], share) for share in (10, 50, 95)},
            "cpu_ms": np.mean([cpu for _, cpu, _ in own]),
            "recall": np.mean([recall for *_, recall in own]),
        }
        for own in times
    ]


def row_numbers(rows: pa.Table) -> set[int]:
    """Return the row numbers that the segment ids encode."""
    segments = rows.column("segment").to_pylist()
    return {SEGMENTS * int(video_of(segment), 16) + round(clip_of(segment)[0] / 8) for segment in segments}


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def set_threads() -> None:
    """Set environment variables for child processes."""
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    for name in ("OMP_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = "2"


def apart(work: Callable, *arguments):
    """Call `work` in a separate process, to measure its memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(names: list[str], rows: int, folder: Path, *, by_turns: bool) -> Iterator[dict]:
    making = {name: apart(built, name, rows, folder) for name in (names if by_turns else [])}
    for group in [names] if by_turns else [[name] for name in names]:
        making |= {} if by_turns else {name: apart(built, name, rows, folder) for name in group}
        for row in apart(searched, group, rows, folder):
            yield {**row, **making[row["way"]]}


def line(row: dict) -> str:
    setting = " ".join(f"{name} {value}" for name, value in row["setting"].items() if name != "share") or "-"
    return (
        f"{row['way']:16} {setting:22} {row['queries']:12} p10 {row['p10_ms']:7.1f}  p50 {row['p50_ms']:7.1f}  "
        f"p95 {row['p95_ms']:7.1f}  cpu {row['cpu_ms']:7.1f} ms  recall@10 {row['recall']:.4f}  "
        f"first {row['first_seconds']:5.2f} s, {row['search_peak_gb']:4.1f} GB  "
        f"build {row['build_seconds']:5.0f} s (cpu {row['build_cpu_seconds']:5.0f}), {row['build_peak_gb']:4.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--ways", default=",".join(ways(1)), help="Indexes to measure (default: all, %(default)s).")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="Folder that keeps the data for later runs.")
    parser.add_argument(
        "--by-turns",
        action="store_true",
        help="Search with all indexes in one process, each query with one after the other, so that other work on the "
        "machine slows all of them. Only one kind of index of LanceDB can be among them.",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    set_threads()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)) / f"{arguments.rows}"
        if not (folder / "durations.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            apart(make_data, folder, arguments.rows, arguments.queries)
        for row in measure(arguments.ways.split(","), arguments.rows, folder, by_turns=arguments.by_turns):
            print(json.dumps(row) if arguments.json else line(row), flush=True)


if __name__ == "__main__":
    main()
