"""Find and create methods by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vop.errors import unknown_name
from vop.utils.registry import ClassRegistry

if TYPE_CHECKING:
    from vop.backbones.sizes import Sizes
    from vop.methods.base import Method

# The built-in methods. Other packages add theirs through entry points of the group `vop.methods`.
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
    "vop-f+p+bias": "vop.methods.vop_bias:VoPFPBias",
    "tempme": "vop.methods.tempme:TempMe",
    "stop": "vop.methods.stop:STOP",
    "discovla": "vop.methods.discovla:DiscoVLA",
    "dgl-linear": "vop.methods.dgl:DGLLinear",
    "dgl-transformer": "vop.methods.dgl:DGLTransformer",
}
# Methods of converted checkpoints. They can be opened like others, but not trained, and they are not listed.
IMPORTED = {
    "vop-modelscope": "vop.methods.vop_modelscope:VoPModelScope",
    "clip-modelscope": "vop.methods.vop_modelscope:CLIPModelScope",
}

# Methods whose training takes hours without a GPU. `vop compare` runs them only by name.
COSTLY = frozenset({"stop"})

# Libraries that methods need beyond the package's dependencies. Each is also the name of an extra.
LIBRARIES = {"lora": "peft"}
REGISTRY: ClassRegistry[Method] = ClassRegistry(
    "method", METHODS, group="vop.methods", base="vop.methods.base:Method", unlisted=IMPORTED
)


def create(name: str, sizes: Sizes, **settings: Any) -> Method:
    """Build the method `name` for a backbone of `sizes`, freshly initialised.

    Args:
        name: a built-in name, one that an installed package adds, or "package.module:Class".
        settings: of the method. On a video encoder, `num_frames` is the encoder's number by default.

    Raises:
        UsageError: a name or setting is unknown (the error suggests the nearest known ones), or a value is not allowed.
    """
    if sizes.num_frames is not None and "num_frames" in settings_of(name):
        settings = {"num_frames": sizes.num_frames} | settings
    return REGISTRY.create(name, sizes, **settings)


def available() -> list[str]:
    """Return the built-in methods whose libraries are installed."""
    return [name for name in METHODS if name not in LIBRARIES or find_spec(LIBRARIES[name])]


def added() -> list[str]:
    """Return the method names that installed packages add, without importing the classes."""
    return REGISTRY.added()


def find(name: str) -> type[Method]:
    """Return the class of the method `name`."""
    return REGISTRY.find(name)


def find_trainable(name: str) -> type[Method]:
    """Return the class of the method `name`. Raise a UsageError if it only opens converted checkpoints."""
    if name in IMPORTED:
        raise unknown_name("method", name, REGISTRY.names())
    return REGISTRY.find(name)


def settings_of(name: str) -> dict[str, Any]:
    """Return the settings of a method and their defaults: its keyword-only arguments and those of its bases."""
    return REGISTRY.settings_of(name)
