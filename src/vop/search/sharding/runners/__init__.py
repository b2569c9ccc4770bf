"""Ways to run the workers of a plan: each is a generator of the shards that are finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.search.sharding.moving import Mover
    from vop.search.sharding.plan import Plan
    from vop.search.sharding.vectors import Indexer
    from vop.search.sharding.work import Worker


def open_worker(plan: Plan, *, workers: int, batch_size: int, compile: bool) -> Worker | Mover | Indexer:
    """Return a worker for the shards of a plan. Imports PyTorch if the work needs it."""
    if plan.builds_index:
        from vop.search.sharding.vectors import Indexer

        return Indexer(plan, workers=workers, batch_size=batch_size, compile=compile)
    from vop.search.sharding.moving import Mover
    from vop.search.sharding.work import Worker

    kind = Mover if plan.reembeds else Worker
    return kind(plan, workers=workers, batch_size=batch_size, compile=compile)
