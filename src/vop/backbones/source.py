"""Where a backbone comes from: the built-in `mini`, a folder, or a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary, weight_files
from vop.backbones.sizes import VIT_B_16, VIT_B_32, VIT_L_14, Sizes
from vop.errors import UsageError, VopError, unknown_name
from vop.utils.checks import check_whole
from vop.utils.files import check_file
from vop.utils.parsing import read_json_object
from vop.utils.registry import Registry

if TYPE_CHECKING:
    from vop.backbones.tokenizer import Tokenizer
    from vop.backbones.towers import Encoder
    from vop.video.resizing import Resizing

MINI = "mini"
DEFAULT_HUB_ID = "openai/clip-vit-base-patch32"

# The families by the `model_type` of a config.json. Other packages add theirs through entry points.
FAMILIES: Registry[type[Family]] = Registry(
    "model_type",
    {
        "clip": "vop.backbones.clip.family:ClipFamily",
        "chinese_clip": "vop.backbones.chinese_clip.family:ChineseClipFamily",
        "altclip": "vop.backbones.altclip.family:AltClipFamily",
    },
    group="vop.families",
)
# The files of a hub can change under a name, but not under a revision.
PINNED_REVISIONS = {
    "openai/clip-vit-base-patch32": "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    "openai/clip-vit-base-patch16": "57c216476eefef5ab752ec549e440a49ae4ae5f3",
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
}
SHORT_NAMES = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
}
# Sizes that are known without weights and without a network.
KNOWN_SIZES = {
    "openai/clip-vit-base-patch32": VIT_B_32,
    "openai/clip-vit-base-patch16": VIT_B_16,
    "openai/clip-vit-large-patch14": VIT_L_14,
}
OPEN_CLIP_CONFIG = "open_clip_config.json"
# The files of a hub's repository that are fetched, and those of its weights, of which the first kind that is there.
_WANTED = (
    *("config.json", OPEN_CLIP_CONFIG, "preprocessor_config.json", "tokenizer*.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "*.model"),
)
_WEIGHTS = ("model*.safetensors", "open_clip_model*.safetensors", "pytorch_model*.bin", "open_clip_pytorch_model*.bin")
HUB_PREFIX = "hf-hub:"  # as timm and open_clip write the ids of the Hugging Face hub
HUB_TIMEOUT_SECONDS = 20


class UnknownBackbone(UsageError):
    """A name is neither the folder of a backbone, nor a name that `vop` or a package defines, nor an id of a hub."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The folder of a backbone on this machine.

    Attributes:
        name: the name that it was found by: "mini", a hub id, a folder, or a name that a package adds.
        folder: as its authors publish it.
        revision: the revision on the hub, or None.
        family: reads the folder's files.
        sizes: of its towers, with the image size that it is used with.
        stored_image_size: the image size of the folder's weights, in pixels.
        resizing: how a frame becomes a square.
        mean, std: mean and standard deviation of a pixel in [0, 1], per channel.
    """

    name: str
    folder: Path
    revision: str | None
    family: Family
    sizes: Sizes
    stored_image_size: int
    resizing: Resizing
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load(self) -> Encoder:
        """The weights, in fp32."""
        return self.family.load(self.folder, self.sizes, stored_image_size=self.stored_image_size)

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None if the folder has no vocabulary."""
        return self.family.read_tokenizer(self.folder, self.sizes)

    def with_image_size(self, image_size: int) -> Backbone:
        """Return the backbone for images of another size, in pixels. Its positions are interpolated on loading.

        Raises:
            UsageError: the size is not a multiple of the patch size, or the backbone takes no other.
        """
        vision = self.sizes.vision
        if image_size == vision.image_size:
            return self
        check_whole("image_size", image_size, at_least=vision.patch_size, at_most=4096)
        if not vision.layers or image_size % vision.patch_size:
            allowed = f"multiples of its patch size, {vision.patch_size}" if vision.layers else vision.image_size
            raise UsageError(f"image_size is {image_size}; {self.name} takes {allowed}")
        sizes = replace(self.sizes, vision=replace(vision, image_size=image_size))
        return replace(self, sizes=sizes, resizing=replace(self.resizing, size=image_size))

    def content_hash(self) -> str:
        """SHA-256 of the weights' files, by which a run recognises its backbone. The files are read once."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        digest = hashlib.sha256()
        for path in weight_files(self.folder, self.family.weights):
            check_file(path)
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def find_backbone(name: str, *, revision: str | None = None) -> Backbone:
    """Finds a backbone by its name.

    Args:
        name: "mini", a local folder, "OWNER/NAME" or "hf-hub:OWNER/NAME" on the Hugging Face hub ("ViT-B/32",
            "ViT-B/16" and "ViT-L/14" stand for OpenAI's), or a name that an installed package adds.
        revision: of a hub id; OpenAI's are pinned by default.

    Raises:
        UnknownBackbone: the name is unknown.
        UsageError: the name is a file.
        VopError: the folder is not of a family of `FAMILIES`, or the hub cannot be reached and nothing is cached.
    """
    name = SHORT_NAMES.get(without_hub_prefix(name), without_hub_prefix(name))
    if name in REGISTRY.names():
        return replace(REGISTRY.find(name)(), name=name)
    if Path(name).expanduser().is_dir():
        return _read_folder(Path(name).expanduser(), name=name, revision=None)
    if Path(name).expanduser().is_file():
        raise UsageError(f"{name} is a file, a backbone is a folder; OpenAI's: vop import openai {name} --out DIR")
    if not is_hub_id(name) or name.startswith("ViT-"):
        known = [*REGISTRY.names(), *SHORT_NAMES, *KNOWN_SIZES]
        raise UnknownBackbone(str(unknown_name("backbone or CLIP folder", name, known)))
    folder = _download(name, revision or PINNED_REVISIONS.get(name))
    return _read_folder(folder, name=name, revision=folder.name)  # a snapshot folder is named after its commit


def _find_mini() -> Backbone:
    return _read_folder(Path(__file__).with_name("mini"), name=MINI, revision=None)


# Backbones that are found by calling a function. Other packages add theirs through entry points.
REGISTRY: Registry[Callable[[], Backbone]] = Registry(
    "backbone", {MINI: f"{__name__}:_find_mini"}, group="vop.backbones"
)


def without_hub_prefix(name: str) -> str:
    """An id of the Hugging Face hub as OWNER/NAME; any other name as it is."""
    return name.removeprefix(HUB_PREFIX)


def is_hub_id(name: str) -> bool:
    """Whether `name` can be OWNER/NAME on a hub."""
    if "/" not in name:  # known without the hub's client, whose import takes a quarter of a second
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in its `__all__`

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def find_sizes(name: str) -> Sizes:
    """The sizes of a backbone, without weights or a network for OpenAI's."""
    name = SHORT_NAMES.get(without_hub_prefix(name), without_hub_prefix(name))
    return KNOWN_SIZES[name] if name in KNOWN_SIZES else find_backbone(name).sizes


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    cached = None
    try:  # an earlier download is enough
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        cached = folder if any(weight_files(folder, [pattern]) for pattern in _WEIGHTS) else None
        if cached and has_vocabulary(cached):
            return cached
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass
    try:
        # This request fails at once where there is no network; others try again for a minute.
        files = model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).siblings or []
        names = [file.rfilename for file in files]
        weights = next((pattern for pattern in _WEIGHTS if any(fnmatch(one, pattern) for one in names)), _WEIGHTS[0])
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_WANTED, weights]))
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise unknown_name("folder or hub id", name, [*REGISTRY.names(), *KNOWN_SIZES]) from error
    except Exception as error:  # the hub's client raises errors of its HTTP library
        if cached:  # weights without a vocabulary still embed videos
            return cached
        near = [] if name in KNOWN_SIZES else get_close_matches(name, KNOWN_SIZES, cutoff=0.8)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise VopError(
            f"{name!r} is not a folder here, and as a hub id it is not cached; the hub cannot be reached "
            f"({type(error).__name__}). {hint}Without a network, use the built-in `mini`, give a local CLIP folder, "
            "or convert OpenAI's file: vop import openai FILE --out DIR"
        ) from error


