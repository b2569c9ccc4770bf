"""Rows outside any version of a table, as Lance fragments, and the commit that makes them a version.

On a disk, a fragment is written into a folder of its own, and its files are moved into the table's folder only by the
committer, which has the library's lock. So a clean-up of the table never meets files that no version has, and a worker
that is killed leaves nothing in the database. Objects cannot be moved, so in object storage a worker writes them where
the table has its own; a clean-up keeps them as long as the library has plans (`vop.search.store.Store.keep_up`).

Fields are matched by their names: a column that was added to the table later is empty in these rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from vop.errors import UsageError
from vop.search.database import storage_options
from vop.search.lease import check_held
from vop.search.schema import conditions, explain_damage
from vop.storage.address import Address, Location
from vop.storage.errors import MissingObject
from vop.storage.objects import head
from vop.storage.small_files import child

Fragment = dict[str, Any]  # a fragment in Lance's JSON, with the names of its `columns`
_DATA = "data"


class MissingRows(Exception):
    """Files of a fragment do not exist or are not whole."""


def lance() -> ModuleType:
    """Import Lance's own package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import lance
        import lance.file
        import lance.fragment
    except ImportError:
        raise UsageError("indexing in shards needs the package pylance: pip install 'vop[shards]'") from None
    module: ModuleType = lance
    return module


def write(rows: pa.Table, folder: Path, *, storage_version: str) -> list[Fragment]:
    """Write rows into a new folder.

    Args:
        storage_version: the table's version of the file format.
    """
    fragments = lance().fragment.write_fragments(rows, str(folder), mode="create", data_storage_version=storage_version)
    return [fragment.to_json() | {"columns": rows.schema.names} for fragment in fragments]


