"""Small libraries without videos: rows with random unit embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from vop.search.manifest import LibraryModel, Manifest
from vop.search.schema import EMBEDDING, VideoFile, make_rows
from vop.search.store import Store

SIZE = 8  # of an embedding
STEP = 10.0  # seconds; a segment's length


def a_model(number: int = 0, *, fingerprint: str = "0123456789abcdef") -> LibraryModel:
    return LibraryModel(
        name=f"run{number}",
        method="vop",
        fingerprint=fingerprint,
        embed_dim=SIZE,
        precision="fp32",
        column=f"{EMBEDDING}{number}",
    )


def a_manifest(*models: LibraryModel, table: str = "segments_0") -> Manifest:
    return Manifest(table=table, models=models or (a_model(),), num_frames=4, image_size=32)


def unit_vectors(count: int, *, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """(count, size), float32."""
    vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def content_of(text: str) -> str:
    """Return the id of a video with this content."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def a_file(
    path: str,
    *,
    content: str | None = None,
    seconds: float = 30.0,
    date: str = "2024-07-01T12:00:00+00:00",
    metadata: Mapping[str, str] | None = None,
) -> VideoFile:
    return VideoFile(
        video=content_of(content or path),
        path=Path(path),
        size=1000,
        mtime_ns=5,
        duration_seconds=seconds,
        date=date,
        date_source="file",
        plays_in_browsers=True,
        metadata=metadata or {},
    )


def rows_of(library: Store, file: VideoFile, vectors: np.ndarray, *others: np.ndarray) -> pa.Table:
    """Return the rows of one video: a segment for each of the vectors (n, e); `others` are those of further models."""
    return make_rows(
        file,
        [(place * STEP, (place + 1) * STEP) for place in range(len(vectors))],
        [b"strip %d" % place for place in range(len(vectors))],
        {model.column: own for model, own in zip(library.models, [vectors, *others], strict=True)},
        wanted=library.table.schema,
        models=library.models,
    )


def make_library(
    folder: Path, files: Iterable[VideoFile], *, segments: int = 1, columns: Sequence[str] = (), seed: int = 0
) -> Store:
    """Create a library with `segments` rows of each file; their vectors are `unit_vectors` in order."""
    library = Store.create(folder, a_manifest())
    library.add_columns(columns)
    files = list(files)
    vectors = unit_vectors(len(files) * segments, seed=seed).reshape(len(files), segments, SIZE)
    if files:
        library.put(pa.concat_tables(rows_of(library, file, own) for file, own in zip(files, vectors, strict=True)))
    return library
