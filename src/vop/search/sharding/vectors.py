"""Build the vector index of a large library in segments: each by a worker, and one commit makes them the index.

The committer trains what all segments share: the centres of the partitions, and the rotation of RaBitQ. So a query
visits the same partitions in each segment, and segments can be merged. A plan in `vectors/ID/` of the library has the
files of the table that each worker indexes, instead of videos, and next to the files of `vop.search.sharding.plan`:

    COLUMN.centres      the centres of the partitions of a column of embeddings
    COLUMN.rotation     the rotation
    columns.json        these columns, which is written last: without it, no worker begins

Until the commit, no version of the table has the segments, and searches use the old index or none. The plan holds as
long as no other process merges the table's files: `vop.search.sync.commands.tidy` deletes it.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from vop.errors import VopError
from vop.search import vector_index
from vop.search.database import storage_options
from vop.search.lease import check_held
from vop.search.manifest import DATABASE, VECTORS
from vop.search.sharding.fragments import explained, lance
from vop.search.sharding.plan import Call, Plan, PlannedFile, Runner, cut
from vop.search.state import Amount
from vop.search.store import Store
from vop.storage.address import Location
from vop.storage.errors import MissingObject
from vop.storage.objects import head
from vop.storage.small_files import child, read_bytes, write_new
from vop.utils.progress import Progress, silent
from vop.utils.uninterrupted import uninterrupted
from vop.version import VERSION

MOST_SEGMENTS = vector_index.MAX_PARTS // 2  # so that rows that come later get parts of their own for some time
_SAMPLED = 256  # rows for each partition, from which its centre is found: the number of LanceDB
_STAGE = "vector index"
_CENTRES, _ROTATION = "centres", "rotation"
_COLUMNS = "columns.json"


def build(library: Store, *, run: Runner, parts: int, progress: Progress = silent) -> None:
    """Build the indexes that a library needs anew with the workers of a runner. The caller has the library's lock.

    Args:
        parts: the number of workers, which is the greatest number of segments before they are merged.

    Raises the errors of the runner. The old index, if any, stays in use.
    """
    discard(library)
    plan = prepare(library, parts=parts)
    if plan is None:
        return
    try:
        progress(_STAGE, 0, plan.num_shards)
        with closing(run(plan, plan.unfinished())) as finished:
            for _ in finished:
                progress(_STAGE, len(plan.results()), plan.num_shards)
        commit(library, plan)
    finally:
        plan.discard()


def prepare(library: Store, *, parts: int) -> Plan | None:
    """Plan the segments, and train what they share; None if a library needs no new index."""
    columns = [model.column for model in library.models if vector_index.is_outgrown(library.table, model.column)]
    if not columns:
        return None
    table = _Table(library.table_folder)
    files = [PlannedFile(location=name, size=rows, mtime_ns=0) for name, rows in table.rows.items()]
    plan = Plan.write(
        library.path,
        library.manifest,
        Call(roots=()),
        cut(files, parts=parts, content_id=None),
        table_version=library.table.version,
        under=VECTORS,
    )
    for column in columns:
        table.train(column, plan)
    write_new(child(plan.folder, _COLUMNS), json.dumps(columns).encode())
    return plan


def planned_parts(library: Store, *, parts: int | None) -> int:
    """Return how many segments of a library still have to be built in a batch job, and plan them if needed.

    Args:
        parts: the number of parts of the job; None to wait for none.
    """
    if parts is None:
        return 0
    plan = _plan_of(library)
    if plan is None:
        discard(library)
        plan = prepare(library, parts=parts)
    return 0 if plan is None else len(plan.unfinished())


def build_part(library: Store, *, part: int, parts: int, workers: int) -> int:
    """Build one part of the planned segments of a library, and return how many these are."""
    plan = _plan_of(library)
    if plan is None:
        return 0
    numbers = [number for number in plan.numbers(part, parts) if plan.read_result(number) is None]
    indexer = Indexer(plan, workers=workers, batch_size=1)
    for number in numbers:
        indexer.work(number)
    return len(numbers)


def commit_planned(library: Store) -> None:
    """Commit the planned segments of a library if all are built. The caller has the library's lock."""
    plan = _plan_of(library)
    if plan is not None:
        commit(library, plan)
        plan.discard()


