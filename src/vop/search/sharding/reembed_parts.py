"""Re-embed a library in the parts of a batch job, and publish them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from vop.errors import FileFailure, VopError
from vop.search import manifest
from vop.search.manifest import REEMBEDDING
from vop.search.models import absolute_name
from vop.search.pipeline import count_workers
from vop.search.results import VideoRecord
from vop.search.schema import made_with
from vop.search.sharding.fragments import lance
from vop.search.sharding.moving import Mover
from vop.search.sharding.parts import PartReport, check_part
from vop.search.sharding.plan import Call, Plan, PlannedFile, cut
from vop.search.sharding.publish import Publisher
from vop.search.state import Amount
from vop.search.store import Store
from vop.search.sync.reembedding import ReembedReport, StagingSettings, complete, moved, remaining, staging
from vop.storage.address import Address
from vop.utils.progress import Progress, silent
from vop.utils.text import count
from vop.version import VERSION


def reembed_part(
    folder: str | Path | Address,
    model: str,
    *,
    part: int,
    parts: int,
    compile: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    **settings: Unpack[StagingSettings],
) -> PartReport:
    """Embed one part of a library's videos with another model. `publish` moves the library once all parts are done.

    The first part that comes makes the plan. A shard that an earlier call has written is skipped.

    Args:
        part, parts: which part this is, from 1, and how many there are.
        settings: see `vop.search.sync.reembed`.

    Raises the same errors as `reembed`, and:
        UsageError: there is no such part.
    """
    check_part(part, parts)
    lance()  # fails early
    workers = count_workers(workers, batch_size=batch_size)
    plan = _planned(folder, model, parts=parts, settings=settings)
    unfinished = set(plan.unfinished())
    numbers = [number for number in plan.numbers(part, parts) if number in unfinished]
    if numbers:
        videos, done = sum(len(plan.files(number)) for number in numbers), 0

        def show(amount: Amount) -> None:
            progress("videos", done + amount.files, videos)

        mover = Mover(plan, workers=workers, batch_size=batch_size, compile=compile)
        for number in numbers:
            mover.work(number, progress=show)
            done += len(plan.files(number))
    return PartReport.of(plan, part=part, parts=parts, written=len(numbers))


def _planned(folder: str | Path | Address, model: str, *, parts: int, settings: StagingSettings) -> Plan:
    """Return the plan of a re-embedding. Opens the model, which is closed again before the work begins."""
    with staging(folder, absolute_name(model), **settings) as (library, staged, _):
        return _plan_for(staged) or new_plan(library, staged, remaining(library, staged), parts=parts)


def _plan_for(staged: Store) -> Plan | None:
    """Return the plan that moves a library to the same models; plans for others are deleted."""
    for place in Plan.all_of(staged.path, under=REEMBEDDING):
        with suppress(VopError):
            plan = Plan.read(place)
            if (plan.table, plan.made_with, plan.vop_version) == (
                staged.manifest.table,
                made_with(staged.models),
                VERSION,
            ):
                return plan
        Plan.remove(place)
    return None


def publish_moved(library: Store, plan: Plan, *, drop_unreadable: bool) -> tuple[int, ReembedReport | None]:
    """Use what parts of a re-embedding have written, and move the library if all are done. The caller has the lock.

    Returns:
        the number of shards that this call has published, and the report of a re-embedding that is complete.

    Raises:
        VopError: the library's models or videos have changed since the plan was made, or videos cannot be read. The
            library is unchanged.
    """
    staged = library.staging(moved(library.manifest, manifest.read(plan.folder)))
    published = len(Publisher(staged, plan).publish())
    if len(plan.committed()) < plan.num_shards:
        return published, None
    present = library.videos()
    failed = [failure for failure in dropped(plan) if failure.path in present]
    left = {record.path for record in remaining(library, staged)} - {failure.path for failure in failed}
    if left:
        plan.discard()
        raise VopError(
            f"{library.path} is unchanged: {count('video', len(left))}, such as {min(left)}, came or changed since the "
            "re-embedding was planned; run its parts again, which embed only these"
        )
    report = complete(
        library,
        staged,
        None,
        failed,
        resumed=len(present) - plan.num_files,
        drop_unreadable=drop_unreadable,
    )
    plan.discard()
    return published, report


def dropped(plan: Plan) -> list[FileFailure]:
    """Return the videos that the workers of a plan could not embed."""
    results = plan.read_results(plan.results()).values()
    failed = [FileFailure(path=path, reason=why) for result in results for path, why in result["dropped"]]
    return sorted(failed, key=lambda failure: failure.path)


def new_plan(library: Store, staged: Store, todo: Sequence[VideoRecord], *, parts: int) -> Plan:
    """Plan a re-embedding of some videos."""
    seconds = library.durations()
    planned = [
        PlannedFile(location=one.path, size=one.size, mtime_ns=one.mtime_ns, seconds=seconds.get(one.path))
        for one in todo
    ]
    return Plan.write(
        library.path,
        staged.manifest,
        Call(roots=()),
        cut(planned, parts=parts, content_id=None),
        table_version=staged.table.version,
        under=REEMBEDDING,
    )
