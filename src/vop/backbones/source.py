"""Find a backbone: the built-in `mini`, a folder, or a model on a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from vop.backbones.clip.config import VIT_B_16, VIT_B_32, VIT_L_14, ClipSizes, sizes_from_config
from vop.backbones.clip.preprocessing import read_preprocessing
from vop.errors import UsageError, VopError, unknown_name
from vop.utils.files import check_file
from vop.utils.parsing import read_json_object
from vop.utils.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from vop.backbones.clip.model import CLIP
    from vop.backbones.clip.tokenizer import Tokenizer

MINI = "mini"
DEFAULT_HUB_ID = "openai/clip-vit-base-patch32"

# On a hub, the files of a name can change, but not those of a revision.
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
# Sizes that are known without weights and network.
KNOWN_SIZES = {
    "openai/clip-vit-base-patch32": VIT_B_32,
    "openai/clip-vit-base-patch16": VIT_B_16,
    "openai/clip-vit-large-patch14": VIT_L_14,
}
_WANTED = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
]
HUB_PREFIX = "hf-hub:"  # timm and open_clip write it before ids of the Hugging Face hub
HUB_TIMEOUT_SECONDS = 20
MAX_HEADER_BYTES = 8 * 2**20  # of a safetensors file; that of ViT-L/14 has 80 kB


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A CLIP folder on this machine.

    Attributes:
        name: the name by which it was found: "mini", a hub id, a folder, or a name that a package adds.
        folder: an ordinary `transformers` CLIP folder.
        revision: the revision on the hub, or None.
        mean, std: mean and standard deviation of pixels in [0, 1], per channel.
    """

    name: str
    folder: Path
    revision: str | None
    sizes: ClipSizes
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load(self) -> CLIP:
        """Load the model with its weights in fp32."""
        import torch

        from vop.backbones.clip.convert import from_transformers
        from vop.backbones.clip.model import CLIP

        with torch.device("meta"):
            clip = CLIP(self.sizes)
        _check_weights(self.folder, sum(tensor.numel() for tensor in clip.state_dict().values()))
        state = from_transformers(_read_weights(self.folder), source=str(self.folder))
        _check_shapes(state, clip.state_dict(), self.folder)
        clip.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        return clip.eval().requires_grad_(False)

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer, or None if the folder has no vocabulary."""
        from vop.backbones.clip.tokenizer import Tokenizer

        return Tokenizer(self.folder, vocab_size=self.sizes.vocab_size) if _has_vocabulary(self.folder) else None

    def content_hash(self) -> str:
        """Return the SHA-256 of the weight files, with which a run recognises its backbone. The files are read once."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        digest = hashlib.sha256()
        for path in _weight_files(self.folder):
            check_file(path)
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def find_backbone(name: str, *, revision: str | None = None) -> Backbone:
    """Find a backbone by its name.

    Args:
        name: "mini", a local `transformers` CLIP folder, "OWNER/NAME" or "hf-hub:OWNER/NAME" on the Hugging Face hub
            ("ViT-B/32", "ViT-B/16" and "ViT-L/14" mean OpenAI's), or a name that an installed package adds.
        revision: the revision on the hub. By default OpenAI's models are pinned, others use the newest.

    Raises:
        UsageError: the name is unknown.
        VopError: the folder is not a ViT CLIP, or the hub cannot be reached and nothing is cached.
    """
    name = SHORT_NAMES.get(without_hub_prefix(name), without_hub_prefix(name))
    if name in REGISTRY.names():
        return replace(REGISTRY.find(name)(), name=name)
    if Path(name).expanduser().is_dir():
        return _read_folder(Path(name).expanduser(), name=name, revision=None)
    if Path(name).expanduser().is_file():
        raise UsageError(
            f"{name} is a file; a backbone is a folder. Convert OpenAI's file: vop import openai {name} --out DIR"
        )
    if not is_hub_id(name) or name.startswith("ViT-"):
        raise unknown_name("backbone or folder", name, [*REGISTRY.names(), *SHORT_NAMES, *KNOWN_SIZES])
    folder = _download(name, revision or PINNED_REVISIONS.get(name))
    return _read_folder(folder, name=name, revision=folder.name)  # a snapshot folder is named after its commit


def _find_mini() -> Backbone:
    return _read_folder(Path(__file__).with_name("mini"), name=MINI, revision=None)


# Functions that find backbones. Other packages add theirs through entry points.
REGISTRY: Registry[Callable[[], Backbone]] = Registry(
    "backbone", {MINI: f"{__name__}:_find_mini"}, group="vop.backbones"
)


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


