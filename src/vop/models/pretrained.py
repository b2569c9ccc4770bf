"""A run's folder: what `save_pretrained` writes, `vop.load` opens, and a hub shows.

config.json         method, settings, backbone by name and content, preprocessing
model.safetensors   only what was trained
README.md           the model card, with results
training/           what a training needs to go on; can be deleted
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vop import heads, methods
from vop.backbones import MINI, Backbone, find_backbone
from vop.backbones.source import check_header, is_hub_id, read_json
from vop.errors import UsageError, VopError
from vop.models.card import render_card
from vop.models.model import TextVideoModel, shared_clip
from vop.utils.files import atomic_write, check_file
from vop.version import VERSION

CONFIG, WEIGHTS, CARD, TRAINING = "config.json", "model.safetensors", "README.md", "training"
FORMAT = 1
_PUBLISHED = [CONFIG, WEIGHTS, CARD, "backbone/*"]  # some runs bring their backbone
_ENTRIES = {"format": int, "method": str, "settings": dict, "head": dict, "backbone": dict, "card": dict}
_DEFAULTS = {"card": {}, "head": {"name": heads.MEAN, "settings": {}}}


def save(model: TextVideoModel, folder: Path) -> None:
    """Writes the folder, each file whole or not at all; the weights before the configuration that names them."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.trainable().items()}
    with atomic_write(folder / WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt"})
    config = config_of(model, folder)
    with atomic_write(folder / CONFIG) as path:
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with atomic_write(folder / CARD) as path:
        path.write_text(render_card(model, config), encoding="utf-8")


def config_of(model: TextVideoModel, folder: Path) -> dict:
    backbone = model.backbone
    name = backbone.name
    if backbone.folder.is_relative_to(folder):  # it travels with the run
        name = f"./{backbone.folder.relative_to(folder).as_posix()}"
    elif backbone.revision is None and Path(name).is_dir():
        name = str(Path(name).resolve())
    return {
        "format": FORMAT,
        "vop_version": VERSION,
        "method": model.method_name,
        "settings": model.method.settings,
        "head": {"name": model.head_name, "settings": model.head.settings},
        "backbone": {"name": name, "revision": backbone.revision, "sha256": backbone.content_hash()},
        "preprocessing": {
            "frames": "middle of equal intervals",
            "resize": "shorter side, bicubic, antialiased; centre crop",
            "image_size": model.image_size,
            "mean": list(backbone.mean),
            "std": list(backbone.std),
        },
        "card": model.card,
    }


def open_run(
    name: str, *, backbone: str | None, dtype: torch.dtype, beside: Sequence[TextVideoModel] = ()
) -> TextVideoModel:
    """See `vop.load`."""
    folder = None if name == MINI else Path(name).expanduser()  # a folder of that name is ./mini
    if folder is not None and not folder.is_dir():
        folder = _from_hub(name)
    if folder is None or not _is_run(folder):
        found = find_backbone(name)
        method = methods.create("zero-shot", found.sizes)
        clip = shared_clip(found, method, beside, dtype=dtype)
        return TextVideoModel(found, "zero-shot", method, dtype=dtype, clip=clip)
    config = _read_config(folder)
    found = _its_backbone(config["backbone"], folder, backbone)
    method = methods.create(config["method"], found.sizes, **config["settings"])
    head = heads.create(config["head"]["name"], found.sizes, num_frames=method.num_frames, **config["head"]["settings"])
    clip = shared_clip(found, method, beside, dtype=dtype)
    model = TextVideoModel(found, config["method"], method, config["head"]["name"], head, dtype=dtype, clip=clip)
    _fill(model, folder / WEIGHTS)
    model.card = config["card"]
    return model


def _is_run(folder: Path) -> bool:
    if (folder / CONFIG).exists():
        return "method" in read_json(folder / CONFIG)
    if (folder / WEIGHTS).exists() or (folder / TRAINING).exists():
        raise VopError(f"{folder}: no {CONFIG}: the run is incomplete; train it again or go on with --resume")
    raise UsageError(f"{folder}: no {CONFIG}: neither a run of ours nor a CLIP folder")


def _read_config(folder: Path) -> dict:
    found = read_json(folder / CONFIG)
    config = _DEFAULTS | found
    for key, kind in _ENTRIES.items():
        if not isinstance(config.get(key), kind):
            raise VopError(
                f"{folder / CONFIG}: {key!r} is {reprlib.repr(config.get(key))}, not of the type {kind.__name__}; "
                f"it has {', '.join(sorted(found))}"
            )
    if not all(isinstance(config["backbone"].get(key), str) for key in ("name", "sha256")):
        raise VopError(f"{folder / CONFIG}: 'backbone' has no name and sha256, only {config['backbone']!r}")
    if not (isinstance(config["head"].get("name"), str) and isinstance(config["head"].get("settings"), dict)):
        raise VopError(f"{folder / CONFIG}: 'head' has no name and settings, only {config['head']!r}")
    if config["format"] > FORMAT:
        raise VopError(
            f"{folder / CONFIG}: format {config['format']} is from a later vop; this one reads up to {FORMAT}"
        )
    return config


def _its_backbone(wanted: dict, folder: Path, given: str | None) -> Backbone:
    name = given or wanted["name"]
    if name.startswith("./"):
        name = str(folder / name)
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise VopError(f"{folder}: its backbone was at {name}, which is gone; say where it is now: backbone=FOLDER")
    found = find_backbone(name, revision=None if given else wanted.get("revision"))
    if found.content_hash() != wanted["sha256"]:
        raise VopError(
            f"{folder}: tuned on the backbone {wanted['name']!r} with content {wanted['sha256'][:12]}; {name!r} has "
            f"{found.content_hash()[:12]}: give the one that it was tuned on"
        )
    return found


def _fill(model: TextVideoModel, path: Path) -> None:
    """Loads what was trained; every tensor must be there, in its shape, and no other."""
    if not path.exists():
        raise VopError(f"{path}: missing: the run is incomplete; train it again or copy it whole")
    check_file(path)
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            _fill_from(file, model, path)
    except (SafetensorError, OSError) as error:
        raise VopError(f"{path}: damaged ({error}); train it again or copy it whole") from None


def _fill_from(file: safe_open, model: TextVideoModel, path: Path) -> None:
    wanted = model.trainable()
    odd = sorted(set(file.keys()) ^ wanted.keys())
    if odd:
        raise VopError(f"{path}: not the tensors of {model.method_name}: {odd[0]!r} is on one side only")
    for name, parameter in wanted.items():  # all shapes before the first tensor is read
        shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(parameter.shape):
            raise VopError(f"{path}: {name} has shape {shape}, the method's is {tuple(parameter.shape)}")
    for name, parameter in wanted.items():
        parameter.data.copy_(file.get_tensor(name))


def _from_hub(name: str) -> Path | None:
    """The folder of a run that was published on a hub, None if `name` is no such thing."""
    if not is_hub_id(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for local in (True, False):
        try:
            folder = Path(snapshot_download(name, local_files_only=local, allow_patterns=_PUBLISHED))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
        # A download that was cut off leaves a configuration without its weights.
        if (folder / CONFIG).exists() and not (local and not (folder / WEIGHTS).exists()):
            return folder
    return None
