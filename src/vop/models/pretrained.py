"""Create models from a method's name, and open saved and published models."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from vop import heads, methods
from vop.backbones import BUILT_IN, DEFAULT_HUB_ID, Backbone, find_backbone
from vop.backbones.embedding_config import TokenMerging
from vop.backbones.known import SHORT_NAMES
from vop.backbones.source import REGISTRY as BACKBONES
from vop.backbones.source import UnknownBackbone, is_hub_id, split_image_size, without_hub_prefix
from vop.backbones.towers import CLIP
from vop.errors import UsageError, VopError, unknown_setting
from vop.methods.base import Method
from vop.models.model import TextVideoModel, split_settings
from vop.models.run_folder import (
    CONFIG,
    PUBLISHED,
    WEIGHTS,
    BackboneConfig,
    RunConfig,
    fill_trained,
    is_run,
    read_config,
)
from vop.utils.device import default_device, resolve_precision
from vop.utils.files import expand


def create(
    method: str,
    backbone: str | Path | Backbone = DEFAULT_HUB_ID,
    *,
    head: str = heads.MEAN,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    compile: bool = False,
    **settings: Any,
) -> TextVideoModel:
    """Create a model whose trained parameters are freshly initialised.

    Args:
        method: a built-in name (`vop params` lists them), one that a package adds, or "package.module:Class".
        backbone: a hub id, a CLIP folder or "mini".
        head: a name of `vop.heads.HEADS`, one that a package adds, or "package.module:Class".
        dtype: dtype of the frozen weights and the activations. Trained parameters stay in float32.
        compile: as for `load`.
        settings: the method's settings, such as `num_frames`, and the head's as `head.NAME`.

    Raises:
        UsageError: a name or a setting is unknown, a value is not allowed, or the layers cannot be compiled.
    """
    if not isinstance(backbone, Backbone):
        backbone = find_backbone(str(backbone))
    of_method, of_head = split_settings(settings)
    part = methods.create(method, backbone.sizes, **of_method)
    if head != heads.MEAN and part.pools_itself:
        raise UsageError(f"head is {head}; it must be {heads.MEAN}, because {method} pools frames itself")
    for name in of_head:
        if name not in heads.settings_of(head):
            raise unknown_setting(f"the head {head}", name, heads.settings_of(head))
    top = heads.create(head, backbone.sizes, num_frames=part.num_frames, **of_head)
    model = TextVideoModel(backbone, method, part, head, top, dtype=dtype).to(device or default_device())
    if compile:
        model.compile_layers()
    return model


def load(
    name: str | Path,
    *,
    backbone: str | Path | None = None,
    num_frames: int | None = None,
    merge_tokens: float | TokenMerging = 0.0,
    dimensions: int | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str | None = None,
    compile: bool = False,
    beside: Sequence[TextVideoModel] = (),
) -> TextVideoModel:
    """Open a run, a published run or a hub id in eval mode. A plain CLIP is opened with the method `zero-shot`.

    Args:
        name: a run's folder, a CLIP folder, "OWNER/NAME" or "hf-hub:OWNER/NAME" on the Hugging Face hub, or "mini";
            "NAME@336" takes images of 336 pixels.
        backbone: the run's backbone, if it was moved. It must have the same content as in training.
        num_frames: replaces the run's number of frames. Tables of frame positions are interpolated.
        merge_tokens: merges similar patches, so that videos are embedded faster and slightly differently: the fraction
            of the patches that the last layer no longer has, such as 0.5, or a
            `vop.backbones.embedding_config.TokenMerging`, which can also merge patches of neighbouring frames.
        dimensions: keeps only the first dimensions of every embedding, scaled to unit length. The model must have been
            trained for this number: by the recipe's `matryoshka`, or by its authors.
        dtype: dtype of the frozen weights and the activations. float32 gives exact embeddings, bfloat16 is faster;
            "auto" means bfloat16 if the hardware supports it, as in `vop evaluate`.
        compile: compiles the layers of both towers with `torch.compile`, for long work on a CPU or with CUDA. The first
            batches take many seconds longer, and embeddings differ in the last digits.
        beside: open models. The new model shares backbone weights with a model on the same backbone, if neither method
            changes them.

    Raises:
        UsageError: the run, folder or hub id does not exist, the model cannot embed like this, or its layers cannot be
            compiled.
        VopError: the folder is damaged, its backbone is missing or differs, or a package that it needs is not
            installed.
    """
    merging = TokenMerging.of(merge_tokens)
    device = device or default_device()
    if isinstance(dtype, str):
        dtype = resolve_precision(dtype, device)
    settings = (merging if merging.ratio else None, compile)
    alike = [other for other in beside if (other.merging, other.compiled) == settings]
    backbone = None if backbone is None else str(backbone)
    model = _open(without_hub_prefix(str(name)), backbone=backbone, dtype=dtype, beside=alike)
    if num_frames is not None and num_frames != model.num_frames:
        model.resize_frames(num_frames)
    if merging.ratio:
        model.merge_tokens(merging)
    model.use_dimensions(dimensions)
    model.to(device).eval()
    if compile:
        model.compile_layers()
    return model


def _open(name: str, *, backbone: str | None, dtype: torch.dtype, beside: Sequence[TextVideoModel]) -> TextVideoModel:
    whole = name
    name, image_size = split_image_size(name)
    folder = None if name in BUILT_IN else expand(name)  # a folder with such a name is ./mini
    if folder is not None and not folder.is_dir():
        folder = _from_hub(name)
    if folder is None or not is_run(folder):
        found = _plain_backbone(whole)
        method = methods.create("zero-shot", found.sizes)
        clip = _shared_clip(found, method, beside, dtype=dtype)
        return TextVideoModel(found, "zero-shot", method, dtype=dtype, clip=clip)
    config = read_config(folder)
    _check_packages(config)
    found = _its_backbone(config.backbone, folder, backbone)
    if image_size is not None:
        found = found.with_image_size(image_size)
    method = methods.create(config.method, found.sizes, **config.settings)
    head = heads.create(config.head.name, found.sizes, num_frames=method.num_frames, **config.head.settings)
    clip = _shared_clip(found, method, beside, dtype=dtype)
    model = TextVideoModel(found, config.method, method, config.head.name, head, dtype=dtype, clip=clip)
    fill_trained(folder, model.trainable(), method=config.method)
    model.card = config.card
    model.matryoshka_dimensions = config.matryoshka_dimensions or model.matryoshka_dimensions
    return model


def _plain_backbone(name: str) -> Backbone:
    """Find a backbone. If the name is unknown, the error describes all names that `load` takes."""
    try:
        return find_backbone(name)
    except UnknownBackbone as error:
        built_in = BACKBONES.names()
        near = get_close_matches(name, [*built_in, *SHORT_NAMES], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"{name!r} is neither a run's folder, a backbone's folder, a hub id (OWNER/NAME) nor "
            f"{' or '.join(built_in)}; {hint}give the folder that `vop train --out` wrote, or use mini-2"
        ) from error


def _check_packages(config: RunConfig) -> None:
    """Raise a VopError if a package that the run needs is not installed."""
    used = ((methods.REGISTRY, config.method), (heads.REGISTRY, config.head.name), (BACKBONES, config.backbone.name))
    for registry, name in used:
        if registry.kind in config.packages:
            registry.check_installed(name, config.packages[registry.kind])


def _its_backbone(wanted: BackboneConfig, folder: Path, given: str | None) -> Backbone:
    name, image_size = split_image_size(given or wanted.name)
    if name.startswith("./"):
        name = str(folder / name)
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise VopError(f"{folder}: its backbone was at {name}, which does not exist; pass backbone=FOLDER")
    found = find_backbone(name, revision=None if given else wanted.revision)
    if found.content_hash() != wanted.sha256:
        raise VopError(
            f"{folder}: the model was tuned on the backbone {wanted.name!r} with the hash {wanted.sha256[:12]}; "
            f"{name!r} has the hash {found.content_hash()[:12]}: pass the backbone on which it was tuned"
        )
    image_size = image_size or wanted.image_size
    return found if image_size is None else found.with_image_size(image_size)


def _shared_clip(
    backbone: Backbone, method: Method, beside: Sequence[TextVideoModel], *, dtype: torch.dtype
) -> CLIP | None:
    """Return the CLIP of an open model with the same, unchanged backbone, or None."""
    if method.changes_backbone:
        return None
    for other in beside:
        alike = other.clip.dtype == dtype and other.backbone.sizes == backbone.sizes
        same = alike and other.backbone.content_hash() == backbone.content_hash()
        if same and not other.method.changes_backbone:
            return other.clip
    return None


def _from_hub(name: str) -> Path | None:
    """Return the folder of a published run, or None if `name` is not the hub id of a run."""
    if not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for local in (True, False):
        try:
            folder = Path(snapshot_download(name, local_files_only=local, allow_patterns=PUBLISHED))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
        # An interrupted download leaves a configuration without weights.
        if (folder / CONFIG).exists() and not (local and not (folder / WEIGHTS).exists()):
            return folder
    return None
