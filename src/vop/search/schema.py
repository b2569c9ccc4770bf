"""The table of a library: one row per segment, as Arrow.

segment             the video's id, start and end in milliseconds: the row's key
video               SHA-256 of the file's content, its first 32 digits
place               0, 1, … among the segments of the video
num_segments        of the video; empty in older libraries
path, name          of the file, absolute, and without its folders
size, mtime_ns      of the file when it was read: what tells that it has changed
volume              the filesystem it was on: see `vop.search.volumes`; empty in older libraries
start_seconds, end_seconds, duration_seconds    of the segment, and of the whole video
date                when it was recorded if the file or its name says so, else when it was changed; ISO 8601, UTC
date_source         what says so: see `vop.video.dates`; empty in older libraries
plays_in_browsers   whether a browser plays the file as it is
made_at, made_with  when the embeddings were made, the models' fingerprints, and the decoder's version
strip               film strip, JPEG
checksum            of everything else in the row: see `vop.search.checksums`; empty in older libraries
embedding_N         one column for each model, of unit length
about_NAME          columns of the owner's metadata, as text
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vop.errors import UsageError
from vop.search.manifest import LibraryModel
from vop.video.clip import DECODER_VERSION

if TYPE_CHECKING:
    from lancedb.table import Table

    from vop.search.segments import Span  # decodes, and so brings PyTorch, which a look into a library can do without

METADATA = "about_"
EMBEDDING = "embedding_"
CHECKSUM = "checksum"
LIGHT = ["segment", "path", "duration_seconds", "date", "plays_in_browsers"]  # what makes a moment
ADDED = ("date_source", "volume", "num_segments", CHECKSUM)  # columns that older libraries lack
_DECODER = "decoder-"
_OLDER_DECODER = 2
_MOST_NAMED = 1000  # paths in one condition
_TYPES = {
    "segment": pa.string(),
    "video": pa.string(),
    "place": pa.int32(),
    "num_segments": pa.int32(),
    "path": pa.string(),
    "name": pa.string(),
    "size": pa.int64(),
    "mtime_ns": pa.int64(),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
    "duration_seconds": pa.float64(),
    "date": pa.string(),
    "date_source": pa.string(),
    "plays_in_browsers": pa.bool_(),
    "volume": pa.string(),
    "made_at": pa.string(),
    "made_with": pa.string(),
    "strip": pa.binary(),
    CHECKSUM: pa.int64(),
}


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video file as it was when it was read."""

    video: str
    path: Path
    size: int
    mtime_ns: int
    duration_seconds: float
    date: str
    date_source: str
    plays_in_browsers: bool
    metadata: Mapping[str, str]
    volume: str | None = None


def field_of(column: str) -> pa.Field:
    """A column of the owner's metadata, or one that older libraries lack."""
    return pa.field(column, _TYPES.get(column, pa.string()))


def schema(models: Sequence[LibraryModel], metadata: Sequence[str] = ()) -> pa.Schema:
    vectors = {model.column: pa.list_(pa.float32(), model.embed_dim) for model in models}
    return pa.schema(_TYPES | vectors | {METADATA + name: pa.string() for name in metadata})


def metadata_columns(of: pa.Schema) -> list[str]:
    """The names that the owner gave."""
    return [name.removeprefix(METADATA) for name in of.names if name.startswith(METADATA)]


def make_rows(
    file: VideoFile,
    spans: Sequence[Span],
    strips: Sequence[bytes],
    embeddings: Mapping[str, np.ndarray],
    *,
    wanted: pa.Schema,
    models: Sequence[LibraryModel],
) -> pa.Table:
    """The rows of one video, without checksums.

    Args:
        embeddings: by column, float32 (segments, e).
    """
    same = {
        "video": file.video,
        "num_segments": len(spans),
        "path": str(file.path),
        "name": file.path.name,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "duration_seconds": file.duration_seconds,
        "date": file.date,
        "date_source": file.date_source,
        "plays_in_browsers": file.plays_in_browsers,
        "volume": file.volume,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_with": made_with(models),
        CHECKSUM: None,
    }
    same |= {METADATA + name: file.metadata.get(name) for name in metadata_columns(wanted)}
    columns = {name: [value] * len(spans) for name, value in same.items()} | {
        "segment": [segment_id(file.video, span) for span in spans],
        "place": range(len(spans)),
        "start_seconds": [start for start, _ in spans],
        "end_seconds": [end for _, end in spans],
        "strip": strips,
    }
    columns |= {name: vectors(matrix) for name, matrix in embeddings.items()}
    return pa.table({name: columns[name] for name in wanted.names}, schema=wanted)


def made_with(models: Sequence[LibraryModel], version: int = DECODER_VERSION) -> str:
    """What decides the embeddings of rows: the models, and the decoder's version."""
    return " ".join([*(model.fingerprint for model in models), f"{_DECODER}{version}"])


def decoder_version(made_with: str) -> int:
    """The version of the decoder that gave the frames of a row; those of older libraries do not say it."""
    last = made_with.rpartition(" ")[2]
    return int(last.removeprefix(_DECODER)) if last.startswith(_DECODER) else _OLDER_DECODER


def segment_id(video: str, span: Span) -> str:
    """Short, safe in a URL, and the same whenever the same stretch of the same video is indexed."""
    start, end = (round(seconds * 1000) for seconds in span)
    return f"{video}-{start}-{end}"


def video_of(segment: str) -> str:
    """The id of a segment's video."""
    return segment.partition("-")[0]


def span_of(segment: str) -> Span:
    """Start and end of a segment, in seconds."""
    _, start, end = segment.split("-")
    return int(start) / 1000, int(end) / 1000


def vectors(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """(n, e) to an Arrow column of n vectors."""
    flat = np.ascontiguousarray(matrix, dtype=np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), matrix.shape[1])


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """An Arrow column of n vectors to (n, e)."""
    size = column.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, size) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty((0, size), np.float32)


def with_column(rows: pa.Table, name: str, value: object) -> pa.Table:
    """The rows with one value in all of a column."""
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.field(place), pa.array([value] * len(rows), rows.field(place).type))


def quoted(text: str) -> str:
    """A text as an SQL literal.

    Raises:
        UsageError: it is not valid Unicode, so that nothing in a library can be equal to it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not valid Unicode, as everything in a library is") from None
    return "'" + text.replace("'", "''") + "'"


def delete_paths(table: Table, paths: Iterable[str]) -> None:
    """Deletes the rows of these files."""
    for condition in conditions("path", paths):
        table.delete(condition)


def conditions(column: str, values: Iterable[str], *, most: int = _MOST_NAMED) -> Iterator[str]:
    """SQL conditions that a column has one of these values; each condition names up to `most` of them."""
    values = sorted(values)
    for start in range(0, len(values), most):
        yield f"{column} IN ({', '.join(map(quoted, values[start : start + most]))})"
