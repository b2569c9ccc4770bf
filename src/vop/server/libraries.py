"""The served libraries and their models. A view is a library with one of its models."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypedDict, TypeVar, Unpack
from weakref import WeakKeyDictionary

import torch

from vop.errors import UsageError, VopError, unknown_name
from vop.models.model import TextVideoModel
from vop.search.browsing import in_order
from vop.search.filters import Filters, Order
from vop.search.manifest import LibraryModel, Manifest, MissingLibrary
from vop.search.models import open_models
from vop.search.near_copies import search_collapsed
from vop.search.queries import Sentence, Vector, can_be_judged, check
from vop.search.results import LibraryStatus, Moment, Segment
from vop.search.store import Store
from vop.search.video_moments import VideoMoments
from vop.search.words.query import WordsQuery
from vop.search.words.searching import WordsMode
from vop.server.encoding import Encoder, OnEncoded
from vop.server.errors import NotFound, Unavailable
from vop.storage.address import Location

STATUS_SECONDS = 1.0  # how long a library's status is cached

T = TypeVar("T")
log = logging.getLogger("vop.server")


@contextmanager
def unknown_ids_as_not_found() -> Iterator[None]:
    """Turn a library's error about an unknown id into `NotFound`."""
    try:
        yield
    except MissingLibrary:
        raise
    except UsageError as error:
        raise NotFound(str(error)) from None


_NO_STATUS = LibraryStatus(
    segments=0,
    videos=0,
    hours=0.0,
    outdated=0,
    failures=0,
    unreadable=0,
    partial=0,
    duplicates=0,
    columns=[],
    index=None,
)


@dataclass(frozen=True)
class ServedStatus:
    """A library's status. If it cannot be read, `error` says why, and all counts are 0."""

    library: LibraryStatus
    error: str | None = None


@dataclass(frozen=True)
class OpenModels:
    """The models of a library, as its manifest described them when they were opened, and their encoders."""

    models: tuple[LibraryModel, ...]
    encoders: tuple[Encoder, ...]


class ServedLibrary:
    """A library on the server.

    Attributes:
        name: its name in URLs, unique on this server.
        open: the open models. They are out of date if the library has just moved to other models.
    """

    def __init__(self, name: str, library: Store, open: OpenModels, libraries: Libraries) -> None:
        self.name, self.library, self.open = name, library, open
        self._libraries = libraries
        self._opening: Future[OpenModels] | None = None
        self._status = ServedStatus(_NO_STATUS)
        self._status_at, self._status_lock = -STATUS_SECONDS, threading.Lock()

    @property
    def views(self) -> list[View]:
        return [View(self, number, model) for number, model in enumerate(self.library.models)]

    def status(self) -> ServedStatus:
        """Return the library's status. It is cached, because it is slow to read and many pages ask for it.

        If the library cannot be read (its folder was moved), the status has an `error`. Other libraries stay available.
        """
        with self._status_lock:
            if time.monotonic() - self._status_at >= STATUS_SECONDS:
                self._status = self._read_status()
                self._status_at = time.monotonic()
            return self._status

    def _read_status(self) -> ServedStatus:
        try:
            return ServedStatus(self.library.status())
        except VopError as error:
            if self._status.error is None:
                log.warning("the library %s cannot be read: %s", self.name, error)
            return ServedStatus(_NO_STATUS, str(error))

    def current_models(self) -> OpenModels:
        """Return the library's current models.

        Raises:
            Unavailable: they are being opened.
            VopError: they could not be opened; the next call tries again.
        """
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            self.open = opening.result()
            log.info("the library %s has moved to other models, which are open", self.name)
        if self.open.models != self.library.models:
            self._opening = self._opening or self._libraries.open_in_background(self.library)
            raise Unavailable(f"the library {self.name} has moved to other models, which are being opened")
        return self.open

    @contextmanager
    def unchanged(self, models: tuple[LibraryModel, ...]) -> Iterator[None]:
        """Raise an error if the library moves to other models during the block, because the results may mix both.

        Raises:
            Unavailable: the library has moved.
        """
        try:
            yield
        finally:
            if self.library.models != models:
                raise Unavailable(f"the library {self.name} has just moved to other models; try again in a moment")