def _plan_of(library: Store) -> Plan | None:
    """Return the plan of a library's segments; None if there is none that holds and is trained."""
    for folder in Plan.all_of(library.path, under=VECTORS):
        with suppress(VopError):  # it was made by another version of vop
            plan = Plan.read(folder)
            if (plan.table, plan.vop_version) == (library.manifest.table, VERSION) and _columns(plan):
                return plan
    return None


def discard(library: Store) -> None:
    """Delete the plans of a library's segments."""
    for folder in Plan.all_of(library.path, under=VECTORS):
        Plan.remove(folder)


def commit(library: Store, plan: Plan) -> bool:
    """Make the segments of a plan the indexes of a library. The caller has the library's lock.

    Returns:
        False if segments are missing, or the files of the table were merged meanwhile. Then nothing has changed.
    """
    table = _Table(library.table_folder)
    results = plan.read_results(plan.numbers())
    planned = {file.location for number in plan.numbers() for file in plan.files(number)}
    if len(results) < plan.num_shards or not planned <= table.rows.keys():
        return False
    segments: dict[str, list[Any]] = {}
    for result in results.values():
        for column, segment in result["segments"].items():
            segments.setdefault(column, []).append(_segment_of(segment))
    if not all(table.has(segment) for own in segments.values() for segment in own):
        return False
    with uninterrupted():
        for column, own in segments.items():
            check_held(library.path)
            table.commit(column, own)
    return True


class Indexer:
    """Builds segments. It takes the arguments of `vop.search.sharding.work.Worker`, and needs no model."""

    def __init__(self, plan: Plan, *, workers: int, batch_size: int, compile: bool = False) -> None:
        os.environ.setdefault("LANCE_CPU_THREADS", str(workers))  # before Lance starts its threads
        self._plan = plan
        self._table = _Table(child(child(plan.library, DATABASE), f"{plan.table}.lance"))

    def work(self, number: int, *, progress: Callable[[Amount], None] = lambda amount: None) -> None:
        """Build the segments of a shard, one for each column, unless that was done before.

        Raises:
            VopError: the plan was finished or replaced meanwhile, or the table's files were merged.
        """
        plan = self._plan
        plan.check_alive()
        if plan.read_result(number) is not None:
            return
        files = plan.files(number)
        segments = {column: self._table.build(column, plan, files) for column in _columns(plan)}
        plan.check_alive()
        plan.write_result(number, {"segments": {name: _to_json(segment) for name, segment in segments.items()}})


