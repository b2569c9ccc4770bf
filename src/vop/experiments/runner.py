"""Run an experiment: search learning rates, train and rank. Existing results are reused.

An experiment's folder:

study.json     its settings, and hashes of its methods' code
search/        a JSON file for each searched learning rate, and Optuna's journal
runs/          a run's folder for each training, with its result.json
cache/         decoded frames, unless --cache names another folder
replaced/      searches and runs that --rerun replaced
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vop.datasets.frames import FrameStore
from vop.datasets.loading import count_groups
from vop.datasets.types import Dataset
from vop.datasets.validation import cache_dataset
from vop.errors import DataError, FileFailure, UsageError, VopError
from vop.experiments.plan import ALL, Arm, Plan, check_same
from vop.experiments.processes import Processes
from vop.experiments.results import ExperimentResults, Parameters, UnreadableVideo
from vop.experiments.scheduler import Scheduler
from vop.experiments.source import changed_modules, code_of
from vop.experiments.summary import summarize
from vop.experiments.workers import Workers
from vop.utils.files import atomic_write, read_file
from vop.utils.lock import locked
from vop.utils.parsing import parse_json
from vop.utils.progress import Progress, silent, stage
from vop.utils.text import count, on_one_line
from vop.video.resizing import Resizing

MANIFEST, LOCK, REPLACED = "study.json", ".lock", "replaced"

MAX_MANIFEST_BYTES = 64 * 2**20


def run_experiment(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    command: str,
    cache: Path | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
) -> ExperimentResults:
    """Run the unfinished jobs of `plan` in the folder `out`, and return the results of the whole plan.

    A failed run is reported, and the others continue.

    Args:
        command: the command that repeats the experiment, for the report.
        cache: the folder for decoded frames; by default a folder in `out`.
        workers: run the jobs: several processes of this machine, or a Ray cluster; by default one process.

    Raises:
        UsageError: a method, setting or split does not exist, or runs were ranked on different galleries.
        VopError: `out` holds another experiment, or runs of methods whose code has changed, or every run failed.
    """
    num_frames, resizing = check(plan, dataset, out)
    with _locked(out):
        _write_manifest(plan, dataset, out)
        cache = cache or out / "cache"
        store = FrameStore(num_frames, resizing, cache=cache, aspect=plan.recipe.aspect)
        show = stage(progress, "decoding")
        failed = cache_dataset(dataset, store, augmentation=plan.recipe.augmentation, progress=show).failed
        _refuse_bad_videos(plan, failed)
        data = _readable_fingerprints(dataset, failed)
        scheduler = Scheduler(plan, dataset, out, cache, data=data, workers=workers or Processes(), progress=progress)
        outcome = scheduler.run()
    if not any(outcome.runs.values()):
        raise VopError("every run failed:\n" + "\n".join(f"  {line}" for line in outcome.failures))
    outcome.left_out = [UnreadableVideo(id=video.id, path=video.path, reason=video.reason) for video in failed]
    return summarize(plan, outcome, dataset, parameters=_parameters(plan), command=command)


def _parameters(plan: Plan) -> dict[str, Parameters]:
    from vop.backbones import find_sizes
    from vop.models.params import count_model

    sizes = find_sizes(plan.backbone)
    return {
        arm.name: Parameters(**asdict(count_model(arm.method, sizes, head=arm.head, settings=arm.settings)))
        for arm in plan.arms
    }


def check(plan: Plan, dataset: Dataset, out: Path, *, rerun: Sequence[str] = ()) -> tuple[int, Resizing]:
    """Check that the experiment can run in `out`, without changing anything.

    Args:
        rerun: arms or methods whose results `move_replaced` will move.

    Returns:
        the number of frames per video, and how each becomes a square.

    Raises:
        UsageError: a method, setting or split does not exist, or `out` is not an experiment's folder.
        VopError: `out` holds another experiment, or runs of methods whose code has changed.
    """
    frames = check_plan(plan)
    for split in ("train", plan.split):
        dataset.split(split)
    count_groups(dataset.split("train"), size=plan.recipe.captions_per_video)
    if plan.search and "val" not in dataset.splits and not plan.recipe.validation:
        raise UsageError("validation is 0, but the search for a learning rate needs validation videos: hold some out")
    _merged(plan, dataset, out, rerun=rerun)
    return frames


def check_plan(plan: Plan) -> tuple[int, Resizing]:
    """Run the checks that need no data, before data is rendered or downloaded.

    Raises:
        UsageError: a method, a head, a setting or a part in the recipe's `rates` does not exist.
        VopError: the backbone cannot be read, or has no vocabulary.
    """
    import torch

    from vop import heads, methods
    from vop.backbones import find_backbone, find_sizes
    from vop.models.model import needed_vocabulary, split_settings
    from vop.models.params import trained_names
    from vop.training.rates import factors_of

    sizes = find_sizes(plan.backbone)
    frames = set()
    for arm in plan.arms:
        of_method, of_head = split_settings(arm.settings)
        with torch.device("meta"):
            method = methods.create(arm.method, sizes, **of_method)
            heads.create(arm.head, sizes, num_frames=method.num_frames, **of_head)
        frames.add(method.num_frames)
        if plan.recipe.rates and arm.trains:
            names = trained_names(arm.method, sizes, head=arm.head, settings=arm.settings)
            factors_of(names, plan.recipe.rates)
    if len(frames) > 1:
        raise UsageError(
            f"the arms use {' and '.join(map(str, sorted(frames)))} frames per video; give all arms the same number"
        )
    backbone = find_backbone(plan.backbone)
    needed_vocabulary(backbone)
    return frames.pop(), backbone.resizing


def _write_manifest(plan: Plan, dataset: Dataset, out: Path) -> None:
    """Create the experiment's folder `out`, or add new arms to it."""
    merged = _merged(plan, dataset, out)
    with atomic_write(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def _merged(plan: Plan, dataset: Dataset, out: Path, *, rerun: Sequence[str] = ()) -> dict[str, Any]:
    """Return the manifest of `out` with this plan's arms added, or a new one."""
    from vop.backbones import find_backbone
    from vop.utils.device import default_device, resolve_precision

    splits = {name: split.fingerprint for name, split in dataset.splits.items()}
    identity = plan.identity(splits=splits, backbone=find_backbone(plan.backbone).content_hash())
    dtype = resolve_precision(plan.recipe.precision, default_device())
    identity["precision"] = str(dtype).removeprefix("torch.")  # "auto" depends on the machine
    arms = {arm.name: json.loads(json.dumps(_facts(arm))) for arm in plan.arms}
    code = {arm.key: code_of(arm.method, arm.head) for arm in plan.arms}
    path = out / MANIFEST
    for parent in (out, *out.parents):
        if parent.is_file():
            raise UsageError(f"{parent} is a file; --out {out} must be a folder")
    if not path.exists():
        if out.is_dir() and {entry.name for entry in out.iterdir()} - {LOCK}:
            raise UsageError(f"{out} is not empty and holds no experiment: choose another --out")
        return {"identity": identity, "arms": arms, "code": code}
    try:
        saved = parse_json(read_file(path, at_most=MAX_MANIFEST_BYTES))
        known, there, made_with = dict(saved["identity"]), dict(saved["arms"]), dict(saved.get("code", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VopError(f"{path}: damaged ({error!r}); choose another --out") from None
    both = there.keys() & arms.keys()
    check_same(known | {name: there[name] for name in both}, identity | {name: arms[name] for name in both}, out=out)
    again = plan.named(rerun)
    _check_code([arm for arm in plan.arms if arm not in again], made_with, code, out)
    return {"identity": identity, "arms": there | arms, "code": made_with | code}


def _check_code(
    arms: Sequence[Arm], made_with: dict[str, dict[str, str]], code: dict[str, dict[str, str]], out: Path
) -> None:
    """Raise a VopError if existing results were made with other code."""
    lines, methods = [], []
    for arm in arms:
        before = made_with.get(arm.key)
        changed = changed_modules(before, code[arm.key])
        if changed and work_of(arm, out):
            why = f"changed since: {', '.join(changed)}" if before else "made before experiments recorded their code"
            lines.append(f"  {arm.name}: {why}")
            methods.append(arm.method)
    if lines:
        again = " ".join(f"--rerun {method}" for method in dict.fromkeys(methods))
        raise VopError(
            f"{out} holds runs that were made with other code:\n" + "\n".join(lines) + "\n"
            f"Repeat them with {again} (or --rerun {ALL}), which moves the old ones to {out / REPLACED}, or choose "
            "another --out"
        )


def work_of(arm: Arm, out: Path) -> list[Path]:
    """Return the files of an arm in an experiment's folder: its search and its runs, finished or not."""
    run = re.compile(rf"{re.escape(arm.key)}-\d+(?:\.\d+)?(?:e[+-]?\d+)?-seed\d+")
    searches = [out / "search" / f"{arm.key}{suffix}" for suffix in (".json", ".log")]
    runs = sorted((out / "runs").iterdir()) if (out / "runs").is_dir() else []
    return [path for path in searches if path.exists()] + [path for path in runs if run.fullmatch(path.name)]


def move_replaced(plan: Plan, out: Path, *, rerun: Sequence[str]) -> Path | None:
    """Move the results of the arms or methods in `rerun` into a new folder below `out`/replaced.

    Returns:
        the new folder, or None if no results had to move.
    """
    work = list(dict.fromkeys(path for arm in plan.named(rerun) for path in work_of(arm, out)))
    if not work:
        return None
    with _locked(out):
        number = 1
        while (folder := out / REPLACED / str(number)).exists():
            number += 1
        for path in work:
            target = folder / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return folder


def _facts(arm: Arm) -> dict[str, Any]:
    facts = asdict(arm)
    return {name: facts[name] for name in ("method", "head", "settings")}


def _locked(out: Path) -> AbstractContextManager[None]:
    """Lock the experiment's folder."""
    busy = f"{out}: another process is running this experiment: wait for it, or choose another --out"
    return locked(out / LOCK, busy=busy)


def _refuse_bad_videos(plan: Plan, failed: tuple[FileFailure, ...]) -> None:
    if failed and plan.recipe.on_bad_video == "fail":
        lines = "".join("\n" + on_one_line(f"  {video.path}: {video.reason}") for video in failed[:5])
        raise DataError(
            f"{count('video', len(failed))} cannot be read; leave them out with --on-bad-video skip:{lines}"
        )


def _readable_fingerprints(dataset: Dataset, failed: tuple[FileFailure, ...]) -> dict[str, str]:
    """Return the fingerprint of each split's readable part. Results from other videos are not comparable."""
    bad = {video.path for video in failed}
    found = {}
    for name, split in dataset.splits.items():
        kept = {video.id for video in split.videos if str(video.path) not in bad}
        found[name] = split.keep(kept).fingerprint
    return found
