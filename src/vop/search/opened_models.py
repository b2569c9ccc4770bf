"""The models of an open library, each of which is loaded when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.search.manifest import LibraryModel
from vop.search.models import open_models
from vop.search.store import Store
from vop.utils.text import count

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel


class OpenedModels:
    """Opens the models of a library. Several threads can use it."""

    def __init__(
        self, store: Store, *, model: str | Mapping[int, str] | None = None, precision: str | None = None
    ) -> None:
        """Take the new names of models that have moved, and the precision, as for `Library.open`."""
        self._store, self._precision = store, precision
        given = {0: model} if isinstance(model, str) else dict(model or {})
        self._sources = {self.described(number).fingerprint: name for number, name in given.items()}
        self._opened: dict[str, TextVideoModel] = {}  # by fingerprint
        self._opening = threading.Lock()

    def described(self, number: int) -> LibraryModel:
        """Return the library's description of a model; raise a UsageError if there is no model with this number."""
        models = self._store.refresh().models
        if not 0 <= number < len(models):
            raise UsageError(
                f"model is {number}; {self._store.path} has {count('model', len(models))}, numbered from 0"
            )
        return models[number]

    def first_source(self) -> str | None:
        """Return the new name of the library's first model; None if it has not moved."""
        return self._sources.get(self._store.refresh().models[0].fingerprint)

    def keep(self, described: LibraryModel, opened: TextVideoModel) -> None:
        """Use a model that is open already."""
        self._opened[described.fingerprint] = opened

    def open(self, wanted: LibraryModel) -> TextVideoModel:
        """Return a model of the library. It is loaded at the first call."""
        with self._opening:
            if wanted.fingerprint not in self._opened:
                (self._opened[wanted.fingerprint],) = open_models(
                    self._store.manifest.with_(models=(wanted,)),
                    folder=self._store.path,
                    name=self._sources.get(wanted.fingerprint),
                    precision=self._precision,
                    beside=self._opened.values(),
                )
            return self._opened[wanted.fingerprint]
