"""Registries find methods, heads, backbones and dataset readers by their names.

A name is built in, or an installed package adds it through an entry point. Some registries also allow
"package.module:Class". Objects are imported when they are used, so a package that cannot be imported breaks only its
own names.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points, packages_distributions, version
from typing import Any, Generic, Protocol, TypeVar, cast

from vop.errors import UsageError, VopError, unknown_name, unknown_setting
from vop.utils.checks import plain

LARGE = 256  # a larger setting may create millions of parameters, so they are counted first
MAX_PARAMETERS = 1_000_000_000  # of a method or a head; the largest built-in one has some 50 million on ViT-L/14

T = TypeVar("T")


def installed_points(group: str) -> EntryPoints:
    """Return the entry points of installed packages in a group."""
    return _points_on(tuple(sys.path), group)


@lru_cache(maxsize=32)  # reading the metadata of all installed packages takes some 10 ms
def _points_on(paths: tuple[str, ...], group: str) -> EntryPoints:
    return entry_points(group=group)


class Registry(Generic[T]):
    """Finds objects by their names.

    Args:
        kind: what an object is called in errors ("method").
        built_in: "module:attribute" by name. These names take precedence over those that packages add.
        group: the group of the packages' entry points ("vop.methods").
        unlisted: further names, which lists and errors do not mention.
        paths: whether "package.module:Class" is allowed as a name.
    """

    def __init__(
        self,
        kind: str,
        built_in: Mapping[str, str],
        *,
        group: str,
        unlisted: Mapping[str, str] | None = None,
        paths: bool = False,
    ) -> None:
        self.kind = kind
        self.built_in = built_in
        self.group = group
        self.unlisted = unlisted or {}
        self.paths = paths

    def names(self) -> list[str]:
        """Return the built-in names, then those that installed packages add, without importing the packages."""
        return [*self.built_in, *self.added()]

    def added(self) -> list[str]:
        """Return the names that installed packages add, sorted."""
        return sorted({point.name for point in installed_points(self.group)} - self.built_in.keys())

    def find(self, name: str) -> T:
        """Return the object with this name.

        Raises:
            UsageError: the name is unknown (the error suggests the nearest known ones), or two packages add it.
            Exception: the import of the package failed. A note names the package.
        """
        target = self.built_in.get(name) or self.unlisted.get(name)
        if target is not None:
            module, _, attribute = target.partition(":")
            return cast(T, getattr(import_module(module), attribute))
        if self.paths and ":" in name:
            return self._checked(name, _load_path(self.kind, name))
        point = self._entry_point(name)
        if point is None:
            raise unknown_name(self.kind, name, self.names())
        try:
            return self._checked(name, point.load())
        except UsageError:
            raise
        except Exception as error:
            error.add_note(f"The import of the {self.kind} {name!r} of {_package_of(point)} failed.")
            raise

    def package(self, name: str) -> str | None:
        """Return the package that adds `name`, with its version ("vop-example 0.1"); None for a built-in name.

        A module without a package is returned as "the module NAME".
        """
        if name in self.built_in or name in self.unlisted:
            return None
        if self.paths and ":" in name:
            top = name.partition(":")[0].partition(".")[0]
            packages = packages_distributions().get(top)
            return f"{packages[0]} {version(packages[0])}" if packages else f"the module {top}"
        point = self._entry_point(name)
        return None if point is None else _package_of(point)

    def check_installed(self, name: str, package: str) -> None:
        """Raise a VopError if `name` is unknown. `package` added it when the model was saved."""
        if self.paths and ":" in name:
            try:
                self.find(name)
            except UsageError as error:
                raise VopError(f"{error} (it came from {package})") from None
        elif name not in self.names():
            project = package.partition(" ")[0]
            raise VopError(
                f"the {self.kind} {name!r} came from {package}, which is not installed here: pip install {project}"
            )

    def _entry_point(self, name: str) -> EntryPoint | None:
        points = list(installed_points(self.group).select(name=name))
        packages = sorted({_package_of(point) for point in points})
        if len(packages) > 1:
            raise UsageError(
                f"the {self.kind} {name!r} is added by {' and by '.join(packages)}: uninstall one of them, or name "
                "its class as package.module:Class"
            )
        return points[0] if points else None

    def _checked(self, name: str, found: object) -> T:
        """Return `found` if it is a valid object of this registry: here, any callable."""
        if not callable(found):
            raise UsageError(f"the {self.kind} {name!r} is a {type(found).__name__}, which cannot be called")
        return cast(T, found)


class Configurable(Protocol):
    """A module with settings, which a `ClassRegistry` builds."""

    settings: dict[str, Any]

    def parameters(self) -> Iterator[Any]: ...

    def named_buffers(self) -> Iterator[tuple[str, Any]]: ...

    def state_dict(self) -> Mapping[str, Any]: ...


M = TypeVar("M", bound=Configurable)


class ClassRegistry(Registry[type[M]]):
    """Classes that are built from settings: the keyword-only arguments of their constructors and of their bases'.

    Args:
        base: "module:Class" that each class must extend.
        given: keyword-only arguments that are not settings, because the caller provides them.
    """

    def __init__(
        self,
        kind: str,
        built_in: Mapping[str, str],
        *,
        group: str,
        base: str,
        unlisted: Mapping[str, str] | None = None,
        given: Collection[str] = (),
    ) -> None:
        super().__init__(kind, built_in, group=group, unlisted=unlisted, paths=True)
        self.base = base
        self.given = given

    def create(self, name: str, *subject: object, **arguments: Any) -> M:
        """Build `name` for the `subject`. Its attribute `settings` has the value of every setting.

        Names of settings are checked here, values by the class itself. Other errors of a constructor are not caught.

        Raises:
            UsageError: a name or setting is unknown (the error suggests the nearest known ones), a value is not
                allowed, or the object has buffers, which a run would not save.
        """
        found, known = self.find(name), self.settings_of(name)
        arguments = {key: plain(value) for key, value in arguments.items()}
        settings = {key: value for key, value in arguments.items() if key not in self.given}
        for setting in settings:
            if setting not in known:
                raise unknown_setting(f"the {self.kind} {name}", setting, known)
        values = known | settings
        missing = [setting for setting, value in values.items() if value is inspect.Parameter.empty]
        if missing:
            raise UsageError(f"the {self.kind} {name} needs the setting {missing[0]}, which has no default")
        build = cast(Callable[..., M], found)
        if any(isinstance(value, int) and value > LARGE for value in arguments.values()):
            self._check_size(name, settings, lambda: build(*subject, **arguments))
        built = build(*subject, **arguments)
        self._check_buffers(name, built)
        built.settings = values
        return built

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the settings of `name` with their defaults."""
        settings: dict[str, Any] = {}
        for base in reversed(self.find(name).__mro__):
            if "__init__" in vars(base):
                parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
                settings |= {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {setting: default for setting, default in settings.items() if setting not in self.given}

    def _check_buffers(self, name: str, built: M) -> None:
        """Raise a UsageError if a saved model would lack a part of its state. A run has only trained parameters."""
        saved = built.state_dict()
        for buffer, _ in built.named_buffers():
            if buffer in saved:
                raise UsageError(
                    f"the {self.kind} {name} has the buffer {buffer}, but a run saves only parameters: for a constant, "
                    "pass persistent=False to register_buffer; in place of a BatchNorm, use a LayerNorm or a GroupNorm"
                )

    def _check_size(self, name: str, settings: Mapping[str, object], build: Callable[[], M]) -> None:
        """Raise a UsageError if the settings give too many parameters, before memory is allocated for them."""
        import torch

        try:
            with torch.device("meta"):  # shapes without content
                count = sum(parameter.numel() for parameter in build().parameters())
        except (NotImplementedError, RuntimeError):  # the constructor reads values
            return
        if count > MAX_PARAMETERS:
            raise UsageError(
                f"with the settings {settings}, the {self.kind} {name} has {count:,} parameters; at most "
                f"{MAX_PARAMETERS:,} are allowed: use smaller numbers"
            )

    def _checked(self, name: str, found: object) -> type[M]:
        module, _, attribute = self.base.partition(":")
        base = getattr(import_module(module), attribute)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise UsageError(
                f"the {self.kind} {name!r} is {found!r}; it must be a class that extends {module}.{attribute}"
            )
        return cast(type[M], found)


def _package_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _load_path(kind: str, path: str) -> object:
    """Import the object at "package.module:Class". Errors inside the module are not caught."""
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise UsageError(f"{kind} {path!r}: write package.module:Class")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):  # a module that this module imports
            raise
        raise UsageError(
            f"{kind} {path!r}: the module {missing!r} does not exist: install its package, or add its folder to "
            "PYTHONPATH"
        ) from None
    if not hasattr(loaded, attribute):
        classes = [name for name, value in vars(loaded).items() if isinstance(value, type)]
        raise UsageError(f"{module}: {unknown_name(kind, attribute, classes)}")
    return getattr(loaded, attribute)
