"""Runs a study: searches rates, trains and ranks; what is done already is used again.

A study's folder:

study.json     what it was started with, and the code of its methods
search/        a JSON file for each searched learning rate, and Optuna's journal
runs/          a run's folder for each training, with its result.json
cache/         decoded frames, unless they are kept elsewhere
replaced/      searches and runs that were done again
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from vop.datasets.frames import FrameStore
from vop.datasets.loading import count_groups
from vop.datasets.types import Dataset
from vop.datasets.validation import cache_dataset
from vop.errors import DataError, FileFailure, UsageError, VopError
from vop.experiments.plan import ALL, Arm, Plan, check_same
from vop.experiments.scheduler import Outcome, Scheduler
from vop.experiments.source import changed_modules, code_of
from vop.utils.files import atomic_write, read_file
from vop.utils.parsing import parse_json
from vop.utils.progress import Progress, silent, stage
from vop.utils.text import count, on_one_line

STUDY, LOCK, REPLACED = "study.json", ".lock", "replaced"

MAX_STUDY_BYTES = 64 * 2**20


def run_study(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    *,
    cache: Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> Outcome:
    """Does what is left to do of `plan` in the folder `out`.

    A run that fails is reported, and the others go on.

    Args:
        jobs: processes side by side. On a CPU they share its cores, on several GPUs each has one.

    Raises:
        UsageError: a method, setting or split that is not there.
        VopError: `out` holds another study, or runs of methods whose code has changed, or nothing could be done.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}; give 1 or more")
    frames = check(plan, dataset, out)
    with _alone_in(out):
        _claim(plan, dataset, out)
        cache = cache or out / "cache"
        store = FrameStore(*frames, cache=cache, aspect=plan.recipe.aspect)
        failed = cache_dataset(dataset, store, progress=stage(progress, "decoding")).failed
        _refuse_bad_videos(plan, failed)
        data = _readable_fingerprints(dataset, failed)
        outcome = Scheduler(plan, dataset, out, cache, data=data, jobs=jobs, progress=progress).run()
    if not any(outcome.runs.values()):
        raise VopError("nothing could be compared:\n" + "\n".join(f"  {line}" for line in outcome.failures))
    outcome.left_out = failed
    return outcome


def check(plan: Plan, dataset: Dataset, out: Path, *, rerun: Sequence[str] = ()) -> tuple[int, int]:
    """Whether the study can be run in `out`, before anything is done; gives the number and the size of frames.

    Args:
        rerun: arms or methods of which `set_aside` will take away what is done.

    Raises:
        UsageError: a method, setting or split that is not there, or `out` is something else's.
        VopError: `out` holds another study, or runs of methods whose code has changed.
    """
    frames = check_plan(plan)
    for split in ("train", plan.split):
        dataset.split(split)
    count_groups(dataset.split("train"), size=plan.recipe.captions_per_video)
    if plan.search and "val" not in dataset.splits and not plan.recipe.validation:
        raise UsageError("validation is 0: a learning rate is searched on validation videos, so hold some out")
    _merged(plan, dataset, out, rerun=rerun)
    return frames


def check_plan(plan: Plan) -> tuple[int, int]:
    """The part of `check` that needs no data, which may have to be rendered or fetched first.

    Raises:
        UsageError: a method, a head or a setting that is not there.
        VopError: the backbone cannot be read, or has no vocabulary.
    """
    import torch

    from vop import heads, methods
    from vop.backbones import find_backbone, find_sizes
    from vop.models.model import needed_vocabulary, split_settings

    sizes = find_sizes(plan.backbone)
    frames = set()
    for arm in plan.arms:
        of_method, of_head = split_settings(arm.settings)
        with torch.device("meta"):
            method = methods.create(arm.method, sizes, **of_method)
            heads.create(arm.head, sizes, num_frames=method.num_frames, **of_head)
        frames.add(method.num_frames)
    if len(frames) > 1:
        raise UsageError(f"the arms take {' and '.join(map(str, sorted(frames)))} frames; a study has one number")
    needed_vocabulary(find_backbone(plan.backbone))
    return frames.pop(), sizes.image_size


def _claim(plan: Plan, dataset: Dataset, out: Path) -> None:
    """Makes `out` this study's folder, or adds what is new to it."""
    merged = _merged(plan, dataset, out)
    with atomic_write(out / STUDY) as temporary:
        temporary.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")


