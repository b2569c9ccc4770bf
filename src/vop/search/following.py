"""Reading a library that may be moved to other models at any moment, so that its old table goes away."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from vop.search.about import FILE

if TYPE_CHECKING:
    from vop.search.library import Library

Stamp = tuple[int, int]  # of library.json, another one whenever it is written
T = TypeVar("T")
P = ParamSpec("P")


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a library; None if it is gone."""
    try:
        state = (path / FILE).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def again_if_moved(path: Path, read: Callable[[Stamp | None], T]) -> T:
    """What is read; a reading that fails is done again if the library was moved meanwhile.

    Args:
        read: takes the library's stamp as it was before.
    """
    while True:
        stamp = stamp_of(path)
        try:
            return read(stamp)
        except Exception:
            if stamp_of(path) == stamp:
                raise


def follows(method: Callable[Concatenate[Library, P], T]) -> Callable[Concatenate[Library, P], T]:
    """A method that reads the library as it is now, whatever it was when it was opened."""

    @wraps(method)
    def following(library: Library, *args: P.args, **kwargs: P.kwargs) -> T:
        def read(stamp: Stamp | None) -> T:
            library.follow(stamp)
            return method(library, *args, **kwargs)

        return again_if_moved(library.path, read)

    return following
