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
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vop.errors import VopError
from vop.search.failures import Failure
from vop.search.lease import check_held
from vop.search.schema import made_with, with_checksums
from vop.search.sharding.fragments import Fragment, MissingRows, Target
from vop.search.sharding.plan import Plan, PlannedFile
from vop.search.store import Store
from vop.search.sync.ingest import TIDY_COMMITS, Update, updated_rows
from vop.search.sync.scanner import is_unchanged
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
        outdated = set() if target.version == self._version else self._outdated(target, results)
        for number, result in results.items():
            try:
                result = self._without(outdated, target, result)
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

    def _outdated(self, target: Target, results: Mapping[int, dict[str, Any]]) -> set[tuple[str, str]]:
        """Return (path, video) of files that were replaced or moved since they were read, and indexed again meanwhile.

        Rows that came after the worker had looked are a sign of it, and the files themselves tell.
        """
        planned = {file.location: file.file for number in results for file in self._plan.files(number)}
        wanted = {(path, video) for result in results.values() for path, video in result["videos"]}
        known = {(path, video) for result in results.values() for path, video in result["replaced"]}
        for values in (values for result in results.values() for values in result["updates"]):
            wanted.add((values["file"]["location"], values["video"]))
            known.add((values["before"], values["video"]))
        expected = wanted | known
        videos, paths = dict(wanted), {video: path for path, video in wanted}
        met: set[str] = set()
        for row in _rows_with(target, videos.keys(), paths.keys()):
            if (row["path"], row["video"]) not in expected:
                met |= {row["path"], paths.get(row["video"], row["path"])} & planned.keys() & videos.keys()
        return {(path, videos[path]) for path in met if not is_unchanged(planned[path])}

    def _without(self, outdated: Set[tuple[str, str]], target: Target, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a shard without these files."""
        updates = [one for one in result["updates"] if (one["file"]["location"], one["video"]) not in outdated]
        videos = [(path, video) for path, video in result["videos"] if (path, video) not in outdated]
        result = result | {"updates": updates}
        if len(videos) == len(result["videos"]):
            return result
        rows = target.read(result["fragments"], child(self._plan.folder, str(result["folder"])))
        rows = rows.filter(pc.is_in(rows["video"], pa.array([video for _, video in videos], pa.string())))
        folder = child(self._plan.folder, f"rest-{secrets.token_hex(4)}")
        fragments = target.write(rows, folder) if videos else []
        return result | {"videos": videos, "folder": folder.name, "fragments": fragments}

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
    found = _rows_with(target, paths | {path for path, _ in pairs}, ids)
    segments: dict[int, set[str]] = defaultdict(set)
    for row in found:
        if row["path"] in paths or row["video"] in ids or (row["path"], row["video"]) in pairs:
            segments[row["fragment"]].add(row["segment"])
    return dict(segments)


def _rows_with(target: Target, paths: Iterable[str], videos: Iterable[str]) -> list[dict[str, Any]]:
    """Return the table's rows of some paths or videos, with the numbers of their fragments."""
    columns = ["segment", "path", "video"]
    return [*target.rows_with("path", paths, columns=columns), *target.rows_with("video", videos, columns=columns)]
