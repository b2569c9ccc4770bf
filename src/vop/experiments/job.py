"""A whole study: from a plan to its document."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vop.datasets.types import Dataset
from vop.experiments.plan import Plan
from vop.utils.progress import Progress, silent


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
    from vop.backbones import find_sizes
    from vop.experiments.results import make_document
    from vop.experiments.runner import run_study
    from vop.models.params import count_model

    sizes = find_sizes(plan.backbone)
    outcome = run_study(plan, dataset, out, cache=cache, jobs=jobs, progress=progress)
    parameters = {
        arm.name: asdict(count_model(arm.method, sizes, head=arm.head, settings=arm.settings)) for arm in plan.arms
    }
    return make_document(plan, outcome, dataset, parameters=parameters, command=command)
