"""Reading a library that may change at any moment: its table goes away when it is moved to other models, and an old
version of a table when a new one has taken its place. What fails then is done again, and what fails for another reason
than that says that the library is damaged.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from vop.errors import VopError
from vop.search.manifest import FILE

if TYPE_CHECKING:
    from vop.search.store import Store

Stamp = tuple[int, int]  # of library.json, another one whenever it is written
T = TypeVar("T")
P = ParamSpec("P")

_ATTEMPTS = 5  # of a reading that fails in the database, each at its newest version


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a library; None if it is gone."""
    try:
        state = (path / FILE).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def again_if_moved(path: Path, read: Callable[[Stamp | None], T]) -> T:
    """What is read; a reading that fails is done again if the library has changed meanwhile.

    Args:
        read: takes the library's stamp as it was before.

    Raises:
        VopError: the database fails again and again: it is damaged.
    """
    failed = 0
    while True:
        stamp = stamp_of(path)
        try:
            with explain_damage(path):
                return read(stamp)
        except Exception as error:
            failed += isinstance(error, _DamageError)
            if stamp_of(path) == stamp and (not isinstance(error, _DamageError) or failed == _ATTEMPTS):
                raise


class _DamageError(VopError):
    """The database has failed."""


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turns what fails within the database into a VopError that says how to find what is damaged."""
    try:
        yield
    except (VopError, TypeError):
        raise
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith(("lancedb", "pyarrow")):
            raise
        reason = str(error).partition(", /")[0].splitlines()  # where in LanceDB's own source is of no use
        raise _DamageError(
            f"{path}: its database cannot be read ({reason[0] if reason else type(error).__name__}); "
            f"vop library check {path} says what is damaged"
        ) from error


def follows(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """A method that reads the library as it is now, whatever it was when it was opened."""

    @wraps(method)
    def following(library: Store, *args: P.args, **kwargs: P.kwargs) -> T:
        def read(stamp: Stamp | None) -> T:
            library.follow(stamp)
            return method(library, *args, **kwargs)

        return again_if_moved(library.path, read)

    return following
