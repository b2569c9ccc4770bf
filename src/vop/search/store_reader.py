"""Read a library: search it, browse it, and look up its segments, videos and failures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from vop.errors import UsageError, VopError
from vop.search import confidence, duplicates, failures, manifest, near_copies, owned
from vop.search.browsing import BrowsedVideos, Catalogue, Folder
from vop.search.database import connect, open_if_exists
from vop.search.duplicates import Duplicates
from vop.search.failures import Failure
from vop.search.filters import DateOrder, Filters
from vop.search.finding import Finder
from vop.search.following import again_if_moved, follows, stamp_of
from vop.search.manifest import DATABASE, LibraryModel, Manifest
from vop.search.near_copies import NearCopies, NearCopiesReader
from vop.search.nearest import Nearest
from vop.search.owned import OwnMarks
from vop.search.owners import Marks, Target
from vop.search.removed import Removed
from vop.search.results import IndexedVideo, LibraryStatus, Moment, Segment, VideoRecord
from vop.search.rows import Rows, is_outdated
from vop.search.schema import explain_damage, metadata_columns
from vop.search.state import read_state
from vop.search.video_moments import VideoMoments
from vop.search.words.lines import Line
from vop.search.words.query import WordsQuery
from vop.search.words.table import Words, WordsVideo
from vop.storage import small_files
from vop.storage.address import Address, Location, absolute
from vop.storage.small_files import Stamp

if TYPE_CHECKING:
    from lancedb.table import Table

    from vop.search.owner_files import MarksImport


class StoreReader:
    """An open library, to read it. Several threads can read and search, also while another process writes.

    Attributes:
        path: the library's folder, or its address in object storage.
        manifest: the content of `library.json`.
    """

    def __init__(self, path: Location, manifest: Manifest, stamp: Stamp | None = None, *, cache: bool = True) -> None:
        """Open the tables; `stamp` is the stamp of `library.json` before `manifest` was read."""
        self.path, self.manifest = path, manifest
        # Check for a new version at every read, which takes 0.3 ms.
        self._database = connect(path, read_consistency_interval=timedelta(0), cache=cache)
        self._changing = threading.Lock()
        self.reading = threading.local()
        self._nearest = Nearest(path, open_table=self._database.open_table)
        self._calibrations = confidence.Calibrations(path)
        self._open_tables()
        self._stamp = stamp or stamp_of(path)

    def _open_tables(self) -> None:
        with explain_damage(self.path):
            self.table: Table = self._database.open_table(self.manifest.table)
            self._failures: Table = self._database.open_table(failures.TABLE)
        self._nearest.use(self.table)
        self._near_copies = NearCopiesReader(self.path, self.table, self.open_table)
        self.words = Words(self._database, library=self.path)
        self._browsed: Catalogue | None = None
        self._marks = OwnMarks(self.path)

    @classmethod
    def open(cls, path: str | Path | Address, *, cache: bool = True) -> Self:
        """Open a library.

        Args:
            cache: whether to keep what is read from object storage; see `vop.search.cached`.

        Raises:
            UsageError: the library does not exist.
            VopError: the library is damaged, or from a later version of vop.
        """
        found = absolute(path)
        return again_if_moved(found, lambda stamp: cls(found, manifest.read(found), stamp, cache=cache))

    def follow(self, stamp: Stamp | None) -> None:
        """Switch to the new table if the library was re-embedded."""
        if stamp == self._stamp:
            return
        with self._changing:
            if stamp != self._stamp:  # no other thread has switched meanwhile
                self.manifest = manifest.read(self.path)
                self._open_tables()
                self._stamp = stamp

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

    @follows
    def refresh(self) -> Manifest:
        """Read the manifest from the disk again."""
        return self.manifest

    @property
    @follows
    def columns(self) -> list[str]:
        """The columns of the owner's metadata."""
        return metadata_columns(self.table.schema)

    # -- moments

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
        return self._finder().search(
            vector,
            k=k,
            where=self.condition(filters),
            model=self._own(model),
            leave_out=leave_out,
            refine=refine,
            per_video=per_video,
        )

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
        return self._finder().search_words(
            vector,
            words,
            k=k,
            where=self.condition(filters),
            model=self._own(model),
            refine=refine,
            per_video=per_video,
            only=only,
        )

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
        found = self._finder().in_video(video, vector, model=own, refine=refine, words=words)
        if vector is None or not judge:
            return found
        return replace(found, moments=self.judged(found.moments, vector, model=own))

    def judged(self, moments: Sequence[Moment], vector: np.ndarray, *, model: int | LibraryModel = 0) -> list[Moment]:
        """Return the moments that a query in sentences has found, with their confidence.

        Args:
            vector: the query (e,).
            model: as for `search`.
        """
        own = model if isinstance(model, LibraryModel) else self.models[model]
        return confidence.judged(moments, vector, self._calibrations.of(own.fingerprint))

    @follows
    def keep_in_memory(self, max_bytes: int) -> None:
        """Search a large library in memory, with up to `max_bytes` for each of its models.

        A thread loads the library, and loads it again some time after it has changed. Until then, and if the memory
        does not suffice, searches read the database.
        """
        self._nearest.keep_in_memory(max_bytes, [model.column for model in self.models])

    def _finder(self) -> Finder:
        return Finder(self.table, self._rows, self.words, self._nearest, self.marked)

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

    def _own(self, model: int | LibraryModel) -> LibraryModel:
        """Return the library's own description of a model."""
        if isinstance(model, int):
            return self.models[model]
        for own in self.models:
            if own.fingerprint == model.fingerprint:
                return own
        raise VopError(f"{self.path} has moved to other models since it was opened; open it again")

    # -- browsing, and the owner's tags and favourites

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

    @property
    @follows
    def marks(self) -> Marks:
        """The tags and favourites of the owner; none, with a warning, if they cannot be read."""
        return self._marks.read()

    def change_marks(self, change: Callable[[Marks], Marks]) -> Marks:
        """Change the tags and favourites of the owner, and return all. It needs no lock; see `vop.search.owners`."""
        return self._marks.change(change)

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
        from vop.search.owner_files import import_file  # imports PyAV

        return import_file(file, self.videos().values(), self.change_marks)

    @follows
    def follow_files(self) -> None:
        """Move tags and favourites with files that were moved or changed."""
        owned.follow(self.path, self.table)

    def marked(self, moments: Sequence[Moment]) -> list[Moment]:
        """Return the moments with the owner's tags and favourites."""
        return owned.marked(moments, self.marks)

    # -- segments and videos

    @property
    def _rows(self) -> Rows:
        return Rows(self.table, library=self.name)

    @follows
    def segment(self, segment: str) -> Segment:
        """Return a segment by its id.

        Raises:
            UsageError: the segment does not exist.
        """
        return self._rows.segment(segment, self.models)

    @follows
    def video(self, video: str) -> IndexedVideo:
        """Return a video by its id.

        Raises:
            UsageError: the video does not exist.
        """
        return self._rows.video(video)

    @follows
    def whole_segments(self, segments: Sequence[str]) -> list[Moment]:
        """Return whole segments as moments, in this order, with a score of 0.

        Raises:
            UsageError: a segment does not exist.
        """
        return self.marked(self._rows.whole_segments(segments))

    @follows
    def videos(
        self, *, paths: Sequence[str] | None = None, sizes: Collection[int] | None = None
    ) -> dict[str, VideoRecord]:
        """Return the library's videos, by path: all of them, or those at some paths or with some sizes in bytes."""
        return self._rows.videos(paths=paths, sizes=sizes)

    def ids(self) -> list[str]:
        """Return the ids of all videos."""
        return self._rows.ids()

    @follows
    def durations(self) -> dict[str, float]:
        """Return the durations of the library's videos in seconds, by path."""
        return self._rows.durations()

    @follows
    def outdated(self, *, paths: Sequence[str] | None = None) -> dict[str, float]:
        """Return the durations in seconds of videos that an earlier version of the decoder read, by path."""
        return self._rows.outdated(paths=paths)

    @follows
    def words_videos(self, paths: Collection[str]) -> list[WordsVideo]:
        """Return the videos at some paths, sorted by path."""
        return self._rows.words_videos(paths)

    @follows
    def rows_of(self, videos: Iterable[str], *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of these videos, in their order in the video."""
        return self._rows.of_videos(videos, columns=columns)

    # -- the library as a whole, and its other tables

    @follows
    def status(self) -> LibraryStatus:
        """Return the size and state of the library, and the progress of a running indexing."""
        kinds = Counter(self._failures.search().select(["kind"]).to_arrow().column(0).to_pylist())
        videos = self._rows.one_of_each(["duration_seconds", "made_with"])
        return LibraryStatus(
            segments=self.table.count_rows(),
            videos=len(videos),
            hours=round(sum(video["duration_seconds"] for video in videos) / 3600, 3),
            outdated=sum(map(is_outdated, videos)),
            failures=kinds[failures.UNREADABLE] + kinds[failures.PARTIAL],
            unreadable=kinds[failures.UNREADABLE],
            partial=kinds[failures.PARTIAL],
            duplicates=kinds[failures.DUPLICATE],
            columns=self.columns,
            index=read_state(self.path),
        )

    @follows
    def failures(self, *, paths: Sequence[str] | None = None) -> list[Failure]:
        """Return files that are not, or only partly, in the library, by path; all of them, or those at some paths."""
        return failures.read(self._failures, paths=paths)

    @follows
    def lines(self, video: str) -> list[Line]:
        """Return the lines of a video, in the order of their times; raise a UsageError if there is no such video."""
        self._rows.row("video", video, ["path"])
        return self.words.lines(video)

    @follows
    def has_words(self) -> bool:
        """Whether lines were read of any video."""
        return self.words.exists

    @follows
    def near_copies(self) -> NearCopies:
        """Return the near-duplicates; empty if they were never looked for."""
        with self._changing:
            return self._near_copies.read()

    @follows
    def duplicates(self) -> Duplicates:
        """Return the near-duplicates and the exact copies, without the sizes of pictures."""
        table = self.open_table(near_copies.TABLE)
        rows = self._rows.one_of_each(["path", "video", "size", "duration_seconds", "date"])
        groups = duplicates.grouped(rows, near_copies.read_pairs(table), self.failures())
        return Duplicates(groups=groups, were_compared=table is not None)

    @property
    def removed(self) -> Removed:
        """The removed videos that can be restored."""
        return Removed(self._database, self.table, library=self.path)

    def restorable(self) -> list[str]:
        """Return the paths of the removed videos that can be restored, without those that the library has again."""
        present = self.videos()
        ids = {record.video for record in present.values()}
        return [path for path, video in self.removed.videos().items() if path not in present and video not in ids]

    def open_table(self, name: str) -> Table | None:
        """Open one of `KEPT_TABLES`; None if it was never written."""
        return open_if_exists(self._database, self.path, name)
