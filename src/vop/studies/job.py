"""A whole study: from a plan to its document."""

from __future__ import annotations

import multiprocessing
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vop.data.types import Dataset
from vop.methods.params import count_model
from vop.progress import Progress, silent
from vop.studies.document import make_document
from vop.studies.plan import Plan
from vop.studies.runner import run_study


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
    """
    from vop.backbone import find_backbone

    started = datetime.now(UTC)
    begun = time.monotonic()
    sizes = find_backbone(plan.backbone).sizes
    outcome = run_study(plan, dataset, out, cache=cache, jobs=jobs, progress=progress)
    parameters = {
        arm.name: asdict(count_model(arm.method, sizes, head=arm.head, settings=arm.settings)) for arm in plan.arms
    }
    facts = {
        "command": command,
        "machine": machine_name(),
        "started": started.isoformat(timespec="seconds"),
        "minutes": (time.monotonic() - begun) / 60,
        "jobs": jobs,
    }
    return make_document(plan, outcome, dataset, parameters=parameters, facts=facts)


def machine_name() -> str:
    """The accelerators, or the processor and its cores."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())}, {multiprocessing.cpu_count()} cores"
