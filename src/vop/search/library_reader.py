"""Read a library: search it, browse it, describe videos and export what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from vop.errors import UsageError
from vop.search import confidence, queries
from vop.search.arguments import FilterValues, PathLike, Place, Query, clipped, filters_of
from vop.search.browsing import BrowsedVideos, Folder, check_order, in_order
from vop.search.duplicates import Duplicates, with_sizes
from vop.search.filters import DATE_ORDERS, DateOrder, Filters, Order
from vop.search.manifest import LibraryModel, Manifest
from vop.search.near_copies import search_collapsed
from vop.search.opened_models import OpenedModels
from vop.search.owners import Mark, read_marks
from vop.search.queries import Caption, Example
from vop.search.query_reader import QueryReader
from vop.search.results import IndexedVideo, LibraryStatus, Moment, Segment, check_k
from vop.search.store import Store
from vop.search.video_moments import VideoMoments, check_per_video
from vop.search.words.searching import WordsMode, check_mode
from vop.storage.address import Address, absolute, location
from vop.utils.progress import Progress, silent

if TYPE_CHECKING:
    from vop.export.moments import ExportReport
    from vop.models.model import TextVideoModel
    from vop.search.failures import Failure
    from vop.search.words.lines import Line

_log = logging.getLogger(__name__)


class LibraryReader:
    """What `Library` does without changing a library.

    Attributes:
        path: the library's folder, or its address.
    """

    def __init__(
        self, store: Store, *, model: str | Mapping[int, str] | None = None, precision: str | None = None
    ) -> None:
        """Use `Library.open` or `Library.create`."""
        self.path = store.path
        self._store = store
        self._models = OpenedModels(store, model=model, precision=precision)

    @classmethod
    def open(
        cls,
        path: Place,
        *,
        model: str | Mapping[int, str] | None = None,
        precision: str | None = None,
        memory_bytes: int = 0,
    ) -> Self:
        """Open a library. Its models are loaded when a search first needs them.

        Args:
            model: new name or folder of the library's model, if it has moved; for several models, a mapping from their
                numbers.
            precision: bf16, fp32 or auto, for queries; by default the precision of the videos' embeddings.
            memory_bytes: memory to keep a library of more than 50,000 segments in, for each of its models. A thread
                loads it, and searches read the disk until then. See `docs/performance.md`.

        Raises:
            UsageError: the library does not exist.
            VopError: the library is damaged, or from a later version of vop.
        """
        store = Store.open(location(path))
        if memory_bytes:
            store.keep_in_memory(memory_bytes)
        return cls(store, model=model, precision=precision)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    # -- Contents

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self._store.name

    @property
    def manifest(self) -> Manifest:
        """Its settings: models, segmentation, excluded files."""
        return self._store.refresh()

    @property
    def models(self) -> tuple[LibraryModel, ...]:
        """The models that embed its videos."""
        return self.manifest.models

    @property
    def columns(self) -> list[str]:
        """The columns of the owner's metadata, which `where` can filter by."""
        return self._store.columns

    def status(self) -> LibraryStatus:
        """Return its size and state, and the progress of a running indexing."""
        return self._store.status()

    def failures(self) -> list[Failure]:
        """Return the files that are not, or only partly, in the library, by path."""
        return self._store.failures()

    def duplicates(self) -> Duplicates:
        """Return the videos that are versions of each other, and exact copies. Reads the headers of their files."""
        found = self._store.duplicates()
        return replace(found, groups=with_sizes(found.groups))

    def restorable(self) -> list[str]:
        """Return the paths of the videos that can be restored."""
        return self._store.restorable()

    def segment(self, segment: str) -> Segment:
        """Return a segment by its id, with its thumbnail strip and embeddings; raise a UsageError if there is none."""
        return self._store.segment(segment)

    def video(self, video: str) -> IndexedVideo:
        """Return a video by its id; raise a UsageError if there is none."""
        return self._store.video(video)

    def model(self, number: int = 0) -> TextVideoModel:
        """Return one of the library's models. It is loaded at the first call.

        Raises:
            UsageError: the library has no model with this number, or the model does not exist any more.
            VopError: the model has changed, so that it is not the library's.
        """
        return self._models.open(self._models.described(number))

    # -- Searching

    def search(
        self,
        query: Query,
        *,
        k: int = 10,
        model: int = 0,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        folder: PathLike | None = None,
        name: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        after: str | None = None,
        before: str | None = None,
        where: str | Sequence[str] = (),
        words: WordsMode = True,
        near: str | None = None,
        tag: str | Sequence[str] = (),
        favourites: bool = False,
        min_confidence: float | None = None,
        refine: bool = True,
        per_video: int = 1,
        copies: bool = False,
        order: Order = "match",
        warn: Callable[[str], None] = _log.warning,
    ) -> list[Moment]:
        """Return the k moments that match a query best, best first; by default one of each video.

        Args:
            query: a sentence; several sentences, each a text, a pair of a text and its weight, or a `Sentence`; a
                `Path` to a video or picture; a `Moment`, for similar ones of other videos; or an embedding (e,). Of a
                list that has sentences and a `Path` or `Moment`, these count half (`queries.EXAMPLE_WEIGHT`) unless
                they have a weight: `[("at night", 1.0), (moment, 0.3)]`.
            model: the number of the library's model that embeds the query, from 0.
            start_seconds, end_seconds: the clip to search for, if `query` is the `Path` of a video.
            folder: only videos below it: an absolute path, a folder's name anywhere in the file's path
                (`2024/summer`), or a `Path`, which may be relative to the working directory.
            name: only videos whose file name contains it, or matches it with `*` and `?`; case does not matter.
            min_seconds, max_seconds: only videos of this duration.
            after, before: only videos recorded on or after the first date, before the second; ISO 8601, or a month or
                year, in local time unless a time zone is given.
            where: only videos whose metadata satisfies these conditions: `author=bob`, `stars>=4`, `title~dog`.
            words: whether sentences search what is spoken and written, too; "only" searches nothing else. Quoted words
                ('a man says "good morning"') must be spoken or written. Without words in the library, it searches
                by pictures.
            near: only videos that were recorded near a place: "latitude,longitude,km".
            tag: only videos and moments that have all of these tags.
            favourites: only videos and moments that are favourites.
            min_confidence: only moments of at least this confidence, from 0 to 1; those whose confidence is unknown
                stay. See `Moment.confidence`.
            refine: whether to refine the ends of the moments by the frames, if the library keeps their embeddings.
                Otherwise a moment is made of whole segments.
            per_video: the number of moments that one video may have among the results. With 1, a moment is the video's
                best segment. With more, neighbouring segments that match are one moment (`vop.search.video_moments`).
            copies: whether to return near-duplicates, too. Otherwise the best one stands for all (`Moment.copies`).
            order: "match"; or "newest" or "oldest", to sort the k best matches by the date of their recording. Weaker
                matches still come after the others.
            warn: called with each warning, such as that a sentence is longer than the model reads, or in a language
                that it does not know.

        Raises:
            UsageError: an argument is not allowed, or a column is unknown.
            VideoError: the file cannot be read.
            VopError: a model is not the library's, or the library is damaged.
        """
        check_k(k)
        check_mode(words)
        check_order(order)
        check_per_video(per_video)
        confidence.check_min_confidence(min_confidence)
        reader = self._reader(model, warn)
        filters = self._filters(
            folder=folder,
            name=name,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            after=after,
            before=before,
            where=where,
            near=near,
            tag=tag,
            favourites=favourites,
        )
        if isinstance(query, Path | Example):
            query = clipped(query, start_seconds, end_seconds)
        elif (start_seconds, end_seconds) != (None, None):
            raise UsageError("start_seconds and end_seconds name a clip of a video: give a Path with them")
        vector, seen, search = reader.search_of(query, words)

        def find(limit: int) -> list[Moment]:
            return search(k=limit, filters=filters, model=reader.made_by, refine=refine, per_video=per_video)

        moments = find(k) if copies else search_collapsed(find, k, self._store.near_copies())
        if vector is not None and queries.can_be_judged(seen):
            moments = self._store.judged(moments, vector, model=reader.made_by)
        if note := confidence.unknown_note(moments, min_confidence):
            warn(note)
        return in_order(confidence.at_least(moments, min_confidence), order)

    def moments(
        self,
        query: Query,
        *,
        video: str | Path | Address | Moment,
        model: int = 0,
        words: WordsMode = True,
        refine: bool = True,
        warn: Callable[[str], None] = _log.warning,
    ) -> VideoMoments:
        """Return all moments of one video that match a query, and the scores of its segments.

        Args:
            query: as for `search`.
            video: its id; its `Path` or `Address`; or one of its moments.
            words: as for `search`. The lines of the video that match are moments, too. Of a search for words only, the
                score of a segment is the share of the query's words in its best line.
            model, refine, warn: as for `search`.

        Raises:
            UsageError: an argument is not allowed, or the library does not have the video.
            VideoError, VopError: as for `search`.
        """
        check_mode(words)
        reader, id = self._reader(model, warn), self._video_id(video)
        vector, seen, asked = reader.read(query, words)
        judge = queries.can_be_judged(seen)
        return self._store.moments(vector, id, model=reader.made_by, refine=refine, judge=judge, words=asked)

    def _reader(self, model: int, warn: Callable[[str], None]) -> QueryReader:
        return QueryReader(self._store, self._models, self._models.described(model), model, warn)

    def _video_id(self, video: str | Path | Address | Moment) -> str:
        if isinstance(video, str):
            return video
        if isinstance(video, Moment):
            return video.video
        path = str(absolute(video))
        found = self._store.videos(paths=[path])
        if path not in found:
            raise UsageError(f"{self.path} has no video {path}: index it first")
        return found[path].video

    def lines(self, video: str) -> list[Line]:
        """Return what is spoken and written in a video, by its id, in the order of the times.

        Raises:
            UsageError: there is no such video.
        """
        return self._store.lines(video)

    def _filters(self, **given: Unpack[FilterValues]) -> Filters | None:
        """Return checked filters; None if every video may be found."""
        filters = filters_of(**given)
        if filters is not None:
            filters.check(self.columns)  # fails early, before a model is loaded
        return filters

    # -- Browsing

    def browse(
        self,
        *,
        order: DateOrder = "newest",
        k: int = 100,
        start: str | None = None,
        skip: int = 0,
        **filters: Unpack[FilterValues],
    ) -> BrowsedVideos:
        """Return videos by the date of their recording, without a query.

        Args:
            order: "newest" or "oldest" first.
            k: the number of videos.
            start: `next` of the part before. It stays right if videos are added or removed meanwhile.
            skip: the number of videos to leave out first.
            filters: as for `search`.

        Raises:
            UsageError: an argument is not allowed, or a column is unknown.
        """
        check_k(k)
        check_order(order, DATE_ORDERS)
        if skip < 0:
            raise UsageError(f"skip is {skip}; it must be 0 or more")
        return self._store.browse(filters=self._filters(**filters), order=order, k=k, start=start, skip=skip)

    def browse_folders(self, parent: str | None = None) -> list[Folder]:
        """Return the folders with videos in a folder, by name.

        Args:
            parent: the path of a folder; None for the lowest folders that have all videos below them.

        Raises:
            UsageError: the library has no videos below the folder.
        """
        return self._store.browse_folders(parent)

    # -- Tags and favourites

    def tags(self) -> dict[str, int]:
        """Return all tags by name, each with the number of videos and moments that have it."""
        return self._store.marks.tags()

    def marks(self) -> list[Mark]:
        """Return the tags and favourites of all videos and moments, also of those that were removed."""
        return list(read_marks(self.path).all)

    # -- Captions and export

    def captions(
        self,
        file: PathLike | Example,
        captions: PathLike | Sequence[str],
        *,
        k: int = 10,
        model: int = 0,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> list[Caption]:
        """Return the captions that match a video or picture best, best first.

        Args:
            file: the video or picture.
            captions: texts, or the path of a text file with one on each line.
            start_seconds, end_seconds: the clip of a video.

        Raises:
            UsageError: an argument is not allowed.
            VideoError: the file cannot be read.
            DataError: the captions cannot be read, or the file is empty.
        """
        queries.check_captions(k)
        listed = queries.parse_captions(captions)
        example = clipped(file if isinstance(file, Example) else Path(file), start_seconds, end_seconds)
        opened = self.model(model)
        return queries.best_captions(opened, queries.embed_example(opened, example), listed, k)

    def export(
        self,
        moments: Sequence[Moment],
        path: PathLike,
        *,
        format: str | None = None,
        exact: bool = False,
        subtitles: bool = False,
        overwrite: bool = False,
        name: str | None = None,
        first_number: int = 1,
        progress: Progress = silent,
    ) -> ExportReport:
        """Write moments as clips, subtitles, a table or a list for video editors.

        Moments whose file is missing, or has changed since it was indexed, are left out and listed in the report; a
        table has them all.

        Args:
            path: a folder for clips and subtitles, or a file: `.csv`, `.json`, `.edl`, `.fcpxml` or `.otio` for all,
                `.srt` or `.vtt` for one.
            format: clips, csv, json, edl, fcpxml, otio, srt or vtt; by default that of the suffix, and clips without
                one.
            exact: whether to cut clips at their exact times, and encode them again. By default they are copied, and
                begin at a key frame, up to some seconds earlier.
            subtitles: whether to write the subtitles of each clip beside it, as `.srt`.
            overwrite: whether to replace existing files.
            name: the title of a list; by default the name of its file.
            first_number: the number in the name of the first clip, or of its subtitles.
            progress: called after each clip.

        Raises:
            UsageError: there are no moments, a file exists already, or the format does not fit.
            VopError: a file cannot be written. Earlier files stay.
        """
        from vop.export import export_moments
        from vop.search.exporting import Originals, of_one_source

        with Originals(self.video) as originals:
            return export_moments(
                moments,
                Path(path),
                original=originals.of,
                format=format,
                exact=exact,
                subtitles=subtitles,
                overwrite=overwrite,
                lines=lambda moment: of_one_source(self._store.lines(moment.video)),
                name=name,
                first_number=first_number,
                progress=progress,
            )
