"""The models of a library: their fingerprints, and opening several on one backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vop.backbones import BUILT_IN
from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig
from vop.backbones.source import split_image_size
from vop.errors import VopError
from vop.models.fingerprint import fingerprint
from vop.search.manifest import LibraryModel, Manifest, SegmentationConfig
from vop.search.refining import pack
from vop.search.schema import EMBEDDING, FRAMES
from vop.storage.address import Location
from vop.utils.files import expand

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vop.models.model import TextVideoModel


def describe(model: TextVideoModel, *, name: str, column: str, refine: bool = False) -> LibraryModel:
    """Describe a model for a library's manifest.

    Args:
        refine: whether to keep the embeddings of frames, if the model averages them.

    Raises:
        UsageError: the model cannot embed a video by itself.
    """
    import torch

    model.check_independent()
    return LibraryModel(
        name=absolute_name(name),
        method=model.method_name,
        fingerprint=fingerprint(model),
        embed_dim=model.dimensions,
        precision="bf16" if model.clip.dtype == torch.bfloat16 else "fp32",
        column=column,
        frame_column=column.replace(EMBEDDING, FRAMES) if refine and model.averages_frames else None,
        embedding=model.embedding,
    )


def new_manifest(
    model: TextVideoModel,
    *,
    name: str,
    segmentation: SegmentationConfig | None = None,
    keep_frames: bool = False,
    refine: bool = False,
) -> Manifest:
    """Return the manifest of a new library with one model, which `name` opens."""
    described = describe(model, name=name, column="embedding_1", refine=refine)
    return Manifest(
        table=f"segments_{described.fingerprint}",
        models=(described,),
        num_frames=model.num_frames,
        image_size=model.image_size,
        resize=model.resizing.mode,
        interpolation=model.resizing.interpolation,
        segmentation=segmentation or SegmentationConfig(),
        keep_frames=keep_frames,
        refine=refine,
    )


def embed_columns(
    models: Sequence[TextVideoModel], described: Sequence[LibraryModel], frames: Tensor
) -> list[np.ndarray]:
    """Embed frames of segments (b, f, 3, h, w) by every model, for the columns of `columns_of`."""
    found = []
    for model, about in zip(models, described, strict=True):
        if about.frame_column is None:
            found.append(model.encode_frames(frames, batch_size=len(frames)).numpy())
        else:
            segments, own_frames = model.encode_segments(frames)
            found += [segments.numpy(), pack(own_frames.numpy())]
    return found


def columns_of(models: Iterable[LibraryModel]) -> list[str]:
    """Return the columns of a table that these models fill."""
    return [name for model in models for name in (model.column, model.frame_column) if name is not None]


def absolute_name(name: str) -> str:
    """Return a name that opens a model from any working directory: for a folder, its absolute path."""
    base, image_size = split_image_size(name)
    folder = expand(base)
    if base in BUILT_IN or not folder.is_dir():
        return name
    return str(folder.absolute()) + ("" if image_size is None else f"@{image_size}")


def open_model(
    name: str,
    *,
    num_frames: int | None = None,
    precision: str = "auto",
    embedding: EmbeddingConfig = AS_USUAL,
    compile: bool = False,
    beside: Sequence[TextVideoModel] = (),
) -> TextVideoModel:
    """Open a run, a folder, a hub id or mini on the default device."""
    from vop.models.pretrained import load
    from vop.utils.device import default_device, resolve_precision

    dtype = resolve_precision(precision, default_device())
    return load(
        name,
        num_frames=num_frames,
        merge_tokens=embedding.merge_tokens or 0.0,
        dimensions=embedding.dimensions,
        dtype=dtype,
        compile=compile,
        beside=beside,
    )


def open_models(
    manifest: Manifest,
    *,
    folder: Location,
    name: str | None = None,
    precision: str | None = None,
    compile: bool = False,
    beside: Iterable[TextVideoModel] = (),
) -> list[TextVideoModel]:
    """Open the models of a library, and check their fingerprints. A shared backbone is loaded once.

    Args:
        folder: the library's folder, for error messages.
        name: name or folder of the first model, if it has moved.
        precision: bf16, fp32 or auto; by default, for each model, the precision of its embeddings in the library.
        compile: whether to compile the layers (`vop.load`).
        beside: models that are open already; their backbones are shared.

    Raises:
        UsageError: a model does not exist.
        VopError: a model is not the library's.
    """
    opened = list(beside)
    before = len(opened)
    for number, wanted in enumerate(manifest.models):
        source = name if name is not None and number == 0 else wanted.name
        model = open_model(
            source,
            num_frames=manifest.num_frames,
            precision=precision or wanted.precision,
            embedding=wanted.embedding,
            compile=compile,
            beside=opened,
        )
        check_same(model, wanted, source=source, folder=folder)
        opened.append(model)
    return opened[before:]


class KeptModels:
    """The models of a library, which stay open from one indexing to the next."""

    def __init__(self) -> None:
        self._opened: list[TextVideoModel] = []
        self._described: tuple[object, ...] | None = None

    def open(
        self, manifest: Manifest, *, folder: Location, name: str | None = None, compile: bool = False
    ) -> list[TextVideoModel]:
        """Return the models of a library; open them unless they are open already. See `open_models`."""
        if self._described != _described(manifest):
            self._opened, self._described = [], None
            self.keep(manifest, open_models(manifest, folder=folder, name=name, compile=compile))
        return self._opened

    def keep(self, manifest: Manifest, opened: list[TextVideoModel]) -> None:
        """Keep models that are open."""
        self._opened, self._described = opened, _described(manifest)


def _described(manifest: Manifest) -> tuple[object, ...]:
    """Return what determines the models of a library, wherever they lie."""
    return (manifest.num_frames, *(replace(model, name="") for model in manifest.models))


def check_same(model: TextVideoModel, wanted: LibraryModel, *, source: str, folder: Location) -> None:
    """Raise a VopError if a model is not the library's."""
    found = fingerprint(model)
    if found == wanted.fingerprint:
        return
    raise VopError(
        f"{folder} was made with {wanted.name} ({wanted.method}, fingerprint {wanted.fingerprint}); {source} is "
        f"{model.method_name} with fingerprint {found}, and embeddings of two models cannot be compared. "
        f"Move the library to it: vop library reembed {folder} --model {source}; or index into another folder"
    )
