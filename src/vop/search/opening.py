"""Opens the library that is to be indexed, or makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.search.manifest import FILE, Manifest, SegmentationConfig
from vop.search.models import absolute_name, new_manifest, open_model, open_models
from vop.search.store import Store

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the caller of an indexing asks of its library. A new library needs a model; an existing one has its own."""

    model: str | None
    cutting: SegmentationConfig | None
    num_frames: int | None
    keep_frames: bool
    precision: str

    def new_model(self, folder: Path) -> TextVideoModel | None:
        """The model of a new library; None if the library exists.

        Raises:
            UsageError: no model is named, or there is none of that name.
        """
        if (folder / FILE).exists():
            return None
        if self.model is None:
            raise UsageError(f"{folder}: a new library needs a model: --model RUN, a CLIP folder, a hub id, or mini")
        model = open_model(self.model, num_frames=self.num_frames, precision=self.precision)
        model.check_independent()
        return model

    def open(self, folder: Path, new: TextVideoModel | None) -> tuple[Store, list[TextVideoModel]]:
        """The library and its models; `new` is what `new_model` gave.

        Raises:
            UsageError: the settings are not those of the library.
            VopError: the model is another one than the library's.
        """
        if new is not None and not (folder / FILE).exists():  # nobody else has made it in the meantime
            return self._create(folder, new), [new]
        library = Store.open(folder)
        self._check(library.manifest, folder)
        models = open_models(library.manifest, folder=folder, name=self.model)
        if self.model is not None:  # where the first of them is now, if it has moved
            library.rename_model(absolute_name(self.model))
        return library, models

    def _create(self, folder: Path, model: TextVideoModel) -> Store:
        wanted = new_manifest(model, name=self.model, segmentation=self.cutting, keep_frames=self.keep_frames)
        return Store.create(folder, wanted)

    def _check(self, about: Manifest, folder: Path) -> None:
        """Refuses settings that are not the library's: its segments would not be comparable."""
        for what, wanted, has in (
            ("segments", self.cutting, about.segmentation),
            ("num_frames", self.num_frames, about.num_frames),
            ("keep_frames", self.keep_frames or None, about.keep_frames),
        ):
            if wanted is not None and wanted != has:
                raise UsageError(
                    f"{folder} has {what}: {has}; {wanted} needs a library of its own: choose another folder"
                )