class _Settings(TypedDict, total=False):
    leave_out: str | None
    filters: Filters
    per_video: int


@dataclass(frozen=True)
class View:
    """A library with one of its models.

    Attributes:
        number: the model's number in the library, from 0.
    """

    served: ServedLibrary
    number: int
    model: LibraryModel

    @property
    def id(self) -> str:
        """The view's id in URLs: the library's name, and the model's number unless it is the first."""
        return self.served.name if self.number == 0 else f"{self.served.name}.{self.number + 1}"

    @property
    def library(self) -> Store:
        return self.served.library

    def encoder(self) -> tuple[OpenModels, Encoder]:
        """Return the library's current models and this view's encoder.

        Raises:
            NotFound: the library has fewer models than when the view was listed.
            Unavailable, VopError: as for `ServedLibrary.current_models`.
        """
        open = self.served.current_models()
        if self.number >= len(open.encoders):
            raise NotFound(f"the library {self.served.name} has moved to other models and has no view {self.id}")
        return open, open.encoders[self.number]

    def search(
        self,
        vector: Vector,
        *,
        encoded_by: OpenModels,
        k: int,
        filters: Filters,
        per_video: int = 1,
        copies: bool = False,
        judge: bool = False,
        order: Order = "match",
        leave_out: str | None = None,
    ) -> list[Moment]:
        """Return the moments nearest to a query that these models encoded.

        Args:
            judge: whether to add the confidence of the moments; for sentences.
            leave_out: the id of a video to leave out.
        """
        with self.served.unchanged(encoded_by.models):
            moments = self._find(vector, k, copies=copies, filters=filters, per_video=per_video, leave_out=leave_out)
            moments = self.library.judged(moments, vector, model=self.number) if judge else moments
        return in_order(moments, order)

    def _find(self, vector: Vector, k: int, *, copies: bool, **settings: Unpack[_Settings]) -> list[Moment]:
        def find(limit: int) -> list[Moment]:
            return self.library.search(vector, model=self.number, k=limit, **settings)

        return find(k) if copies else search_collapsed(find, k, self.library.near_copies())

    def moments(
        self,
        vector: Vector | None,
        video: str,
        *,
        encoded_by: OpenModels,
        judge: bool = False,
        words: WordsQuery | None = None,
    ) -> VideoMoments:
        """Return all moments of a video that match a query that these models encoded.

        Args:
            judge: as for `search`.
            words: what the query asks of words, if they count.

        Raises:
            NotFound: the video does not exist.
        """
        with self.served.unchanged(encoded_by.models), unknown_ids_as_not_found():
            return self.library.moments(vector, video, model=self.number, judge=judge, words=words)

    def moments_like(self, segment: str, video: str) -> VideoMoments:
        """Return all moments of a video that are similar to a segment.

        Raises:
            NotFound: the segment or the video does not exist.
        """
        with self.served.unchanged(self.library.models), unknown_ids_as_not_found():
            vector = self.library.segment(segment).embeddings[self.number]
            return self.library.moments(vector, video, model=self.number)

    def asked(self, sentences: Sequence[Sentence], words: WordsMode) -> WordsQuery | None:
        """Return what sentences ask of words; None if they are searched by pictures only."""
        if not words or not (words == "only" or self.library.has_words()):
            return None
        check(sentences)
        return WordsQuery.of(sentences)

    def search_words(
        self,
        vector: Vector | None,
        query: WordsQuery,
        *,
        encoded_by: OpenModels,
        k: int,
        filters: Filters,
        only: bool,
        per_video: int = 1,
        copies: bool = False,
        order: Order = "match",
    ) -> list[Moment]:
        """Return the best moments by pictures and by words, with their confidence; see `Store.search_words`."""

        def find(limit: int) -> list[Moment]:
            return self.library.search_words(
                vector, query, model=self.number, k=limit, filters=filters, per_video=per_video, only=only
            )

        with self.served.unchanged(encoded_by.models):
            moments = find(k) if copies else search_collapsed(find, k, self.library.near_copies())
            if vector is not None and can_be_judged(query.seen):
                moments = self.library.judged(moments, vector, model=self.number)
        return in_order(moments, order)

    def similar(
        self,
        segment: str,
        *,
        k: int,
        filters: Filters,
        per_video: int = 1,
        copies: bool = False,
        order: Order = "match",
    ) -> list[Moment]:
        """Return the moments of other videos that are nearest to a segment.

        Raises:
            NotFound: the segment does not exist.
        """
        with self.served.unchanged(self.library.models):
            found = self.segment(segment)
            vector = found.embeddings[self.number]
            settings: _Settings = {"leave_out": found.video, "filters": filters, "per_video": per_video}
            moments = self._find(vector, k, copies=copies, **settings)
        return in_order(moments, order)

    def segment(self, segment: str) -> Segment:
        """Return a segment of the library.

        Raises:
            NotFound: it does not exist.
        """
        with unknown_ids_as_not_found():
            return self.library.segment(segment)


