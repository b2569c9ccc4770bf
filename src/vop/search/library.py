"""`Library`, the public interface for indexing and searching videos."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack, cast

import numpy as np

from vop.backbones import DEFAULT_HUB_ID
from vop.backbones.embedding_config import EmbeddingConfig, TokenMerging
from vop.errors import UsageError
from vop.search import confidence, queries
from vop.search.browsing import BrowsedVideos, Folder, check_order, in_order
from vop.search.duplicates import Duplicates, with_sizes
from vop.search.filters import DATE_ORDERS, DateOrder, Filters, Order
from vop.search.manifest import LibraryModel, Manifest, SegmentationConfig, exists
from vop.search.models import KeptModels, new_manifest, open_model, open_models
from vop.search.near_copies import search_collapsed
from vop.search.owners import Mark, read_marks
from vop.search.queries import Caption, Example, Sentence, Vector
from vop.search.results import IndexedVideo, LibraryStatus, Moment, Segment, check_k
from vop.search.store import Store
from vop.search.sync.lock import check_folder, library_lock
from vop.search.video_moments import VideoMoments, check_per_video
from vop.search.words.query import WordsQuery
from vop.search.words.searching import WordsMode, check_mode
from vop.storage.address import Address, Location, absolute, location
from vop.utils.names import existing_path
from vop.utils.progress import Progress, silent
from vop.utils.text import count
from vop.video.clip import Clip

if TYPE_CHECKING:
    from torch import Tensor

    from vop.export.moments import ExportReport
    from vop.models.model import TextVideoModel
    from vop.search.failures import Failure
    from vop.search.folders import LibraryFolder
    from vop.search.owner_files import MarksImport
    from vop.search.sharding.commands import PublishReport
    from vop.search.sync.integrity import CheckReport
    from vop.search.sync.reembedding import ReembedReport
    from vop.search.sync.report import IndexPreview, IndexReport
    from vop.search.watching import WatchTimes
    from vop.search.words.lines import Line

PathLike: TypeAlias = "str | os.PathLike[str]"
Place: TypeAlias = "PathLike | Address"
Sentences: TypeAlias = "str | Sentence | Sequence[str | tuple[str, float] | Sentence]"
QueryPart: TypeAlias = "str | Sentence | Path | Example | Moment"
Query: TypeAlias = (
    "Sentences | Path | Example | Moment | Sequence[QueryPart | tuple[QueryPart, float]] | np.ndarray | Tensor"
)

_log = logging.getLogger(__name__)


class FilterValues(TypedDict, total=False):
    """The filters of `Library.search` and `Library.browse`."""

    folder: PathLike | None
    name: str | None
    min_seconds: float | None
    max_seconds: float | None
    after: str | None
    before: str | None
    where: str | Sequence[str]
    near: str | None
    tag: str | Sequence[str]
    favourites: bool


def _silently() -> None:
    pass


class Library:
    """A searchable folder of video segments.

    Several threads and processes can read a library while one of them writes to it; a method sees everything that was
    committed before the call. A method that writes waits while another process writes, and calls `waiting` first.

    Attributes:
        path: the library's folder, or its address.
    """

    def __init__(
        self, store: Store, *, model: str | Mapping[int, str] | None = None, precision: str | None = None
    ) -> None:
        """Use `Library.open` or `Library.create`."""
        self.path = store.path
        self._store, self._precision = store, precision
        given = {0: model} if isinstance(model, str) else dict(model or {})
        self._sources = {self._model(number).fingerprint: name for number, name in given.items()}
        self._opened: dict[str, TextVideoModel] = {}  # by fingerprint
        self._opening = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Place,
        *,
        model: str | Mapping[int, str] | None = None,
        precision: str | None = None,
        memory_bytes: int = 0,
    ) -> Library:
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

    @classmethod
    def create(
        cls,
        path: Place,
        *,
        model: str = DEFAULT_HUB_ID,
        segmentation: SegmentationConfig | None = None,
        num_frames: int | None = None,
        keep_frames: bool = False,
        refine: bool = False,
        merge_tokens: float | TokenMerging = 0.0,
        dimensions: int | None = None,
        precision: str = "auto",
    ) -> Library:
        """Create an empty library.

        Args:
            model: a run, a CLIP folder, a hub id, or mini.
            segmentation: how videos are cut into segments; by default windows of 10 seconds.
            num_frames: frames of a segment; by default the model's own number.
            keep_frames: whether to keep decoded frames, so that `reembed` need not decode again.
            refine: whether to keep the embeddings of frames, so that a search can refine the ends of moments. Models
                that do not average frames find whole segments nevertheless.
            merge_tokens, dimensions: as for `vop.load`. The library keeps them, and embeds queries alike.
            precision: bf16, fp32 or auto, of the embeddings.

        Raises:
            UsageError: the folder is a library or has other files in it, or the model does not exist or cannot embed
                like this.
        """
        folder = absolute(path)
        check_folder(folder)
        _check_new(folder)
        embedding = EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions)
        opened = open_model(str(model), num_frames=num_frames, precision=precision, embedding=embedding)
        manifest = new_manifest(
            opened, name=str(model), segmentation=segmentation, keep_frames=keep_frames, refine=refine
        )
        with library_lock(folder):
            _check_new(folder)  # another process may have been faster
            library = cls(Store.create(folder, manifest))
        library._opened[manifest.models[0].fingerprint] = opened
        return library

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r})"

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
        return self._open(self._model(number))

    def _model(self, number: int) -> LibraryModel:
        models = self.models
        if not 0 <= number < len(models):
            raise UsageError(f"model is {number}; {self.path} has {count('model', len(models))}, numbered from 0")
        return models[number]

    def _open(self, wanted: LibraryModel) -> TextVideoModel:
        with self._opening:
            if wanted.fingerprint not in self._opened:
                (self._opened[wanted.fingerprint],) = open_models(
                    self._store.manifest.with_(models=(wanted,)),
                    folder=self.path,
                    name=self._sources.get(wanted.fingerprint),
                    precision=self._precision,
                    beside=self._opened.values(),
                )
            return self._opened[wanted.fingerprint]

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
        made_by = self._model(model)
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
            query = _clipped(query, start_seconds, end_seconds)
        elif (start_seconds, end_seconds) != (None, None):
            raise UsageError("start_seconds and end_seconds name a clip of a video: give a Path with them")
        vector, seen, search = self._search_of(query, words, made_by, number=model, warn=warn)

        def find(limit: int) -> list[Moment]:
            return search(k=limit, filters=filters, model=made_by, refine=refine, per_video=per_video)

        moments = find(k) if copies else search_collapsed(find, k, self._store.near_copies())
        if vector is not None and queries.can_be_judged(seen):
            moments = self._store.judged(moments, vector, model=made_by)
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
        made_by, id = self._model(model), self._video_id(video)
        asked = self._asked(query, words)
        seen: Query = query if asked is None else asked.seen
        by_pictures = asked is None or (bool(asked.seen) and words != "only")
        vector = self._vector(seen, made_by, number=model, warn=warn) if by_pictures else None
        judge = queries.can_be_judged(seen)
        return self._store.moments(vector, id, model=made_by, refine=refine, judge=judge, words=asked)

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

    def _search_of(
        self, query: Query, words: WordsMode, made_by: LibraryModel, *, number: int, warn: Callable[[str], None]
    ) -> tuple[Vector | None, Query, Callable[..., list[Moment]]]:
        """Return the vector of a query, None if pictures do not count; the part that it stands for; and the search."""
        asked = self._asked(query, words)
        vector: Vector | None
        if asked is None:
            vector = self._vector(query, made_by, number=number, warn=warn)
            leave_out = [moment.video for moment in _moments_of(query)]
            return vector, query, partial(self._store.search, vector, leave_out=leave_out)
        by_pictures = asked.seen and words != "only"
        vector = self._vector(asked.seen, made_by, number=number, warn=warn) if by_pictures else None
        return vector, asked.seen, partial(self._store.search_words, vector, asked, only=words == "only")

    def _asked(self, query: Query, words: WordsMode) -> WordsQuery | None:
        """Return what a query asks of words; None if it asks only for pictures."""
        is_sentences = isinstance(query, str | Sentence) or (
            isinstance(query, Sequence) and not queries.has_examples(query)
        )
        if not is_sentences:
            if words == "only":
                raise UsageError("words is 'only', which needs a query of sentences; leave it out to search by a file")
            return None
        if not words or not (words == "only" or self._store.has_words()):
            return None
        return WordsQuery.of(queries.parse_sentences(cast("Sentences", query)))

    def lines(self, video: str) -> list[Line]:
        """Return what is spoken and written in a video, by its id, in the order of the times.

        Raises:
            UsageError: there is no such video.
        """
        return self._store.lines(video)

    def _filters(self, **given: Unpack[FilterValues]) -> Filters | None:
        """Return checked filters; None if every video may be found."""
        values: dict[str, Any] = {**given, "folder": _folder(given.get("folder"))}
        for name in ("where", "tag"):
            several = values.get(name, ())
            values[name] = (several,) if isinstance(several, str) else tuple(several)
        filters = Filters(**values)
        if filters == Filters():
            return None
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

    def tag(
        self,
        named: str | Path | Address | Moment,
        *,
        add: str | Sequence[str] = (),
        remove: str | Sequence[str] = (),
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> tuple[str, ...]:
        """Add tags to a video or moment and remove others, and return those that it has then.

        Tags belong to the content of a file: they stay when it is moved, renamed or indexed with another model.

        Args:
            named: the id of a video or segment, the `Path` or `Address` of a video, or a `Moment`.
            start_seconds, end_seconds: the times of a moment in the video.

        Raises:
            UsageError: the library does not have the video, or a tag is empty, too long or has a semicolon.
            VopError: tags cannot be saved.
        """
        target = self._store.target(named, start_seconds=start_seconds, end_seconds=end_seconds)
        added, removed = ((tags,) if isinstance(tags, str) else tuple(tags) for tags in (add, remove))
        marks = self._store.change_marks(lambda marks: marks.changed(target, add=added, remove=removed))
        return marks.of_target(target)[0]

    def favourite(
        self,
        named: str | Path | Address | Moment,
        is_favourite: bool = True,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> bool:
        """Make a video or moment a favourite, or not a favourite any more, and return whether it is one then.

        A moment of a video that is a favourite as a whole stays one. See `tag` for the arguments.
        """
        target = self._store.target(named, start_seconds=start_seconds, end_seconds=end_seconds)
        marks = self._store.change_marks(lambda marks: marks.changed(target, is_favourite=is_favourite))
        return marks.of_target(target)[1]

    def mark(
        self,
        paths: Place | Iterable[Place],
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        is_favourite: bool | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> int:
        """Change tags and favourites of all videos at or below some paths at once, and return their number.

        Args:
            add, remove: tags.
            is_favourite: None does not change it.
            start_seconds, end_seconds: the times of a moment; `paths` is then one video.

        Raises:
            UsageError: the library has no video at or below one of the paths, or a tag is not allowed.
        """
        targets = self._store.targets(_paths(paths), start_seconds=start_seconds, end_seconds=end_seconds)
        self._store.change_marks(
            lambda marks: marks.changed(*targets, add=add, remove=remove, is_favourite=is_favourite)
        )
        return len(targets)

    def tags(self) -> dict[str, int]:
        """Return all tags by name, each with the number of videos and moments that have it."""
        return self._store.marks.tags()

    def marks(self) -> list[Mark]:
        """Return the tags and favourites of all videos and moments, also of those that were removed."""
        return list(read_marks(self.path).all)

    def import_marks(self, file: PathLike) -> MarksImport:
        """Add the tags and favourites of a CSV file, or of the document of `vop library tags --json`.

        Marks of videos that the library does not have are kept until they are indexed.

        Raises:
            UsageError: the file does not exist.
            DataError: the file is not valid; the error names the line.
        """
        return self._store.import_marks(Path(file))

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
        clipped = _clipped(file if isinstance(file, Example) else Path(file), start_seconds, end_seconds)
        opened = self.model(model)
        return queries.best_captions(opened, queries.embed_example(opened, clipped), listed, k)

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
                progress=progress,
            )

    def _vector(self, query: Query, made_by: LibraryModel, *, number: int, warn: Callable[[str], None]) -> Vector:
        """Return the query as a unit vector (e,)."""
        if isinstance(query, Moment):
            vector: Vector = self._store.segment(query.segment).embeddings[number]
            return vector
        if isinstance(query, Path | Example):
            return queries.embed_example(self._open(made_by), _clipped(query))
        if isinstance(query, Sequence) and not isinstance(query, str) and queries.has_examples(query):
            return self._mixed(query, made_by, number=number, warn=warn)
        if isinstance(query, str | Sentence | Sequence):
            sentences = queries.parse_sentences(cast("Sentences", query))
            opened = self._open(made_by)
            for warning in queries.notes_on(opened, sentences):
                warn(warning)
            return queries.embed_sentences(opened, sentences)
        return queries.unit_vector(query, width=made_by.embed_dim)

    def _mixed(
        self, query: Sequence[object], made_by: LibraryModel, *, number: int, warn: Callable[[str], None]
    ) -> Vector:
        sentences, examples = queries.parse_parts(query)
        vectors = [self._vector(example, made_by, number=number, warn=warn) for example, _ in examples]
        if sentences:
            opened = self._open(made_by)
            for warning in queries.cut_short(opened, sentences):
                warn(warning)
            vectors += list(opened.encode_text([sentence.text for sentence in sentences]).numpy())
        weights = [weight for _, weight in examples] + [sentence.weight for sentence in sentences]
        return queries.weighted_sum(np.stack(vectors), weights)

    # -- Writing

    def _paths(self, paths: Place | Iterable[Place] | None) -> list[Location]:
        """Return the given paths, or else those that the library remembers."""
        if paths is not None:
            return _paths(paths)
        from vop.search.folders import remembered

        return remembered(self.path)

    def index(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        exclude: Sequence[str] = (),
        live_photos: bool | None = None,
        metadata: PathLike | None = None,
        prune: bool = False,
        yes: bool = False,
        redo: bool = False,
        compile: bool = False,
        subtitles: bool | None = None,
        speech: str | None = None,
        jobs: int | None = None,
        ray: str | None = None,
        gpus_per_worker: float | None = None,
        workers: int | None = None,
        batch_size: int = 16,
        progress: Progress = silent,
        waiting: Callable[[], None] = _silently,
        warn: Callable[[str], None] = _log.warning,
    ) -> IndexReport:
        """Bring the library up to date with the videos in these files and folders.

        Args:
            paths: files and folders, addresses of objects and prefixes (`s3://bucket/holidays`), and tables of them
                (CSV, TSV, JSON, JSONL or Parquet); missing ones are skipped with a warning. The library remembers the
                others. None stands for all that it remembers.
            exclude: globs of files and folders to exclude, in addition to the library's globs.
            live_photos: whether to index the movies of Live Photos; None keeps the library's setting.
            metadata: a CSV file with columns to filter by; see `docs/finding.md`.
            prune: whether to remove videos below `paths` that were deleted or are excluded; `restore` restores them.
            yes: whether to prune even a large share of the library; see `IndexReport.unconfirmed`.
            redo: whether to decode videos again that an earlier version of vop decoded.
            compile: whether to compile the layers of the models for this work, as for `vop.load`.
            subtitles: whether to read the text of subtitles, in videos and beside them; None keeps the library's
                setting, at first to read them.
            speech: the model that recognizes speech: a folder or hub id of a Whisper model for faster-whisper, or
                NAME:MODEL for a recognizer of another package; "none" ends it. None keeps the library's setting, at
                first none. Needs `pip install 'vop[speech]'`.
            jobs: processes that decode and embed, each with a model of its own; with several GPUs, each gets one. By
                default one. More than one needs `pip install 'vop[shards]'`.
            ray: the address of a Ray cluster that does the work: host:port, "auto" for the cluster of this machine, or
                "local" to start one for this call. By default, it has one worker per GPU or, without GPUs, per node.
            gpus_per_worker: GPUs of each worker of the cluster; by default 1, if it has any.
            workers: decoding processes of each; by default one per free core.
            batch_size: segments per forward pass.
            progress: called after each step.
            warn: called with each warning.

        Raises:
            UsageError: none of the paths exists, the library remembers none, or an argument is not allowed.
            VopError: the disk is full, the model is not the library's, or an earlier version decoded some videos.
                Committed videos stay in the library.
        """
        from vop.search.sharding.commands import index_in_processes, index_on_ray
        from vop.search.sync import index

        work: Callable[..., IndexReport] = index
        if ray is not None:
            work = partial(index_on_ray, address=ray, jobs=jobs, gpus_per_worker=gpus_per_worker)
        elif jobs not in (None, 1):
            work = partial(index_in_processes, jobs=jobs)
        return work(
            self.path,
            self._paths(paths),
            model=self._sources.get(self.models[0].fingerprint),
            exclude=exclude,
            live_photos=live_photos,
            metadata=None if metadata is None else Path(metadata),
            prune=prune,
            yes=yes,
            redo=redo,
            compile=compile,
            subtitles=subtitles,
            speech=speech,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            waiting=waiting,
            warn=warn,
        )

    def watch(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        prune: bool = False,
        workers: int | None = None,
        batch_size: int = 16,
        times: WatchTimes | None = None,
        reported: Callable[[IndexReport], None] = lambda report: None,
        stopped: Callable[[], bool] = lambda: False,
        waiting: Callable[[], None] = _silently,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Index files and folders, then follow them and index what changes, until `stopped`. The models stay open.

        The library is locked only during an indexing. Deleted videos are only reported, unless `prune` is set.

        Args:
            paths: see `index`. None stands for all that the library remembers, also later ones.
            times: how long to wait, for example until a file counts as complete.
            reported: called with the report of each indexing.
            stopped: asked at least once a second whether to return.

        Raises:
            UsageError: `paths` do not exist, or watchfiles is not installed: `pip install 'vop[watch]'`.
            VopError: the first indexing failed. Later failures are warnings, and are tried again.
        """
        from vop.search.sync import index
        from vop.search.sync.scanner import absolute_paths
        from vop.search.watching import Watcher

        kept, places = KeptModels(), None if paths is None else absolute_paths(_paths(paths))

        def run(roots: Sequence[Location], settled: Callable[[Path], bool], *, remember: bool = False) -> None:
            report = index(
                self.path,
                roots,
                model=self._sources.get(self.models[0].fingerprint),
                prune=prune,
                remember=remember,
                settled=settled,
                kept=kept,
                workers=workers,
                batch_size=batch_size,
                waiting=waiting,
                warn=warn,
            )
            reported(report)

        watcher = Watcher(self.path, run, places=places, say=warn, stopped=stopped, times=times)
        if places is not None:
            run(sorted(places, key=str), watcher.settled, remember=True)
        watcher.run()

    def publish(
        self, *, discard: bool = False, progress: Progress = silent, waiting: Callable[[], None] = _silently
    ) -> PublishReport:
        """Add what `vop index --shard` has finished to the library, in one version for each indexing.

        Args:
            discard: whether to delete unfinished work instead.

        Raises:
            VopError: some of it was made with other models or another version of vop. The rest is published.
        """
        from vop.search.sharding.commands import publish

        return publish(self.path, discard=discard, progress=progress, waiting=waiting)

    def preview(
        self,
        paths: Place | Iterable[Place] | None = None,
        *,
        exclude: Sequence[str] = (),
        live_photos: bool | None = None,
    ) -> IndexPreview:
        """Report what `index` would do. Decodes nothing and changes nothing."""
        from vop.search.sync import preview

        return preview(self.path, self._paths(paths), exclude=exclude, live_photos=live_photos)

    def folders(
        self, *, drop: Place | Iterable[Place] = (), waiting: Callable[[], None] = _silently
    ) -> list[LibraryFolder]:
        """Return the folders, files and addresses that the library remembers, which `index()` indexes again.

        Args:
            drop: those to forget. Their videos stay in the library; `forget` removes them.

        Raises:
            UsageError: the library does not remember one of `drop`.
        """
        from vop.search.sync import remembered_folders

        return remembered_folders(self.path, drop=_paths(drop), waiting=waiting)

    def forget(
        self,
        paths: Place | Iterable[Place],
        *,
        for_good: bool = False,
        tags: bool = False,
        waiting: Callable[[], None] = _silently,
    ) -> int:
        """Remove every video at or below these paths from the library, not from the disk, and return how many.

        The library does not remember folders there any more.

        Args:
            for_good: whether to delete them permanently, so that `restore` cannot restore them.
            tags: whether to delete their tags and favourites, too. Otherwise they wait until the videos are indexed
                again. Only with `for_good`.

        Raises:
            UsageError: the library has no video there.
        """
        from vop.search.sync import forget

        return forget(self.path, _paths(paths), for_good=for_good, tags=tags, waiting=waiting)

    def restore(self, paths: Place | Iterable[Place] = (), *, waiting: Callable[[], None] = _silently) -> list[str]:
        """Restore removed videos, all or those at or below `paths`, and return their paths.

        Raises:
            UsageError: there is nothing to restore.
        """
        from vop.search.sync import restore

        return restore(self.path, _paths(paths), waiting=waiting)

    def exclude(
        self, *, add: Sequence[str] = (), drop: Sequence[str] = (), waiting: Callable[[], None] = _silently
    ) -> tuple[str, ...]:
        """Change which files the next indexing excludes, and return all globs.

        Raises:
            UsageError: the library has no such glob to drop.
        """
        from vop.search.sync import change_excluded

        return change_excluded(self.path, add=add, drop=drop, waiting=waiting)

    def check(
        self, *, repair: bool = False, progress: Progress = silent, waiting: Callable[[], None] = _silently
    ) -> CheckReport:
        """Compare the library with its checksums.

        Args:
            repair: whether to repair the library if it is damaged.
        """
        from vop.search.sync.integrity import check

        return check(self.path, repair=repair, progress=progress, waiting=waiting)

    def reembed(
        self,
        model: str,
        *,
        keep: bool = False,
        num_frames: int | None = None,
        merge_tokens: float | TokenMerging = 0.0,
        dimensions: int | None = None,
        drop_unreadable: bool = False,
        precision: str = "auto",
        compile: bool = False,
        jobs: int | None = None,
        ray: str | None = None,
        gpus_per_worker: float | None = None,
        workers: int | None = None,
        batch_size: int = 16,
        progress: Progress = silent,
        waiting: Callable[[], None] = _silently,
    ) -> ReembedReport:
        """Embed every segment with another model. Searches use the old model until then.

        Args:
            keep: whether to keep the embeddings of the library's models beside the new ones.
            num_frames: frames per segment, if not the model's own number.
            merge_tokens, dimensions, compile: as for `vop.load`, for the new model.
            drop_unreadable: whether to leave out unreadable videos. Otherwise they are an error, and the library stays
                as it is.
            jobs, ray, gpus_per_worker, workers, batch_size: as for `index`.

        Raises:
            UsageError: the model does not exist, the library already has it, or `keep` is set and the models take
                different frames.
            VopError: videos cannot be read; the next attempt resumes.
        """
        from vop.search.sharding.reembedding import reembed_in_processes, reembed_on_ray
        from vop.search.sync import reembed

        work: Callable[..., ReembedReport] = reembed
        if ray is not None:
            work = partial(reembed_on_ray, address=ray, jobs=jobs, gpus_per_worker=gpus_per_worker)
        elif jobs not in (None, 1):
            work = partial(reembed_in_processes, jobs=jobs)
        return work(
            self.path,
            model,
            keep=keep,
            num_frames=num_frames,
            embedding=EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions),
            drop_unreadable=drop_unreadable,
            precision=precision,
            compile=compile,
            workers=workers,
            batch_size=batch_size,
            progress=progress,
            waiting=waiting,
        )


