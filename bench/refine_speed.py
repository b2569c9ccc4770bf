"""Measure what it costs to keep the embeddings of frames: disk, indexing and searching.

    python bench/refine_speed.py [--segments 30000,200000] [--width 512] [--frames 12]

Libraries of random vectors, in videos of 60 segments with thumbnail strips of 4 kB, are searched for 10 moments with
and without refined ends, by turns. Then `emoji-moments` is indexed with `mini`, windows of 2 seconds, with and without
the embeddings of frames, three times by turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import vop
from vop.datasets.moments import load_moments
from vop.search.manifest import LibraryModel, Manifest, SegmentationConfig
from vop.search.refining import pack
from vop.search.schema import VideoFile, make_rows
from vop.search.store import Store

PER_VIDEO, BLOCK, QUERIES, STRIP_BYTES = 60, 50, 200, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", default="30000,200000")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--frames", type=int, default=12)
    arguments = parser.parse_args()
    for segments in map(int, filter(None, arguments.segments.split(","))):
        with tempfile.TemporaryDirectory() as temporary:
            search(Path(temporary) / "library", segments, arguments.width, arguments.frames)
    index()


def search(folder: Path, segments: int, width: int, frames: int) -> None:
    random = np.random.default_rng(0)
    model = LibraryModel(
        name="random",
        method="zero-shot",
        fingerprint="0" * 16,
        embed_dim=width,
        precision="fp32",
        column="embedding_1",
        frame_column="frames_1",
    )
    manifest = Manifest(table="segments_0", models=(model,), num_frames=frames, image_size=224, refine=True)
    store = Store.create(folder, manifest)
    for start in range(0, segments // PER_VIDEO, BLOCK):
        store.put(pa.concat_tables(videos(store, start, random, width, frames)))
    store.keep_up()
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(QUERIES + 5):
        query = unit(random.standard_normal(width, np.float32))
        for refine in (False, True) if number % 2 else (True, False):
            started = time.perf_counter()
            store.search(query, k=10, refine=refine)
            times[refine].append(1000 * (time.perf_counter() - started))
    sizes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / store.table.count_rows()
    for refine, found in times.items():
        found = sorted(found[5:])
        print(
            f"{segments} segments, {'refined' if refine else 'segments'}: median {statistics.median(found):.1f} ms, "
            f"95 % {found[int(0.95 * len(found))]:.1f} ms"
        )
    print(f"{sizes:.0f} bytes per segment, of which frames {(frames + 1) * (width + 4)}", flush=True)


def videos(store: Store, start: int, random: np.random.Generator, width: int, frames: int) -> Iterator[pa.Table]:
    for number in range(start, start + BLOCK):
        of_frames = unit(random.standard_normal((PER_VIDEO, frames, width), np.float32))
        file = VideoFile(
            video=f"{number:032x}",
            path=Path(f"/videos/{number}.mp4"),
            size=1,
            mtime_ns=1,
            duration_seconds=8.0 * PER_VIDEO + 2,
            date="2024-07-01T12:00:00+00:00",
            date_source="file",
            plays_in_browsers=True,
            metadata={},
        )
        yield make_rows(
            file,
            [(8.0 * place, 8.0 * place + 10) for place in range(PER_VIDEO)],
            [random.bytes(STRIP_BYTES) for _ in range(PER_VIDEO)],
            {"embedding_1": unit(of_frames.mean(axis=1)), "frames_1": pack(of_frames)},
            wanted=store.table.schema,
            models=store.models,
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def index() -> None:
    data = load_moments("emoji-moments")
    for number in range(3):
        for refine in (False, True) if number % 2 else (True, False):
            with tempfile.TemporaryDirectory() as temporary:
                library = vop.Library.create(
                    Path(temporary) / "library",
                    model="mini",
                    segmentation=SegmentationConfig(window_seconds=2, overlap_seconds=1),
                    refine=refine,
                )
                started = time.perf_counter()
                report = library.index([video.path for video in data.videos], workers=1)
                taken = time.perf_counter() - started
                size = sum(path.stat().st_size for path in library.path.rglob("*") if path.is_file())
                print(f"refine {refine}: {taken:.1f} s, {size / report.segments:.0f} bytes per segment", flush=True)


if __name__ == "__main__":
    main()
