"""The work on a shard: the engine of `vop index` reads its files, and writes rows that no version of the table has yet.

The result of a shard, as JSON:

    plan, shard, made_with, vop_version, worker     who wrote it
    folder, fragments   the rows, and the plan's folder with them on a disk; see `vop.search.sharding.fragments`
    videos              [path, video] of each video in these rows
    replaced            [path, video] of the library's videos that these rows replace, or that have changed
    updates             videos that were moved: their new path, size and time, and values of their metadata
    failures, failed    the files that failed: new entries of the list, and the paths of all
    copies              [file, path of the original] of each copy
    report              numbers of `IndexReport`

That of a re-embedding has no failures, but `dropped`, pairs of a path and a reason.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from vop.errors import VopError
from vop.search.failures import Failure
from vop.search.models import open_models
from vop.search.schema import made_with, with_checksums
from vop.search.sharding.fragments import Fragment, Target, lance
from vop.search.sharding.plan import Plan, PlannedFile
from vop.search.state import Amount, Tally
from vop.search.store import Store
from vop.search.sync.ingest import Ingest, Known
from vop.search.sync.metadata import Metadata
from vop.search.sync.scanner import Scan
from vop.utils.names import nfc
from vop.utils.progress import silent
from vop.version import VERSION
from vop.video.find import FoundFile, FoundVideos
from vop.video.isolated import DecodingProcesses

COUNTED = ("added", "changed", "moved", "unchanged", "described", "segments", "hours")  # of an `IndexReport`


class ShardWriter:
    """Collects the changes of a shard, for the committer; see `vop.search.sync.ingest.Writer`."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.failures: list[Failure] = []
        self.rows: list[pa.Table] = []
        self.replaced: set[tuple[str, str]] = set()
        self.updates: dict[str, dict[str, Any]] = {}

    def add(self, rows: pa.Table, *, replacing: Iterable[str]) -> None:
        self.rows.append(rows)
        for path in replacing:
            self.remove(path)

    def update(self, video: str, file: FoundFile, values: Mapping[str, str], *, before: str) -> None:
        self.updates[video] = {"file": asdict(PlannedFile.of(file, values)), "before": before}

    def remove(self, path: str) -> None:
        if path in self._known.records:
            self.replaced.add((path, self._known.records[path].video))

    def commit_if_due(self) -> None:
        pass

    def commit(self) -> None:
        pass


class Worker:
    """Works on shards of a plan, with models that stay loaded.

    Args:
        workers: decoding processes.
        batch_size: segments per forward pass.
        compile: whether to compile the layers of the models, as for `vop.load`.

    Raises:
        VopError: the models or the version of vop are not those of the plan.
    """

    def __init__(self, plan: Plan, *, workers: int, batch_size: int, compile: bool = False) -> None:
        check_version(plan)
        lance()  # fails early
        self._plan, self._workers, self._batch_size = plan, workers, batch_size
        self._store = Store.open(plan.library)
        self._check_table()
        try:
            self._models = open_models(self._store.manifest, folder=plan.library, compile=compile)
        except VopError as error:
            raise VopError(f"{name()}: {error}") from error
        self._processes = DecodingProcesses()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding processes."""
        self._processes.close()

    def work(self, number: int, *, progress: Callable[[Amount], None] = lambda amount: None) -> None:
        """Write the rows and the result of a shard, unless that was done before.

        Args:
            progress: called with what was read, after each step.

        Raises:
            VopError: the plan was finished or replaced meanwhile, the disk is full, or the library has moved to other
                models.
        """
        plan = self._plan
        plan.check_alive()
        if plan.read_result(number) is not None:
            return
        self._store.refresh()
        self._check_table()
        planned = plan.files(number)
        files = [one.file for one in planned]
        known = Known.of(self._store, files)
        writer = ShardWriter(known)
        scanned = Scan(
            library=plan.library, roots=frozenset(), exclude=(), live_photos=False, found=FoundVideos(files=files)
        )
        ingest = Ingest(self._store, self._models, scanned, _metadata(planned), silent, known=known, writer=writer)
        todo = ingest.new_files()
        write = at_intervals(plan.poll_seconds, lambda amount: plan.write_progress(number, amount))

        def changed(amount: Amount) -> None:
            write(amount)
            progress(amount)

        ingest.read(
            todo,
            workers=self._workers,
            batch_size=self._batch_size,
            track=lambda hours: Tally(todo, hours, changed),
            processes=self._processes,
        )
        plan.check_alive()  # before files are written, which would create its folder again
        plan.write_result(number, self._result(number, ingest, writer))

    def _check_table(self) -> None:
        manifest, plan = self._store.manifest, self._plan
        if (manifest.table, made_with(manifest.models)) != (plan.table, plan.made_with):
            raise VopError(
                f"{plan.library} has moved to other models since its files were cut into shards; run vop index again"
            )

    def _result(self, number: int, ingest: Ingest, writer: ShardWriter) -> dict[str, Any]:
        return written(self._plan, number, self._store, writer.rows) | {
            "replaced": sorted(writer.replaced),
            "updates": [{"video": video, **update} for video, update in writer.updates.items()],
            "failures": [failed.to_dict() for failed in writer.failures],
            "failed": sorted(ingest.failed),
            "copies": [[asdict(PlannedFile.of(file, {})), original] for file, original in ingest.new_copies],
            "report": {counted: getattr(ingest.report, counted) for counted in COUNTED},
        }


def written(plan: Plan, number: int, store: Store, rows: Sequence[pa.Table]) -> dict[str, Any]:
    """Write the rows of a shard for a table, and return the part of its result that tells of them."""
    rows_folder, fragments, videos = None, list[Fragment](), dict[str, str]()
    if rows:
        table = pa.concat_tables(rows)
        rows_folder = plan.rows_folder(number)
        fragments = Target(store.table_folder).write(with_checksums(table), rows_folder)
        for path, video in zip(table["path"].to_pylist(), table["video"].to_pylist(), strict=True):
            videos[path] = video
    return {
        "plan": plan.id,
        "shard": number,
        "made_with": made_with(store.models),
        "vop_version": VERSION,
        "worker": name(),
        "folder": None if rows_folder is None else rows_folder.name,
        "fragments": fragments,
        "videos": sorted(videos.items()),
    }


def check_version(plan: Plan) -> None:
    """Raise a VopError if another version of vop made a plan."""
    if plan.vop_version != VERSION:
        raise VopError(
            f"{name()}: vop is {VERSION}, and {plan.library} is being changed with {plan.vop_version}; install that "
            "version here"
        )


def name() -> str:
    """Return the name of this worker in messages."""
    return f"worker {platform.node()}:{os.getpid()}"


def _metadata(planned: Sequence[PlannedFile]) -> Metadata:
    return Metadata((), {nfc(one.location): one.metadata for one in planned}, {})


def at_intervals(seconds: float, write: Callable[[Amount], None]) -> Callable[[Amount], None]:
    """Return a function that writes an amount at most once in some seconds."""
    last = 0.0

    def changed(amount: Amount) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            write(amount)

    return changed
