"""Registries: names of methods, heads, backbones and dataset readers, and their objects.

A name is built in, or an installed package adds it through an entry point. Some registries also allow
"package.module:Class". Nothing is imported before it is used, so a package that cannot be imported breaks only its own
names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from typing import Any, Generic, Protocol, TypeVar, cast

from vop.errors import UsageError, VopError, unknown_name, unknown_setting

LARGE = 256  # a setting above this may make parameters by the million: they are counted before they are made
MAX_PARAMETERS = 1_000_000_000  # of a method or a head; the largest has some 50 million on ViT-L/14

T = TypeVar("T")


class Registry(Generic[T]):
    """Finds objects by their names.

    Args:
        kind: the word for one object in errors ("method").
        built_in: "module:attribute" by name. These names win over those that packages add.
        group: the entry points of packages ("vop.methods").
        unlisted: further names that work, but that no list and no error mentions.
        paths: whether "package.module:Class" is a name, too.
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
        """Return the built-in names, then those that installed packages add. Imports no package."""
        return [*self.built_in, *self.added()]

    def added(self) -> list[str]:
        """Return the names that installed packages add, sorted."""
        return sorted({point.name for point in entry_points(group=self.group)} - self.built_in.keys())

    def find(self, name: str) -> T:
        """Return the object with this name.

        Raises:
            UsageError: an unknown name, with the nearest known ones, or one that two packages add.
            Exception: whatever the import of an added package raises, with a note that names the package.
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
            error.add_note(f"This happened while the {self.kind} {name!r} of {_package_of(point)} was imported.")
            raise

    def package(self, name: str) -> str | None:
        """The package that adds `name`, with its version ("vop-example 0.1"); a module without a package by its name.

        None for a built-in name.
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
        """Raise a VopError if `package`, which added `name` when it was saved, is not installed."""
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
        points = list(entry_points(group=self.group, name=name))
        packages = sorted({_package_of(point) for point in points})
        if len(packages) > 1:
            raise UsageError(
                f"the {self.kind} {name!r} is added by {' and by '.join(packages)}: uninstall one of them, or name "
                "its class as package.module:Class"
            )
        return points[0] if points else None

    def _checked(self, name: str, found: object) -> T:
        """`found`, if it can be one of these; any callable here."""
        if not callable(found):
            raise UsageError(f"the {self.kind} {name!r} is a {type(found).__name__}, which cannot be called")
        return cast(T, found)


class Configurable(Protocol):
    """What a `ClassRegistry` builds: a module with settings."""

    settings: dict[str, Any]

    def parameters(self) -> Iterator[Any]: ...


M = TypeVar("M", bound=Configurable)


class ClassRegistry(Registry[type[M]]):
    """Classes that are built from settings: the keyword-only arguments of their constructors and of their bases'.

    Args:
        base: "module:Class", which each of them extends.
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
        """Builds `name` for the `subject`; its attribute `settings` holds the value of every setting.

        Names of settings are checked here, values by the class itself. An error inside of a constructor is raised as
        it is.

        Raises:
            UsageError: an unknown name or setting, with the nearest known ones, or a value that is not allowed.
        """
        found, known = self.find(name), self.settings_of(name)
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

    def _check_size(self, name: str, settings: Mapping[str, object], build: Callable[[], M]) -> None:
        """Refuse settings that give too many parameters, before memory is allocated for them."""
        import torch

        try:
            with torch.device("meta"):  # shapes without content
                count = sum(parameter.numel() for parameter in build().parameters())
        except (NotImplementedError, RuntimeError):  # a class that reads values while it is built
            return
        if count > MAX_PARAMETERS:
            raise UsageError(
                f"the {self.kind} {name} has {count:,} parameters of its own with the settings {settings}; at most "
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
    """The object at "package.module:Class". An error inside of the module is raised as it is."""
    module, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise UsageError(f"{kind} {path!r}: write package.module:Class")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):  # something that the module imports
            raise
        raise UsageError(
            f"{kind} {path!r}: there is no module {missing!r}: install its package, or add its folder to PYTHONPATH"
        ) from None
    if not hasattr(loaded, attribute):
        classes = [name for name, value in vars(loaded).items() if isinstance(value, type)]
        raise unknown_name(f"{kind} in {module}", attribute, classes)
    return getattr(loaded, attribute)
