"""The work on a shard of a re-embedding: embed videos of the library with the new model."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from vop.errors import VopError
from vop.search import manifest
from vop.search.models import open_models
from vop.search.sharding.fragments import lance
from vop.search.sharding.plan import Plan
from vop.search.sharding.work import at_intervals, check_version, name, written
from vop.search.state import Amount
from vop.search.store import Store
from vop.search.sync.reembedding import Move


class Mover:
    """Works on shards of a re-embedding, with a model that stays loaded. Takes the arguments of `Worker`.

    Raises:
        VopError: the model or the version of vop is not that of the plan.
    """

    def __init__(self, plan: Plan, *, workers: int, batch_size: int, compile: bool = False) -> None:
        check_version(plan)
        lance()  # fails early
        self._plan, self._workers, self._batch_size = plan, workers, batch_size
        self._library = Store.open(plan.library, cache=False)  # it reads all rows, once
        self._staged = Store(plan.library, manifest.read(plan.folder), cache=False)
        new = self._staged.manifest.with_(models=self._staged.models[:1])
        try:
            (self._model,) = open_models(new, folder=plan.library, compile=compile)
        except VopError as error:
            raise VopError(f"{name()}: {error}") from error

    def work(self, number: int, *, progress: Callable[[Amount], None] = lambda amount: None) -> None:
        """Write the rows and the result of a shard, unless that was done before; see `Worker.work`."""
        plan = self._plan
        plan.check_alive()
        if plan.read_result(number) is not None:
            return
        records = self._library.videos(paths=[file.location for file in plan.files(number)])
        rows: list[pa.Table] = []
        write = at_intervals(plan.poll_seconds, lambda amount: plan.write_progress(number, amount))

        def done(videos: int) -> None:
            amount = Amount(files=videos, hours=move.seconds / 3600)
            write(amount)
            progress(amount)

        with Move(self._library, self._staged, self._model, write=rows.append) as move:
            move.run(list(records.values()), workers=self._workers, batch_size=self._batch_size, progress=done)
        plan.check_alive()  # before files are written, which would create its folder again
        result = {
            "replaced": [],
            "updates": [],
            "failures": [],
            "dropped": [[failed.path, failed.reason] for failed in move.failed],
            "report": {"hours": move.seconds / 3600},
        }
        plan.write_result(number, written(plan, number, self._staged, rows) | result)
