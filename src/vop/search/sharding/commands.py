"""The commands that index in shards: all at once, one part of a batch job, and publishing what is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Unpack

from vop.errors import UsageError, VopError
from vop.search.manifest import REEMBEDDING
from vop.search.pipeline import count_workers
from vop.search.sharding import fragments, vectors
from vop.search.sharding.parts import PartReport, check_part
from vop.search.sharding.plan import Call, Plan, PlannedFile, Runner, cut, total
from vop.search.sharding.publish import Publisher
from vop.search.sharding.reembed_parts import publish_moved
from vop.search.sharding.runners import local
from vop.search.sharding.runners.cluster import ShardCluster
from vop.search.sharding.work import COUNTED, Worker
from vop.search.state import Amount, Display, state_file
from vop.search.store import Store
from vop.search.sync.commands import IndexSettings, finish, locked, opened, read_new_words, tidy
from vop.search.sync.ingest import Ingest
from vop.search.sync.metadata import read_metadata
from vop.search.sync.reader import content_id
from vop.search.sync.reembedding import ReembedReport
from vop.search.sync.report import IndexReport
from vop.search.sync.scanner import scan
from vop.storage.address import Address, Location
from vop.utils.cluster import AUTO
from vop.utils.device import gpus_to_share
from vop.utils.progress import Progress, silent
from vop.utils.threads import free_cores
from vop.video.find import absolute_path, normal_globs
from vop.video.isolated import DecodingProcesses

PUBLISH_SECONDS = 60.0  # between two versions of the table


def default_jobs() -> int:
    """Return the number of processes that `index_in_processes` needs for all devices: one for each GPU, or one."""
    return max(1, len(gpus_to_share())) if find_spec("lance") else 1


def index_in_processes(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    jobs: int,
    prune: bool = False,
    yes: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    **settings: Unpack[IndexSettings],
) -> IndexReport:
    """Bring a library up to date with several processes of this machine; see `vop.search.sync.index`.

    Args:
        jobs: the number of processes. With several GPUs, each gets one.
        workers: decoding processes of each; by default the free cores are shared.

    Raises the same errors as `index`, and:
        VopError: the process of a shard was killed repeatedly. Finished shards are published.
    """
    run = in_processes(jobs=jobs, workers=workers, batch_size=batch_size, compile=settings.get("compile", False))
    return index_in_shards(folder, paths, run=run, parts=jobs, prune=prune, yes=yes, **settings)


def in_processes(*, jobs: int, workers: int | None, batch_size: int, compile: bool) -> Runner:
    """Return a runner with processes of this machine.

    Raises:
        UsageError: a number is not allowed.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; give 1 or more")
    decoders = count_workers(max(1, free_cores() // jobs) if workers is None else workers, batch_size=batch_size)
    return partial(local.run, jobs=jobs, workers=decoders, batch_size=batch_size, compile=compile)


def index_on_ray(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    address: str = AUTO,
    jobs: int | None = None,
    gpus_per_worker: float | None = None,
    prune: bool = False,
    yes: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    **settings: Unpack[IndexSettings],
) -> IndexReport:
    """Bring a library up to date with the workers of a Ray cluster; see `vop.search.sync.index`.

    All nodes need the library and the videos at the same paths, or addresses and the credentials for them.

    Args:
        address: host:port of a cluster; "auto" for the one of this machine, "local" to start one here for this job.
        jobs: the number of workers; by default one for each GPU or, without GPUs, for each node.
        gpus_per_worker: GPUs of each worker; a fraction shares one. By default 1 if the cluster has any.
        workers: decoding processes of each worker; by default as many as its CPUs.

    Raises the same errors as `index`, and:
        VopError: no cluster runs there, or a shard's worker was lost repeatedly. Finished shards are published.
    """
    with on_ray(
        address,
        jobs=jobs,
        gpus_per_worker=gpus_per_worker,
        workers=workers,
        batch_size=batch_size,
        compile=settings.get("compile", False),
    ) as (run, parts):
        return index_in_shards(folder, paths, run=run, parts=parts, prune=prune, yes=yes, **settings)


@contextmanager
def on_ray(
    address: str,
    *,
    jobs: int | None,
    gpus_per_worker: float | None,
    workers: int | None,
    batch_size: int,
    compile: bool,
) -> Iterator[tuple[Runner, int]]:
    """Connect to a Ray cluster, and yield a runner with its workers, and their number; see `index_on_ray`."""
    count_workers(1 if workers is None else workers, batch_size=batch_size)
    with ShardCluster(address) as cluster:
        resources = cluster.resources(jobs=jobs, gpus_per_worker=gpus_per_worker)
        run = partial(cluster.run, resources=resources, workers=workers, batch_size=batch_size, compile=compile)
        yield run, resources.jobs


def index_in_shards(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    run: Runner,
    parts: int,
    prune: bool = False,
    yes: bool = False,
    **settings: Unpack[IndexSettings],
) -> IndexReport:
    """Bring a library up to date with the workers of a runner; see `vop.search.sync.index`.

    Finished shards are published every `PUBLISH_SECONDS`, at the end, and after an interruption. Shards that an earlier
    call has written are published first.

    Args:
        run: works on the shards of a plan, and then on the segments of the vector index if a new one is needed.
        parts: the number of workers.
    """
    started = time.monotonic()
    fragments.lance()  # fails early
    progress = settings.get("progress", silent)
    with opened(folder, paths, load_models=False, **settings) as ingest:
        library, call = ingest.library, _call(ingest, prune=prune, yes=yes, settings=settings)
        earlier = Plan.find(library.path, library.manifest, call)
        if earlier is not None:
            Publisher(library, earlier).publish()
            earlier.discard()
        ingest = Ingest(library, ingest.models, ingest.scanned, ingest.metadata, progress)  # with what was published
        plan = _new_plan(ingest, call, parts=parts)
        publisher = Publisher(library, plan)
        with state_file(library.path) as state:
            display = Display(files=plan.num_files, size=plan.num_bytes, show=progress, state=state.write)
            while numbers := plan.unfinished():  # again, if rows were lost before they were published
                drive(run(plan, numbers), publisher, plan, display.update)
        _complete(
            ingest, plan, progress, build_index=partial(vectors.build, library, run=run, parts=parts, progress=progress)
        )
    ingest.report.seconds = time.monotonic() - started
    return ingest.report


def drive(
    finished: Generator[int | None, None, None], publisher: Publisher, plan: Plan, update: Callable[[Amount], None]
) -> None:
    """Pass on the progress of the workers, and publish what they finish."""
    last, shown, done = time.monotonic(), float("-inf"), dict[int, Amount]()

    def show() -> None:
        running = dict(plan.running())  # read first: a shard that ends meanwhile is in `done`
        done.update({number: _amount(plan, number) for number in plan.results() if number not in done})
        update(total((running | done).values()))

    try:
        for _ in finished:
            if time.monotonic() - shown >= plan.poll_seconds:
                show()
                shown = time.monotonic()
            if time.monotonic() - last >= PUBLISH_SECONDS:
                publisher.publish()
                last = time.monotonic()
        show()
    finally:
        finished.close()
        publisher.publish()


def _amount(plan: Plan, number: int) -> Amount:
    """Return what was read for a finished shard."""
    files, result = plan.files(number), plan.read_result(number) or {}
    hours: float = result.get("report", {}).get("hours", 0.0)
    return Amount(files=len(files), bytes=sum(file.size for file in files), hours=hours)


def _call(ingest: Ingest, *, prune: bool, yes: bool, settings: IndexSettings) -> Call:
    metadata = settings.get("metadata")
    return Call(
        roots=tuple(sorted(map(str, ingest.scanned.given))),
        exclude=normal_globs(settings.get("exclude", ())),
        live_photos=settings.get("live_photos"),
        metadata=None if metadata is None else str(absolute_path(metadata)),
        prune=prune,
        yes=yes,
        redo=settings.get("redo", False),
    )


def _new_plan(ingest: Ingest, call: Call, *, parts: int) -> Plan:
    """Plan the files that the library does not have, and update the metadata of the others."""
    todo = ingest.new_files()
    ingest.commit()
    library, metadata = ingest.library, ingest.metadata
    seconds = {**(library.outdated() if call.redo else {}), **ingest.scanned.seconds}
    planned = [
        PlannedFile.of(file, metadata.of(file.path) if metadata else {}, seconds=seconds.get(str(file.path)))
        for file in todo
    ]
    return Plan.write(
        library.path,
        library.manifest,
        call,
        cut(planned, parts=parts, content_id=content_id),
        table_version=library.table.version,
        unchanged=ingest.report.unchanged,
        described=ingest.report.described,
        failed=ingest.failed,
    )


def _complete(ingest: Ingest, plan: Plan, progress: Progress, *, build_index: Callable[[], object]) -> None:
    """Finish an indexing whose shards are all published: its report, copies, deleted videos, and the vector index."""
    report = ingest.report
    report.unchanged, report.described = plan.unchanged, plan.described
    ingest.failed |= set(plan.failed)
    for result in plan.read_results(plan.results()).values():
        for name in COUNTED:
            setattr(report, name, getattr(report, name) + result["report"][name])
        ingest.failed |= set(result["failed"])
        ingest.add_copies((PlannedFile(**file).file, original) for file, original in result["copies"])
    ingest.describe_originals()
    with DecodingProcesses() as processes:
        read_new_words(ingest, processes, workers=free_cores(), progress=progress)

    def before_tidying() -> None:
        build_index()
        plan.discard()  # so that the clean-up also deletes what lost workers have written

    finish(ingest, prune=plan.call.prune, yes=plan.call.yes, progress=progress, before_tidying=before_tidying)


# -- parts of a batch job, and publishing


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A plan that is complete: the paths that it indexed, and its report."""

    roots: tuple[str, ...]
    report: IndexReport


@dataclass(kw_only=True)
class PublishReport:
    """What `publish` did.

    Attributes:
        published: shards that this call has published.
        committed, shards: shards that the library has of all unfinished plans, and all of these plans' shards.
        discarded: plans that were deleted.
        index_left: parts of the vector index that `index_part` still has to build.
        completed: the plans that are complete, whose shards are not counted any more.
        reembedded: the re-embeddings that are complete, likewise.
    """

    library: str
    published: int = 0
    committed: int = 0
    shards: int = 0
    discarded: int = 0
    index_left: int = 0
    completed: list[Completed] = field(default_factory=list)
    reembedded: list[ReembedReport] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `vop library publish --json`."""
        return asdict(self) | {
            "completed": [one.report.to_dict() for one in self.completed],
            "reembedded": [one.to_dict() for one in self.reembedded],
        }


def index_part(
    folder: str | Path | Address,
    paths: Sequence[str | Path | Address],
    *,
    part: int,
    parts: int,
    prune: bool = False,
    yes: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    **settings: Unpack[IndexSettings],
) -> PartReport:
    """Work on one part of the shards; see `vop.search.sync.index`. `publish` makes the rows part of the library.

    The first part that comes makes the plan, and the library if it does not exist. A shard that an earlier call has
    written is skipped. Once all are published, this builds one part of the vector index, if `publish` has planned any.

    Args:
        part, parts: which part this is, from 1, and how many there are.

    Raises the same errors as `index`, and:
        UsageError: there is no such part.
    """
    check_part(part, parts)
    fragments.lance()  # fails early
    workers, progress = count_workers(workers, batch_size=batch_size), settings.get("progress", silent)
    with opened(folder, paths, load_models=False, **settings) as ingest:
        library, call = ingest.library, _call(ingest, prune=prune, yes=yes, settings=settings)
        plan = Plan.find(library.path, library.manifest, call) or _new_plan(ingest, call, parts=parts)
    unfinished = set(plan.unfinished())
    numbers = [number for number in plan.numbers(part, parts) if number in unfinished]
    planned = [file for number in numbers for file in plan.files(number)]
    if numbers:
        display = Display(
            files=len(planned), size=sum(file.size for file in planned), show=progress, state=lambda status: None
        )
        done = Amount()

        def show(amount: Amount) -> None:
            display.update(total([done, amount]))

        compile = settings.get("compile", False)
        with Worker(plan, workers=workers, batch_size=batch_size, compile=compile) as worker:
            for number in numbers:
                worker.work(number, progress=show)
                done = total([done, _amount(plan, number)])
                display.update(done)
    built = vectors.build_part(library, part=part, parts=parts, workers=workers)
    return PartReport.of(plan, part=part, parts=parts, written=len(numbers), index_built=built)


def publish(
    folder: str | Path | Address,
    *,
    discard: bool = False,
    index_parts: int | None = None,
    drop_unreadable: bool = False,
    progress: Progress = silent,
    waiting: Callable[[], None] = lambda: None,
) -> PublishReport:
    """Publish the finished shards of a library's plans, and complete the plans whose shards are all published.

    Args:
        discard: whether to delete unfinished plans, with the rows that were not published, instead.
        index_parts: the number of parts in which `index_part` then builds the vector index, if the library needs a new
            one: the plan is completed by a later call, when all are built. By default this call builds it.
        drop_unreadable: whether a re-embedding leaves out unreadable videos; see `vop.search.sync.reembed`.

    Raises:
        UsageError: the library does not exist, a number is not allowed, or an option does not go with `discard`.
        VopError: a shard was written with other models or another version of vop, a plan is from another version, or
            a re-embedding cannot be completed; see `vop.search.sharding.reembed_parts.publish_moved`.
    """
    if index_parts is not None and index_parts < 1:
        raise UsageError(f"index_parts is {index_parts}; give 1 or more")
    if discard and (index_parts is not None or drop_unreadable):
        raise UsageError("discard deletes unfinished work, so index_parts and drop_unreadable do not go with it")
    refused: VopError | None = None
    with locked(folder, waiting) as library:
        report = PublishReport(library=str(library.path))
        plans, moves = Plan.all_of(library.path), Plan.all_of(library.path, under=REEMBEDDING)
        if discard:
            _discard(library, [*plans, *moves], report)
            return report
        for place in plans:
            try:
                _publish_rows(library, place, report, index_parts=index_parts, progress=progress)
            except VopError as error:
                refused = error
        for place in moves:
            try:
                _publish_reembedding(library, place, report, drop_unreadable=drop_unreadable)
            except VopError as error:
                refused = error
            if report.reembedded:
                break  # the library has moved to another model
    if refused is not None:
        raise refused
    return report


def _discard(library: Store, places: Sequence[Location], report: PublishReport) -> None:
    for place in places:
        Plan.remove(place)
        report.discarded += 1
    if places and isinstance(library.path, Address):
        tidy(library)  # deletes the rows that were not published


def _publish_rows(
    library: Store, place: Location, report: PublishReport, *, index_parts: int | None, progress: Progress
) -> None:
    """Publish what is finished of an indexing, and complete it if that is all."""
    fragments.lance()
    plan = Plan.read(place)
    report.published += len(Publisher(library, plan).publish())
    if len(plan.committed()) < plan.num_shards:
        report.committed += len(plan.committed())
        report.shards += plan.num_shards
    elif left := vectors.planned_parts(library, parts=index_parts):
        report.index_left = left
    else:
        completed = Completed(roots=plan.call.roots, report=_complete_later(library, plan, progress))
        report.completed.append(completed)


def _publish_reembedding(library: Store, place: Location, report: PublishReport, *, drop_unreadable: bool) -> None:
    """Move the library to the other model if all shards of a re-embedding are finished."""
    fragments.lance()
    plan = Plan.read(place)
    if plan.table == library.manifest.table:  # another command has completed it
        plan.discard()
        return
    published, moved = publish_moved(library, plan, drop_unreadable=drop_unreadable)
    report.published += published
    if moved is None:
        report.committed += len(plan.committed())
        report.shards += plan.num_shards
    else:
        report.reembedded.append(moved)


def _complete_later(library: Store, plan: Plan, progress: Progress) -> IndexReport:
    """Complete a plan that other processes have worked on."""
    call = plan.call
    scanned = scan(library.path, call.roots, exclude=call.exclude, live_photos=call.live_photos)
    metadata = None if call.metadata is None else read_metadata(Path(call.metadata))
    ingest = Ingest(library, (), scanned, metadata, progress)
    _complete(ingest, plan, progress, build_index=partial(vectors.commit_planned, library))
    ingest.report.seconds = time.time() - plan.made_at
    return ingest.report