def find_sizes(name: str) -> ClipSizes:
    """Return the sizes of a backbone. For OpenAI's models this needs neither weights nor a network."""
    name = SHORT_NAMES.get(without_hub_prefix(name), without_hub_prefix(name))
    return KNOWN_SIZES[name] if name in KNOWN_SIZES else find_backbone(name).sizes


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    cached = None
    try:  # an earlier download is enough
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        cached = folder if _weight_files(folder) else None
        if cached and _has_vocabulary(cached):
            return cached
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass
    try:
        # Without a network this request fails at once; others retry for a minute.
        files = model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).siblings or []
        safe = any(fnmatch(file.rfilename, "model*.safetensors") for file in files)
        weights = "model*.safetensors*" if safe else "pytorch_model*.bin*"
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_WANTED, weights]))
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise unknown_name("folder or hub id", name, [*REGISTRY.names(), *KNOWN_SIZES]) from error
    except Exception as error:  # the hub's client raises errors of its HTTP library
        if cached:  # weights without a vocabulary still embed videos
            return cached
        near = [] if name in KNOWN_SIZES else get_close_matches(name, KNOWN_SIZES, cutoff=0.8)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise VopError(
            f"{name!r} is neither a local folder nor a cached hub id, and the hub cannot be reached "
            f"({type(error).__name__}). {hint}Without a network, use the built-in `mini` or a local CLIP folder, "
            "or convert OpenAI's file: vop import openai FILE --out DIR"
        ) from error


def _read_folder(folder: Path, *, name: str, revision: str | None) -> Backbone:
    config_file = folder / "config.json"
    if not config_file.exists():
        raise VopError(f"{folder}: config.json is missing: this is not a transformers CLIP folder")
    config = read_json(config_file)
    if config.get("model_type") != "clip":
        raise VopError(f"{config_file}: model_type is {config.get('model_type')!r}; a backbone is of type 'clip'")
    try:
        sizes = sizes_from_config(config)
    except ValueError as error:
        raise VopError(f"{config_file}: not the configuration of a CLIP: {error}; fetch the folder again") from None
    mean, std = read_preprocessing(folder)
    return Backbone(name=name, folder=folder, revision=revision, sizes=sizes, mean=mean, std=std)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raise a VopError if the file is missing or damaged."""
    return read_json_object(path, remedy="fetch the folder again")


def _check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    """Raise a VopError if the weights do not have the shapes of the configuration."""
    for name in sorted(wanted.keys() | state.keys()):
        got, needed = (tuple(part[name].shape) if name in part else "no tensor" for part in (state, wanted))
        if got != needed:
            raise VopError(f"{folder}: the shape of {name} is {got} in the weights, {needed} by config.json")


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "vocab.json"))


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _check_weights(folder: Path, count: int) -> None:
    """Raise a VopError if the files are much larger than the `count` numbers of the configuration."""
    whole = folder / "model.safetensors"
    paths = [whole] if whole.exists() else _weight_files(folder)
    for path in paths:
        check_file(path)
        if path.suffix == ".safetensors":
            check_header(path)
    size, most = sum(path.stat().st_size for path in paths), 8 * count + 64 * 2**20
    if size > most:
        raise VopError(
            f"{folder}: the weights have {size:,} bytes; a model with this config.json has at most {most:,}: "
            "they belong to another model"
        )


def check_header(path: Path) -> None:
    """Raise a VopError if the header of a safetensors file claims an implausible size."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise VopError(
            f"{path}: the file is damaged: its header claims {size:,} bytes; at most {MAX_HEADER_BYTES:,} are read. "
            "Fetch or train it again"
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    try:
        if (folder / "model.safetensors").exists():
            from safetensors.torch import load_file

            return load_file(folder / "model.safetensors")
        if not _weight_files(folder):
            raise VopError(f"{folder}: model.safetensors is missing: the folder contains no weights")
        from transformers import CLIPModel  # several seconds to import; knows shards and older files

        return CLIPModel.from_pretrained(folder, local_files_only=True, weights_only=True).state_dict()
    except UnpicklingError as error:
        raise VopError(
            f"{folder}: the weights contain more than tensors, so they are not read; use safetensors"
        ) from error
    except (SafetensorError, OSError, RuntimeError) as error:
        raise VopError(f"{folder}: the weights cannot be read ({error}); fetch or convert them again") from error
