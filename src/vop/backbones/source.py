"""Find a backbone: the built-in `mini`, a folder, or a model on a hub."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vop.backbones.config_values import read_matryoshka_dimensions
from vop.backbones.family import Family
from vop.backbones.files import has_vocabulary, weight_files
from vop.backbones.known import BY_NAME, SHORT_NAMES, full_name, pinned_revision
from vop.backbones.sizes import Sizes
from vop.errors import UsageError, VopError, unknown_name
from vop.utils.checks import check_whole
from vop.utils.files import check_file, expand
from vop.utils.parsing import read_json_object
from vop.utils.registry import Registry

if TYPE_CHECKING:
    from vop.backbones.tokenizer import Tokenizer
    from vop.backbones.towers import Encoder
    from vop.video.resizing import Resizing

BUILT_IN = {"mini": "mini", "mini-2": "mini_2"}  # backbones of the package, by name, and their folders
DEFAULT_HUB_ID = "openai/clip-vit-base-patch32"

# The families by the `model_type` of a config.json. Other packages add theirs through entry points.
FAMILIES: Registry[type[Family]] = Registry(
    "model_type",
    {
        "clip": "vop.backbones.clip.family:ClipFamily",
        "metaclip_2": "vop.backbones.metaclip2.family:MetaClip2Family",
        "siglip": "vop.backbones.siglip.family:SiglipFamily",
        "chinese_clip": "vop.backbones.chinese_clip.family:ChineseClipFamily",
        "altclip": "vop.backbones.altclip.family:AltClipFamily",
        "xclip": "vop.backbones.video_native.x_clip:XClipFamily",
        "videoprism": "vop.backbones.video_native.videoprism:VideoPrismFamily",
        "pe_video": "vop.backbones.video_native.pe_video:PeVideoFamily",
        "pe_audio_video": "vop.backbones.video_native.pe_video:PeAudioVideoFamily",
        "open_clip": "vop.backbones.open_clip.family:OpenClipFamily",
    },
    group="vop.families",
)
# Families that are not supported, by their `model_type`, and what to use instead.
UNSUPPORTED = {
    "siglip2": "SigLIP 2 in its NaFlex variant, for images of any shape, is not supported: use a checkpoint of a fixed "
    "resolution, such as google/siglip2-base-patch16-224 or google/siglip2-so400m-patch14-384",
}
OPEN_CLIP_CONFIG = "open_clip_config.json"
# The files to download from a hub, and patterns of weight files; the first pattern that matches is downloaded.
_WANTED = (
    *("config.json", OPEN_CLIP_CONFIG, "*processor_config.json", "tokenizer*.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "*.model"),
)
_WEIGHTS = ("model*.safetensors", "open_clip_model*.safetensors", "pytorch_model*.bin", "open_clip_pytorch_model*.bin")
HUB_PREFIX = "hf-hub:"  # timm and open_clip write it before ids of the Hugging Face hub
HUB_TIMEOUT_SECONDS = 20


class UnknownBackbone(UsageError):
    """A name is not a backbone's folder, a name that `vop` or a package defines, or a possible hub id."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The folder of a backbone on this machine.

    Attributes:
        name: the name by which it was found: "mini-2", a hub id, a folder, or a name that a package adds.
        folder: the folder, in the format of its authors.
        revision: the revision on the hub, or None.
        family: reads the folder's files.
        sizes: the sizes of its towers, with the image size in use.
        stored_image_size: the image size of the folder's weights, in pixels.
        resizing: how a frame becomes a square.
        mean, std: mean and standard deviation of pixels in [0, 1], per channel.
        matryoshka_dimensions: numbers of dimensions for which its authors trained it, below that of the joint space.
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
    matryoshka_dimensions: tuple[int, ...] = ()

    def load(self) -> Encoder:
        """Load the model with its weights in fp32."""
        return self.family.load(self.folder, self.sizes, stored_image_size=self.stored_image_size)

    def build_random(self) -> Encoder:
        """Build the model with random weights, to measure it. The folder needs no weights for this."""
        config = {} if self.sizes.has_layers else read_json(_family_of(self.folder)[1])
        return self.family.build_random(self.sizes, config)

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer, or None if the folder has no vocabulary."""
        return self.family.read_tokenizer(self.folder, self.sizes)

    def with_image_size(self, image_size: int) -> Backbone:
        """Return the backbone for images of another size, in pixels. Its positions are interpolated on loading.

        Raises:
            UsageError: the size is not a multiple of the patch size, or the backbone has a fixed size.
        """
        sizes = _with_image_size(self.sizes, image_size, name=self.name)
        return (
            self
            if sizes == self.sizes
            else replace(self, sizes=sizes, resizing=replace(self.resizing, size=image_size))
        )

    def content_hash(self) -> str:
        """Return the SHA-256 of the weight files, with which a run recognises its backbone. The files are read once."""
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
    """Find a backbone by its name.

    Args:
        name: "mini-2", "mini", a local folder, "OWNER/NAME" or "hf-hub:OWNER/NAME" on the Hugging Face hub ("ViT-B/32",
            "ViT-B/16" and "ViT-L/14" mean OpenAI's), or a name that an installed package adds. "NAME@336" takes
            images of 336 pixels; positions are interpolated.
        revision: the revision on the hub. By default OpenAI's models are pinned, others use the newest.

    Raises:
        UnknownBackbone: the name is unknown.
        UsageError: the name is a file.
        VopError: the folder does not belong to one of `FAMILIES`, or the hub cannot be reached and nothing is cached.
    """
    name, image_size = split_image_size(name)
    if image_size is not None:
        return find_backbone(name, revision=revision).with_image_size(image_size)
    name = full_name(without_hub_prefix(name))
    if name in REGISTRY.names():
        return replace(REGISTRY.find(name)(), name=name)
    if expand(name).is_dir():
        return _read_folder(expand(name), name=name, revision=None)
    if expand(name).is_file():
        raise UsageError(
            f"{name} is a file; a backbone is a folder. Convert OpenAI's file: vop import openai {name} --out DIR"
        )
    if not is_hub_id(name) or name.startswith("ViT-"):
        known = [*REGISTRY.names(), *SHORT_NAMES, *BY_NAME]
        raise UnknownBackbone(str(unknown_name("backbone or CLIP folder", name, known)))
    folder = _download(name, revision or pinned_revision(name))
    return _read_folder(folder, name=name, revision=folder.name)  # a snapshot folder is named after its commit


def _find_built_in(name: str) -> Backbone:
    return _read_folder(Path(__file__).with_name(BUILT_IN[name]), name=name, revision=None)


def _find_mini() -> Backbone:
    return _find_built_in("mini")


def _find_mini_2() -> Backbone:
    return _find_built_in("mini-2")


# Functions that find backbones. Other packages add theirs through entry points.
REGISTRY: Registry[Callable[[], Backbone]] = Registry(
    "backbone", {"mini": f"{__name__}:_find_mini", "mini-2": f"{__name__}:_find_mini_2"}, group="vop.backbones"
)


def _with_image_size(sizes: Sizes, image_size: int, *, name: str) -> Sizes:
    vision = sizes.vision
    if image_size == vision.image_size:
        return sizes
    check_whole("image_size", image_size, at_least=vision.patch_size, at_most=4096)
    if not vision.layers or image_size % vision.patch_size:
        allowed = f"multiples of its patch size, {vision.patch_size}" if vision.layers else vision.image_size
        raise UsageError(f"image_size is {image_size}; {name} takes {allowed}")
    return replace(sizes, vision=replace(vision, image_size=image_size))


def split_image_size(name: str) -> tuple[str, int | None]:
    """Split "NAME@336" into the name and the image size. A folder of this very name is not split."""
    base, at, size = name.rpartition("@")
    if not at or not base or not size.isdecimal() or expand(name).is_dir():
        return name, None
    return base, int(size)


def without_hub_prefix(name: str) -> str:
    """Return an id of the Hugging Face hub as OWNER/NAME, and any other name unchanged."""
    return name.removeprefix(HUB_PREFIX)


def is_hub_id(name: str) -> bool:
    """Return whether `name` can be OWNER/NAME on a hub."""
    if "/" not in name:  # saves importing the hub's client, which takes a quarter of a second
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in its `__all__`

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def find_sizes(name: str) -> Sizes:
    """Return the sizes of a backbone. For well-known hub ids this needs neither weights nor a network."""
    name, image_size = split_image_size(name)
    known = BY_NAME.get(full_name(without_hub_prefix(name)))
    sizes = known.sizes if known and not expand(name).is_dir() else find_backbone(name).sizes
    return sizes if image_size is None else _with_image_size(sizes, image_size, name=name)


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
        # Without a network this request fails at once; others retry for a minute.
        files = model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).siblings or []
        names = [file.rfilename for file in files]
        weights = next((pattern for pattern in _WEIGHTS if any(fnmatch(one, pattern) for one in names)), _WEIGHTS[0])
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_WANTED, weights]))
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise unknown_name("folder or hub id", name, [*REGISTRY.names(), *BY_NAME]) from error
    except Exception as error:  # the hub's client raises errors of its HTTP library
        if cached:  # weights without a vocabulary still embed videos
            return cached
        near = [] if name in BY_NAME else get_close_matches(name, BY_NAME, cutoff=0.8)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise VopError(
            f"{name!r} is neither a local folder nor a cached hub id, and the hub cannot be reached "
            f"({type(error).__name__}). {hint}Without a network, use the built-in `mini` or a local CLIP folder, "
            "or convert OpenAI's file: vop import openai FILE --out DIR"
        ) from error


def _read_folder(folder: Path, *, name: str, revision: str | None) -> Backbone:
    family, path = _family_of(folder)
    try:
        config = read_json(path)
        sizes = family.read_sizes(config)
        shorter = read_matryoshka_dimensions(config, below=sizes.embed_dim)
    except VopError:
        raise
    except ValueError as error:
        problem = f"not a valid configuration of {family.title}: {error}"
        raise VopError(f"{path}: {problem}; fetch the folder again") from None
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
        matryoshka_dimensions=shorter,
    )


def _family_of(folder: Path) -> tuple[Family, Path]:
    """Return the family of a folder, and the file of its configuration."""
    path = folder / "config.json"
    kind = read_json(path).get("model_type") if path.exists() else None
    known = FAMILIES.names()
    if not isinstance(kind, str) or kind not in known:
        if (folder / OPEN_CLIP_CONFIG).exists():
            return FAMILIES.find("open_clip")(), folder / OPEN_CLIP_CONFIG
        if not path.exists():
            raise VopError(f"{folder}: config.json and {OPEN_CLIP_CONFIG} are missing: this is not a backbone's folder")
        if kind is None:
            raise VopError(f"{path}: model_type is missing; add it if you know the family, one of {', '.join(known)}")
        if not isinstance(kind, str):
            raise VopError(f"{path}: model_type is {reprlib.repr(kind)}; it must be one of {', '.join(known)}")
        if kind in UNSUPPORTED:
            raise VopError(f"{path}: model_type is {kind!r}: {UNSUPPORTED[kind]}")
        inside = [name for name in known if name in kind.lower()]
        if inside:  # "CLIP", or "clip_vision_model", which is only one tower
            raise VopError(
                f"{path}: unknown model_type {kind!r}: did you mean {max(inside, key=len)}? known: {', '.join(known)}"
            )
        raise VopError(f"{path}: {unknown_name('model_type', kind, known)}")
    return FAMILIES.find(kind)(), path


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raise a VopError if the file is missing or damaged."""
    return read_json_object(path, remedy="fetch the folder again")