def _read_folder(folder: Path, *, name: str, revision: str | None) -> Backbone:
    family, path = _family_of(folder)
    try:
        sizes = family.read_sizes(read_json(path))
    except ValueError as error:
        raise VopError(f"{path}: not the configuration of a {family.title}: {error}; fetch the folder again") from None
    preprocessing = family.read_preprocessing(folder, sizes)
    return Backbone(
        name=name,
        folder=folder,
        revision=revision,
        family=family,
        sizes=sizes,
        stored_image_size=sizes.vision.image_size,
        resizing=preprocessing.resizing,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


def _family_of(folder: Path) -> tuple[Family, Path]:
    """Return the family of a folder, and the file of its configuration."""
    path = folder / "config.json"
    kind = read_json(path).get("model_type") if path.exists() else None
    if kind not in FAMILIES.names():
        if (folder / OPEN_CLIP_CONFIG).exists():
            return FAMILIES.find("open_clip")(), folder / OPEN_CLIP_CONFIG
        if not path.exists():
            raise VopError(f"{folder}: no config.json and no {OPEN_CLIP_CONFIG}: not the folder of a backbone")
        raise VopError(f"{path}: {unknown_name('model_type', str(kind), FAMILIES.names())}")
    return FAMILIES.find(kind)(), path


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. A VopError says what is wrong with the file."""
    return read_json_object(path, remedy="fetch the folder again")
