"""The words of a library: two tables beside the table of segments, made when they are first written.

words       a row for each line: video, kind, source, start_seconds, end_seconds, text; with a full-text index
words_read  a row for each video and kind of source that was read: what state it had, and what could not be read

Rows belong to the video's id, so that they stay when a file is moved. The full-text index divides texts into words by
the rules of Unicode and its dictionaries, so that Chinese, Japanese and Thai, which have no spaces, are found, too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa

from vop.search.database import open_if_exists
from vop.search.filters import quoted
from vop.search.manifest import DATABASE
from vop.search.schema import conditions, explain_damage
from vop.search.vector_index import tidy_up
from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery
from vop.storage.address import Location

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

P = ParamSpec("P")
T = TypeVar("T")
WORDS, READ = "words", "words_read"
WORDS_TABLES = (WORDS, READ)
TRACKS, SIDECARS, SPOKEN = "tracks", "sidecars", "speech"  # kinds of sources
_SCORE = "_score"
_LINES = {
    "video": pa.string(),
    "kind": pa.string(),
    "source": pa.string(),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
    "text": pa.string(),
}
_READS = {"video": pa.string(), "kind": pa.string(), "state": pa.string(), "problems": pa.string()}
_SCHEMAS = {WORDS: pa.schema(_LINES), READ: pa.schema(_READS)}


@dataclass(frozen=True)
class FoundLine:
    """A line that a search found, its video, and its score by BM25."""

    video: str
    line: Line
    score: float


@dataclass(frozen=True)
class WordsVideo:
    """A video of the library whose words can be read."""

    video: str
    path: Location
    duration_seconds: float


@dataclass(frozen=True)
class WordsRead:
    """What was read of a video: the lines of one kind of source, the state of the source, and what was not readable."""

    video: str
    kind: str
    state: str
    lines: Sequence[Line] = ()
    problems: Sequence[str] = ()


def _explained(method: Callable[Concatenate[Words, P], T]) -> Callable[Concatenate[Words, P], T]:
    """Decorate a method to report errors of the database as damage of the library."""

    @wraps(method)
    def explained(words: Words, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with explain_damage(words._library):
            return method(words, *args, **kwargs)

    return explained


class Words:
    """The lines of a library's videos. Writing needs the library's lock."""

    def __init__(self, database: DBConnection, *, library: Location) -> None:
        self._database, self._library = database, library
        self._tables: dict[str, Table] = {}

    # -- reading

    @property
    @_explained
    def exists(self) -> bool:
        """Whether the library has had any lines."""
        return self._open(WORDS) is not None

    @_explained
    def lines(self, video: str) -> list[Line]:
        """Return the lines of a video, in the order of their times."""
        table = self._open(WORDS)
        if table is None:
            return []
        rows = table.search().where(f"video = {quoted(video)}").select(list(_LINES)).to_arrow().to_pylist()
        found = [line_of(row) for row in rows]
        return sorted(found, key=lambda line: (line.start_seconds, line.end_seconds, line.source, line.text))

    @_explained
    def rows_of(self, videos: Collection[str]) -> pa.Table:
        """Return the lines of several videos as a table, in no order; see `line_of`."""
        table, parts = self._open(WORDS), [_SCHEMAS[WORDS].empty_table()]
        for condition in conditions("video", videos):
            if table is not None:
                parts.append(table.search().where(condition).select(list(_LINES)).to_arrow())
        return pa.concat_tables(parts)

    @_explained
    def texts(self, *, limit: int) -> list[str]:
        """Return the texts of some lines, in no order."""
        table = self._open(WORDS)
        if table is None:
            return []
        texts: list[str] = table.search().select(["text"]).limit(limit).to_arrow().column(0).to_pylist()
        return texts

    @_explained
    def search(self, query: WordsQuery, *, limit: int) -> list[FoundLine]:
        """Return the lines that match a query best, best first."""
        table = self._open(WORDS)
        if table is None or query.is_empty:
            return []
        search: Any = table.search(query.full_text("text"), query_type="fts")
        rows = search.select([*_LINES, _SCORE]).limit(limit).to_arrow().to_pylist()
        return [FoundLine(row["video"], line_of(row), row[_SCORE]) for row in rows]

    @_explained
    def states(self) -> dict[tuple[str, str], WordsRead]:
        """Return what was read, by video and kind, without the lines."""
        table = self._open(READ)
        if table is None:
            return {}
        rows = table.search().select(list(_READS)).to_arrow().to_pylist()
        return {
            (row["video"], row["kind"]): WordsRead(
                row["video"], row["kind"], row["state"], problems=tuple(json.loads(row["problems"]))
            )
            for row in rows
        }

    @_explained
    def count(self) -> int:
        """Return the number of lines."""
        table = self._open(WORDS)
        return 0 if table is None else table.count_rows()

    def _open(self, name: str) -> Table | None:
        """Open a table; None if nothing was written to it."""
        if name not in self._tables:
            # Faster than a list of tables, for every search of a library without words.
            if isinstance(self._library, Path) and not (self._library / DATABASE / f"{name}.lance").exists():
                return None
            table = open_if_exists(self._database, self._library, name)
            if table is None:
                return None
            self._tables[name] = table
        return self._tables[name]

    def _keys(self, name: str) -> set[tuple[str, str]]:
        """Return the videos and kinds that have rows in a table."""
        table, found = self._open(name), set[tuple[str, str]]()
        if table is None:
            return found
        for batch in table.search().select(["video", "kind"]).to_batches():
            keys = pa.Table.from_batches([batch]).group_by(["video", "kind"]).aggregate([])
            found.update(zip(keys.column("video").to_pylist(), keys.column("kind").to_pylist(), strict=True))
        return found

    # -- writing

    @_explained
    def put(self, reads: Sequence[WordsRead], *, known: Collection[tuple[str, str]] = ()) -> None:
        """Store what was read, in place of earlier lines of the same video and kind.

        Args:
            known: the videos and kinds that may have rows.
        """
        if not reads:
            return
        rows = [
            {"video": read.video, "kind": read.kind} | {name: getattr(line, name) for name in list(_LINES)[2:]}
            for read in reads
            for line in read.lines
        ]
        self._delete((read.video, read.kind) for read in reads if (read.video, read.kind) in known)
        if rows:
            self._made(WORDS).add(pa.Table.from_pylist(rows, schema=_SCHEMAS[WORDS]))
        # Last: a process that is killed before this reads the sources again.
        states = [
            {"video": read.video, "kind": read.kind, "state": read.state, "problems": json.dumps(list(read.problems))}
            for read in reads
        ]
        merge = self._made(READ).merge_insert(["video", "kind"])
        merge = merge.when_matched_update_all().when_not_matched_insert_all()
        merge.execute(pa.Table.from_pylist(states, schema=_SCHEMAS[READ]))

    @_explained
    def drop_unfinished(self) -> None:
        """Delete lines that are not listed as read: a process was killed in between, and they will be read again."""
        self._delete(self._keys(WORDS) - self._keys(READ))

    def _delete(self, keys: Iterable[tuple[str, str]]) -> None:
        table = self._open(WORDS)
        by_kind = defaultdict(list)
        for video, kind in keys:
            by_kind[kind].append(video)
        for kind, videos in by_kind.items():
            for condition in conditions("video", videos):
                if table is not None:
                    table.delete(f"kind = {quoted(kind)} AND {condition}")

    @_explained
    def keep_only(self, videos: Collection[str]) -> None:
        """Delete what belongs to other videos."""
        read = self._open(READ)
        if read is None:
            return
        present = set(read.search().select(["video"]).to_arrow().column(0).to_pylist())
        gone = present - set(videos)
        # The lines last: if the process is killed in between, they are unfinished. In the other order, a video that is
        # indexed again would count as read.
        for name in (READ, WORDS) if gone else ():
            table = self._open(name)
            for condition in conditions("video", gone):
                if table is not None:
                    table.delete(condition)

    @_explained
    def tidy_up(self) -> None:
        """Bring the full-text index up to date, and merge small files. Searches find new lines before that."""
        for name in (WORDS, READ):
            table = self._open(name)
            if table is not None:
                if name == WORDS and not table.list_indices():  # the process that made the table was killed
                    _index_texts(table)
                tidy_up(table)

    def _made(self, name: str) -> Table:
        table = self._open(name)
        if table is None:
            table = self._database.create_table(name, schema=_SCHEMAS[name], exist_ok=True)
            if name == WORDS:
                _index_texts(table)
            self._tables[name] = table
        return table


def _index_texts(table: Table) -> None:
    from lancedb.index import FTS

    # Stop words stay, so that a phrase is found as it is quoted.
    config = FTS(
        base_tokenizer="icu/split",
        with_position=True,
        stem=True,
        remove_stop_words=False,
        ascii_folding=True,
    )
    table.create_index("text", config=config)


def line_of(row: dict[str, Any]) -> Line:
    """Convert a row of the lines."""
    return Line(
        text=row["text"], start_seconds=row["start_seconds"], end_seconds=row["end_seconds"], source=row["source"]
    )