def _check_new(folder: Location) -> None:
    if exists(folder):
        raise UsageError(f"{folder} is a library already: open it, or choose another folder")


def _paths(paths: Place | Iterable[Place]) -> list[Location]:
    if isinstance(paths, str | os.PathLike | Address):
        return [location(paths)]
    return [location(path) for path in paths]


def _moments_of(query: object) -> list[Moment]:
    """Return the moments of a query, which a search for similar ones leaves out."""
    if isinstance(query, Moment):
        return [query]
    if not isinstance(query, list | tuple):
        return []
    return [
        part for item in query for part in (item if isinstance(item, tuple) else [item]) if isinstance(part, Moment)
    ]


def _folder(folder: PathLike | None) -> str | None:
    if folder is None or isinstance(folder, str):
        return folder
    return str(existing_path(Path(folder)).resolve())


def _clipped(file: Path | Example, start_seconds: float | None = None, end_seconds: float | None = None) -> Example:
    """Return an example of a file, or of a clip of it."""
    if start_seconds is None and end_seconds is None:
        return file if isinstance(file, Example) else Example(file)
    if isinstance(file, Example):
        raise UsageError("an Example has a clip of its own: give a Path with start_seconds and end_seconds")
    return Example(file, "video", Clip(start_seconds or 0.0, end_seconds))
