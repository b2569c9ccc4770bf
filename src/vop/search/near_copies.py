"""Near-duplicates: videos of a library that are re-encoded, resized or trimmed versions of each other.

They are found at the end of an indexing (`vop.search.sync.comparing`). A near-duplicate is "same" if both videos last
about as long, and otherwise a part: the shorter video is a cut of the longer one. A search shows only the best one.

Two tables beside the table of segments keep what was found; their keys are ids of videos, that is hashes of content, so
that they survive moving and removing:

    fingerprints    video, duration_seconds, times, pictures, tones; see `vop.search.fingerprints`
    near_copies     pair (of both ids), video, other, kind, offset_seconds: when `video` begins in `other`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pyarrow as pa

from vop.search.fingerprints import WIDTH, Fingerprint
from vop.search.manifest import DATABASE
from vop.search.results import Moment
from vop.search.schema import conditions
from vop.search.vector_index import tidy_up
from vop.storage.address import Location

if TYPE_CHECKING:
    from lancedb.table import Table

FINGERPRINTS, TABLE = "fingerprints", "near_copies"
SAME: Final = "same"
PART: Final = "part"

FINGERPRINT_SCHEMA = pa.schema(
    {
        "video": pa.string(),
        "duration_seconds": pa.float64(),
        "times": pa.binary(),
        "pictures": pa.binary(),
        "tones": pa.binary(),
    }
)
PAIR_SCHEMA = pa.schema(
    {
        "pair": pa.string(),
        "video": pa.string(),
        "other": pa.string(),
        "kind": pa.string(),
        "offset_seconds": pa.float64(),
    }
)


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates.

    Attributes:
        video, other: the ids of the shorter and the longer video.
        kind: "same", or "part" if the shorter one is a cut of the longer one.
        offset: when the shorter one begins in the longer one, in seconds.
    """

    video: str
    other: str
    kind: Literal["same", "part"]
    offset: float


# -- the tables


def listed(table: Table | None) -> set[str]:
    """Return the ids of the videos whose fingerprints a table has."""
    return set() if table is None else set(table.search().select(["video"]).to_arrow().column(0).to_pylist())


def read_fingerprints(table: Table | None) -> dict[str, Fingerprint]:
    """Return the fingerprints of videos, by id."""
    if table is None:
        return {}
    rows = table.search().select(FINGERPRINT_SCHEMA.names).to_arrow().to_pydict()
    return {
        video: Fingerprint(
            seconds,
            np.frombuffer(times, "<f4"),
            np.frombuffer(pictures, np.int8).reshape(-1, WIDTH),
            np.frombuffer(tones, "<f4").reshape(-1, 3),
        )
        for video, seconds, times, pictures, tones in zip(*rows.values(), strict=True)
    }


def write_fingerprints(table: Table, videos: Mapping[str, Fingerprint]) -> None:
    """Add the fingerprints of videos, by id."""
    rows = [
        {
            "video": video,
            "duration_seconds": own.duration,
            "times": own.times.astype("<f4").tobytes(),
            "pictures": own.pictures.tobytes(),
            "tones": own.tones.astype("<f4").tobytes(),
        }
        for video, own in videos.items()
    ]
    table.add(pa.Table.from_pylist(rows, schema=FINGERPRINT_SCHEMA))
    tidy_up(table)


def write_pairs(table: Table, pairs: Iterable[Pair]) -> None:
    """Add near-duplicates, replacing what the table has of the same pairs."""
    rows = [
        {
            "pair": f"{pair.video}-{pair.other}",
            "video": pair.video,
            "other": pair.other,
            "kind": pair.kind,
            "offset_seconds": pair.offset,
        }
        for pair in pairs
    ]
    if rows:
        merge = table.merge_insert("pair").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(pa.Table.from_pylist(rows, schema=PAIR_SCHEMA))
        tidy_up(table)


def forget(table: Table, columns: Iterable[str], videos: Collection[str]) -> None:
    """Delete the rows that have one of these videos in one of the columns."""
    for column in columns:
        for condition in conditions(column, videos):
            table.delete(condition)
    tidy_up(table)


def read_pairs(table: Table | None) -> list[Pair]:
    """Return the near-duplicates of a library."""
    if table is None:
        return []
    rows = table.search().select(["video", "other", "kind", "offset_seconds"]).to_arrow().to_pylist()
    return [Pair(row["video"], row["other"], row["kind"], row["offset_seconds"]) for row in rows]


# -- results


