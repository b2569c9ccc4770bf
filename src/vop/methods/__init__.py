"""The methods by name."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

from vop.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from vop.backbone.config import ClipSizes
    from vop.methods.base import Method

# A name, and where its class stands. A new method is a file of its own and a line here.
METHODS = {
    "zero-shot": "vop.methods.base:Method",
    "vop": "vop.methods.vop:VoP",
    "vop-p": "vop.methods.vop_p:VoPP",
    "vop-c": "vop.methods.vop_c:VoPC",
    "vop-f": "vop.methods.vop_f:VoPF",
    "vop-f+p": "vop.methods.vop_f:VoPFP",
    "vop-f+c": "vop.methods.vop_f:VoPFC",
}
# What an import reads from others' files: opened like any other, but in no list of methods to train or to count.
IMPORTED = {"vop-modelscope": "vop.methods.vop_modelscope:VoPModelScope"}


def create(name: str, sizes: ClipSizes, **settings) -> Method:
    """Builds the method `name` for a backbone of `sizes`, freshly initialised.

    Raises:
        UsageError: an unknown name or setting, with the nearest known ones, or a value that is not allowed.
    """
    method_class = find(name)
    known = settings_of(name)
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    try:
        method = method_class(sizes, **settings)
    except TypeError as error:
        raise UsageError(f"a setting of the method {name} is of the wrong type: {settings} ({error})") from error
    method.settings = known | settings
    return method


def find(name: str) -> type[Method]:
    """The class of the method `name`."""
    known = METHODS | IMPORTED
    if name not in known:
        raise unknown_name("method", name, METHODS)
    module, _, attribute = known[name].partition(":")
    return getattr(import_module(module), attribute)


def settings_of(name: str) -> dict:
    """The settings of a method and their defaults: the keyword-only arguments of its class and its bases."""
    settings: dict = {}
    for base in reversed(find(name).__mro__):
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            settings |= {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return settings