def _merged(plan: Plan, dataset: Dataset, out: Path, *, rerun: Sequence[str] = ()) -> dict:
    """What `out` says of the study that it holds, with this plan's arms; a new study's where it holds none."""
    from vop.backbones import find_backbone
    from vop.utils.device import default_device, resolve_precision

    splits = {name: split.fingerprint for name, split in dataset.splits.items()}
    identity = plan.identity(splits=splits, backbone=find_backbone(plan.backbone).content_hash())
    dtype = resolve_precision(plan.recipe.precision, default_device())
    identity["precision"] = str(dtype).removeprefix("torch.")  # "auto" is another one on another machine
    arms = {arm.name: json.loads(json.dumps(_facts(arm))) for arm in plan.arms}
    code = {arm.key: code_of(arm.method, arm.head) for arm in plan.arms}
    path = out / STUDY
    for parent in (out, *out.parents):
        if parent.is_file():
            raise UsageError(f"{parent} is a file; --out {out} is to be a folder")
    if not path.exists():
        if out.is_dir() and {entry.name for entry in out.iterdir()} - {LOCK}:
            raise UsageError(f"{out} is not empty, and holds no study: choose another --out")
        return {"identity": identity, "arms": arms, "code": code}
    try:
        saved = parse_json(read_file(path, at_most=MAX_STUDY_BYTES))
        known, there, made_with = dict(saved["identity"]), dict(saved["arms"]), dict(saved.get("code", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VopError(f"{path}: damaged ({error!r}); choose another --out") from None
    both = there.keys() & arms.keys()
    check_same(known | {name: there[name] for name in both}, identity | {name: arms[name] for name in both}, out=out)
    again = plan.named(rerun)
    _check_code([arm for arm in plan.arms if arm not in again], made_with, code, out)
    return {"identity": identity, "arms": there | arms, "code": made_with | code}


def _check_code(arms: Sequence[Arm], made_with: dict, code: dict, out: Path) -> None:
    """Results of code that has changed since do not stand beside those of the code there is."""
    lines, methods = [], []
    for arm in arms:
        before = made_with.get(arm.key)
        changed = changed_modules(before, code[arm.key])
        if changed and work_of(arm, out):
            why = (
                f"changed since: {', '.join(changed)}" if before else "made before studies kept a record of their code"
            )
            lines.append(f"  {arm.name}: {why}")
            methods.append(arm.method)
    if lines:
        again = " ".join(f"--rerun {method}" for method in dict.fromkeys(methods))
        raise VopError(
            f"{out} holds runs that other code than the present has made:\n" + "\n".join(lines) + "\n"
            f"Do them again with {again} (or --rerun {ALL}), which moves what is there to {out / REPLACED}, or choose "
            "another --out"
        )


def work_of(arm: Arm, out: Path) -> list[Path]:
    """What a study's folder has of an arm: its search, and its runs, done or begun."""
    run = re.compile(rf"{re.escape(arm.key)}-\d+(?:\.\d+)?(?:e[+-]?\d+)?-seed\d+")
    searches = [out / "search" / f"{arm.key}{suffix}" for suffix in (".json", ".log")]
    runs = sorted((out / "runs").iterdir()) if (out / "runs").is_dir() else []
    return [path for path in searches if path.exists()] + [path for path in runs if run.fullmatch(path.name)]


def set_aside(plan: Plan, out: Path, *, rerun: Sequence[str]) -> Path | None:
    """Moves what is done of the arms or methods in `rerun` into a new folder below `out`/replaced.

    Returns:
        that folder; None if there was nothing to move.
    """
    work = list(dict.fromkeys(path for arm in plan.named(rerun) for path in work_of(arm, out)))
    if not work:
        return None
    with _alone_in(out):
        number = 1
        while (folder := out / REPLACED / str(number)).exists():
            number += 1
        for path in work:
            target = folder / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return folder


def _facts(arm: Arm) -> dict:
    facts = asdict(arm)
    return {name: facts[name] for name in ("method", "head", "settings")}


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Holds the study's folder; the lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout:
        raise VopError(
            f"{out}: another process is at work on this study; wait for it, or choose another --out"
        ) from None


def _refuse_bad_videos(plan: Plan, failed: tuple[FileFailure, ...]) -> None:
    if failed and plan.recipe.on_bad_video == "fail":
        lines = "".join("\n" + on_one_line(f"  {video.path}: {video.reason}") for video in failed[:5])
        raise DataError(
            f"{count('video', len(failed))} cannot be read; --on-bad-video skip goes on without them:{lines}"
        )


def _readable_fingerprints(dataset: Dataset, failed: tuple[FileFailure, ...]) -> dict[str, str]:
    """Of what is left of each split: results from other videos are not compared with what comes now."""
    bad = {video.path for video in failed}
    found = {}
    for name, split in dataset.splits.items():
        kept = {video.id for video in split.videos if str(video.path) not in bad}
        found[name] = split.keep(kept).fingerprint
    return found
