"""A library: a folder with a LanceDB database of segments, searched while it is being written.

    library.json    which table, which models, how videos are segmented
    database/       LanceDB: segments_N, failures, removed_segments_N once videos were removed, and KEPT_TABLES
    folders.json    what was indexed, and is indexed again without paths
    words.json      which words are indexed, if the owner has chosen
    owner.json      tags and favourites, once the owner has made some
    frames/         decoded frames, if the library keeps them
    shards/         plans of indexings in shards, and rows that are not published yet
    reembedding/    the same of a re-embedding in shards
    progress.json   the progress of a running indexing
    confidence.safetensors   the calibration of its models (`vop.search.confidence`)

Every change commits whole videos: a reader sees a video completely or not at all. Uncommitted changes of a killed
writer are lost.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa

from vop.errors import UsageError, VopError
from vop.search import confidence, duplicates, failures, manifest, near_copies, owned, owners, vector_index
from vop.search.browsing import BrowsedVideos, Catalogue, Folder
from vop.search.duplicates import Duplicates
from vop.search.failures import Failure
from vop.search.filters import METADATA, DateOrder, Filters, quoted
from vop.search.lease import check_held
from vop.search.loaded import LoadedTable, loads
from vop.search.manifest import DATABASE, LibraryModel, Manifest
from vop.search.near_copies import NearCopies, NearCopiesReader
from vop.search.owners import Marks, Target
from vop.search.refining import FrameScores, refined_moment
from vop.search.removed import Removed
from vop.search.results import (
    SCORE,
    IndexedVideo,
    LibraryStatus,
    Moment,
    NearestRows,
    Segment,
    VideoRecord,
    best_of_videos,
    light_columns,
    moment_of,
)
from vop.search.schema import (
    ADDED,
    DamageError,
    check_rows,
    clip_of,
    conditions,
    decoder_version,
    delete_paths,
    explain_damage,
    field_of,
    matrix,
    metadata_columns,
    schema,
    video_of,
    with_checksums,
)
from vop.search.state import read_state
from vop.search.vector_index import Indexed, Snapshot
from vop.search.video_moments import Span, VideoMoments, best_spans, check_per_video, in_video, spans_of
from vop.search.words.in_video import with_words
from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery
from vop.search.words.searching import WordsSearch
from vop.search.words.table import WORDS_TABLES, Words, WordsVideo
from vop.storage import small_files
from vop.storage.address import Address, Location, absolute, location
from vop.storage.objects import endpoint, list_objects
from vop.storage.small_files import Stamp
from vop.utils.files import explain_full_disk
from vop.utils.names import nfc
from vop.video.clip import DECODER_VERSION

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

    from vop.search.owner_files import MarksImport

P = ParamSpec("P")
T = TypeVar("T")

_LOAD_PAUSE, _LOAD_SHARE = 5.0, 10.0  # seconds, and times the seconds of a loading, until the next one
_MARKS_SECONDS = 2.0  # how long tags that were read from object storage are valid, since looking costs a request
# Tables that do not depend on the models and stay when the library moves to others; their keys are ids of videos.
NEAR_TABLES = (near_copies.FINGERPRINTS, near_copies.TABLE)
KEPT_TABLES = (failures.TABLE, *NEAR_TABLES, *WORDS_TABLES)
_ATTEMPTS = 5  # of a failing read, each at the newest version
_IDS = {"segment": re.compile(r"[0-9a-f]{32}-\d{1,12}-\d{1,12}"), "video": re.compile(r"[0-9a-f]{32}")}
# Filters compare these columns with values. They search inside paths, and compare metadata both as text and as numbers,
# which no index answers.
_FILTERED = ("date", "duration_seconds")
log = logging.getLogger(__name__)


# A library may change at any moment: its table is dropped when the library moves to other models, and old versions of a
# table are deleted. A read that fails because of this is repeated; any other failed read means that the library is
# damaged.


def stamp_of(path: Location) -> Stamp | None:
    """Return the stamp of a library; None if there is none."""
    return small_files.stamp_of(small_files.child(path, manifest.FILE))


def again_if_moved(path: Location, read: Callable[[Stamp | None], T]) -> T:
    """Return what `read` returns; repeat it after a failure if the library has changed meanwhile.

    Args:
        read: is called with the library's stamp.

    Raises:
        VopError: the database still fails after several attempts: it is damaged.
    """
    failed = 0
    while True:
        stamp = stamp_of(path)
        try:
            with explain_damage(path):
                return read(stamp)
        except Exception as error:
            failed += isinstance(error, DamageError)
            if stamp_of(path) == stamp and (not isinstance(error, DamageError) or failed == _ATTEMPTS):
                raise


def follows(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """Decorate a method to read the library as it is at the time of the call.

    Methods that it calls read the same library: looking again would cost a request if it is in object storage.
    """

    @wraps(method)
    def following(store: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if getattr(store._reading, "is_inside", False):
            return method(store, *args, **kwargs)

        def read(stamp: Stamp | None) -> T:
            store.follow(stamp)
            store._reading.is_inside = True
            try:
                return method(store, *args, **kwargs)
            finally:
                store._reading.is_inside = False

        return again_if_moved(store.path, read)

    return following


class Store:
    """An open library. Several threads can read and search, also while another process writes.

    Attributes:
        path: the library's folder, or its address in object storage.
        manifest: the content of `library.json`.
    """

    def __init__(self, path: Location, manifest: Manifest, stamp: Stamp | None = None) -> None:
        """Open the tables; `stamp` is the stamp of `library.json` before `manifest` was read."""
        self.path, self.manifest = path, manifest
        # Check for a new version at every read, which takes 0.3 ms.
        self._database = connect(path, read_consistency_interval=timedelta(0))
        self._changing = threading.Lock()
        self._reading = threading.local()
        self._loading_bytes = 0
        self._loader: threading.Thread | None = None
        self._load_after: dict[str, float] = {}
        self._calibrations = confidence.Calibrations(path)
        self._open_tables()
        self._stamp = stamp or stamp_of(path)

    def _open_tables(self) -> None:
        with explain_damage(self.path):
            self.table: Table = self._database.open_table(self.manifest.table)
            self._failures: Table = self._database.open_table(failures.TABLE)
        self._snapshots: dict[str, Snapshot] = {}
        self._indexed: Indexed | None = None
        self._loaded: dict[str, LoadedTable] = {}
        self._near_copies: NearCopiesReader | None = None
        self.words = Words(self._database, library=self.path)
        self._browsed: Catalogue | None = None
        self._marks = Marks()
        self._marks_stamp: Stamp | None = None
        self._marks_until = 0.0

    @classmethod
    def open(cls, path: str | Path | Address) -> Store:
        """Open a library.

        Raises:
            UsageError: the library does not exist.
            VopError: the library is damaged, or from a later version of vop.
        """
        found = absolute(path)
        return again_if_moved(found, lambda stamp: cls(found, manifest.read(found), stamp))

    @classmethod
    def create(cls, path: str | Path | Address, wanted: Manifest) -> Store:
        """Create an empty library; see `vop.search.sync.lock.check_folder`."""
        place = absolute(path)
        if wanted.keep_frames and isinstance(place, Address):
            raise UsageError(f"{place}: a library in object storage cannot keep frames; leave out --keep-frames")
        with _explained(place):
            database = connect(place)
            database.create_table(wanted.table, schema=schema(wanted.models), exist_ok=True)
            database.create_table(failures.TABLE, schema=failures.SCHEMA, exist_ok=True)
            manifest.write(wanted, place)
        return cls(place, wanted)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def models(self) -> tuple[LibraryModel, ...]:
        return self.manifest.models

    @property
    def table_folder(self) -> Location:
        """The folder of the table of segments."""
        return small_files.child(small_files.child(self.path, DATABASE), f"{self.manifest.table}.lance")

    @property
    def removed(self) -> Removed:
        """The removed videos that can be restored."""
        return Removed(self._database, self.table, library=self.path)

    def restorable(self) -> list[str]:
        """Return the paths of the removed videos that can be restored, without those that the library has again."""
        present = self.videos()
        ids = {record.video for record in present.values()}
        return [path for path, video in self.removed.videos().items() if path not in present and video not in ids]

    @follows
    def refresh(self) -> Manifest:
        """Read the manifest from the disk again."""
        return self.manifest

    @property
    @follows
    def columns(self) -> list[str]:
        """The columns of the owner's metadata."""
        return metadata_columns(self.table.schema)

    # -- reading

    @follows
    def search(
        self,
        vector: np.ndarray,
        *,
        k: int = 10,
        filters: Filters | None = None,
        model: int | LibraryModel = 0,
        leave_out: str | Sequence[str] | None = None,
        refine: bool = True,
        per_video: int = 1,
    ) -> list[Moment]:
        """Return the best moment of each of the k nearest videos, best first; or the k best moments.

        Args:
            vector: the query (e,), of unit length.
            model: the library's model that made the vector, or its number. A model, unlike a number, is still found
                after the library was re-embedded.
            leave_out: the id of a video to leave out, or several.
            refine: whether to refine the ends of the moments, if the library keeps the embeddings of frames.
            per_video: the number of moments that one video may have. With 1, a moment is a segment; with more, it may
                be several (`vop.search.video_moments`).

        Raises:
            UsageError: k, per_video or a filter is not allowed.
            VopError: the library was re-embedded with other models, so the query cannot be compared.
        """
        where = self.condition(filters)
        if leave_out:
            left_out = [leave_out] if isinstance(leave_out, str) else leave_out
            others = f"video NOT IN ({', '.join(map(quoted, left_out))})"
            where = " AND ".join(filter(None, [where, others]))
        own = self._own(model)
        check_per_video(per_video)
        spans = [Span(moment, 0, 0) for moment in best_of_videos(self._nearest(vector, where, own.column), k)]
        if per_video > 1:
            best, read = [span.moment for span in spans], partial(self._scored, vector=vector, column=own.column)
            spans = best_spans(best, read, k=k, per_video=per_video)
        return self._moments(spans, vector, own, refine=refine)

    @follows
    def search_words(
        self,
        vector: np.ndarray | None,
        words: WordsQuery,
        *,
        k: int = 10,
        filters: Filters | None = None,
        model: int | LibraryModel = 0,
        refine: bool = True,
        per_video: int = 1,
        only: bool = False,
    ) -> list[Moment]:
        """Return the best moments by what is seen and by what is said or written, by default one of each video.

        Args:
            vector: the query (e,) for pictures; None for a query without them.
            words: the query for words.
            only: whether pictures do not count.
            k, filters, model, refine, per_video: as for `search`.
        """
        own = self._own(model)
        refine_later = refine and per_video == 1  # the ends of a few moments, rather than those of all candidates

        def seen(k: int) -> list[Moment]:
            assert vector is not None
            refine_now = refine and not refine_later
            return self.search(vector, k=k, filters=filters, model=model, refine=refine_now, per_video=per_video)

        search = WordsSearch(
            table=self.table,
            words=self.words,
            where=self.condition(filters),
            column=own.column,
            vector=vector,
            seen=seen,
        )
        moments = search.search(words, k=k, only=only, per_video=per_video)
        if vector is None or not refine_later:
            return self.marked(moments)
        spans = [Span(moment, 0, 0) for moment in moments if moment.line is None]
        refined = {moment.segment: moment for moment in self._moments(spans, vector, own, refine=True)}
        return self.marked([refined.get(moment.segment, moment) for moment in moments])

    @follows
    def lines(self, video: str) -> list[Line]:
        """Return the lines of a video, in the order of their times; raise a UsageError if there is no such video."""
        self._row("video", video, ["path"])
        return self.words.lines(video)

    @follows
    def has_words(self) -> bool:
        """Whether lines were read of any video."""
        return self.words.exists

    def condition(self, filters: Filters | None, *, whole_videos: bool = False) -> str | None:
        """Return the SQL condition of filters; None if every segment may be found.

        Args:
            whole_videos: whether a video with a tagged moment passes a filter of tags as a whole.

        Raises:
            UsageError: a value is not allowed, or a column is unknown.
        """
        if filters is None:
            return None
        marked = partial(owned.condition, table=self.table, marks=self.marks, whole_videos=whole_videos)
        return filters.sql(self.columns, marked=marked, has_places="latitude" in self.table.schema.names)

    @property
    def marks(self) -> Marks:
        """The tags and favourites of the owner; none, with a warning, if they cannot be read."""
        with self._changing:
            if time.monotonic() >= self._marks_until:
                stamp = small_files.stamp_of(small_files.child(self.path, owners.FILE))
                if self._marks_stamp != stamp:
                    self._marks, self._marks_stamp = owned.read_or_warn(self.path), stamp
                if isinstance(self.path, Address):
                    self._marks_until = time.monotonic() + _MARKS_SECONDS
            return self._marks

    def change_marks(self, change: Callable[[Marks], Marks]) -> Marks:
        """Change the tags and favourites of the owner, and return all. It needs no lock; see `vop.search.owners`."""
        with self._changing:
            self._marks_until = 0.0
        return owners.change_marks(self.path, change)

    @follows
    def target(
        self,
        named: str | Path | Address | Moment,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> Target:
        """Return the video or moment that an owner names; see `owned.target_of`."""
        return owned.target_of(self.table, named, start_seconds=start_seconds, end_seconds=end_seconds)

    @follows
    def targets(
        self, paths: Sequence[Path | Address], *, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> list[Target]:
        """Return the videos at or below some paths, or a moment of one video; see `owned.targets_below`."""
        if (start_seconds, end_seconds) != (None, None):
            if len(paths) != 1:
                raise UsageError(f"a moment is in one video; {len(paths)} paths are given")
            return [self.target(paths[0], start_seconds=start_seconds, end_seconds=end_seconds)]
        return owned.targets_below(self.table, paths)

    def import_marks(self, file: Path) -> MarksImport:
        """Add the tags and favourites of a file; see `Library.import_marks`."""
        from vop.search.owner_files import MarksImport, read_file  # imports PyAV

        videos = {nfc(path): record for path, record in self.videos().items()}
        ids = {record.video: path for path, record in videos.items()}

        def video_at(path: str) -> str | None:
            record = videos.get(nfc(path))
            return record.video if record else None

        marks, unknown = read_file(file, video_at)
        self.change_marks(lambda own: own.merged(marks))
        waiting = sum(mark.video not in ids for mark in marks)
        return MarksImport(imported=len(marks), waiting=waiting, unknown=unknown)

    @follows
    def follow_files(self) -> None:
        """Move tags and favourites with files that were moved or changed."""
        owned.follow(self.path, self.table)

    def marked(self, moments: Sequence[Moment]) -> list[Moment]:
        """Return the moments with the owner's tags and favourites."""
        return owned.marked(moments, self.marks)

    @follows
    def browse(
        self,
        *,
        filters: Filters | None = None,
        order: DateOrder = "newest",
        k: int = 100,
        start: str | None = None,
        skip: int = 0,
    ) -> BrowsedVideos:
        """Return videos in the order of their dates; see `Library.browse`."""
        where = self.condition(filters, whole_videos=True)
        found = self._catalogue().page(where=where, order=order, k=k, start=start, skip=skip)
        return replace(found, videos=self.marked(found.videos))

    @follows
    def browse_folders(self, parent: str | None = None) -> list[Folder]:
        """Return folders with videos; see `Library.browse_folders`."""
        return self._catalogue().folders(parent)

    def _catalogue(self) -> Catalogue:
        with self._changing:
            if self._browsed is None or self._browsed.version != self.table.version:
                self._browsed = Catalogue(self._database.open_table(self.manifest.table))
            return self._browsed

    @follows
    def moments(
        self,
        vector: np.ndarray | None,
        video: str,
        *,
        model: int | LibraryModel = 0,
        refine: bool = True,
        judge: bool = False,
        words: WordsQuery | None = None,
    ) -> VideoMoments:
        """Return all moments of a video that match a query, and the scores of its segments.

        Args:
            video: the video's id.
            vector: the query (e,); None for a query of words without pictures.
            model, refine: as for `search`.
            judge: whether to add the confidence of the moments; for sentences.
            words: the query for words, if they count.

        Raises:
            UsageError: the video does not exist.
            VopError: the library was re-embedded with other models, so the query cannot be compared.
        """
        own = self._own(model)
        self._row("video", video, ["segment"])
        nothing = np.zeros(own.embed_dim, np.float32)
        rows = self._scored([video], vector=nothing if vector is None else vector, column=own.column)
        moments = [] if vector is None else self._moments(spans_of(rows), vector, own, refine=refine)
        found = in_video(rows, moments)
        if words is not None:
            lines = self.words.lines(video)
            found = with_words(rows, moments, lines, words, by_pictures=vector is not None)
            found = replace(found, moments=self.marked(found.moments))
        if judge and vector is not None:
            found = replace(found, moments=self.judged(found.moments, vector, model=own))
        return found

    def _scored(self, videos: Sequence[str], *, vector: np.ndarray, column: str) -> pa.Table:
        """Return all segments of these videos, sorted by video, then by time, with the light columns and scores."""
        light = light_columns(self.table.schema.names)
        rows = self.rows_of(videos, columns=[*light, column])
        scores = pa.array(matrix(rows.column(column)) @ vector, pa.float32())
        return rows.select(light).append_column(SCORE, scores)

    def _moments(self, spans: Sequence[Span], vector: np.ndarray, model: LibraryModel, *, refine: bool) -> list[Moment]:
        """Return the moments, with refined ends if the library keeps the embeddings of frames."""
        if not refine or model.frame_column is None:
            return self.marked([span.moment for span in spans])
        return self.marked(self._refined(spans, vector, model.frame_column))

    def judged(self, moments: Sequence[Moment], vector: np.ndarray, *, model: int | LibraryModel = 0) -> list[Moment]:
        """Return the moments that a query in sentences has found, with their confidence.

        Args:
            vector: the query (e,).
            model: as for `search`.
        """
        own = model if isinstance(model, LibraryModel) else self.models[model]
        return confidence.judged(moments, vector, self._calibrations.of(own.fingerprint))

    def _refined(self, spans: Sequence[Span], vector: np.ndarray, column: str) -> list[Moment]:
        """Return the moments with refined ends. One whose rows were removed meanwhile stays as it is."""
        if not spans:
            return []
        rows = self._around(spans, column)
        scores = {
            (row["video"], row["place"]): FrameScores.of(
                row[column], vector, start=row["start_seconds"], end=row["end_seconds"]
            )
            for row in rows
        }
        places = {row["segment"]: (row["video"], row["place"]) for row in rows}
        refined_moments = []
        for span in spans:
            moment = span.moment
            video, place = places.get(moment.segment, ("", 0))
            first, last = place - span.before, place + span.after
            own = [scores[key] for key in ((video, near) for near in range(first, last + 1)) if key in scores]
            if len(own) == last - first + 1:
                neighbours = scores.get((video, first - 1)), scores.get((video, last + 1))
                start, end = refined_moment(own, span.before, *neighbours)
                moment = replace(moment, start_seconds=start, end_seconds=end)
            refined_moments.append(moment)
        return refined_moments

    def _around(self, spans: Sequence[Span], column: str) -> list[dict[str, Any]]:
        """Return the rows of the segments of moments and of their neighbours in their videos.

        The first query reads small columns of whole videos, the second one embeddings of frames of a few rows.
        """
        names = ["segment", "video", "place"]
        videos = ", ".join(quoted(span.moment.video) for span in spans)
        own = self.table.search().where(f"video IN ({videos})").select(names).with_row_id(True).to_arrow().to_pylist()
        segments = {span.moment.segment: span for span in spans}
        near = {
            (row["video"], row["place"] + step)
            for row in own
            if (span := segments.get(row["segment"]))
            for step in range(-span.before - 1, span.after + 2)
        }
        ids = [row["_rowid"] for row in own if (row["video"], row["place"]) in near]
        if not ids:
            return []
        # A writer may move rows in between. Then these are others, or the query fails and is repeated.
        rows: list[dict[str, Any]] = (
            self.table.take_row_ids(ids).select([*names, "start_seconds", "end_seconds", column]).to_arrow().to_pylist()
        )
        return rows

    def _own(self, model: int | LibraryModel) -> LibraryModel:
        """Return the library's own description of a model."""
        if isinstance(model, int):
            return self.models[model]
        for own in self.models:
            if own.fingerprint == model.fingerprint:
                return own
        raise VopError(f"{self.path} has moved to other models since it was opened; open it again")

    def _nearest(self, vector: np.ndarray, where: str | None, column: str) -> NearestRows:
        loaded = self._loaded_table(column)
        if loaded is not None:
            return partial(loaded.nearest, vector, where)
        if self.table.count_rows() > vector_index.EXACT_ROWS:
            light = light_columns(self.table.schema.names)
            with self._changing:
                indexed = self._by_index()
            return lambda limit: indexed.search(column, vector, limit=limit, where=where, columns=light)
        snapshot = self._snapshot(column)
        return partial(snapshot.nearest, vector, snapshot.mask(where))

    def _by_index(self) -> Indexed:
        """Return the table for searches by its index. The caller holds the lock of changes."""
        self._indexed = self._indexed or Indexed(*database_of(self.path), table=self.manifest.table)
        return self._indexed

    @follows
    def keep_in_memory(self, max_bytes: int) -> None:
        """Search a large library in memory, with up to `max_bytes` for each of its models.

        A thread loads the library, and loads it again some time after it has changed. Until then, and if the memory
        does not suffice, searches read the database.
        """
        self._loading_bytes = max_bytes
        for model in self.models:
            self._loaded_table(model.column)

    def _loaded_table(self, column: str) -> LoadedTable | None:
        """Return the newest version of a large table in memory; None if it is not loaded."""
        if not self._loading_bytes:
            return None
        version = self.table.version
        kept = self._loaded.get(column)
        if kept is not None and kept.version == version:
            return kept
        rows = self.table.count_rows()
        if rows <= vector_index.EXACT_ROWS or not loads(rows, max_bytes=self._loading_bytes):
            return None
        with self._changing:
            if self._loader is None and time.monotonic() >= self._load_after.get(column, 0.0):
                self._loaded.pop(column, None)  # so that two versions are never in memory
                work = partial(self._load, self._by_index(), column, self._loaded)
                self._loader = threading.Thread(target=work, name="load-library", daemon=True)
                self._loader.start()
        return None

    def _load(self, indexed: Indexed, column: str, loaded: dict[str, LoadedTable]) -> None:
        """Load a table into `loaded`, which is no longer used if the library moves to another table."""
        began = time.monotonic()
        try:
            loaded[column] = LoadedTable(indexed, column, max_bytes=self._loading_bytes)
        except Exception as error:  # a writer may have deleted this version; the next search tries again
            log.info("%s cannot be loaded into memory: %s", self.path, error)
        seconds = time.monotonic() - began
        with self._changing:
            self._loader = None
            self._load_after[column] = time.monotonic() + max(_LOAD_PAUSE, _LOAD_SHARE * seconds)

    def _snapshot(self, column: str) -> Snapshot:
        """Return the newest version of the table, in memory."""
        with self._changing:
            kept = self._snapshots.get(column)
            if kept is None or kept.version != self.table.version:
                kept = Snapshot(self._database.open_table(self.manifest.table), column)
                self._snapshots[column] = kept
            return kept

    @follows
    def segment(self, segment: str) -> Segment:
        """Return a segment by its id.

        Raises:
            UsageError: the segment does not exist.
        """
        row = self._row("segment", segment, ["path", "strip", *(model.column for model in self.models)])
        embeddings = tuple(matrix(row.column(model.column))[0] for model in self.models)
        start, end = clip_of(segment)
        return Segment(
            segment=segment,
            video=video_of(segment),
            start_seconds=start,
            end_seconds=end,
            **row.select(["path", "strip"]).to_pylist()[0],
            embeddings=embeddings,
        )

    @follows
    def video(self, video: str) -> IndexedVideo:
        """Return a video by its id.

        Raises:
            UsageError: the video does not exist.
        """
        row = self._row("video", video, ["path", "size", "mtime_ns", "duration_seconds", "plays_in_browsers"])
        return IndexedVideo(**row.to_pylist()[0])

    @follows
    def whole_segments(self, segments: Sequence[str]) -> list[Moment]:
        """Return whole segments as moments, in this order, with a score of 0.

        Raises:
            UsageError: a segment does not exist.
        """
        for segment in segments:
            if not _IDS["segment"].fullmatch(segment):
                raise UsageError(f"{segment!r} is not the id of a segment")
        condition = f"segment IN ({', '.join(map(quoted, segments))})"
        columns = light_columns(self.table.schema.names)
        rows = self.table.search().where(condition).select(columns).to_arrow().to_pylist() if segments else []
        found = {row["segment"]: moment_of({**row, SCORE: 0.0}) for row in rows}
        missing = [segment for segment in segments if segment not in found]
        if missing:
            raise UsageError(f"the library {self.name} has no segment {missing[0]}; it may have changed since")
        return self.marked([found[segment] for segment in segments])

    def _row(self, kind: str, id: str, columns: list[str]) -> pa.Table:
        """Return the first row with this id."""
        if not _IDS[kind].fullmatch(id):
            raise UsageError(f"{id!r} is not the id of a {kind}")
        rows = self.table.search().where(f"{kind} = {quoted(id)}").limit(1).select(columns).to_arrow()
        if not len(rows):
            raise UsageError(f"the library {self.name} has no {kind} {id}; it may have changed since")
        return rows.slice(0, 1)

    @follows
    def failures(self, *, paths: Sequence[str] | None = None) -> list[Failure]:
        """Return files that are not, or only partly, in the library, by path; all of them, or those at some paths."""
        return failures.read(self._failures, paths=paths)

    @follows
    def videos(
        self, *, paths: Sequence[str] | None = None, sizes: Collection[int] | None = None
    ) -> dict[str, VideoRecord]:
        """Return the library's videos, by path: all of them, or those at some paths or with some sizes in bytes."""
        columns = {METADATA + name: name for name in self.columns}
        names = ["video", "path", "size", "mtime_ns"]
        names += ["volume"] if "volume" in self.table.schema.names else []  # older libraries lack it
        rows = self._one_row_each([*names, *columns], paths=paths, sizes=sizes)
        return {
            row["path"]: VideoRecord(
                **{name: row[name] for name in names},
                metadata={name: row[column] for column, name in columns.items()},
            )
            for row in rows
        }

    @follows
    def durations(self) -> dict[str, float]:
        """Return the durations of the library's videos in seconds, by path."""
        return {row["path"]: row["duration_seconds"] for row in self._one_row_each(["path", "duration_seconds"])}

    @follows
    def outdated(self, *, paths: Sequence[str] | None = None) -> dict[str, float]:
        """Return the durations in seconds of videos that an earlier version of the decoder read, by path."""
        rows = self._one_row_each(["path", "duration_seconds", "made_with"], paths=paths)
        return {row["path"]: row["duration_seconds"] for row in rows if _is_outdated(row)}

    def _one_row_each(
        self, columns: list[str], *, paths: Sequence[str] | None = None, sizes: Collection[int] | None = None
    ) -> list[dict[str, Any]]:
        """Return these columns of each video, or of those at some paths or with some sizes."""

        def firsts(condition: str) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = self.table.search().where(condition).select(columns).to_arrow().to_pylist()
            return rows

        if paths is None and sizes is None:
            return firsts("place = 0")
        any_of = [*conditions("path", paths or ()), *conditions("size", sizes or ())]
        found = [row for condition in any_of for row in firsts(f"place = 0 AND {condition}")]
        return list({row["path"]: row for row in found}.values())

    @follows
    def words_videos(self, paths: Collection[str]) -> list[WordsVideo]:
        """Return the videos at some paths, sorted by path."""
        rows = sorted(self._one_row_each(["video", "path", "duration_seconds"]), key=lambda row: str(row["path"]))
        wanted = set(paths)
        return [
            WordsVideo(row["video"], location(row["path"]), row["duration_seconds"])
            for row in rows
            if row["path"] in wanted
        ]

    @follows
    def rows_of(self, videos: Iterable[str], *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of these videos, in their order in the video."""
        columns = list(columns or self.table.schema.names)
        query = self.table.search().where(f"video IN ({', '.join(map(quoted, videos))})")
        rows = query.select(list({*columns, "video", "place"})).to_arrow()
        return rows.sort_by([("video", "ascending"), ("place", "ascending")]).select(columns)

    @follows
    def status(self) -> LibraryStatus:
        """Return the size and state of the library, and the progress of a running indexing."""
        kinds = Counter(self._failures.search().select(["kind"]).to_arrow().column(0).to_pylist())
        videos = self._one_row_each(["duration_seconds", "made_with"])
        return LibraryStatus(
            segments=self.table.count_rows(),
            videos=len(videos),
            hours=round(sum(video["duration_seconds"] for video in videos) / 3600, 3),
            outdated=sum(map(_is_outdated, videos)),
            failures=kinds[failures.UNREADABLE] + kinds[failures.PARTIAL],
            unreadable=kinds[failures.UNREADABLE],
            partial=kinds[failures.PARTIAL],
            duplicates=kinds[failures.DUPLICATE],
            columns=self.columns,
            index=read_state(self.path),
        )

    def ids(self) -> list[str]:
        """Return the ids of all videos."""
        return [row["video"] for row in self._one_row_each(["video"])]

    @follows
    def near_copies(self) -> NearCopies:
        """Return the near-duplicates; empty if they were never looked for."""
        with self._changing:
            self._near_copies = self._near_copies or NearCopiesReader(self.path, self.table, self.open_table)
            return self._near_copies.read()

    @follows
    def duplicates(self) -> Duplicates:
        """Return the near-duplicates and the exact copies, without the sizes of pictures."""
        table = self.open_table(near_copies.TABLE)
        rows = self._one_row_each(["path", "video", "size", "duration_seconds", "date"])
        groups = duplicates.grouped(rows, near_copies.read_pairs(table), self.failures())
        return Duplicates(groups=groups, were_compared=table is not None)

    def open_table(self, name: str) -> Table | None:
        """Open one of `KEPT_TABLES`; None if it was never written."""
        if name not in self._database.list_tables().tables:
            return None
        return self._database.open_table(name)

    def kept_table(self, name: str, schema: pa.Schema) -> Table:
        """Open one of `KEPT_TABLES` to write it; create it if it does not exist."""
        check_held(self.path)
        return self._database.create_table(name, schema=schema, exist_ok=True)

    def follow(self, stamp: Stamp | None) -> None:
        """Switch to the new table if the library was re-embedded."""
        if stamp == self._stamp:
            return
        with self._changing:
            if stamp != self._stamp:  # no other thread has switched meanwhile
                self.manifest = manifest.read(self.path)
                self._open_tables()
                self._stamp = stamp

    # -- writing, with the library's lock held (`vop.search.sync.lock`)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Check that the lock is held, and explain the errors of a write."""
        check_held(self.path)
        with _explained(self.path), explain_damage(self.path):
            yield

    def put(self, rows: pa.Table, *, replacing: Iterable[str] = ()) -> None:
        """Add whole videos in one commit.

        Args:
            replacing: paths whose rows are deleted in the same commit, as are rows of the same segments. Needed unless
                both the paths and the videos are new.
        """
        rows, replacing = with_checksums(rows), sorted(replacing)
        with self.writing():
            if not replacing:
                self.table.add(rows)
                return
            merge = self.table.merge_insert("segment").when_matched_update_all().when_not_matched_insert_all()
            old = f"path IN ({', '.join(map(quoted, replacing))})"
            merge.when_not_matched_by_source_delete(old).execute(rows)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove videos by their paths."""
        with self.writing():
            delete_paths(self.table, paths)

    def move_to_removed(self, paths: Iterable[str]) -> None:
        """Remove videos by their paths; `restore` can restore them for `KEPT_DAYS` days."""
        paths = list(paths)
        damage = {failed.path: failed.reason for failed in self.failures() if failed.kind == failures.PARTIAL}
        with self.writing():
            self.removed.keep(paths, damage=damage)
        self.remove(paths)

    def restore(self, paths: Iterable[str]) -> list[str]:
        """Restore the removed videos at these paths, and return their paths.

        A video is not restored if the library has it again, or has another video at its path.
        """
        restorable = set(self.restorable())
        wanted = [path for path in paths if path in restorable]
        for rows, damaged in self.removed.pop(wanted):
            self.put_failures(damaged)
            self.put(check_rows(rows, self.path))
        return wanted

    def add_columns(self, names: Iterable[str]) -> None:
        """Add empty columns: those of the owner's metadata, and those that older libraries lack."""
        wanted = [*ADDED, *(METADATA + name for name in names)]
        new = [field_of(name) for name in wanted if name not in self.table.schema.names]
        if new:
            with self.writing():
                self.table.add_columns(new)

    def put_failures(self, failed: Sequence[Failure], *, remove: Iterable[str] = ()) -> None:
        """List files that failed, replacing their earlier entries, and remove the files in `remove` from the list."""
        with self.writing():
            failures.write(self._failures, failed, remove=remove)

    def rename_model(self, name: str) -> None:
        """Store the new name of the first model after it has moved."""
        first, *others = self.models
        self.change(models=(replace(first, name=name), *others))

    def change(self, **changes: Any) -> None:
        """Change fields of the current `library.json`."""
        before = manifest.read(self.path)
        self.manifest = before.with_(**changes)
        if self.manifest != before:
            check_held(self.path)
            manifest.write(self.manifest, self.path)

    def drop_frames(self) -> None:
        """Delete the kept frames of segments that are neither in the library nor restorable."""
        if not isinstance(self.path, Path):  # it keeps none
            return
        from vop.search.frames import SegmentFrames  # imports PyTorch

        frames = SegmentFrames.of(self.manifest, self.path)
        if frames:
            own = self.table.search().select(["segment"]).to_arrow().column(0).to_pylist()
            frames.keep_only([*own, *self.removed.segments()])

    def drop_words(self) -> None:
        """Delete the lines of videos that are neither in the library nor restorable."""
        present = {row["video"] for row in self._one_row_each(["video"])}
        with self.writing():
            self.words.keep_only(present | set(self.removed.videos().values()))

    def keep_up(self) -> None:
        """Merge small files, drop old versions, and build or complete the indexes where needed."""
        from lancedb.index import BTree

        with self.writing():
            if self.table.count_rows() > vector_index.EXACT_ROWS:
                indexed = {name for index in self.table.list_indices() for name in index.columns}
                for column in sorted({*_IDS, *_FILTERED} - indexed):
                    self.table.create_index(column, config=BTree())
            own = [model.column for model in self.models]
            vector_index.keep_up(self.table, own, keep_uncommitted=self._has_workers())
            vector_index.tidy_up(self._failures)
            self.words.tidy_up()

    def _has_workers(self) -> bool:
        """Whether workers may have written files into the table that are not published yet.

        In a folder they write them elsewhere; see `vop.search.sharding.fragments`.
        """
        if isinstance(self.path, Path):
            return False
        plans = (small_files.child(self.path, name) for name in (manifest.SHARDS, manifest.REEMBEDDING))
        return any(isinstance(place, Address) and any(True for _ in list_objects(place)) for place in plans)

    def staging(self, wanted: Manifest) -> Store:
        """Return a library in the same folder with another manifest, which readers see only after `publish`."""
        with self.writing():
            if wanted.table not in self._database.list_tables().tables:
                self._database.create_table(wanted.table, schema=schema(wanted.models, self.columns))
            staged = Store(self.path, wanted)
            staged.add_columns(self.columns)
        return staged

    def publish(self) -> None:
        """Make the staged table the library's table, and drop all others."""
        check_held(self.path)
        manifest.write(self.manifest, self.path)
        for name in self._database.list_tables().tables:
            if name not in (self.manifest.table, *KEPT_TABLES):
                self._database.drop_table(name)


def database_of(library: Location) -> tuple[str | Path, dict[str, str]]:
    """Return where the database of a library is, and the options for its storage."""
    if isinstance(library, Path):
        return library / DATABASE, {}
    return str(small_files.child(library, DATABASE)), storage_options(library)


def storage_options(place: Location) -> dict[str, str]:
    """Return Lance's options for a folder or an address. They have no secrets: Lance finds the credentials itself."""
    is_plain = isinstance(place, Address) and place.scheme == "s3" and endpoint().startswith("http://")
    return {"allow_http": "true"} if is_plain else {}


def connect(library: Location, *, read_consistency_interval: timedelta | None = None) -> DBConnection:
    """Connect to the database of a library."""
    import lancedb

    uri, options = database_of(library)
    return lancedb.connect(uri, read_consistency_interval=read_consistency_interval, storage_options=options or None)


@contextmanager
def _explained(library: Location) -> Iterator[None]:
    """Explain a full disk, or an error of object storage."""
    with explain_full_disk(library) if isinstance(library, Path) else explain_damage(library):
        yield


def _is_outdated(row: Mapping[str, Any]) -> bool:
    return decoder_version(row["made_with"]) < DECODER_VERSION
