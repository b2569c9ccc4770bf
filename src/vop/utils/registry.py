"""Classes that go by a name: found when they are asked for, built from settings that are checked.

The keyword-only arguments of a class and its bases are its settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar

from vop.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from vop.backbones.clip.config import ClipSizes

T = TypeVar("T")
LARGE = 256  # a setting of which the parameters are counted before they are made
MAX_PARAMETERS = 1_000_000_000  # of a method or a head; the largest has some 50 million on ViT-L/14


class Registry(Generic[T]):
    """Names, and where their classes stand.

    Args:
        kind: what an error calls one of them ("method").
        classes: a name, and "module:Class". It is looked up at every call, so that a name may be added later.
        unlisted: likewise; these open like the others, but no error offers them.
        given: keyword-only arguments that are no settings: the caller knows them.
    """

    def __init__(
        self,
        kind: str,
        classes: Mapping[str, str],
        *,
        unlisted: Mapping[str, str] | None = None,
        given: Collection[str] = (),
    ) -> None:
        self.kind = kind
        self.classes = classes
        self.unlisted = unlisted or {}
        self.given = given

    def create(self, name: str, sizes: ClipSizes, **arguments) -> T:
        """Builds `name` for a backbone of `sizes`, freshly initialised; its attribute `settings` holds their values.

        Raises:
            UsageError: an unknown name or setting, with the nearest known ones, or a value that is not allowed.
        """
        found = self.find(name)
        known = self.settings_of(name)
        settings = {key: value for key, value in arguments.items() if key not in self.given}
        for setting in settings:
            if setting not in known:
                raise unknown_name(f"setting of {name}", setting, known)
        try:
            self._check_size(name, settings, found, sizes, arguments)
            built = found(sizes, **arguments)
        except TypeError as error:
            raise UsageError(
                f"a setting of the {self.kind} {name} is of the wrong type: {settings} ({error})"
            ) from error
        built.settings = known | settings
        return built

    def _check_size(self, name: str, settings: Mapping, found: type[T], sizes: ClipSizes, arguments: Mapping) -> None:
        """Refuses settings that multiply to more than any memory holds, before it is asked for."""
        if not any(isinstance(value, int) and value > LARGE for value in arguments.values()):
            return
        import torch

        try:
            with torch.device("meta"):  # shapes without content
                count = sum(parameter.numel() for parameter in found(sizes, **arguments).parameters())
        except (NotImplementedError, RuntimeError):  # a method that reads values while it is built
            return
        if count > MAX_PARAMETERS:
            raise UsageError(
                f"the {self.kind} {name} has {count:,} parameters of its own with the settings {settings}; at most "
                f"{MAX_PARAMETERS:,} are made: use smaller numbers"
            )

    def find(self, name: str) -> type[T]:
        """The class of `name`."""
        known = {**self.classes, **self.unlisted}
        if name not in known:
            raise unknown_name(self.kind, name, self.classes)
        module, _, attribute = known[name].partition(":")
        return getattr(import_module(module), attribute)

    def settings_of(self, name: str) -> dict:
        """The settings of `name` and their defaults."""
        settings: dict = {}
        for base in reversed(self.find(name).__mro__):
            if "__init__" in vars(base):
                parameters = inspect.signature(base.__init__).parameters.values()
                settings |= {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {setting: default for setting, default in settings.items() if setting not in self.given}
