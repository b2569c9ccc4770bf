"""A run's folder: what training writes, `vop.load` opens, and a hub shows.

config.json         method, settings, backbone by name and content, preprocessing, the card's facts
model.safetensors   only what was trained
README.md           the model card, with results
training/           what training needs to resume; it can be deleted
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from vop.backbones.files import check_header
from vop.backbones.source import OPEN_CLIP_CONFIG
from vop.config import validated
from vop.errors import UsageError, VopError
from vop.heads import MEAN
from vop.utils.files import atomic_write, check_file
from vop.utils.parsing import read_json_object
from vop.version import VERSION

CONFIG, WEIGHTS, CARD, TRAINING = "config.json", "model.safetensors", "README.md", "training"
BACKBONE = "backbone"  # the folder of a backbone that is part of the run
PUBLISHED = [CONFIG, WEIGHTS, CARD, f"{BACKBONE}/*"]
FORMAT = 1


@with_config(ConfigDict(extra="allow"))
class Card(TypedDict, total=False):
    """Facts about how a model was made. The run's README shows them. Training adds the fields of its recipe.

    `results` and `validation` are metrics in both directions, as `RetrievalMetrics.to_dict` gives them. Beside `t2v`
    and `v2t`, `results` may say `data`, `split`, `gallery_size` and `precision`.
    """

    data: str | None
    training_pairs: int
    training_videos: int
    validation_videos: int
    epoch: int | None
    selection: str | None
    seed: int | None
    minutes: float
    aspect: str
    source: str
    video_sample_type: str
    license: str
    computed_in: str
    vop_version: str
    vop_commit: str
    torch_version: str
    transformers_version: str
    results: dict[str, Any] | None
    validation: dict[str, Any] | None


class HeadConfig(BaseModel):
    name: str = MEAN
    settings: dict[str, Any] = {}


class BackboneConfig(BaseModel):
    """A backbone's name, and a hash of its weights, which tells it from another backbone of that name.

    Attributes:
        image_size: in pixels, if it is not the one of the weights.
    """

    name: str
    revision: str | None = None
    sha256: str
    image_size: int | None = None


class RunConfig(BaseModel):
    """A run's config.json. Keys that a later version adds are ignored.

    Attributes:
        packages: the packages that add the method, the head or the backbone, by these words; none for built-in ones.
    """

    format: int
    vop_version: str = VERSION
    method: str
    settings: dict[str, Any]
    head: HeadConfig = HeadConfig()
    packages: dict[str, str] = {}
    backbone: BackboneConfig
    preprocessing: dict[str, Any] = {}
    card: Card = Card()

    def to_json(self) -> str:
        values = self.model_dump(mode="json")
        if not self.packages:
            del values["packages"]
        if self.backbone.image_size is None:
            del values["backbone"]["image_size"]
        return json.dumps(values, indent=2) + "\n"


def write_run(folder: Path, config: RunConfig, trained: Mapping[str, Tensor], *, card: str) -> None:
    """Writes the folder, each file whole or not at all; the weights before the configuration that names them."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.items()}
    with atomic_write(folder / WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt"})
    for name, text in ((CONFIG, config.to_json()), (CARD, card)):
        with atomic_write(folder / name) as path:
            path.write_text(text, encoding="utf-8")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, and not a backbone.

    Raises:
        VopError: the run is incomplete.
        UsageError: the folder holds neither.
    """
    if (folder / OPEN_CLIP_CONFIG).exists():
        return False
    if (folder / CONFIG).exists():
        return "method" in read_json_object(folder / CONFIG, remedy="fetch the folder again")
    if (folder / WEIGHTS).exists() or (folder / TRAINING).exists():
        raise VopError(f"{folder}: no {CONFIG}: the run is incomplete; train it again, or resume it with --resume")
    raise UsageError(f"{folder}: no {CONFIG}: neither a run nor the folder of a backbone")


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run.

    Raises:
        VopError: a value is missing or wrong, or a later version wrote it.
    """
    path = folder / CONFIG
    values = read_json_object(path, remedy="fetch the folder again")
    written = values.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise VopError(f"{path}: format {written} is from a later version of vop; this version reads up to {FORMAT}")
    return validated(RunConfig, values, source=str(path), error=VopError)


def fill_trained(folder: Path, wanted: Mapping[str, nn.Parameter], *, method: str) -> None:
    """Loads the trained parameters into `wanted`. The file must hold exactly these, with these shapes.

    Raises:
        VopError: the weights are missing, damaged, or of another method.
    """
    path = folder / WEIGHTS
    if not path.exists():
        raise VopError(f"{path} is missing, so the run is incomplete; train it again or copy all its files")
    check_file(path)
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            odd = sorted(set(file.keys()) ^ wanted.keys())
            if odd:
                raise VopError(f"{path} does not hold the tensors of {method}: {odd[0]!r} is missing on one side")
            for name, parameter in wanted.items():  # all shapes before the first tensor is read
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(parameter.shape):
                    raise VopError(f"{path}: {name} has shape {shape}, the method's is {tuple(parameter.shape)}")
            with torch.no_grad():
                for name, parameter in wanted.items():
                    parameter.copy_(file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise VopError(f"{path} is damaged ({error}); train it again or copy all its files") from None


def copy_backbone(source: Path, folder: Path) -> Path:
    """Copies a local CLIP folder into a run's folder, so that it becomes part of the run."""
    return Path(shutil.copytree(source, folder / BACKBONE))
