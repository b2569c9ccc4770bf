"""The methods by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from vop.utils.registry import Registry

if TYPE_CHECKING:
    from vop.backbones.clip.config import ClipSizes
    from vop.methods.base import Method

# A name, and where its class stands. A new method is a file of its own and a line here.
METHODS = {
    "zero-shot": "vop.methods.base:Method",
    "full": "vop.methods.baselines:Full",
    "bias": "vop.methods.baselines:Bias",
    "proj": "vop.methods.baselines:Proj",
    "partial": "vop.methods.baselines:Partial",
    "adapter-attn": "vop.methods.adapter:AdapterAttn",
    "adapter-ffn": "vop.methods.adapter:AdapterFfn",
    "lora": "vop.methods.lora:LoRA",
    "vop": "vop.methods.vop:VoP",
    "vop-p": "vop.methods.vop_p:VoPP",
    "vop-c": "vop.methods.vop_c:VoPC",
    "vop-f": "vop.methods.vop_f:VoPF",
    "vop-f+p": "vop.methods.vop_f:VoPFP",
    "vop-f+c": "vop.methods.vop_f:VoPFC",
}
# What an import reads from others' files: opened like any other, but in no list of methods to train or to count.
IMPORTED = {"vop-modelscope": "vop.methods.vop_modelscope:VoPModelScope"}


# What a method needs beyond this package's own dependencies, and the extra that brings it.
LIBRARIES = {"lora": "peft"}
_REGISTRY: Registry[Method] = Registry("method", METHODS, unlisted=IMPORTED)


def create(name: str, sizes: ClipSizes, **settings) -> Method:
    """Builds the method `name` for a backbone of `sizes`, freshly initialised.

    Raises:
        UsageError: an unknown name or setting, with the nearest known ones, or a value that is not allowed.
    """
    return _REGISTRY.create(name, sizes, **settings)


def available() -> list[str]:
    """The methods whose libraries are installed."""
    return [name for name in METHODS if name not in LIBRARIES or find_spec(LIBRARIES[name])]


def find(name: str) -> type[Method]:
    """The class of the method `name`."""
    return _REGISTRY.find(name)


def settings_of(name: str) -> dict:
    """The settings of a method and their defaults: the keyword-only arguments of its class and its bases."""
    return _REGISTRY.settings_of(name)
