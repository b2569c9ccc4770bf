"""What an indexing did, or would do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from vop.search.failures import Failure


@dataclass(kw_only=True)
class IndexReport:
    """What an indexing did, in numbers of videos where nothing else is said.

    Attributes:
        added, changed, moved, unchanged: videos that are in the library now.
        described: videos that were there, and got other metadata.
        outdated: videos that an earlier version decoded, whose frames may differ; `redo` decodes them again.
        removed: videos that were taken out (`prune`): deleted ones, and those that are not to be indexed any more.
        gone: deleted videos that are still in the library.
        excluded: videos that are still in the library and are not to be indexed any more: a glob excludes them, or they
            are previews or movies of Live Photos.
        unconfirmed: paths that `prune` left in the library because they are a large share of it.
        away: videos that are unavailable: their folder is missing, empty, or on another filesystem than before, as that
            of a drive that is not mounted. `prune` leaves them alone. unavailable: their folders.
        missing: given paths that do not exist or cannot be looked at, with the reasons; they were skipped.
        passed_over: files and folders that were not indexed, by reason.
        failures: all files that are not, or only in part, in the library; also those of earlier runs.
        unreadable, partial, duplicates: how many of them are of each kind.
        unmatched: videos that the table of metadata names, and that are not there; as the table spells them.
        hours: of video that was decoded; segments: that were made.
    """

    library: str
    added: int = 0
    changed: int = 0
    moved: int = 0
    unchanged: int = 0
    described: int = 0
    outdated: int = 0
    removed: int = 0
    gone: int = 0
    excluded: int = 0
    unconfirmed: list[str] = field(default_factory=list)
    away: int = 0
    unavailable: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unreadable: int = 0
    partial: int = 0
    duplicates: int = 0
    unmatched: list[str] = field(default_factory=list)
    segments: int = 0
    hours: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class IndexPreview:
    """What an indexing would find, in paths.

    Attributes:
        new: files that are to be read, also those that could not be read before; what is not a video, and new copies,
            are found only then.
        changed: videos whose files have another size or time of change.
        moved: videos that are at another path: the one before, and the new one.
        deleted, excluded: videos that `prune` takes out; see `IndexReport`.
        needs_yes: whether they are such a large share of the library that `prune` asks first.
        away: videos that are unavailable; unavailable: their folders.
        missing, passed_over: as in `IndexReport`.
    """

    library: str
    new: list[str]
    changed: list[str]
    moved: list[tuple[str, str]]
    deleted: list[str]
    excluded: list[str]
    needs_yes: bool
    away: list[str]
    unavailable: list[str]
    missing: dict[str, str]
    passed_over: dict[str, int]

    def to_dict(self) -> dict:
        return {"dry_run": True, **asdict(self)}
