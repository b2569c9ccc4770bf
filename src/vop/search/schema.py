"""The table of a library: one row per segment, as Arrow.

segment             key of the row: the video's id, and where the segment starts and ends in milliseconds
video               the video's id: the first 32 digits of the SHA-256 of the file's content
place               number of the segment in the video, from 0
num_segments        number of segments of the video; empty in older libraries
path, name          absolute path of the file, or the address of the object, and its name without folders
size, mtime_ns      size and modification time of the file when it was read; if they differ, the file has changed.
                    For an object, mtime_ns is the number that its ETag becomes (`ObjectInfo.version`)
volume              filesystem that the file was on (`vop.video.find.volume_of`); empty in older libraries
start_seconds       start of the segment in the video
end_seconds         end of the segment in the video
duration_seconds    duration of the whole video
date                time of the recording, or else of the last change of the file; ISO 8601, UTC
date_source         source of the date (`vop.video.dates`); empty in older libraries
latitude, longitude where the video was recorded, in degrees; empty if unknown, and in older libraries
plays_in_browsers   whether a browser plays the file as it is
made_at             time at which the embeddings were made
made_with           fingerprints of the models, and the version of the decoder
strip               thumbnail strip, JPEG
checksum            checksum of all other columns; empty in older libraries
embedding_N         embedding by one of the models, of unit length
frames_N            embeddings of the video and of the segment's frames by the same model (`vop.search.refining`), if
                    the library keeps them
about_NAME          a column of the owner's metadata, as text
"""

from __future__ import annotations

import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vop.errors import VopError
from vop.search.filters import METADATA, PLACE, quoted
from vop.search.manifest import LibraryModel
from vop.search.refining import values_of
from vop.storage.address import Address, Location
from vop.video.clip import DECODER_VERSION
from vop.video.places import Place

if TYPE_CHECKING:
    from lancedb.table import Table

    from vop.search.segmentation import ClipTimes

EMBEDDING, FRAMES = "embedding_", "frames_"
CHECKSUM = "checksum"
ADDED = ("date_source", "volume", "num_segments", *PLACE, CHECKSUM)  # columns that older libraries lack
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
    **dict.fromkeys(PLACE, pa.float64()),
    "made_at": pa.string(),
    "made_with": pa.string(),
    "strip": pa.binary(),
    CHECKSUM: pa.int64(),
}


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video file as it was when it was read."""

    video: str
    path: Location
    size: int
    mtime_ns: int
    duration_seconds: float
    date: str
    date_source: str
    plays_in_browsers: bool
    metadata: Mapping[str, str]
    volume: str | None = None
    place: Place | None = None


# A segment's id holds the video's id and, in milliseconds, where the segment starts and ends.


def segment_id(video: str, clip: tuple[float, float]) -> str:
    """Return the id of a clip (start, end in seconds) of a video: short, safe in a URL, the same at every indexing."""
    start, end = (round(seconds * 1000) for seconds in clip)
    return f"{video}-{start}-{end}"


def video_of(segment: str) -> str:
    """Return the id of a segment's video."""
    return segment.partition("-")[0]


def clip_of(segment: str) -> tuple[float, float]:
    """Return the start and the end of a segment, in seconds."""
    _, start, end = segment.split("-")
    return int(start) / 1000, int(end) / 1000


def date_text(at: datetime) -> str:
    """Return a date as the library stores it: in UTC and to the second, so that texts sort by time."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def field_of(column: str) -> pa.Field:
    """Return the Arrow field of a column of the owner's metadata, or of one that older libraries lack."""
    return pa.field(column, _TYPES.get(column, pa.string()))


