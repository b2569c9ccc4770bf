"""What is served: each library under each of its models."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from vop.errors import UsageError, VopError, unknown_name
from vop.models.model import TextVideoModel
from vop.search import queries
from vop.search.manifest import LibraryModel, Manifest
from vop.search.models import open_models
from vop.search.queries import Sentence
from vop.search.results import Moment
from vop.search.store import Store
from vop.server.batching import Batcher, TryAgain

STATUS_SECONDS = 1.0  # what is told of a library may be so old
_NOTHING = {"segments": 0, "videos": 0, "hours": 0.0, "outdated": 0, "failures": 0, "columns": [], "index": None}

T = TypeVar("T")
Encoded = tuple[np.ndarray, list[str]]  # a unit vector (e,), and what to tell the user


class Unknown(UsageError):
    """Nothing here has this name or id: status 404."""


@contextmanager
def known() -> Iterator[None]:
    """What a library says of an id that it does not know becomes `Unknown`."""
    try:
        yield
    except UsageError as error:
        raise Unknown(str(error)) from None


class Encoder:
    """A model at work on queries. Models that share a backbone share the thread that computes, too."""

    def __init__(self, model: TextVideoModel, thread: ThreadPoolExecutor) -> None:
        self.model, self._thread = model, thread
        self._texts: Batcher[Encoded] = Batcher(self._encode, thread)

    async def sentences(self, sentences: Sequence[Sentence]) -> Encoded:
        """Sentences with weights as one query.

        Raises:
            UsageError: they ask for nothing.
        """
        queries.check(sentences)
        encoded = await self._texts([sentence.text for sentence in sentences])
        vector = queries.combine(np.stack([one for one, _ in encoded]), sentences)
        return vector, [note for _, notes in encoded for note in notes]

    async def frames(self, frames: torch.Tensor) -> np.ndarray:
        """Frames of a video or picture, uint8 (num_frames, 3, size, size), as a query (e,)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, queries.of_frames, self.model, frames)

    def _encode(self, texts: list[str]) -> list[Encoded]:
        vectors = self.model.encode_text(texts).numpy()
        notes = [queries.cut_short(self.model, [Sentence(text)]) for text in texts]
        return list(zip(vectors, notes, strict=True))


@dataclass(frozen=True)
class Opened:
    """The models of a library, as it described them when they were opened, and their encoders."""

    models: tuple[LibraryModel, ...]
    encoders: tuple[Encoder, ...]


class Served:
    """A library on the server.

    Attributes:
        name: in URLs; no other library here has it.
        opened: its models; they may be those of before, while the library has moved on.
    """

    def __init__(self, name: str, library: Store, opened: Opened, views: Views) -> None:
        self.name, self.library, self.opened = name, library, opened
        self._views = views
        self._opening: Future[Opened] | None = None
        self._status: dict = {}
        self._asked, self._asking = -STATUS_SECONDS, threading.Lock()

    def status(self) -> dict:
        """What `Store.status` says, which reads much of the table; many pages ask for it again and again.

        A library that cannot be read (its folder was moved) has nothing in it and an `error`; the others go on.
        """
        with self._asking:
            if time.monotonic() - self._asked >= STATUS_SECONDS:
                try:
                    self._status = self.library.status().to_dict()
                except VopError as error:
                    self._status = {**_NOTHING, "error": str(error)}
                self._asked = time.monotonic()
            return self._status

    def ready(self) -> Opened:
        """The models that the library has now.

        Raises:
            TryAgain: they are being opened.
            VopError: they could not be opened; the next call tries again.
        """
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            self.opened = opening.result()
        if self.opened.models != self.library.models:
            self._opening = self._opening or self._views.open_later(self.library)
            raise TryAgain(f"the library {self.name} has moved to other models, which are being opened")
        return self.opened

    @contextmanager
    def still(self, models: tuple[LibraryModel, ...]) -> Iterator[None]:
        """Nothing that is found within counts if the library has moved to other models meanwhile.

        Raises:
            TryAgain: it has.
        """
        try:
            yield
        finally:
            if self.library.models != models:
                raise TryAgain(f"the library {self.name} has just moved to other models; try again in a moment")


