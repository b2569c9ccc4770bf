"""Reports of an indexing, and of its dry run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, Failure
from vop.search.words.reading import WordsReport


@dataclass(kw_only=True)
class IndexReport:
    """The result of an indexing. Numbers count videos unless stated otherwise.

    Attributes:
        added, changed, moved, unchanged: videos that are in the library after the indexing.
        described: videos whose metadata was updated.
        outdated: videos that an earlier version decoded, whose frames may differ; `redo` decodes them again.
        removed: deleted and excluded videos that `prune` removed.
        deleted: videos that are still in the library although their files were deleted.
        excluded: videos that are still in the library although they are excluded: by a glob, or because they are
            previews or movies of Live Photos.
        unconfirmed: paths of videos that `prune` did not remove because they are a large share of the library.
        unavailable: videos that may still exist: their folder is missing, empty, or on another filesystem than before,
            for example because a drive is not mounted. `prune` leaves them alone.
        unavailable_folders: the folders of these videos.
        missing: given paths that do not exist or cannot be read, with the reasons; they were skipped.
        passed_over: files and folders that were not indexed, by reason.
        failures: all files that are not, or only in part, in the library; also from earlier runs.
        unmatched: videos in the metadata file that were not found, as the file spells them.
        segments: number of new segments.
        hours: hours of video that were decoded.
        seconds: duration of the indexing.
        words: what was read of subtitles and speech.
    """

    library: str
    added: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    described: int = 0
    outdated: int = 0
    removed: int = 0
    deleted: int = 0
    excluded: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    unavailable: int = 0
    unavailable_folders: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    segments: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    words: WordsReport = field(default_factory=WordsReport)

    @property
    def unreadable(self) -> int:
        return self._count()[UNREADABLE]

    @property
    def partial(self) -> int:
        return self._count()[PARTIAL]

    @property
    def duplicates(self) -> int:
        return self._count()[DUPLICATE]

    def _count(self) -> Counter[str]:
        return Counter(failed.kind for failed in self.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop index --json`."""
        return {
            "library": self.library,
            "added": self.added,
            "changed": self.changed,
            "moved": self.moved,
            "unchanged": self.unchanged,
            "described": self.described,
            "outdated": self.outdated,
            "removed": self.removed,
            "gone": self.deleted,
            "excluded": self.excluded,
            "unconfirmed": self.unconfirmed,
            "away": self.unavailable,
            "unavailable": self.unavailable_folders,
            "missing": self.missing,
            "passed_over": self.passed_over,
            "failures": [failed.to_dict() for failed in self.failures],
            "unreadable": self.unreadable,
            "partial": self.partial,
            "duplicates": self.duplicates,
            "unmatched": self.unmatched,
            "segments": self.segments,
            "hours": self.hours,
            "seconds": self.seconds,
            "words": self.words.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class IndexPreview:
    """The changes that an indexing would make, as lists of paths.

    Attributes:
        new: files that would be read, including files that could not be read before. Reading them would show which
            are not videos, and which are copies.
        changed: videos whose files have another size or modification time.
        moved: (path before, new path) of videos.
        deleted, excluded: videos that `prune` would remove; see `IndexReport`.
        needs_confirmation: whether they are such a large share of the library that `prune` asks first.
        unavailable: videos that may still exist; see `IndexReport`.
        unavailable_folders: the folders of these videos.
        missing, passed_over: as in `IndexReport`.
    """

    library: str
    new: list[str]
    changed: list[str]
    moved: list[tuple[str, str]]
    deleted: list[str]
    excluded: list[str]
    needs_confirmation: bool
    unavailable: list[str]
    unavailable_folders: list[str]
    missing: dict[str, str]
    passed_over: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop index --dry-run --json`."""
        return {
            "dry_run": True,
            "library": self.library,
            "new": self.new,
            "changed": self.changed,
            "moved": self.moved,
            "deleted": self.deleted,
            "excluded": self.excluded,
            "needs_yes": self.needs_confirmation,
            "away": self.unavailable,
            "unavailable": self.unavailable_folders,
            "missing": self.missing,
            "passed_over": self.passed_over,
        }