@dataclass(frozen=True, repr=False)
class NearCopies:
    """The near-duplicates of a library, to collapse the results of a search.

    Attributes:
        groups: for each video that has a "same" one: its group, which is named by one of its videos.
        parts: the longer videos that a video is a part of, and when it begins there, in seconds.
    """

    groups: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> NearCopies:
        groups: dict[str, str] = {}
        parts: dict[str, dict[str, float]] = defaultdict(dict)
        for pair in pairs:
            if pair.kind == PART:
                parts[pair.video][pair.other] = pair.offset
            else:
                one, other = (groups.get(video, video) for video in (pair.video, pair.other))
                joined = {video: one for video, group in groups.items() if group == other}
                groups |= {**joined, pair.video: one, pair.other: one}
        return cls(groups, dict(parts))

    def __bool__(self) -> bool:
        return bool(self.groups or self.parts)

    def are_same(self, one: Moment, other: Moment) -> bool:
        """Whether two moments are of two videos that are the same."""
        group = self.groups.get(one.video)
        return group is not None and one.video != other.video and group == self.groups.get(other.video)

    def is_part(self, short: Moment, long: Moment) -> bool:
        """Whether the first moment shows what the second one shows, and its video is a part of the second one's."""
        offset = self.parts.get(short.video, {}).get(long.video)
        if offset is None:
            return False
        return short.start_seconds + offset < long.end_seconds and long.start_seconds < short.end_seconds + offset


class NearCopiesReader:
    """Reads the near-duplicates of a library, and again when they have changed. For one thread at a time."""

    def __init__(self, path: Location, segments: Table, open_table: Callable[[str], Table | None]) -> None:
        """Take the library's path, its table of segments, and what opens another one if it exists."""
        self._path, self._segments, self._open_table = path, segments, open_table
        self._table: Table | None = None
        self._looked_at = -1
        self._version, self._found = -1, NearCopies()

    def read(self) -> NearCopies:
        table = self._open()
        if table is None:
            return self._found
        version = table.version
        if version != self._version:
            self._found = NearCopies.of(read_pairs(table))
            self._version = version
        return self._found

    def _open(self) -> Table | None:
        """Open the table once it exists; asking object storage costs a request, so ask only after a change."""
        if self._table is not None:
            return self._table
        if isinstance(self._path, Path):
            if not (self._path / DATABASE / f"{TABLE}.lance").exists():
                return None
        elif (version := self._segments.version) == self._looked_at:
            return None
        else:
            self._looked_at = version
        self._table = self._open_table(TABLE)
        return self._table


def search_collapsed(search: Callable[[int], list[Moment]], k: int, near: NearCopies) -> list[Moment]:
    """Return the k best moments, with near-duplicates collapsed behind the best one.

    Args:
        search: returns the best moments, as many as are asked for if there are enough.
    """
    if not near:
        return search(k)
    limit = k + min(k + 8, len(near.groups) + len(near.parts))
    while True:
        found = search(limit)
        kept = collapsed(found, k, near)
        if len(kept) >= k or len(found) < limit:
            return kept
        limit *= 2


def collapsed(moments: Sequence[Moment], k: int, near: NearCopies) -> list[Moment]:
    """Return the first k moments that do not show the same as a better one, with the paths of those behind them.

    The best moment of videos that are the same stands before the moments of the others. A part stands behind the moment
    of the longer video that shows the same, also if the part is the better one: it never hides the longer video.

    Args:
        moments: best first.
    """
    kept: list[Moment] = []
    for moment in moments:
        front = _front(moment, kept, near)
        if front is not None:
            kept[front] = _before(kept[front], [moment])
            continue
        if len(kept) == k:
            continue
        behind = [other for other in kept if near.is_part(other, moment)]
        kept = [other for other in kept if other not in behind]
        kept.append(_before(moment, behind))
    return kept


def _front(moment: Moment, kept: Sequence[Moment], near: NearCopies) -> int | None:
    """Return the place of the moment that this one stands behind; None if there is none."""
    if moment.video not in near.groups and moment.video not in near.parts:
        return None
    same = [place for place, other in enumerate(kept) if near.are_same(moment, other)]
    if same:
        return min(same, key=lambda place: abs(kept[place].start_seconds - moment.start_seconds))
    return next((place for place, other in enumerate(kept) if near.is_part(moment, other)), None)


def _before(front: Moment, behind: Sequence[Moment]) -> Moment:
    paths = [path for moment in behind for path in (moment.path, *moment.copies) if path != front.path]
    return replace(front, copies=tuple(dict.fromkeys([*front.copies, *paths])))
