"""Rows outside any version of a table, as Lance fragments, and the commit that makes them a version.

A fragment is written into a folder of its own, and its files are moved into the table's folder only by the committer,
which has the library's lock. So a clean-up of the table never meets files that no version has, and a worker that is
killed leaves nothing in the database. Fields are matched by their names: a column that was added to the table later is
empty in these rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vop.errors import UsageError
from vop.search.schema import conditions

if TYPE_CHECKING:
    import pyarrow as pa

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
    """A table that fragments are committed to. The caller has the library's lock.

    Args:
        folder: the table's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._lance, self._folder = lance(), folder
        self._table = self._lance.dataset(str(folder))

    @property
    def storage_version(self) -> str:
        version: str = self._table.data_storage_version
        return version

    @property
    def version(self) -> int:
        version: int = self._table.version
        return version

    @property
    def files(self) -> set[str]:
        """The names of the files with the table's rows."""
        return {file.path for fragment in self._table.get_fragments() for file in fragment.data_files()}

    def properties(self) -> list[Mapping[str, str]]:
        """Return the properties of the transactions of all versions that still exist."""
        found: list[Mapping[str, str]] = []
        for version in self._table.versions():
            transaction = self._table.read_transaction(version["version"])
            if transaction is not None:
                found.append(dict(transaction.transaction_properties or {}))
        return found

    def move(self, fragments: Sequence[Fragment], folder: Path) -> list[Fragment]:
        """Move the files of fragments from `folder` to the table, unless that was done before.

        Returns:
            the fragments, with the table's numbers of the fields.

        Raises:
            MissingRows: a file is in neither place.
        """
        numbers = {entry.name(): entry.id() for entry in self._table.lance_schema.fields()}
        moved = []
        for fragment in fragments:
            files = []
            for file in fragment["files"]:
                source, target = folder / _DATA / file["path"], self._folder / _DATA / file["path"]
                if not target.exists():
                    if not source.exists() or source.stat().st_size != file["file_size_bytes"]:
                        raise MissingRows(str(source))
                    target.parent.mkdir(exist_ok=True)
                    os.replace(source, target)
                names = [fragment["columns"][place] for place in file["fields"]]
                files.append(file | {"fields": [numbers[name] for name in names]})
            moved.append({name: value for name, value in fragment.items() if name != "columns"} | {"files": files})
        return moved

    def rows_with(self, column: str, values: Iterable[str], *, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return some columns of the rows with one of these values, with the numbers of their fragments."""
        found = []
        for condition in conditions(column, values):
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
        """
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
            operation = operations.Update(removed_fragment_ids=removed, updated_fragments=updated, new_fragments=new)
        else:
            operation = operations.Append(new)
        self._table = self._lance.LanceDataset.commit(
            self._table,
            self._lance.Transaction(
                read_version=self._table.version, operation=operation, transaction_properties=dict(properties)
            ),
        )
