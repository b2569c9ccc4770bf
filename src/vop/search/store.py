"""A library: a folder with a LanceDB database of segments, searched while it is being written.

    library.json    which table, which models, how videos are segmented
    database/       LanceDB: segments_N, failures, removed_segments_N once videos were removed, and KEPT_TABLES
    folders.json    what was indexed, and is indexed again without paths
    words.json      which words are indexed, if the owner has chosen
    owner.json      tags and favourites, once the owner has made some
    frames/         decoded frames, if the library keeps them
    shards/         plans of indexings in shards, and rows that are not published yet
    reembedding/    the same of a re-embedding in shards
    progress.json   the progress of a running indexing
    confidence.safetensors   the calibration of its models (`vop.search.confidence`)

Every change commits whole videos: a reader sees a video completely or not at all. Uncommitted changes of a killed
writer are lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from vop.search import failures, manifest, near_copies, vector_index
from vop.search.database import connect, explain_write, open_if_exists
from vop.search.failures import Failure
from vop.search.filters import METADATA, quoted
from vop.search.lease import check_held
from vop.search.manifest import Manifest
from vop.search.rows import IDS
from vop.search.schema import ADDED, check_rows, delete_paths, explain_damage, field_of, schema, with_checksums
from vop.search.store_reader import StoreReader
from vop.search.words.table import WORDS_TABLES
from vop.storage import small_files
from vop.storage.address import Address, absolute
from vop.storage.objects import list_objects

if TYPE_CHECKING:
    from lancedb.table import Table

# Tables that do not depend on the models and stay when the library moves to others; their keys are ids of videos.
NEAR_TABLES = (near_copies.FINGERPRINTS, near_copies.TABLE)
KEPT_TABLES = (failures.TABLE, *NEAR_TABLES, *WORDS_TABLES)
# Filters compare these columns with values. They search inside paths, and compare metadata both as text and as numbers,
# which no index answers.
_FILTERED = ("date", "duration_seconds")


class Store(StoreReader):
    """An open library, to read and write it. Writers hold its lock (`vop.search.sync.lock`)."""

    @classmethod
    def create(cls, path: str | Path | Address, wanted: Manifest) -> Self:
        """Create an empty library; see `vop.search.sync.lock.check_folder`."""
        place = absolute(path)
        with explain_write(place):
            database = connect(place, cache=False)
            database.create_table(wanted.table, schema=schema(wanted.models), exist_ok=True)
            database.create_table(failures.TABLE, schema=failures.SCHEMA, exist_ok=True)
            manifest.write(wanted, place)
        return cls(place, wanted)

    # -- videos and failures

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Check that the lock is held, and explain the errors of a write."""
        check_held(self.path)
        with explain_write(self.path), explain_damage(self.path):
            yield

    def put(self, rows: pa.Table, *, replacing: Iterable[str] = ()) -> None:
        """Add whole videos in one commit.

        Args:
            replacing: paths whose rows are deleted in the same commit, as are rows of the same segments. Needed unless
                both the paths and the videos are new.
        """
        rows, replacing = with_checksums(rows), sorted(replacing)
        with self.writing():
            if not replacing:
                self.table.add(rows)
                return
            merge = self.table.merge_insert("segment").when_matched_update_all().when_not_matched_insert_all()
            old = f"path IN ({', '.join(map(quoted, replacing))})"
            merge.when_not_matched_by_source_delete(old).execute(rows)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove videos by their paths."""
        with self.writing():
            delete_paths(self.table, paths)

    def move_to_removed(self, paths: Iterable[str]) -> None:
        """Remove videos by their paths; `restore` can restore them for `KEPT_DAYS` days."""
        paths = list(paths)
        damage = {failed.path: failed.reason for failed in self.failures() if failed.kind == failures.PARTIAL}
        with self.writing():
            self.removed.keep(paths, damage=damage)
        self.remove(paths)

    def restore(self, paths: Iterable[str]) -> list[str]:
        """Restore the removed videos at these paths, and return their paths.

        A video is not restored if the library has it again, or has another video at its path.
        """
        restorable = set(self.restorable())
        wanted = [path for path in paths if path in restorable]
        for rows, damaged in self.removed.pop(wanted):
            self.put_failures(damaged)
            self.put(check_rows(rows, self.path))
        return wanted

    def add_columns(self, names: Iterable[str]) -> None:
        """Add empty columns: those of the owner's metadata, and those that older libraries lack."""
        wanted = [*ADDED, *(METADATA + name for name in names)]
        new = [field_of(name) for name in wanted if name not in self.table.schema.names]
        if new:
            with self.writing():
                self.table.add_columns(new)

    def put_failures(self, failed: Sequence[Failure], *, remove: Iterable[str] = ()) -> None:
        """List files that failed, replacing their earlier entries, and remove the files in `remove` from the list."""
        with self.writing():
            failures.write(self._failures, failed, remove=remove)

    def rename_model(self, name: str) -> None:
        """Store the new name of the first model after it has moved."""
        first, *others = self.models
        self.change(models=(replace(first, name=name), *others))

    def change(self, **changes: Any) -> None:
        """Change fields of the current `library.json`."""
        before = manifest.read(self.path)
        self.manifest = before.with_(**changes)
        if self.manifest != before:
            check_held(self.path)
            manifest.write(self.manifest, self.path)

    # -- upkeep

    def drop_frames(self) -> None:
        """Delete the kept frames of segments that are neither in the library nor restorable.

        While there are plans, all stay: those of segments that are not published yet are among them.
        """
        from vop.search.frames import SegmentFrames  # imports PyTorch

        frames = SegmentFrames.of(self.manifest, self.path)
        if frames and not small_files.folders_in(small_files.child(self.path, manifest.SHARDS)):
            own = self.table.search().select(["segment"]).to_arrow().column(0).to_pylist()
            frames.keep_only([*own, *self.removed.segments()])

    def drop_words(self) -> None:
        """Delete the lines of videos that are neither in the library nor restorable."""
        present = set(self.ids())
        with self.writing():
            self.words.keep_only(present | set(self.removed.videos().values()))

    def keep_up(self) -> None:
        """Merge small files, drop old versions, and build or complete the indexes where needed."""
        from lancedb.index import BTree

        with self.writing():
            if self.table.count_rows() > vector_index.EXACT_ROWS:
                indexed = {name for index in self.table.list_indices() for name in index.columns}
                for column in sorted({*IDS, *_FILTERED} - indexed):
                    self.table.create_index(column, config=BTree())
            own = [model.column for model in self.models]
            vector_index.keep_up(self.table, own, keep_uncommitted=self._has_workers())
            vector_index.tidy_up(self._failures)
            self.words.tidy_up()

    def _has_workers(self) -> bool:
        """Whether workers may have written files into the table that are not published yet.

        In a folder they write them elsewhere; see `vop.search.sharding.fragments`.
        """
        if isinstance(self.path, Path):
            return False
        plans = (small_files.child(self.path, name) for name in (manifest.SHARDS, manifest.REEMBEDDING))
        return any(isinstance(place, Address) and any(True for _ in list_objects(place)) for place in plans)

    def kept_table(self, name: str, schema: pa.Schema) -> Table:
        """Open a table to write it; create it if it does not exist."""
        check_held(self.path)
        return self._database.create_table(name, schema=schema, exist_ok=True)

    # -- moving to other models

    def staging(self, wanted: Manifest) -> Self:
        """Return a library in the same folder with another manifest, which readers see only after `publish`."""
        with self.writing():
            if open_if_exists(self._database, self.path, wanted.table) is None:
                self.kept_table(wanted.table, schema(wanted.models, self.columns))
            staged = type(self)(self.path, wanted)
            staged.add_columns(self.columns)
        return staged

    def publish(self) -> None:
        """Make the staged table the library's table, and drop all others."""
        check_held(self.path)
        manifest.write(self.manifest, self.path)
        for name in self._database.list_tables().tables:
            if name not in (self.manifest.table, *KEPT_TABLES):
                self._database.drop_table(name)