@dataclass(frozen=True)
class View:
    """A library under one of its models."""

    served: Served
    number: int
    model: LibraryModel

    @property
    def id(self) -> str:
        """Whoever has one model finds the view under the library's name."""
        return self.served.name if self.number == 0 else f"{self.served.name}.{self.number + 1}"

    @property
    def library(self) -> Store:
        return self.served.library

    def opened(self) -> Opened:
        """As `Served.ready`, with this view's model among them."""
        opened = self.served.ready()
        if self.number >= len(opened.encoders):
            raise Unknown(f"the library {self.served.name} has moved to other models, and {self.id} is gone")
        return opened

    def search(self, vector: np.ndarray, *, made_by: Opened, **how) -> list[Moment]:
        """`Store.search`, for a query that these models have made."""
        with self.served.still(made_by.models):
            return self.library.search(vector, model=self.number, **how)

    def like(self, segment: str, **how) -> list[Moment]:
        """What resembles a segment, its own video left out.

        Raises:
            Unknown: there is no such segment.
        """
        with self.served.still(self.library.models):
            with known():
                found = self.library.segment(segment)
            vector = found.embeddings[self.number]
            return self.library.search(vector, model=self.number, leave_out=found.video, **how)


class Views:
    """All libraries that are served; their models are open, and share backbones where they can.

    Args:
        precision: bf16, fp32 or auto.

    Raises:
        UsageError: a model is not there.
        VopError: it is another one than its library's.
    """

    def __init__(self, libraries: Sequence[Store], *, precision: str = "auto") -> None:
        self._precision = precision
        self._threads: WeakKeyDictionary[torch.nn.Module, ThreadPoolExecutor] = WeakKeyDictionary()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="open-models")
        self.libraries: dict[str, Served] = {}
        for library in libraries:
            name = _unused(library.name, self.libraries)
            self.libraries[name] = Served(name, library, self._open(library.manifest, library.path), self)

    def library(self, name: str) -> Served:
        """Raises `Unknown` if there is no such library."""
        return _of("library", name, self.libraries)

    def view(self, name: str) -> View:
        """Raises `Unknown` if there is no such view."""
        return _of("view", name, {view.id: view for view in self.all()})

    def all(self) -> list[View]:
        return [view for served in self.libraries.values() for view in views_of(served)]

    def open_later(self, library: Store) -> Future[Opened]:
        """Opens a library's models beside the server's work."""
        return self._opener.submit(self._open, library.manifest, library.path)

    def _open(self, about: Manifest, folder: Path) -> Opened:
        beside = [encoder.model for served in self.libraries.values() for encoder in served.opened.encoders]
        models = open_models(about, folder=folder, precision=self._precision, beside=beside)
        return Opened(about.models, tuple(Encoder(model, self._thread_of(model)) for model in models))

    def _thread_of(self, model: TextVideoModel) -> ThreadPoolExecutor:
        if model.clip not in self._threads:
            self._threads[model.clip] = ThreadPoolExecutor(1, thread_name_prefix="embed")
        return self._threads[model.clip]

    def close(self) -> None:
        """Ends what waits; what a thread computes is left to end by itself."""
        for pool in [self._opener, *self._threads.values()]:
            pool.shutdown(wait=False, cancel_futures=True)


def _of(kind: str, name: str, things: Mapping[str, T]) -> T:
    if name not in things:
        raise Unknown(str(unknown_name(kind, name, things)))
    return things[name]


def views_of(served: Served) -> list[View]:
    return [View(served, number, model) for number, model in enumerate(served.library.models)]


def _unused(name: str, taken: dict[str, Served]) -> str:
    """A name for URLs: letters, digits, - and _, so that a view's number can follow a point."""
    name = re.sub(r"[^\w-]+", "-", name).strip("-") or "library"
    numbered = (f"{name}-{number}" for number in range(2, sys.maxsize))
    return name if name not in taken else next(other for other in numbered if other not in taken)
