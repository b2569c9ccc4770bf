"""A whole study: from a plan to its document."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vop.data.types import Dataset
from vop.progress import Progress, silent
from vop.studies.plan import Plan


def run_plan(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    command: str,
    cache: Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Does what is left to do of a plan in `out`, and gives the document of all of it.

    Args:
        command: by which somebody else does the same.
        cache, jobs: as for `run_study`.

    Raises:
        UsageError, VopError: as for `run_study` and `make_document`.
    """
    from vop.backbone import find_sizes
    from vop.methods.params import count_model
    from vop.studies.document import make_document
    from vop.studies.runner import run_study

    sizes = find_sizes(plan.backbone)
    outcome = run_study(plan, dataset, out, cache=cache, jobs=jobs, progress=progress)
    parameters = {
        arm.name: asdict(count_model(arm.method, sizes, head=arm.head, settings=arm.settings)) for arm in plan.arms
    }
    return make_document(plan, outcome, dataset, parameters=parameters, command=command)
