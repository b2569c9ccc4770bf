"""Reading the database of a library in object storage through the cache on this machine's disk.

LanceDB writes the files of rows, of indexes and of deleted rows once, under new names. Others, such as the lists of
versions, are asked for each time.
"""

from __future__ import annotations

import logging
import os
import threading
from itertools import pairwise

from vop.search.lease import is_held
from vop.search.manifest import DATABASE
from vop.storage import block_cache
from vop.storage.address import Address
from vop.storage.loopback import Loopback
from vop.storage.small_files import child

_IMMUTABLE = ("data", "_indices", "_deletions")  # folders of a table
_loopbacks: dict[tuple[object, ...], Loopback] = {}
_starting = threading.Lock()
log = logging.getLogger(__name__)


def is_immutable(key: str) -> bool:
    """Return whether LanceDB never changes an object."""
    *folders, _ = key.split("/")
    inside = [folder for table, folder in pairwise(folders) if table.endswith(".lance")]
    return bool(inside) and inside[-1] in _IMMUTABLE  # the last, since the library's own address may have others


def database_of(library: Address) -> tuple[str, dict[str, str]] | None:
    """Return the address of a library's database behind the cache, and the options for its storage.

    None if there is no cache, or if this process has the lock, since LanceDB cannot write through the cache.
    """
    if is_held(library):
        return None
    cache = block_cache.chosen()
    if cache is None:
        return None
    key = (os.getpid(), cache.folder, cache.max_bytes)
    with _starting:
        if key not in _loopbacks:
            try:
                _loopbacks[key] = Loopback(cache, is_immutable=is_immutable)
            except OSError as error:
                log.warning("the cache of objects cannot be used: %s", error)
                return None
    place = child(library, DATABASE)
    assert isinstance(place, Address)
    return _loopbacks[key].database(place)
