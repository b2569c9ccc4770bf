"""A plan: the files that an indexing has to read, cut into shards. It lies in the library's folder, in `shards/ID/`
(that of a re-embedding in `reembedding/ID/`, that of a vector index in `vectors/ID/`), or below the library's address.

    plan.json               the call, the library's table, and what makes the embeddings
    00012.files.json        the files of a shard
    00012.progress.json     what its worker has read so far
    00012-TOKEN/            the rows that a worker has written; the library does not have them yet. In object storage
                            they are in the table's own folder
    00012.result.json       the result of a finished shard, which is written last
    committed.json          the shards that the library has, and the table's version with them
    library.json            of a re-embedding: the manifest of the library as it will be

Workers need the library's folder at the same path as the planner, or its address, and the files at their paths.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from vop.config import validated
from vop.errors import VopError
from vop.search.manifest import REEMBEDDING, SHARDS, VECTORS, Manifest
from vop.search.manifest import write as write_manifest
from vop.search.schema import made_with
from vop.search.state import Amount
from vop.storage import small_files
from vop.storage.address import Location, is_address, location
from vop.storage.errors import ChangedObject, StorageError
from vop.storage.small_files import (
    child,
    folders_in,
    folders_with,
    is_file,
    names_in,
    read_bytes,
    write_bytes,
    write_new,
)
from vop.version import VERSION
from vop.video.find import FoundFile

PER_PART = 4  # shards for each worker, so that a slow one does not keep the others waiting
LEAST_BYTES, MOST_BYTES = 64 * 2**20, 2**30  # of a shard, unless there would be fewer shards than workers
MOST_FILES, MOST_SECONDS = 1000, 36_000.0  # of a shard
_REQUESTS = 16  # at a time
T = TypeVar("T")
log = logging.getLogger(__name__)
_PLAN, _FILES, _PROGRESS, _RESULT, _COMMITTED = "plan", "files", "progress", "result", "committed"


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file to index.

    Attributes:
        location: its absolute path, or its address in object storage.
        size, mtime_ns: its identity; see `FoundFile`.
        volume: its filesystem; see `FoundFile`.
        metadata: the owner's metadata of it.
        seconds: its duration, if it is known before it is read.

    For a vector index it is a file of the table: its name, and the number of its rows as its size.
    """

    location: str
    size: int
    mtime_ns: int
    volume: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None

    @classmethod
    def of(cls, file: FoundFile, metadata: Mapping[str, str], *, seconds: float | None = None) -> PlannedFile:
        return cls(
            location=str(file.path),
            size=file.size,
            mtime_ns=file.mtime_ns,
            volume=file.volume,
            metadata=metadata,
            seconds=seconds,
        )

    @property
    def file(self) -> FoundFile:
        return FoundFile(location(self.location), self.size, self.mtime_ns, volume=self.volume)


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of an indexing that its plan depends on; see `vop.search.sync.index`."""

    roots: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    live_photos: bool | None = None
    metadata: str | None = None
    prune: bool = False
    yes: bool = False
    redo: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan that processes share, on a disk or in object storage.

    Attributes:
        folder: the plan's folder.
        table: the library's table, which changes when the library moves to other models.
        made_with: the models and the decoder; see `vop.search.schema.made_with`.
        vop_version: the version that made the plan.
        num_shards: the number of shards, which are numbered from 0.
        num_files, num_bytes: of all shards together.
        made_at: the time at which the plan was made, in seconds of the system's clock.
        table_version: the version of the table with which the files were compared.
        unchanged, described: videos that need not be read; see `IndexReport`.
        failed: paths of files that failed and need not be read.
    """

    folder: Location
    call: Call
    table: str
    made_with: str
    vop_version: str
    num_shards: int
    num_files: int
    num_bytes: int
    made_at: float
    table_version: int
    unchanged: int = 0
    described: int = 0
    failed: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def reembeds(self) -> bool:
        """Whether its shards are videos of the library, which get embeddings of another model."""
        return self.folder.parent.name == REEMBEDDING

    @property
    def builds_index(self) -> bool:
        """Whether its shards are files of the table, whose vectors are indexed; see `vop.search.sharding.vectors`."""
        return self.folder.parent.name == VECTORS

    @property
    def library(self) -> Location:
        return self.folder.parent.parent

    @property
    def poll_seconds(self) -> float:
        """The time after which to look again what others have done, which costs requests in object storage."""
        return 1.0 if isinstance(self.folder, Path) else 10.0

    @classmethod
    def read(cls, folder: Location) -> Plan:
        """Read a plan.

        Raises:
            VopError: it was replaced or finished meanwhile, or is damaged.
        """
        try:
            values = json.loads(read_bytes(_main_file(folder)))
            return validated(cls, values | {"folder": folder}, source=_PLAN, error=VopError)
        except FileNotFoundError:
            raise VopError(
                f"{folder}: this plan was finished or replaced meanwhile; run the same command again to index what is "
                "new"
            ) from None
        except (ValueError, TypeError, VopError) as error:
            raise VopError(
                f"{folder}: not a plan of this version of vop ({error}); {_how_to_discard(folder)}"
            ) from None

    @classmethod
    def all_of(cls, library: Location, *, under: str = SHARDS) -> list[Location]:
        """Return the folders of a library's plans, oldest first."""
        return folders_with(child(library, under), f"{_PLAN}.json")

    @classmethod
    def find(cls, library: Location, manifest: Manifest, call: Call) -> Plan | None:
        """Return the plan of a call that is not finished; None if there is none."""
        for folder in cls.all_of(library):
            if folder.name.startswith(_key(manifest, call) + "-"):
                with suppress(VopError):
                    return cls.read(folder)
        return None

    @classmethod
    def write(
        cls,
        library: Location,
        manifest: Manifest,
        call: Call,
        shards: Sequence[Sequence[PlannedFile]],
        *,
        table_version: int,
        unchanged: int = 0,
        described: int = 0,
        failed: Collection[str] = (),
        under: str = SHARDS,
    ) -> Plan:
        """Write a plan; the caller has the library's lock."""
        whole = cls.all_of(library, under=under)
        for abandoned in folders_in(child(library, under)):  # by a planner or a worker that was killed
            if abandoned not in whole:
                cls.remove(abandoned)
        folder = child(child(library, under), f"{_key(manifest, call)}-{secrets.token_hex(4)}")
        files = [file for shard in shards for file in shard]
        plan = cls(
            folder=folder,
            call=call,
            table=manifest.table,
            made_with=made_with(manifest.models),
            vop_version=VERSION,
            num_shards=len(shards),
            num_files=len(files),
            num_bytes=sum(file.size for file in files),
            made_at=time.time(),
            table_version=table_version,
            unchanged=unchanged,
            described=described,
            failed=tuple(sorted(failed)),
        )

        def write_files(number: int) -> None:
            content = json.dumps([asdict(file) for file in shards[number]]).encode()
            write_new(plan._place(number, _FILES), content)

        _at_once(write_files, range(len(shards)))
        if under == REEMBEDDING:
            write_manifest(manifest, folder)
        values = {name: value for name, value in asdict(plan).items() if name != "folder"}
        write_new(_main_file(folder), json.dumps(values).encode())  # last: a plan without it does not count
        return plan

    def discard(self) -> None:
        """Delete the plan, with the rows that were not published."""
        self.remove(self.folder)

    @staticmethod
    def remove(folder: Location) -> None:
        """Delete a plan by its folder, also one of another version of vop."""
        small_files.remove(_main_file(folder))  # first, so that no worker begins another shard
        small_files.remove_all(folder)
        if isinstance(folder, Path):
            with suppress(OSError):  # there are other plans
                folder.parent.rmdir()

    def check_alive(self) -> None:
        """Raise a VopError if the plan was finished or replaced meanwhile."""
        Plan.read(self.folder)

    # -- shards

    def files(self, number: int) -> list[PlannedFile]:
        """Return the files of a shard."""
        return [PlannedFile(**values) for values in self._read(number, _FILES) or []]

    def numbers(self, part: int = 1, parts: int = 1) -> list[int]:
        """Return the shards of one of several parts, which are counted from 1."""
        return list(range(part - 1, self.num_shards, parts))

    def unfinished(self) -> list[int]:
        """Return the shards that have neither a result nor been committed."""
        done = self.committed() | set(self.results())
        return [number for number in range(self.num_shards) if number not in done]

    def results(self) -> list[int]:
        """Return the shards that have a result."""
        return self._numbers_of(_RESULT)

    def read_result(self, number: int) -> dict[str, Any] | None:
        """Return the result of a shard; None if it is not finished. A damaged result is dropped."""
        try:
            found: dict[str, Any] | None = self._read(number, _RESULT)
        except DamagedFile as error:
            log.warning("%s; the shard has to be read again", error)
            self.drop_result(number)
            return None
        return found

    def read_results(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return the results of those of these shards that are finished, by their numbers."""
        found = _at_once(lambda number: (number, self.read_result(number)), numbers)
        return {number: result for number, result in found if result is not None}

    def write_result(self, number: int, result: Mapping[str, Any]) -> None:
        """Write the result of a shard. In object storage, the first one counts if several workers had the shard."""
        with suppress(ChangedObject):
            write_new(self._place(number, _RESULT), json.dumps(result).encode())
        small_files.remove(self._place(number, _PROGRESS))

    def drop_result(self, number: int) -> None:
        """Forget the result of a shard, so that a worker takes it again."""
        small_files.remove(self._place(number, _RESULT))

    def rows_folder(self, number: int) -> Location:
        """Return a new folder for the rows of a shard. Each attempt has its own."""
        return child(self.folder, f"{number:05}-{secrets.token_hex(4)}")

    def committed(self) -> set[int]:
        """Return the shards that the library has."""
        return self.read_committed()[0]

    def read_committed(self) -> tuple[set[int], int]:
        """Return the shards that the library has, and the version of the table with the last of them."""
        place = child(self.folder, f"{_COMMITTED}.json")
        try:
            document = _document(place)
        except FileNotFoundError:
            return set(), self.table_version
        return set(document["shards"]), document["table_version"]

    def write_committed(self, numbers: Iterable[int], *, table_version: int) -> None:
        document = {"shards": sorted(numbers), "table_version": table_version}
        write_bytes(child(self.folder, f"{_COMMITTED}.json"), json.dumps(document).encode())

    # -- progress

    def write_progress(self, number: int, amount: Amount) -> None:
        with suppress(StorageError):  # it is only informative
            if is_file(_main_file(self.folder)):
                self._write(number, _PROGRESS, asdict(amount), durable=False)

    def running(self) -> Iterator[tuple[int, Amount]]:
        """Yield shards with what their workers have read, also if a worker was stopped."""
        for number in self._numbers_of(_PROGRESS):
            with suppress(OSError, VopError, ValueError, TypeError):  # finished meanwhile
                amount = self._read(number, _PROGRESS)
                if amount is not None:
                    yield number, Amount(**amount)

    def _numbers_of(self, kind: str) -> list[int]:
        """Return the shards that have a file of this kind."""
        parts = [name.split(".", 1) for name in names_in(self.folder)]
        return sorted(int(part[0]) for part in parts if part[0].isdecimal() and part[1:] == [f"{kind}.json"])

    def _place(self, number: int, kind: str) -> Location:
        return child(self.folder, f"{number:05}.{kind}.json")

    def _read(self, number: int, kind: str) -> Any:
        try:
            return _document(self._place(number, kind))
        except FileNotFoundError:
            return None

    def _write(self, number: int, kind: str, document: object, *, durable: bool = True) -> None:
        write_bytes(self._place(number, kind), json.dumps(document).encode(), durable=durable)


class DamagedFile(VopError):
    """A file of a plan cannot be read."""


Runner = Callable[[Plan, Iterable[int]], Generator[int | None, None, None]]
"""Works on shards; yields the number of each one that is finished, and None at least once in a few seconds."""


def _at_once(work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
    """Return what a function returns for each shard. Several calls run at a time, because each waits for a server."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(work, numbers))


def _document(place: Location) -> Any:
    """Return the content of a file of a plan.

    Raises:
        DamagedFile: it is not JSON.
    """
    content = read_bytes(place)
    try:
        return json.loads(content)
    except ValueError:
        raise DamagedFile(f"{place}: this file is damaged; {_how_to_discard(place.parent)}") from None


def _how_to_discard(folder: Location) -> str:
    return f"discard the plan: vop library publish {folder.parent.parent} --discard"


def _main_file(folder: Location) -> Location:
    """Return the file that makes a folder a plan."""
    return child(folder, f"{_PLAN}.json")


def _key(manifest: Manifest, call: Call) -> str:
    """Return what the plans of the same call have in common."""
    content = [asdict(call), manifest.table, made_with(manifest.models), VERSION]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def cut(
    files: Sequence[PlannedFile], *, parts: int, content_id: Callable[[Path], str] | None
) -> list[list[PlannedFile]]:
    """Cut files into shards that take about the same time: by their bytes and, as far as they are known, durations.

    Files of the same size stay together, because only they can be copies of each other. If they are more than a shard,
    they are read: then those with the same content stay together. Objects are not read for this.

    Args:
        parts: the number of workers, for which there are shards if there are enough files.
        content_id: hashes a file; None if no file can be a copy of another.
    """
    if not files:
        return []
    total = sum(file.size for file in files)
    seconds = sum(file.seconds or 0.0 for file in files)
    enough = max(parts, min(PER_PART * parts, total // LEAST_BYTES))
    number = max(enough, -(-total // MOST_BYTES), -(-len(files) // MOST_FILES), math.ceil(seconds / MOST_SECONDS))
    groups = _groups(files, most_bytes=max(1, total // number), content_id=content_id)
    cost = _costs(files)
    by_cost = sorted(
        ((sum(map(cost, group)), group) for group in groups), key=lambda entry: (-entry[0], entry[1][0].location)
    )
    shards = [(0.0, place, list[PlannedFile]()) for place in range(min(number, len(groups)))]
    for own, group in by_cost:
        before, place, shard = heapq.heappop(shards)  # the cheapest so far
        heapq.heappush(shards, (before + own, place, [*shard, *group]))
    return [shard for _, _, shard in sorted(shards, key=lambda entry: entry[1])]


def _costs(files: Iterable[PlannedFile]) -> Callable[[PlannedFile], float]:
    """Return what a file costs, in bytes: the mean of its own and those of a usual file of its duration, if known."""
    known = [file for file in files if file.seconds]
    rate = sum(file.size for file in known) / sum(file.seconds or 0.0 for file in known) if known else 0.0
    return lambda file: (file.size + rate * file.seconds) / 2 if file.seconds else file.size


def _groups(
    files: Iterable[PlannedFile], *, most_bytes: int, content_id: Callable[[Path], str] | None
) -> list[list[PlannedFile]]:
    if content_id is None:
        return [[file] for file in files]
    by_size: dict[int, list[PlannedFile]] = defaultdict(list)
    for file in files:
        by_size[file.size].append(file)
    groups: list[list[PlannedFile]] = []
    for size, group in by_size.items():
        if len(group) == 1 or size * len(group) <= most_bytes or any(is_address(file.location) for file in group):
            groups.append(group)
            continue
        by_content: dict[str, list[PlannedFile]] = defaultdict(list)
        for file in group:
            try:
                content = content_id(Path(file.location))
            except OSError:  # its worker will report it
                content = file.location
            by_content[content].append(file)
        groups += by_content.values()
    return groups


def total(amounts: Iterable[Amount], *, current: str = "") -> Amount:
    """Add up amounts."""
    summed = Amount(current=current)
    for amount in amounts:
        summed = replace(
            summed,
            files=summed.files + amount.files,
            bytes=summed.bytes + amount.bytes,
            hours=summed.hours + amount.hours,
            current=amount.current or summed.current,
        )
    return summed