class Target:
    """A table that fragments are committed to. The caller has the library's lock, unless it only writes rows.

    Args:
        place: the table's folder.
    """

    def __init__(self, place: Location) -> None:
        self._lance, self._place = lance(), place
        with explained(place):
            self._table = self._lance.dataset(str(place), storage_options=storage_options(place) or None)

    @property
    def storage_version(self) -> str:
        version: str = self._table.data_storage_version
        return version

    @property
    def version(self) -> int:
        version: int = self._table.version
        return version

    def write(self, rows: pa.Table, folder: Location) -> list[Fragment]:
        """Write rows that no version has yet: into a new folder, or into a table in object storage."""
        if isinstance(self._place, Path):
            assert isinstance(folder, Path), f"{folder} is not on the disk of {self._place}"
            return write(rows, folder, storage_version=self.storage_version)
        with explained(self._place):
            fragments = self._lance.fragment.write_fragments(
                rows, str(self._place), mode="append", storage_options=storage_options(self._place)
            )
        return [fragment.to_json() for fragment in fragments]

    @property
    def files(self) -> set[str]:
        """The names of the files with the table's rows."""
        return {file.path for fragment in self._table.get_fragments() for file in fragment.data_files()}

    def properties(self) -> list[Mapping[str, str]]:
        """Return the properties of the transactions of all versions that still exist."""
        found: list[Mapping[str, str]] = []
        with explained(self._place):
            for version in self._table.versions():
                transaction = self._table.read_transaction(version["version"])
                if transaction is not None:
                    found.append(dict(transaction.transaction_properties or {}))
        return found

    def move(self, fragments: Sequence[Fragment], folder: Location) -> list[Fragment]:
        """Move the files of fragments from `folder` to the table, unless that was done before.

        In object storage they are there, and this checks that they still are.

        Returns:
            the fragments, with the table's numbers of the fields.

        Raises:
            MissingRows: a file is in neither place.
        """
        if isinstance(self._place, Address):
            self._check(self._place, fragments)
            return list(fragments)
        assert isinstance(folder, Path), f"{folder} is not on the disk of {self._place}"
        numbers = {entry.name(): entry.id() for entry in self._table.lance_schema.fields()}
        moved = []
        for fragment in fragments:
            files = []
            for file in fragment["files"]:
                source, target = folder / _DATA / file["path"], self._place / _DATA / file["path"]
                if not target.exists():
                    if not source.exists() or source.stat().st_size != file["file_size_bytes"]:
                        raise MissingRows(str(source))
                    target.parent.mkdir(exist_ok=True)
                    os.replace(source, target)
                names = [fragment["columns"][place] for place in file["fields"]]
                files.append(file | {"fields": [numbers[name] for name in names]})
            moved.append({name: value for name, value in fragment.items() if name != "columns"} | {"files": files})
        return moved

    def read(self, fragments: Sequence[Fragment], folder: Location) -> pa.Table:
        """Return the rows of fragments that `write` has made in `folder`, also if `move` has moved their files.

        Raises:
            MissingRows: a file is in neither place.
        """
        own = child(folder, _DATA)
        if isinstance(self._place, Address):
            self._check(self._place, fragments)
        tables = []
        for name in (file["path"] for fragment in fragments for file in fragment["files"]):
            place = f"{self._place}/{_DATA}/{name}"
            if isinstance(own, Path):
                place = next((str(path) for path in (own / name, Path(place)) if path.exists()), "")
                if not place:
                    raise MissingRows(str(own / name))
            with explained(self._place):
                reader = self._lance.file.LanceFileReader(place, storage_options=storage_options(self._place))
                tables.append(reader.read_all().to_table())
        return pa.concat_tables(tables)

    def _check(self, table: Address, fragments: Sequence[Fragment]) -> None:
        folder = table.at(f"{unquote(table.key)}/{_DATA}")  # Lance takes the address for an URL
        for file in (file for fragment in fragments for file in fragment["files"]):
            address = folder.at(f"{folder.key}/{file['path']}")
            try:
                is_whole = head(address).size == file["file_size_bytes"]
            except MissingObject:
                is_whole = False
            if not is_whole:
                raise MissingRows(str(address))

    def rows_with(self, column: str, values: Iterable[str], *, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return some columns of the rows with one of these values, with the numbers of their fragments."""
        found = []
        for condition in conditions(column, values):
            with explained(self._place):
                rows = self._table.to_table(columns=list(columns), filter=condition, with_row_address=True).to_pylist()
            found += [row | {"fragment": row.pop("_rowaddr") >> 32} for row in rows]
        return found

    def commit(
        self,
        fragments: Sequence[Fragment],
        *,
        deleting: Mapping[int, Collection[str]],
        properties: Mapping[str, str],
    ) -> None:
        """Make one version that has the rows of `fragments`, without some segments of the table's own fragments.

        Args:
            deleting: the segments, by the number of their fragment.

        Raises:
            VopError: this process has lost the library's lock.
        """
        with explained(self._place):
            removed, updated = [], []
            for number, segments in deleting.items():
                (condition,) = conditions("segment", segments, most=len(segments))
                rest = self._table.get_fragment(number).delete(condition)
                if rest is None:
                    removed.append(number)
                else:
                    updated.append(rest)
            operations, metadata = self._lance.LanceOperation, self._lance.fragment.FragmentMetadata
            new = [metadata.from_json(json.dumps(fragment)) for fragment in fragments]
            if removed or updated:
                operation = operations.Update(
                    removed_fragment_ids=removed, updated_fragments=updated, new_fragments=new
                )
            else:
                operation = operations.Append(new)
            check_held(self._place.parent.parent)
            self._table = self._lance.LanceDataset.commit(
                self._table,
                self._lance.Transaction(
                    read_version=self._table.version, operation=operation, transaction_properties=dict(properties)
                ),
                storage_options=storage_options(self._place) or None,
            )


@contextmanager
def explained(place: Location) -> Iterator[None]:
    """Explain an error of a table in object storage, without what its server has answered."""
    if isinstance(place, Path):
        yield
        return
    with explain_damage(place.parent.parent):
        yield
