"""The LanceDB database of a library: where it is, and how to connect to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from vop.search import cached
from vop.search.manifest import DATABASE
from vop.search.schema import explain_damage
from vop.storage import small_files
from vop.storage.address import Address, Location
from vop.storage.objects import endpoint, list_objects
from vop.utils.files import explain_full_disk

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table


def database_of(library: Location, *, cache: bool = True) -> tuple[str | Path, dict[str, str]]:
    """Return where the database of a library is, and the options for its storage.

    Args:
        cache: whether to read objects through the cache on this machine, if this process does not write to the library.
    """
    if isinstance(library, Path):
        return library / DATABASE, {}
    behind_cache = cached.database_of(library) if cache else None
    return behind_cache or (str(small_files.child(library, DATABASE)), storage_options(library))


def storage_options(place: Location) -> dict[str, str]:
    """Return Lance's options for a folder or an address. They have no secrets: Lance finds the credentials itself."""
    is_plain = isinstance(place, Address) and place.scheme == "s3" and endpoint().startswith("http://")
    return {"allow_http": "true"} if is_plain else {}


def connect(
    library: Location, *, read_consistency_interval: timedelta | None = None, cache: bool = True
) -> DBConnection:
    """Connect to the database of a library; see `database_of`."""
    import lancedb

    uri, options = database_of(library, cache=cache)
    return lancedb.connect(uri, read_consistency_interval=read_consistency_interval, storage_options=options or None)


def open_if_exists(database: DBConnection, library: Location, name: str) -> Table | None:
    """Open a table of a library; None if it does not exist, also if its creation was cut short."""
    if name not in database.list_tables().tables:
        return None
    try:
        return database.open_table(name)
    except Exception:
        if _is_empty(library, name):
            return None
        raise


def _is_empty(library: Location, name: str) -> bool:
    """Whether a table has a folder, but neither data nor a version, as after a full disk or a kill at its creation."""
    folder = small_files.child(library, f"{DATABASE}/{name}.lance")
    if isinstance(folder, Path):
        return not any((*folder.glob("data/*"), *folder.glob("_versions/*.manifest")))
    return not any(info.address.parts[-2] in ("data", "_versions") for info in list_objects(folder))


@contextmanager
def explain_write(library: Location) -> Iterator[None]:
    """Explain a full disk, or an error of object storage."""
    with explain_full_disk(library) if isinstance(library, Path) else explain_damage(library):
        yield
