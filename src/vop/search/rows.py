"""Read segments and videos from the table of segments, by their ids and paths."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vop.errors import UsageError
from vop.search.filters import METADATA, quoted
from vop.search.manifest import LibraryModel
from vop.search.results import SCORE, IndexedVideo, Moment, Segment, VideoRecord, light_columns, moment_of
from vop.search.schema import clip_of, conditions, decoder_version, matrix, metadata_columns, video_of
from vop.search.words.table import WordsVideo
from vop.storage.address import location
from vop.video.clip import DECODER_VERSION

if TYPE_CHECKING:
    from lancedb.table import Table

IDS = {"segment": re.compile(r"[0-9a-f]{32}-\d{1,12}-\d{1,12}"), "video": re.compile(r"[0-9a-f]{32}")}


class Rows:
    """The rows of a table of segments."""

    def __init__(self, table: Table, *, library: str) -> None:
        """Read a table; `library` is the library's name, for messages."""
        self._table, self._library = table, library

    def row(self, kind: str, id: str, columns: list[str]) -> pa.Table:
        """Return the first row with this id.

        Args:
            kind: "segment" or "video".

        Raises:
            UsageError: there is none.
        """
        if not IDS[kind].fullmatch(id):
            raise UsageError(f"{id!r} is not the id of a {kind}")
        rows = self._table.search().where(f"{kind} = {quoted(id)}").limit(1).select(columns).to_arrow()
        if not len(rows):
            raise UsageError(f"the library {self._library} has no {kind} {id}; it may have changed since")
        return rows.slice(0, 1)

    def segment(self, segment: str, models: Iterable[LibraryModel]) -> Segment:
        """Return a segment by its id, with the embeddings of these models; raise a UsageError if there is none."""
        own = [model.column for model in models]
        row = self.row("segment", segment, ["path", "strip", *own])
        start, end = clip_of(segment)
        return Segment(
            segment=segment,
            video=video_of(segment),
            start_seconds=start,
            end_seconds=end,
            **row.select(["path", "strip"]).to_pylist()[0],
            embeddings=tuple(matrix(row.column(column))[0] for column in own),
        )

    def whole_segments(self, segments: Sequence[str]) -> list[Moment]:
        """Return segments as moments, in this order, with a score of 0; raise a UsageError if there is none."""
        for segment in segments:
            if not IDS["segment"].fullmatch(segment):
                raise UsageError(f"{segment!r} is not the id of a segment")
        condition = f"segment IN ({', '.join(map(quoted, segments))})"
        columns = light_columns(self._table.schema.names)
        rows = self._table.search().where(condition).select(columns).to_arrow().to_pylist() if segments else []
        found = {row["segment"]: moment_of({**row, SCORE: 0.0}) for row in rows}
        missing = [segment for segment in segments if segment not in found]
        if missing:
            raise UsageError(f"the library {self._library} has no segment {missing[0]}; it may have changed since")
        return [found[segment] for segment in segments]

    def video(self, video: str) -> IndexedVideo:
        """Return a video by its id; raise a UsageError if there is none."""
        row = self.row("video", video, ["path", "size", "mtime_ns", "duration_seconds", "plays_in_browsers"])
        return IndexedVideo(**row.to_pylist()[0])

    def one_of_each(
        self, columns: list[str], *, paths: Sequence[str] | None = None, sizes: Collection[int] | None = None
    ) -> list[dict[str, Any]]:
        """Return these columns of the first row of each video, or of those at some paths or with some sizes."""

        def firsts(condition: str) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = self._table.search().where(condition).select(columns).to_arrow().to_pylist()
            return rows

        if paths is None and sizes is None:
            return firsts("place = 0")
        any_of = [*conditions("path", paths or ()), *conditions("size", sizes or ())]
        found = [row for condition in any_of for row in firsts(f"place = 0 AND {condition}")]
        return list({row["path"]: row for row in found}.values())

    def videos(
        self, *, paths: Sequence[str] | None = None, sizes: Collection[int] | None = None
    ) -> dict[str, VideoRecord]:
        """Return the videos, by path: all of them, or those at some paths or with some sizes in bytes."""
        columns = {METADATA + name: name for name in metadata_columns(self._table.schema)}
        names = ["video", "path", "size", "mtime_ns"]
        names += ["volume"] if "volume" in self._table.schema.names else []  # older libraries lack it
        rows = self.one_of_each([*names, *columns], paths=paths, sizes=sizes)
        return {
            row["path"]: VideoRecord(
                **{name: row[name] for name in names},
                metadata={name: row[column] for column, name in columns.items()},
            )
            for row in rows
        }

    def ids(self) -> list[str]:
        """Return the ids of all videos."""
        return [row["video"] for row in self.one_of_each(["video"])]

    def durations(self) -> dict[str, float]:
        """Return the durations of the videos in seconds, by path."""
        return {row["path"]: row["duration_seconds"] for row in self.one_of_each(["path", "duration_seconds"])}

    def outdated(self, *, paths: Sequence[str] | None = None) -> dict[str, float]:
        """Return the durations in seconds of videos that an earlier version of the decoder read, by path."""
        rows = self.one_of_each(["path", "duration_seconds", "made_with"], paths=paths)
        return {row["path"]: row["duration_seconds"] for row in rows if is_outdated(row)}

    def words_videos(self, paths: Collection[str]) -> list[WordsVideo]:
        """Return the videos at some paths, sorted by path."""
        rows = sorted(self.one_of_each(["video", "path", "duration_seconds"]), key=lambda row: str(row["path"]))
        wanted = set(paths)
        return [
            WordsVideo(row["video"], location(row["path"]), row["duration_seconds"])
            for row in rows
            if row["path"] in wanted
        ]

    def of_videos(
        self, videos: Iterable[str], *, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.Table:
        """Return all rows of these videos that meet the condition, in their order in the video."""
        columns = list(columns or self._table.schema.names)
        own = f"video IN ({', '.join(map(quoted, videos))})"
        query = self._table.search().where(f"({where}) AND {own}" if where else own)
        rows = query.select(list({*columns, "video", "place"})).to_arrow()
        return rows.sort_by([("video", "ascending"), ("place", "ascending")]).select(columns)


def is_outdated(row: Mapping[str, Any]) -> bool:
    """Return whether an earlier version of the decoder read a video, given its `made_with`."""
    return decoder_version(row["made_with"]) < DECODER_VERSION
