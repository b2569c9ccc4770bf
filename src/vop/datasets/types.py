"""Data sets: videos, and captions that describe them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from vop.errors import DataError
from vop.utils.text import count

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """A video file and its id in the data set. The file may not exist yet."""

    id: str
    path: Path


@dataclass(frozen=True, repr=False)
class Split:
    """Videos and their captions: `captions[i]` describes `videos[targets[i]]`.

    Every video has at least one caption; ids are unique.

    Raises:
        DataError: a condition above does not hold; the message names the video or the row.
    """

    name: str
    videos: tuple[Video, ...]
    captions: tuple[str, ...]
    targets: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in ("videos", "captions", "targets"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        self._check_name()
        self._check_videos()
        self._check_captions()

    def _check_name(self) -> None:
        if self.name not in SPLIT_NAMES:
            raise DataError(f"unknown split {self.name!r}; known: {', '.join(SPLIT_NAMES)}")

    def _check_videos(self) -> None:
        repeated = [key for key, count in Counter(video.id for video in self.videos).items() if count > 1]
        if repeated:
            raise DataError(f"split {self.name}: the video {repeated[0]!r} is listed more than once")

    def _check_captions(self) -> None:
        if len(self.captions) != len(self.targets):
            raise DataError(
                f"split {self.name}: {count('caption', len(self.captions))}, but {count('target', len(self.targets))}"
            )
        for row, (caption, target) in enumerate(zip(self.captions, self.targets, strict=True)):
            if not caption.strip():
                raise DataError(f"split {self.name}: caption {row} is empty")
            if not 0 <= target < len(self.videos):
                raise DataError(
                    f"split {self.name}: the target of caption {row} is {target}; give 0 to {len(self.videos) - 1}"
                )
        bare = set(range(len(self.videos))) - set(self.targets)
        if bare:
            raise DataError(f"split {self.name}: the video {self.videos[min(bare)].id!r} has no caption")

    def __len__(self) -> int:
        """Return the number of captions, which is the number of pairs in an epoch."""
        return len(self.captions)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {count('video', len(self.videos))}, {count('caption', len(self.captions))})"

    @cached_property
    def captions_of(self) -> tuple[tuple[int, ...], ...]:
        """For each video, the indices of its captions."""
        rows: list[list[int]] = [[] for _ in self.videos]
        for row, target in enumerate(self.targets):
            rows[target].append(row)
        return tuple(map(tuple, rows))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the video ids, captions and targets: 16 hex digits. Splits of the same name and size may differ."""
        content = [[video.id for video in self.videos], self.captions, self.targets]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def keep(self, video_ids: Collection[str]) -> Split:
        """Return this split with only the videos in `video_ids` and their captions."""
        video_ids = set(video_ids)
        kept = [index for index, video in enumerate(self.videos) if video.id in video_ids]
        place = {index: new for new, index in enumerate(kept)}
        rows = [row for row, target in enumerate(self.targets) if target in place]
        return Split(
            name=self.name,
            videos=tuple(self.videos[index] for index in kept),
            captions=tuple(self.captions[row] for row in rows),
            targets=tuple(place[self.targets[row]] for row in rows),
        )


@dataclass(frozen=True, repr=False)
class Dataset:
    """Named splits. `notes` holds remarks of the reader (captions left out, videos in two splits)."""

    name: str
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        splits = {name: self.splits[name] for name in SPLIT_NAMES if name in self.splits}
        if set(splits) != set(self.splits):
            raise DataError(f"{self.name}: splits are {', '.join(self.splits)}; known: {', '.join(SPLIT_NAMES)}")
        for name, split in splits.items():
            if split.name != name:
                raise DataError(f"{self.name}: the split {split.name!r} has the key {name!r}")
        object.__setattr__(self, "splits", MappingProxyType(splits))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __reduce__(self) -> tuple[object, ...]:  # a mapping proxy cannot be pickled
        return type(self), (self.name, dict(self.splits), self.notes)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {', '.join(map(repr, self.splits.values()))})"

    def split(self, name: str) -> Split:
        """Return a split by name; if it does not exist, a DataError lists those that do."""
        if name not in self.splits:
            notes = "".join(f"; {note}" for note in self.notes)  # a reader's notes say which files were missing
            raise DataError(
                f"{self.name} has no {name!r} split; it has: {', '.join(self.splits) or 'none'}{notes}; a table names "
                "its splits in a column 'split'"
            )
        return self.splits[name]

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos of all splits, each file once."""
        unique = {video.path: video for split in self.splits.values() for video in split.videos}
        return tuple(unique.values())
