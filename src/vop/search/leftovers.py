"""The videos of a library that an indexing has not found, and what `prune` does about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vop.search.gone import is_below, sort_missing
from vop.search.scanner import Walk

if TYPE_CHECKING:
    from vop.search.results import VideoRecord

# More than both at once is asked about before it is taken out.
HANDFUL, LARGE_SHARE = 5, 0.1


@dataclass(frozen=True)
class Leftovers:
    """Paths of videos.

    Attributes:
        deleted: their files were deleted.
        excluded: their files exist, and are not to be indexed any more.
        unavailable: nobody can tell; see `sort_missing`.
        videos: how many the library has.
    """

    deleted: list[str]
    excluded: list[str]
    unavailable: list[str]
    videos: int

    def without(self, paths: Iterable[str]) -> Leftovers:
        """All but some videos, which are somewhere else."""
        paths = set(paths)
        deleted, unavailable = ([path for path in of if path not in paths] for of in (self.deleted, self.unavailable))
        return replace(self, deleted=deleted, unavailable=unavailable)

    @property
    def prunable(self) -> list[str]:
        return [*self.deleted, *self.excluded]

    @property
    def needs_yes(self) -> bool:
        """Whether so many are taken out only after a confirmation."""
        return len(self.prunable) > max(HANDFUL, LARGE_SHARE * self.videos)


def leftovers(known: Mapping[str, VideoRecord], walk: Walk, roots: Set[Path]) -> Leftovers:
    """What a walk below `roots` has not found of the videos that a library has."""
    below = sorted(path for path in known if is_below(path, roots))
    deleted, unavailable = sort_missing(below, known)
    unsure, left_out = frozenset(path for path, _ in walk.unreadable), frozenset(walk.left_out)
    unavailable += [path for path in deleted if is_below(path, unsure)]
    missing = {*deleted, *unavailable, *(str(file.path) for file in walk.files)}
    return Leftovers(
        deleted=[path for path in deleted if not is_below(path, unsure)],
        excluded=[path for path in below if path not in missing and is_below(path, left_out)],
        unavailable=unavailable,
        videos=len(known),
    )
