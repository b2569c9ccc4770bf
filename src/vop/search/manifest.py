"""A library's manifest: `library.json`, the one file beside its database.

It names the table to search. To move a library to other models, vop writes a new table and then replaces this file
atomically: a reader sees the old table or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig
from vop.config import validated
from vop.errors import UsageError, VopError
from vop.storage.address import Location
from vop.storage.small_files import child, is_file, read_bytes, write_bytes
from vop.version import VERSION
from vop.video.resizing import BICUBIC, CROP, Resizing

FILE, DATABASE = "library.json", "database"
SHARDS, REEMBEDDING, VECTORS = "shards", "reembedding", "vectors"  # folders of plans; see `vop.search.sharding`
FORMAT = 3
_FORMAT_WITHOUT_SETTINGS = 2  # of libraries that earlier versions read
BY_WINDOWS, BY_SHOTS = "windows", "shots"
_FRAME = ("format", "vop_version", "sha256")  # keys of the file that are not fields of the manifest
_ON_DISK = {"segmentation": "cutting"}  # names in the file that are not those of the fields
_IN_MEMORY = {name: own for own, name in _ON_DISK.items()}
_STRICT: Any = {"extra": "forbid"}  # an unknown key is an error


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """How videos are cut into segments.

    Attributes:
        by: "windows" of equal length, or "shots"; a shot longer than a window is cut into windows.
        window_seconds: length of a window.
        overlap_seconds: minimum overlap of two windows.
    """

    __pydantic_config__ = _STRICT

    by: str = BY_WINDOWS
    window_seconds: float = 10.0
    overlap_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.by not in (BY_WINDOWS, BY_SHOTS):
            raise UsageError(f"segment is {self.by!r}; known: {BY_WINDOWS}, {BY_SHOTS}")
        if not 0 < self.window_seconds < float("inf"):
            raise UsageError(f"window_seconds is {self.window_seconds}; it must be more than 0")
        if not 0 <= self.overlap_seconds < self.window_seconds:
            raise UsageError(
                f"overlap_seconds is {self.overlap_seconds}; it must be 0 or more, and less than the window, "
                f"{self.window_seconds} s"
            )

    def __str__(self) -> str:
        return f"{self.by} of {self.window_seconds:g} s that overlap by {self.overlap_seconds:g} s"


@dataclass(frozen=True, kw_only=True)
class LibraryModel:
    """A model that a library was made with.

    Attributes:
        name: argument of `vop.load`: a run's folder, a hub id, or mini.
        fingerprint: hash of everything that determines its embeddings; see `vop.search.models`.
        column: the table's column with its embeddings.
        embed_dim: the number of dimensions of these.
        precision: bf16 or fp32, in which the videos were embedded.
        frame_column: the column with the embeddings of frames, if the library keeps them; left out in the file if not.
        embedding: how the model embeds; left out in files if it does so as usual.
    """

    __pydantic_config__ = _STRICT

    name: str
    method: str
    fingerprint: str
    embed_dim: int
    precision: str
    column: str
    frame_column: str | None = None
    embedding: EmbeddingConfig = AS_USUAL

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        values = asdict(self) | {"embedding": self.embedding.differences()}
        return {name: value for name, value in values.items() if value not in ({}, None)}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `library.json`. All models of a library take the same frames.

    Attributes:
        table: the name of the table that is searched.
        models: one or more.
        segmentation: how videos are cut into segments; `cutting` in the file.
        image_size, resize, interpolation: see `resizing`; the file leaves out what is as for CLIP.
        keep_frames: whether the library keeps the decoded frames.
        refine: whether the library keeps the embeddings of frames, for models that average them, so that a search can
            refine the ends of moments; left out in the file if not.
        exclude: globs of files and folders that are not indexed; see `vop.video.find`.
        live_photos: whether the movies of Live Photos are indexed.
    """

    __pydantic_config__ = _STRICT

    table: str
    models: tuple[LibraryModel, ...]
    num_frames: int
    image_size: int
    resize: str = CROP
    interpolation: str = BICUBIC
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    keep_frames: bool = False
    refine: bool = False
    exclude: tuple[str, ...] = ()
    live_photos: bool = False

    def __post_init__(self) -> None:
        Resizing(self.image_size, self.resize, self.interpolation)

    @property
    def resizing(self) -> Resizing:
        """How a frame becomes a square for all of the models."""
        return Resizing(self.image_size, self.resize, self.interpolation)

    def with_(self, **changes: Any) -> Manifest:
        """Return a copy with other values in some fields."""
        return replace(self, **changes)


def write(manifest: Manifest, folder: Location) -> None:
    """Write `library.json` atomically."""
    content = {_ON_DISK.get(name, name): value for name, value in asdict(manifest).items()}
    content["models"] = [model.to_dict() for model in manifest.models]
    for name in {"resize", "interpolation"} - manifest.resizing.differences().keys():
        del content[name]
    if not manifest.refine:
        del content["refine"]
    has_settings = manifest.refine or any(model.embedding != EmbeddingConfig() for model in manifest.models)
    form = FORMAT if has_settings else _FORMAT_WITHOUT_SETTINGS
    document = {"format": form, "vop_version": VERSION, **content}
    document["sha256"] = _checksum(document)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_bytes(child(folder, FILE), text.encode())


def _checksum(document: dict[str, Any]) -> str:
    """Return the SHA-256 of everything else in `library.json`."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class MissingLibrary(UsageError):
    """A library does not exist, or its folder is unavailable."""


def read(folder: Location) -> Manifest:
    """Read a library's manifest.

    Raises:
        MissingLibrary: the library does not exist.
        VopError: the manifest is damaged, or from a later version.
    """
    path = child(folder, FILE)
    try:
        return parse(read_bytes(path), path)
    except (FileNotFoundError, NotADirectoryError):
        detail = f"no library exists here; create one: vop index {folder} FOLDER_OF_VIDEOS"
        raise MissingLibrary(f"{folder}: {detail}") from None


def exists(folder: Location) -> bool:
    """Return whether a folder is a library."""
    return is_file(child(folder, FILE))


def parse(content: bytes, path: Location) -> Manifest:
    """Parse the content of the `library.json` at `path`.

    Raises:
        VopError: it is damaged, or from a later version.
    """
    try:
        document = json.loads(content)
        later = document["format"] > FORMAT
        version = document.get("vop_version")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if later:
        raise VopError(
            f"{path}: format {document['format']} was written by a later vop ({version}); this one ({VERSION}) reads "
            f"formats up to {FORMAT}: upgrade vop, or index into another folder"
        )
    if document.get("sha256") not in (None, _checksum(document)):  # older libraries have none
        raise _damaged(path, "its content has changed since it was written")
    values = {_IN_MEMORY.get(name, name): value for name, value in document.items() if name not in _FRAME}
    try:
        manifest = validated(Manifest, values, source=FILE, error=VopError)
    except VopError as error:
        raise _damaged(path, error) from None
    if not manifest.models:
        raise _damaged(path, "it has no model")
    return manifest


def _damaged(path: Location, reason: object) -> VopError:
    return VopError(
        f"{path}: not the manifest of a library ({reason}); to restore it from its copy, if there is one: vop library "
        f"check {path.parent} --repair"
    )
