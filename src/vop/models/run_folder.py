"""Read and write a run's folder, which training creates and `vop.load` opens.

config.json         method, settings, the backbone's name and hash, preprocessing, facts for the card
model.safetensors   the trained parameters only
README.md           the model card, with results
training/           files for resuming the training; it can be deleted
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

_OWNERS_PART = "<!-- Below this line, write what you like: vop keeps it when it writes the card again. -->"
CONFIG, WEIGHTS, CARD, TRAINING = "config.json", "model.safetensors", "README.md", "training"
BACKBONE = "backbone"  # folder of a backbone inside the run
PUBLISHED = [CONFIG, WEIGHTS, CARD, f"{BACKBONE}/*"]
FORMAT = 1


@with_config(ConfigDict(extra="allow"))
class Card(TypedDict, total=False):
    """Facts about a model's training, which the run's README shows. Training adds the fields of its recipe.

    `results` and `validation` are metrics in both directions, as from `RetrievalMetrics.to_dict`. Besides `t2v` and
    `v2t`, `results` may have the keys `data`, `split`, `gallery_size` and `precision`.
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
    """A run's config.json. Unknown keys are ignored, because a later version may add some.

    Attributes:
        packages: the packages that add parts of the model, by "method", "head" or "backbone". Built-in parts are not
            listed.
        matryoshka_dimensions: numbers of dimensions, below that of the joint space, for which the model was trained.
    """

    format: int
    vop_version: str = VERSION
    method: str
    settings: dict[str, Any]
    head: HeadConfig = HeadConfig()
    packages: dict[str, str] = {}
    backbone: BackboneConfig
    preprocessing: dict[str, Any] = {}
    matryoshka_dimensions: tuple[int, ...] = ()
    card: Card = Card()

    def to_json(self) -> str:
        values = self.model_dump(mode="json")
        if not self.packages:
            del values["packages"]
        if not self.matryoshka_dimensions:
            del values["matryoshka_dimensions"]
        if self.backbone.image_size is None:
            del values["backbone"]["image_size"]
        return json.dumps(values, indent=2) + "\n"


def write_run(folder: Path, config: RunConfig, trained: Mapping[str, Tensor], *, card: str) -> None:
    """Write the folder, each file atomically. The weights come before the configuration that refers to them.

    What the owner has written below the model card stays.

    Raises:
        UsageError: the folder holds a backbone, whose files would be replaced.
    """
    if (folder / OPEN_CLIP_CONFIG).exists() or ((folder / CONFIG).exists() and not is_run(folder)):
        raise UsageError(f"{folder} holds a backbone, whose files a run would replace: save to another folder")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.items()}
    with atomic_write(folder / WEIGHTS) as path:
        save_file(state, path, metadata={"format": "pt"})
    card = f"{card}\n{_OWNERS_PART}\n{_owners_text(folder / CARD)}"
    for name, text in ((CONFIG, config.to_json()), (CARD, card)):
        with atomic_write(folder / name) as path:
            path.write_text(text, encoding="utf-8", errors="surrogateescape")


def _owners_text(card: Path) -> str:
    """Return what stands below the card in a README.md: all of it if vop did not write the file."""
    if not card.exists():
        return ""
    written, mark, kept = card.read_text(encoding="utf-8", errors="surrogateescape").partition(f"{_OWNERS_PART}\n")
    return kept if mark or "library_name: vop" in written else f"\n{written}"


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run; False for a backbone's folder.

    Raises:
        VopError: the run is incomplete.
        UsageError: the folder is neither a run nor a backbone's folder.
    """
    if (folder / OPEN_CLIP_CONFIG).exists():
        return False
    if (folder / CONFIG).exists():
        return "method" in read_json_object(folder / CONFIG, remedy="fetch the folder again")
    if (folder / WEIGHTS).exists() or (folder / TRAINING).exists():
        raise VopError(
            f"{folder}: {CONFIG} is missing, so the run is incomplete; train it again, or resume it with --resume"
        )
    raise UsageError(f"{folder}: {CONFIG} is missing: this is neither a run nor a backbone's folder")


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of a run.

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
    """Load the trained parameters into `wanted`. The file must contain exactly these names and shapes.

    Raises:
        VopError: the weights are missing or damaged, or belong to another method.
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
                state = "missing" if odd[0] in wanted else "unknown"
                raise VopError(f"{path} does not contain the tensors of {method}: {odd[0]!r} is {state}")
            for name, parameter in wanted.items():  # check all shapes before reading the first tensor
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(parameter.shape):
                    raise VopError(f"{path}: {name} has the shape {shape}; {method} needs {tuple(parameter.shape)}")
            with torch.no_grad():
                for name, parameter in wanted.items():
                    parameter.copy_(file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise VopError(f"{path} is damaged ({error}); train it again or copy all its files") from None


def copy_backbone(source: Path, folder: Path) -> Path:
    """Copy a local CLIP folder into a run's folder, so that it becomes part of the run."""
    return Path(shutil.copytree(source, folder / BACKBONE))