class Libraries:
    """All served libraries, with open models. Models share backbones where possible.

    Args:
        precision: precision of the models: auto, bf16 or fp32.
        on_encoded: called after each forward pass.

    Raises:
        UsageError: a model does not exist.
        VopError: a model has changed since its library was made.
    """

    def __init__(self, libraries: Sequence[Store], *, precision: str = "auto", on_encoded: OnEncoded) -> None:
        self._precision, self._on_encoded = precision, on_encoded
        self._threads: WeakKeyDictionary[torch.nn.Module, ThreadPoolExecutor] = WeakKeyDictionary()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="open-models")
        self.by_name: dict[str, ServedLibrary] = {}
        for library in libraries:
            name = _unique_name(library.name, self.by_name)
            self.by_name[name] = ServedLibrary(name, library, self._open(library.manifest, library.path), self)
            log.info("opened the library %s in %s", name, library.path)

    def library(self, name: str) -> ServedLibrary:
        """Return a library. Raises `NotFound` if it does not exist."""
        return _find("library", name, self.by_name)

    def view(self, name: str) -> View:
        """Return a view. Raises `NotFound` if it does not exist."""
        return _find("view", name, {view.id: view for view in self.views})

    @property
    def views(self) -> list[View]:
        return [view for served in self.by_name.values() for view in served.views]

    def open_in_background(self, library: Store) -> Future[OpenModels]:
        """Open a library's models in a thread."""
        return self._opener.submit(self._open, library.manifest, library.path)

    def _open(self, manifest: Manifest, folder: Location) -> OpenModels:
        others = [encoder.model for served in self.by_name.values() for encoder in served.open.encoders]
        models = open_models(manifest, folder=folder, precision=self._precision, beside=others)
        encoders = (Encoder(model, self._thread_of(model), on_encoded=self._on_encoded) for model in models)
        return OpenModels(manifest.models, tuple(encoders))

    def _thread_of(self, model: TextVideoModel) -> ThreadPoolExecutor:
        if model.clip not in self._threads:
            self._threads[model.clip] = ThreadPoolExecutor(1, thread_name_prefix="encode")
        return self._threads[model.clip]

    def close(self) -> None:
        """Cancel waiting work. Running computations finish by themselves."""
        for pool in [self._opener, *self._threads.values()]:
            pool.shutdown(wait=False, cancel_futures=True)


def _find(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise NotFound(str(unknown_name(kind, name, known)))
    return known[name]


def _unique_name(name: str, taken: Mapping[str, ServedLibrary]) -> str:
    """Return a name for URLs: letters, digits, - and _. A dot separates the number of a view."""
    name = re.sub(r"[^\w-]+", "-", name).strip("-") or "library"
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)
