"""Re-embed a library in shards: workers embed its videos with a new model, for a table that readers do not see yet."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Unpack

from vop.errors import VopError
from vop.search.manifest import REEMBEDDING
from vop.search.models import absolute_name
from vop.search.sharding import vectors
from vop.search.sharding.commands import drive, in_processes, on_ray
from vop.search.sharding.fragments import lance
from vop.search.sharding.plan import Plan, Runner
from vop.search.sharding.publish import Publisher
from vop.search.sharding.reembed_parts import dropped, new_plan
from vop.search.state import Amount
from vop.search.store import Store
from vop.search.sync.reembedding import ReembedReport, StagingSettings, complete, remaining, staging
from vop.storage.address import Address, Location
from vop.utils.cluster import AUTO
from vop.utils.progress import Progress, silent


def reembed_in_processes(
    folder: str | Path | Address,
    model: str,
    *,
    jobs: int,
    drop_unreadable: bool = False,
    compile: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    **settings: Unpack[StagingSettings],
) -> ReembedReport:
    """Re-embed a library with several processes of this machine; see `vop.search.sync.reembed`.

    Args:
        jobs, workers: see `vop.search.sharding.commands.index_in_processes`.
    """
    run = in_processes(jobs=jobs, workers=workers, batch_size=batch_size, compile=compile)
    return reembed_in_shards(
        folder, model, run=run, parts=jobs, drop_unreadable=drop_unreadable, progress=progress, **settings
    )


def reembed_on_ray(
    folder: str | Path | Address,
    model: str,
    *,
    address: str = AUTO,
    jobs: int | None = None,
    gpus_per_worker: float | None = None,
    drop_unreadable: bool = False,
    compile: bool = False,
    workers: int | None = None,
    batch_size: int = 16,
    progress: Progress = silent,
    **settings: Unpack[StagingSettings],
) -> ReembedReport:
    """Re-embed a library with the workers of a Ray cluster; see `vop.search.sync.reembed`.

    Args:
        address, jobs, gpus_per_worker, workers: see `vop.search.sharding.commands.index_on_ray`.
    """
    with on_ray(
        address, jobs=jobs, gpus_per_worker=gpus_per_worker, workers=workers, batch_size=batch_size, compile=compile
    ) as (run, parts):
        return reembed_in_shards(
            folder, model, run=run, parts=parts, drop_unreadable=drop_unreadable, progress=progress, **settings
        )


def reembed_in_shards(
    folder: str | Path | Address,
    model: str,
    *,
    run: Runner,
    parts: int,
    drop_unreadable: bool = False,
    progress: Progress = silent,
    **settings: Unpack[StagingSettings],
) -> ReembedReport:
    """Embed every segment of a library with another model, with the workers of a runner.

    Args:
        run, parts: see `vop.search.sharding.commands.index_in_shards`.
        drop_unreadable, settings: see `vop.search.sync.reembed`.

    Raises the same errors as `reembed` and `index_in_shards`.
    """
    lance()  # fails early
    with staging(folder, absolute_name(model), **settings) as (library, staged, new):
        for place in Plan.all_of(library.path, under=REEMBEDDING):
            _publish_earlier(staged, place)
        todo = remaining(library, staged)
        resumed = len(library.videos()) - len(todo)
        plan = new_plan(library, staged, todo, parts=parts)
        publisher = Publisher(staged, plan)

        def show(amount: Amount) -> None:
            progress("videos", amount.files, len(todo))

        while numbers := plan.unfinished():  # again, if rows were lost before they were published
            drive(run(plan, numbers), publisher, plan, show)
        failed = dropped(plan)
        plan.discard()
        if drop_unreadable or not failed:
            vectors.build(staged, run=run, parts=parts, progress=progress)
        return complete(library, staged, new, failed, resumed=resumed, drop_unreadable=drop_unreadable)


def _publish_earlier(staged: Store, place: Location) -> None:
    """Use what an interrupted attempt has written for the same models, and discard its plan."""
    with suppress(VopError):  # it was for other models, or by another version
        Publisher(staged, Plan.read(place)).publish()
    Plan.remove(place)
