"""Videos in the order of their dates, and their folders: what a library shows before anything is searched for.

A catalogue has one row for each video, with the thumbnail strip of its middle, since many videos begin in the dark. It
is kept in memory until the library changes, so a page of it takes no longer at the end than at the beginning.
"""

from __future__ import annotations

import base64
import json
import posixpath
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vop.errors import UsageError
from vop.search.filters import ORDERS, DateOrder
from vop.search.results import SCORE, Moment, light_columns, moment_of
from vop.storage.address import is_address

if TYPE_CHECKING:
    from lancedb.table import Table

_KEPT = 8  # conditions whose videos are kept


@dataclass(frozen=True, kw_only=True)
class BrowsedVideos:
    """A part of a library's videos, in the order of their dates.

    Attributes:
        videos: each as a moment from its beginning to its end, with a score of 0. `segment` is the one in its middle.
        next: where the next part begins, for `start`; None at the end.
        total: the number of all videos that pass the filters.
    """

    videos: list[Moment]
    next: str | None
    total: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder with videos of a library.

    Attributes:
        path: its path or address.
        videos: the number of videos that are directly in it.
        total: the number of all videos below it.
        has_folders: whether there are folders with videos in it.
    """

    path: str
    name: str
    videos: int
    total: int
    has_folders: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_order(order: str, allowed: Sequence[str] = ORDERS) -> None:
    """Raise a UsageError if an order is unknown."""
    if order not in allowed:
        raise UsageError(f"order is {order!r}; choose one of {', '.join(allowed)}")


def in_order(moments: Sequence[Moment], order: str) -> list[Moment]:
    """Return the best matches by score, or sorted by the date of the recording.

    Weaker matches (`Moment.is_weak`) come after the others.

    Raises:
        UsageError: the order is unknown.
    """
    check_order(order)
    if order == "match":
        return list(moments)
    dated = sorted(moments, key=lambda moment: moment.date, reverse=order == "newest")
    return sorted(dated, key=lambda moment: moment.is_weak)


class Catalogue:
    """The videos of one version of a table, oldest first.

    Attributes:
        version: the table's version.
    """

    def __init__(self, table: Table) -> None:
        """Read the light columns of one row of each video."""
        self.version = table.version
        table.checkout(self.version)
        self._table = table
        middle = "place = 0"
        if "num_segments" in table.schema.names:
            middle = "place = num_segments / 2 OR (num_segments IS NULL AND place = 0)"
        self._kept: dict[str, np.ndarray] = {}
        rows = table.search().where(middle).select([*light_columns(table.schema.names), "video"]).to_arrow()
        self._rows = rows.sort_by([("date", "ascending"), ("path", "ascending")])

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _keys(self) -> list[tuple[str, str]]:
        return list(zip(self._column("date"), self._column("path"), strict=True))

    def _column(self, name: str) -> list[str]:
        values: list[str] = self._rows.column(name).to_pylist()
        return values

    def page(
        self, *, where: str | None, order: DateOrder, k: int, start: str | None = None, skip: int = 0
    ) -> BrowsedVideos:
        """Return k videos.

        Args:
            where: SQL condition of the videos; None for all.
            start: `next` of the part before. It stays right if videos were added or removed meanwhile.
            skip: the number of videos to leave out before them, to jump into the middle.

        Raises:
            UsageError: `start` is not the `next` of another part.
        """
        allowed = self._allowed(where)
        positions = allowed if order == "oldest" else allowed[::-1]
        begin = skip + (self._begin(allowed, _key(start), order) if start else 0)
        chosen = positions[begin : begin + k]
        rows = self._rows.take(pa.array(chosen)).to_pylist()
        videos = [_whole(moment_of({**row, SCORE: 0.0})) for row in rows]
        more = len(chosen) and begin + len(chosen) < len(positions)
        return BrowsedVideos(
            videos=videos, next=_cursor(self._keys[int(chosen[-1])]) if more else None, total=len(positions)
        )

    def _allowed(self, where: str | None) -> np.ndarray:
        """Return the positions of the videos that meet a condition, oldest first; those of the last ones are kept."""
        if where is None:
            return np.arange(len(self._rows))
        if where not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept), ""), None)
            self._kept[where] = self._meeting(where)
        return self._kept[where]

    def _meeting(self, where: str) -> np.ndarray:
        found = self._table.search().where(f"place = 0 AND ({where})").select(["video"]).to_arrow().column("video")
        mask = pc.is_in(self._rows.column("video"), value_set=found.combine_chunks())
        return np.flatnonzero(mask.to_numpy())

    def _begin(self, allowed: np.ndarray, key: tuple[str, str], order: DateOrder) -> int:
        """Return the number of videos up to a key, which may be that of a video that was removed."""
        if order == "oldest":
            return int(np.searchsorted(allowed, bisect_right(self._keys, key)))
        return len(allowed) - int(np.searchsorted(allowed, bisect_left(self._keys, key)))

    def folders(self, parent: str | None) -> list[Folder]:
        """Return the folders in a folder by name; without one, the folders that have all videos below them.

        Raises:
            UsageError: no video is below the folder.
        """
        if parent is None:
            return [self._folder(path) for path in self._roots()]
        parent = parent if parent == "/" else parent.rstrip("/")
        if parent not in self._totals:
            raise UsageError(f"the library has no videos below {parent}")
        return [self._folder(path) for path in sorted(self._children.get(parent, ()))]

    def _folder(self, path: str) -> Folder:
        return Folder(
            path=path,
            name=posixpath.basename(path) or path,
            videos=self._direct[path],
            total=self._totals[path],
            has_folders=bool(self._children.get(path)),
        )

    @cached_property
    def _direct(self) -> Counter[str]:
        return Counter(posixpath.dirname(path) for path in self._column("path"))

    @cached_property
    def _tree(self) -> tuple[Counter[str], dict[str, set[str]]]:
        """The number of videos below each folder, and the folders in it."""
        totals: Counter[str] = Counter()
        children: dict[str, set[str]] = defaultdict(set)
        for folder, videos in self._direct.items():
            totals[folder] += videos
            inner, above = folder, _above(folder)
            while above is not None:
                children[above].add(inner)
                totals[above] += videos
                inner, above = above, _above(above)
        return totals, dict(children)

    @property
    def _totals(self) -> Counter[str]:
        return self._tree[0]

    @property
    def _children(self) -> dict[str, set[str]]:
        return self._tree[1]

    def _roots(self) -> list[str]:
        """Return the lowest folders that have all videos, one for each bucket; never the root of the disk."""
        tops = [self._lowest(folder) for folder in self._totals if _above(folder) is None]
        if "/" in tops and not self._direct["/"]:
            tops = [*(top for top in tops if top != "/"), *map(self._lowest, self._children["/"])]
        return sorted(tops)

    def _lowest(self, folder: str) -> str:
        """Return the lowest folder that has all videos below a folder."""
        while not self._direct[folder] and len(inner := self._children[folder]) == 1:
            (folder,) = inner
        return folder


def _above(folder: str) -> str | None:
    """Return the folder that has a folder in it; None for the root of the disk and for a bucket."""
    above = posixpath.dirname(folder)
    return None if above == folder or (is_address(folder) and not is_address(above)) else above


def _whole(moment: Moment) -> Moment:
    return replace(moment, start_seconds=0.0, end_seconds=moment.duration_seconds)


def _cursor(key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key(cursor: str) -> tuple[str, str]:
    try:
        date, path = json.loads(base64.urlsafe_b64decode(cursor))
        return str(date), str(path)
    except (ValueError, TypeError):
        raise UsageError(f"{cursor!r} is not the `next` of another part; begin without it") from None
