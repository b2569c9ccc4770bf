"""Render the videos of a built-in benchmark into a folder, and read the folder as a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from vop.benchmarks.videos import encode
from vop.datasets.types import SPLIT_NAMES, Dataset, Split, Video
from vop.errors import DataError, UsageError
from vop.utils.files import atomic_write

CAPTIONS, MARKER = "captions.jsonl", "complete.json"
_STARTED = "plan.json"  # written before the first video, the marker after the last


class Clip(Protocol):
    """A planned video: its id, its split, its captions, and its part of the lines in `captions.jsonl`, with its path.

    The file has a line for each caption, so that `vop` reads it as a table of videos and captions, too.
    """

    @property
    def id(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def captions(self) -> tuple[str, ...]: ...
    @property
    def row(self) -> dict[str, Any]: ...


C = TypeVar("C", bound=Clip)


def check_no_videos(name: str, videos: Path | None) -> None:
    """Raise a UsageError if a folder of videos is given for a benchmark that renders its own."""
    if videos is not None:
        raise UsageError(f"{name} renders its own videos; give its folder as {name}:DIR")


def dataset(
    name: str,
    root: Path,
    *,
    marker: dict[str, Any],
    clips: Sequence[C],
    draw: Callable[[C], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Return the benchmark `name`. Missing videos are rendered into `root` first; an interrupted rendering resumes.

    Args:
        marker: identifies the plan of the clips, so that `root` is never read with another plan.
        clips: all clips of the benchmark.
        draw: returns a clip's frames, uint8 (n, height, width, 3).
        progress: `progress(done, total)` is called after every video.

    Raises:
        DataError: `root` holds the benchmark of another plan.
    """
    if not _is_complete(name, root, marker):
        _render(name, root, marker, clips, draw, progress)
    splits = {}
    for split in SPLIT_NAMES:
        part = [clip for clip in clips if clip.split == split]
        if part:
            rows = [(caption, place) for place, clip in enumerate(part) for caption in clip.captions]
            videos = tuple(Video(clip.id, root / clip.row["video"]) for clip in part)
            splits[split] = Split(split, videos, tuple(row[0] for row in rows), tuple(row[1] for row in rows))
    return Dataset(name, splits)


def _is_complete(name: str, root: Path, marker: dict[str, Any]) -> bool:
    path = root / MARKER
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != marker:
        raise DataError(f"{root} holds {name} with {found}, not with {marker}: choose another folder or delete it")
    return True


def _render(
    name: str,
    root: Path,
    marker: dict[str, Any],
    clips: Sequence[C],
    draw: Callable[[C], np.ndarray],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Render the missing videos, then write the captions and the marker."""
    started, wanted = root / _STARTED, json.dumps(marker)
    if started.is_file() and started.read_text(encoding="utf-8") != wanted:
        raise DataError(f"{root} holds an unfinished {name} of another plan: choose another folder or delete it")
    _write(started, wanted)
    for done, clip in enumerate(clips, 1):
        path = root / clip.row["video"]
        if not path.is_file():
            encode(draw(clip), path)
        if progress:
            progress(done, len(clips))
    rows = [{**clip.row, "caption": caption} for clip in clips for caption in clip.captions]
    _write(root / CAPTIONS, "".join(json.dumps(row) + "\n" for row in rows))
    _write(root / MARKER, wanted)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Metadata:
    """The kind of a video's content, the id of its twin, if it has one, and whether its things are new to training."""

    kind: str
    twin: str | None
    unseen: bool = False


def load_metadata(name: str, root: Path) -> dict[str, Metadata]:
    """Return the metadata of a rendered benchmark's videos, by id.

    Raises:
        DataError: the benchmark has not been rendered there.
    """
    path = root / CAPTIONS
    if not path.is_file():
        raise DataError(f"{path} does not exist: render {name} into this folder first")
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: Metadata(row["kind"], row["twin"], row.get("unseen", False)) for row in rows}


def twin_indices(video_ids: Sequence[str], metadata: dict[str, Metadata]) -> list[int | None]:
    """Return the index of each video's twin in `video_ids`, or None if the twin is not there."""
    places = {video_id: i for i, video_id in enumerate(video_ids)}
    twins = [metadata[video_id].twin for video_id in video_ids]
    return [None if twin is None else places.get(twin) for twin in twins]
