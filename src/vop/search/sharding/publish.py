"""Publish what workers have written: one version of the library's table out of all finished shards.

A shard is published exactly once. The transaction of each version names its shards; the plan lists them too, because a
clean-up removes old versions. A publisher that is killed after the commit and before the list is completed leaves both
the transaction and the files in the table, either of which tells the next one.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vop.errors import VopError
from vop.search.failures import Failure
from vop.search.lease import check_held
from vop.search.schema import made_with, with_checksums
from vop.search.sharding.fragments import Fragment, MissingRows, Target
from vop.search.sharding.plan import Plan, PlannedFile
from vop.search.store import Store
from vop.search.sync.ingest import TIDY_COMMITS, Update, updated_rows
from vop.storage.small_files import child
from vop.utils.uninterrupted import uninterrupted
from vop.version import VERSION

PLAN, SHARDS = "vop.plan", "vop.shards"  # properties of a transaction
logger = logging.getLogger(__name__)


class Publisher:
    """Publishes the shards of a plan. The caller has the library's lock.

    Raises:
        VopError: the library has moved to other models since the plan was made.
    """

    def __init__(self, library: Store, plan: Plan) -> None:
        if (library.manifest.table, made_with(library.models)) != (plan.table, plan.made_with):
            raise VopError(
                f"{plan.library} has moved to other models since its files were cut into shards; discard them: "
                f"vop library publish {plan.library} --discard"
            )
        self._library, self._plan, self._commits = library, plan, 0
        self._committed, self._version = plan.read_committed()
        self._recover()

    def _recover(self) -> None:
        """List shards whose version was committed by a publisher that was killed before it listed them."""
        pending = [number for number in self._plan.results() if number not in self._committed]
        if not pending:
            return
        target = self._target()
        found = {
            number
            for properties in target.properties()
            if properties.get(PLAN) == self._plan.id
            for number in json.loads(properties[SHARDS])
        }
        files = target.files
        for number, result in self._plan.read_results(pending).items():
            names = {file["path"] for fragment in result.get("fragments", ()) for file in fragment["files"]}
            if names and names <= files:
                found.add(number)
        if found:
            self._list(found)  # with the version before, so that the next commit takes nothing for granted

    def publish(self) -> list[int]:
        """Publish the finished shards that the library does not have yet, and return their numbers.

        Raises:
            VopError: a shard was written with other weights or another version of vop. The others are published, and
                this one counts as unfinished again.
        """
        refused = None
        results: dict[int, dict[str, Any]] = {}
        pending = [number for number in self._plan.results() if number not in self._committed]
        for number, result in self._plan.read_results(pending).items():
            try:
                check(result, self._plan)
            except VopError as error:
                self._plan.drop_result(number)
                refused = error
            else:
                results[number] = result
        with uninterrupted():
            published = self._publish(results) if results else []
        if self._commits >= TIDY_COMMITS:
            is_own = self._target().version == self._version
            self._library.keep_up()
            self._commits = 0
            if is_own:
                self._version = self._target().version
                self._list(())
        if refused:
            raise refused
        return published

    def _publish(self, results: Mapping[int, dict[str, Any]]) -> list[int]:
        target = self._target()
        new: list[Fragment] = []
        kept: dict[int, dict[str, Any]] = {}
        for number, result in results.items():
            try:
                new += target.move(result["fragments"], child(self._plan.folder, str(result["folder"])))
                kept[number] = result
            except MissingRows as error:
                logger.warning("shard %d of %s is read again: %s is missing", number, self._plan.library, error)
                self._plan.drop_result(number)
        # Failures come first, as in an indexing by one process: see `Writer`.
        self._library.put_failures([Failure(**one) for result in kept.values() for one in result["failures"]])
        moved = [_update(update) for result in kept.values() for update in result["updates"]]
        new += self._rows_of_moved(target, moved)
        videos = [(path, video) for result in kept.values() for path, video in result["videos"]]
        replaced = [(path, video) for result in kept.values() for path, video in result["replaced"]]
        videos += [(str(update.file.path), update.video) for update in moved]
        is_own = target.version == self._version
        if is_own:
            # Only this plan has written since the files were compared with the library. So the workers know all rows
            # that theirs replace, and the table need not be searched for those of new videos.
            changed, updated = {path for path, _ in replaced}, {update.video for update in moved}
            videos = [(path, video) for path, video in videos if path in changed or video in updated]
        deleting = _segments_to_delete(target, videos, replaced)
        if new or deleting:
            target.commit(new, deleting=deleting, properties={PLAN: self._plan.id, SHARDS: json.dumps(sorted(kept))})
            self._commits += 1
        if is_own:
            self._version = target.version
        self._list(kept)
        return sorted(kept)

    def _rows_of_moved(self, target: Target, moved: Sequence[Update]) -> list[Fragment]:
        rows = list(updated_rows(self._library, moved))
        if not rows:
            return []
        folder = child(self._plan.folder, f"moved-{secrets.token_hex(4)}")
        return target.move(target.write(with_checksums(pa.concat_tables(rows)), folder), folder)

    def _list(self, numbers: Iterable[int]) -> None:
        check_held(self._library.path)
        self._committed |= set(numbers)
        self._plan.write_committed(self._committed, table_version=self._version)

    def _target(self) -> Target:
        return Target(self._library.table_folder)


def _update(values: Mapping[str, Any]) -> Update:
    planned = PlannedFile(**values["file"])
    return Update(values["video"], planned.file, planned.metadata)


def check(result: Mapping[str, Any], plan: Plan) -> None:
    """Raise a VopError if a result was not made with the models and the version of vop of its plan."""
    wanted = {"plan": plan.id, "made_with": plan.made_with, "vop_version": plan.vop_version}
    for field, value in wanted.items():
        if result.get(field) != value:
            raise VopError(
                f"{plan.library}: shard {result.get('shard')} was written by {result.get('worker')} with {field} "
                f"{result.get(field)}, not {value}; it is not published, and counts as unfinished. Use the same models "
                f"and vop {VERSION} everywhere"
            )


def _segments_to_delete(
    target: Target, videos: Sequence[tuple[str, str]], replaced: Sequence[tuple[str, str]]
) -> dict[int, set[str]]:
    """Return the segments that new rows replace, by fragment.

    Args:
        videos: (path, video) of the new rows, which replace all others of their path or their video.
        replaced: (path, video) of videos that were found to have changed. Another shard may have published new rows of
            the path meanwhile, which stay.
    """
    paths, ids, pairs = {path for path, _ in videos}, {video for _, video in videos}, set(replaced)
    columns = ["segment", "path", "video"]
    found = [
        *target.rows_with("path", paths | {path for path, _ in pairs}, columns=columns),
        *target.rows_with("video", ids, columns=columns),
    ]
    segments: dict[int, set[str]] = defaultdict(set)
    for row in found:
        if row["path"] in paths or row["video"] in ids or (row["path"], row["video"]) in pairs:
            segments[row["fragment"]].add(row["segment"])
    return dict(segments)