def schema(models: Sequence[LibraryModel], metadata: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of a library with these models and columns of metadata."""
    vectors = {model.column: pa.list_(pa.float32(), model.embed_dim) for model in models}
    frames = {model.frame_column: pa.binary() for model in models if model.frame_column}
    return pa.schema(_TYPES | vectors | frames | {METADATA + name: pa.string() for name in metadata})


def metadata_columns(table: pa.Schema) -> list[str]:
    """Return the columns of the owner's metadata, by the owner's names."""
    return [name.removeprefix(METADATA) for name in table.names if name.startswith(METADATA)]


def make_rows(
    file: VideoFile,
    clips: Sequence[ClipTimes],
    strips: Sequence[bytes],
    embeddings: Mapping[str, np.ndarray],
    *,
    wanted: pa.Schema,
    models: Sequence[LibraryModel],
) -> pa.Table:
    """Return the rows of one video, without checksums.

    Args:
        embeddings: by column, float32 (segments, e), or for embeddings of frames packed bytes (segments, f, e + 4).
    """
    of_video = {
        "video": file.video,
        "num_segments": len(clips),
        "path": str(file.path),
        "name": file.path.name,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "duration_seconds": file.duration_seconds,
        "date": file.date,
        "date_source": file.date_source,
        "plays_in_browsers": file.plays_in_browsers,
        "volume": file.volume,
        **{name: getattr(file.place, name, None) for name in PLACE},
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_with": made_with(models),
        CHECKSUM: None,
    }
    of_video |= {METADATA + name: file.metadata.get(name) for name in metadata_columns(wanted)}
    columns = {name: [value] * len(clips) for name, value in of_video.items()} | {
        "segment": [segment_id(file.video, clip) for clip in clips],
        "place": range(len(clips)),
        "start_seconds": [start for start, _ in clips],
        "end_seconds": [end for _, end in clips],
        "strip": strips,
    }
    columns |= {name: column_of(own) for name, own in embeddings.items()}
    return pa.table({name: columns[name] for name in wanted.names}, schema=wanted)


def made_with(models: Sequence[LibraryModel], version: int = DECODER_VERSION) -> str:
    """Return the value of `made_with`: what determines the embeddings of a row."""
    return " ".join([*(model.fingerprint for model in models), f"{_DECODER}{version}"])


def decoder_version(made_with: str) -> int:
    """Return the version of the decoder that read the frames of a row. Rows of older libraries do not name it."""
    last = made_with.rpartition(" ")[2]
    return int(last.removeprefix(_DECODER)) if last.startswith(_DECODER) else _OLDER_DECODER


def column_of(embeddings: np.ndarray) -> pa.Array:
    """Convert embeddings of a video's segments (n, e), or packed ones of their frames (n, f, e + 4), to a column."""
    return pa.array(values_of(embeddings), pa.binary()) if embeddings.dtype == np.uint8 else vectors(embeddings)


def vectors(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """Convert (n, e) to an Arrow column of n vectors."""
    flat = np.ascontiguousarray(matrix, dtype=np.float32).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), matrix.shape[1])


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Convert an Arrow column of n vectors to (n, e)."""
    size = column.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, size) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty((0, size), np.float32)


def with_column(rows: pa.Table, name: str, value: object) -> pa.Table:
    """Return the rows with one value in every row of a column."""
    index = rows.schema.get_field_index(name)
    return rows.set_column(index, rows.field(index), pa.array([value] * len(rows), rows.field(index).type))


def delete_paths(table: Table, paths: Iterable[str]) -> None:
    """Delete the rows of these files."""
    for condition in conditions("path", paths):
        table.delete(condition)


def conditions(column: str, values: Iterable[str] | Iterable[int], *, most: int = _MOST_NAMED) -> Iterator[str]:
    """Yield SQL conditions that a column has one of these values, up to `most` values in each."""
    literals = [quoted(value) if isinstance(value, str) else str(value) for value in sorted(values)]
    for start in range(0, len(literals), most):
        yield f"{column} IN ({', '.join(literals[start : start + most])})"


# -- damage


def with_checksums(rows: pa.Table) -> pa.Table:
    """Return the rows with their checksums, each over all other values of the row."""
    sums = pa.array(_sums(rows), pa.int64())
    if CHECKSUM not in rows.schema.names:
        return rows.append_column(CHECKSUM, sums)
    place = rows.schema.get_field_index(CHECKSUM)
    return rows.set_column(place, rows.field(place), sums)


def damaged_rows(rows: pa.Table) -> np.ndarray:
    """Return a mask (n,) of the rows that differ from what was written. Rows without a checksum pass."""
    if CHECKSUM not in rows.schema.names:
        return np.zeros(len(rows), bool)
    stored = rows.column(CHECKSUM).to_pylist()
    return np.array([had not in (None, found) for had, found in zip(stored, _sums(rows), strict=True)], bool)


def check_rows(rows: pa.Table, library: Location) -> pa.Table:
    """Return the rows unchanged. Call it before copying rows, which would hide damage.

    Raises:
        VopError: some are damaged.
    """
    bad = damaged_rows(rows)
    if bad.any():
        path = rows.column("path")[int(bad.argmax())].as_py()
        raise VopError(
            f"{library}: {bad.sum()} of its segments are damaged, the first in {path}; "
            f"to check: vop library check {library}"
        )
    return rows


def _sums(rows: pa.Table) -> list[int]:
    sums = [0] * len(rows)
    for name in sorted({*rows.schema.names} - {CHECKSUM}):
        tag = name.encode()
        for place, value in enumerate(_as_bytes(rows.column(name))):
            if value is not None:  # so that adding an empty column does not change the checksum
                sums[place] = zlib.crc32(value, zlib.crc32(tag, sums[place]))
    return sums


def _as_bytes(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    if pa.types.is_fixed_size_list(column.type):
        yield from (row.tobytes() for row in matrix(column))
        return
    for value in column.to_pylist():
        yield value if value is None or isinstance(value, bytes) else str(value).encode()


class DamageError(VopError):
    """The database has failed."""


@contextmanager
def explain_damage(path: Location) -> Iterator[None]:
    """Turn an error of the database into a VopError that names the command to find the damage."""
    try:
        yield
    except (VopError, TypeError):
        raise
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith(("lance", "pyarrow")):
            raise
        if isinstance(path, Address):  # the reason may contain what the server has answered, and that a key
            raise DamageError(
                f"{path}: its database cannot be read or written ({type(error).__name__}); check the credentials, the "
                "permissions and the network"
            ) from None
        reason = str(error).partition(", /")[0].splitlines()  # without the line of LanceDB's own source
        raise DamageError(
            f"{path}: its database cannot be read ({reason[0] if reason else type(error).__name__}); "
            f"to list the damage: vop library check {path}"
        ) from error
