"""What a library says of itself: `library.json`, the one file beside its database.

It names the table that is searched. A library moves to other models by writing a new table and then, in one step, this
file; whoever reads it meets the old table or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from vop.errors import UsageError, VopError
from vop.utils.files import atomic_write
from vop.version import VERSION

FILE = "library.json"
FORMAT = 2
BY_WINDOWS, BY_SHOTS = "windows", "shots"


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """How videos become segments: windows of equal length, or shots (`by`), of which long ones are cut into windows."""

    by: str = BY_WINDOWS
    window_seconds: float = 10.0
    overlap_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.by not in (BY_WINDOWS, BY_SHOTS):
            raise UsageError(f"segments are cut by {self.by!r}; known: {BY_WINDOWS}, {BY_SHOTS}")
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
        name: what `vop.load` opens: a run's folder, a hub id, or mini.
        fingerprint: of everything that decides its embeddings; see `vop.search.models`.
        column: where the table keeps its embeddings.
        precision: bf16 or fp32, of the videos' embeddings.
    """

    name: str
    method: str
    fingerprint: str
    embed_dim: int
    precision: str
    column: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that `library.json` says. All models of a library take the same frames.

    Attributes:
        exclude: globs of files and folders that are not indexed; see `vop.video.find`.
        live_photos: whether the movies of Live Photos are indexed.
    """

    table: str
    models: tuple[LibraryModel, ...]
    num_frames: int
    image_size: int
    cutting: SegmentationConfig = field(default_factory=SegmentationConfig)
    keep_frames: bool = False
    exclude: tuple[str, ...] = ()
    live_photos: bool = False

    def with_(self, **changes) -> Manifest:
        return replace(self, **changes)


def write(about: Manifest, folder: Path) -> None:
    document = {"format": FORMAT, "vop_version": VERSION, **asdict(about)}
    document["sha256"] = _checksum(document)
    with atomic_write(folder / FILE) as path:
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _checksum(document: dict) -> str:
    """SHA-256 of everything else in a description."""
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Manifest:
    """Reads a library's description.

    Raises:
        UsageError: there is no library.
        VopError: it is damaged, or from a later version.
    """
    path = folder / FILE
    try:
        return parse(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder}: there is no library; make one: vop index {folder} FOLDER_OF_VIDEOS --model mini"
        ) from None


def parse(content: bytes, path: Path) -> Manifest:
    """What the content of the file at `path` says.

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
            f"{path}: format {document['format']} is of a later vop ({version}); this one ({VERSION}) reads up "
            f"to {FORMAT}: upgrade it, or index into another folder"
        )
    try:
        if document.get("sha256") not in (None, _checksum(document)):  # older libraries have none
            raise ValueError("its content is not what was written")
        document = {name: value for name, value in document.items() if name not in ("format", "vop_version", "sha256")}
        models = tuple(LibraryModel(**model) for model in document.pop("models"))
        if not models:
            raise ValueError("it has no model")
        cutting, exclude = SegmentationConfig(**document.pop("cutting")), tuple(document.pop("exclude", ()))
        return Manifest(models=models, cutting=cutting, exclude=exclude, **document)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> VopError:
    return VopError(
        f"{path}: not the description of a library ({error}); vop library check {path.parent} --repair restores it "
        "where there is a copy"
    )
