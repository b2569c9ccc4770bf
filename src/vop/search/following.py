"""Follow a library that may change at any moment.

Its table is dropped when the library moves to other models, and old versions of a table are deleted. A read that fails
because of this is repeated; any other failed read means that the library is damaged. A read during a move is repeated
even if it succeeds: a table is dropped file by file, and one that has lost its newest version is read at an older one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from vop.search import manifest
from vop.search.schema import DamageError, explain_damage
from vop.storage import small_files
from vop.storage.address import Location
from vop.storage.small_files import Stamp

_ATTEMPTS = 5  # of a failing read, each at the newest version


class Follower(Protocol):
    """Reads a library.

    Attributes:
        path: the library's folder or address.
        reading: `is_inside` says whether the thread is inside a method that follows the library.
    """

    path: Location
    reading: threading.local

    def follow(self, stamp: Stamp | None) -> None:
        """Switch to the library as it is; `stamp` is its stamp."""


F = TypeVar("F", bound=Follower)
P = ParamSpec("P")
T = TypeVar("T")


def stamp_of(path: Location) -> Stamp | None:
    """Return the stamp of a library; None if there is none."""
    return small_files.stamp_of(small_files.child(path, manifest.FILE))


def again_if_moved(path: Location, read: Callable[[Stamp | None], T]) -> T:
    """Return what `read` returns; repeat it if the library has moved meanwhile.

    Args:
        read: is called with the library's stamp.

    Raises:
        VopError: the database still fails after several attempts: it is damaged.
    """
    failed = 0
    while True:
        stamp = stamp_of(path)
        try:
            with explain_damage(path):
                found = read(stamp)
            if stamp_of(path) == stamp:
                return found
        except Exception as error:
            failed += isinstance(error, DamageError)
            if stamp_of(path) == stamp and (not isinstance(error, DamageError) or failed == _ATTEMPTS):
                raise


def follows(method: Callable[Concatenate[F, P], T]) -> Callable[Concatenate[F, P], T]:
    """Decorate a method to read the library as it is at the time of the call.

    Methods that it calls read the same library: looking again would cost a request if it is in object storage.
    """

    @wraps(method)
    def following(follower: F, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if getattr(follower.reading, "is_inside", False):
            return method(follower, *args, **kwargs)

        def read(stamp: Stamp | None) -> T:
            follower.follow(stamp)
            follower.reading.is_inside = True
            try:
                return method(follower, *args, **kwargs)
            finally:
                follower.reading.is_inside = False

        return again_if_moved(follower.path, read)

    return following