class _Table:
    """A table of segments, as Lance's own package sees it.

    Attributes:
        rows: the number of rows in each file, by its name.
    """

    def __init__(self, place: Location) -> None:
        self._place = place
        with explained(place):
            self._table = lance().dataset(str(place), storage_options=storage_options(place) or None)
        fragments = {_name(fragment): fragment for fragment in self._table.get_fragments()}
        self.rows = {name: int(fragment.physical_rows) for name, fragment in fragments.items()}
        self._numbers = {name: int(fragment.fragment_id) for name, fragment in fragments.items()}

    def train(self, column: str, plan: Plan) -> None:
        """Write the centres of the partitions and the rotation into the plan's folder."""
        from lance.indices import IndicesBuilder
        from lance.lance import indices

        rows = self._table.count_rows()
        partitions = vector_index.num_partitions(rows)
        with explained(self._place):
            model = IndicesBuilder(self._table, column).train_ivf(
                partitions, distance_type=vector_index.DISTANCE, sample_rate=min(_SAMPLED, rows // partitions)
            )
        width = self._table.schema.field(column).type.list_size
        rotation = indices.build_rq_model(width, vector_index.BITS)
        write_new(child(plan.folder, f"{column}.{_CENTRES}"), _bytes_of(model.centroids))
        write_new(child(plan.folder, f"{column}.{_ROTATION}"), rotation.encode())

    def build(self, column: str, plan: Plan, files: Iterable[PlannedFile]) -> Any:
        """Write the segment of some files, which no version of the table has yet."""
        missing = [file.location for file in files if file.location not in self._numbers]
        if missing:
            raise VopError(f"{plan.library}: another process has merged {missing[0]} meanwhile; run the command again")
        centres = _array_of(read_bytes(child(plan.folder, f"{column}.{_CENTRES}")))
        rotation = read_bytes(child(plan.folder, f"{column}.{_ROTATION}")).decode()
        with explained(self._place):
            return self._table.create_index_uncommitted(
                column,
                vector_index.KIND,
                name=vector_index.index_name(column),
                metric=vector_index.DISTANCE,
                replace=True,
                num_partitions=len(centres),
                ivf_centroids=centres,
                num_bits=vector_index.BITS,
                rabitq_model=rotation,
                fragment_ids=[self._numbers[file.location] for file in files],
            )

    def has(self, segment: Any) -> bool:
        """Whether the files of a segment exist: a clean-up deletes those that no version has."""
        folder = child(child(self._place, "_indices"), segment.uuid)
        return all(_size(child(folder, file.path)) == file.size_bytes for file in segment.files)

    def commit(self, column: str, segments: Sequence[Any]) -> None:
        """Make segments the index of a column, in place of what it had; at most `MOST_SEGMENTS` are left."""
        per_group = -(-len(segments) // MOST_SEGMENTS)
        groups = [segments[first : first + per_group] for first in range(0, len(segments), per_group)]
        with explained(self._place):
            merged = [
                self._table.merge_existing_index_segments(list(group)) if len(group) > 1 else group[0]
                for group in groups
            ]
            self._table.commit_existing_index_segments(vector_index.index_name(column), column, merged)


def _name(fragment: Any) -> str:
    """Return the name of the first of a fragment's files: the others have columns that were added later."""
    return str(fragment.data_files()[0].path)


def _columns(plan: Plan) -> list[str]:
    """Return the columns to index; none while the planner still trains, or if it was killed."""
    try:
        columns: list[str] = json.loads(read_bytes(child(plan.folder, _COLUMNS)))
    except FileNotFoundError:
        return []
    return columns


def _size(place: Location) -> int | None:
    if isinstance(place, Path):
        return place.stat().st_size if place.exists() else None
    try:
        return head(place.at(unquote(place.key))).size  # Lance takes the address for an URL
    except MissingObject:
        return None


# -- as bytes and JSON


def _bytes_of(array: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({_CENTRES: array})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _array_of(content: bytes) -> pa.Array:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all().column(_CENTRES).combine_chunks()


def _to_json(segment: Any) -> dict[str, Any]:
    """Return the description of a segment that Lance gives to its builder."""
    kind, details = segment.index_details
    return {
        "uuid": segment.uuid,
        "name": segment.name,
        "fields": segment.fields,
        "dataset_version": segment.dataset_version,
        "fragment_ids": sorted(segment.fragment_ids),
        "index_version": segment.index_version,
        "created_at": segment.created_at.isoformat(),
        "files": [asdict(file) for file in segment.files],
        "index_details": [kind, b64encode(details).decode()],
    }


def _segment_of(document: Mapping[str, Any]) -> Any:
    from lance.dataset import Index, IndexFile

    kind, details = document["index_details"]
    own = {
        "fragment_ids": set(document["fragment_ids"]),
        "created_at": datetime.fromisoformat(document["created_at"]),
        "files": [IndexFile(**file) for file in document["files"]],
        "index_details": (kind, b64decode(details)),
    }
    return Index(**{**document, **own})
