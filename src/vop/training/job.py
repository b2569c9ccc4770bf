"""A whole training: from a data set and a method's name to a run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState

from vop import methods
from vop.datasets.frames import FrameStore
from vop.datasets.loading import count_groups
from vop.datasets.splits import with_validation
from vop.datasets.types import Dataset, Split
from vop.datasets.validation import BadVideo, screen
from vop.errors import DataError, UsageError, VopError
from vop.heads import MEAN
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import CONFIG, TRAINING
from vop.training.checkpoint import check_identity
from vop.training.recipe import Recipe
from vop.training.trainer import CHECKPOINT, Trainer, TrainingResult, identity_of
from vop.utils.device import default_device, resolve_precision
from vop.utils.progress import Progress, silent, stage

ENOUGH_VIDEOS = 100  # to validate on; see `vop.training.selection`
FRAMES = "frames"
DECODING_TIMEOUT = timedelta(hours=24)  # the other processes wait while the first one decodes, and while it validates


@dataclass(frozen=True)
class Trained:
    """A finished training: the model that was kept, in eval mode, and what was left out."""

    model: TextVideoModel
    result: TrainingResult
    skipped: tuple[BadVideo, ...]


def train(
    dataset: Dataset,
    method: str,
    out: Path,
    *,
    backbone: str = "mini",
    head: str = MEAN,
    recipe: Recipe | None = None,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda line: None,
    **settings,
) -> Trained:
    """Tunes `method` on the training split and writes the run to `out`.

    Every video is decoded once, into `cache`; without one into the run's own folder, which is emptied at the end.

    Args:
        dataset: its validation split selects the epoch; without one, `recipe.validation` of the training videos are
            held out of those that can be read. The test split is never read.
        head: a name of `vop.heads.HEADS`.
        note: is told, line by line and before the training, what there is to know of the data and of what will be done.
        settings: the method's, `num_frames` among them; a head's are called `head.NAME`.

    Raises:
        UsageError: `out` holds a run already and `resume` is not set.
    """
    recipe = recipe or Recipe()
    methods.find_trainable(method)
    _check_out(out, resume=resume)
    process = PartialState(cpu=default_device().type == "cpu", timeout=DECODING_TIMEOUT)
    device = process.device
    torch.manual_seed(recipe.seed)
    dtype = resolve_precision(recipe.precision, device)
    model = create(method, backbone, head=head, dtype=dtype, device=device, **settings)
    if not model.trainable():  # before every video is decoded
        raise UsageError(f"{method} trains nothing: evaluate it as it is")
    model.check_vocabulary()
    count_groups(dataset.split("train"), size=recipe.captions_per_video)
    checkpoint = out / TRAINING / CHECKPOINT
    if resume and checkpoint.exists():
        check_identity(checkpoint, identity_of(model, recipe, data=dataset.name))
    store = FrameStore(model.num_frames, model.image_size, cache=cache or out / TRAINING / FRAMES, aspect=recipe.aspect)
    with process.main_process_first():  # the others find its frames in the cache
        train_split, validation, skipped = readable_splits(dataset, recipe, store, progress)
    trainer = Trainer(model, train_split, validation, recipe, out, store=store, data=dataset.name, progress=progress)
    if process.is_main_process:
        for line in (*dataset.notes, *trainer.plan()):
            note(line)
    result = trainer.fit(resume=resume)
    if cache is None and process.is_main_process:
        shutil.rmtree(out / TRAINING / FRAMES, ignore_errors=True)
    return Trained(trainer.model, result, skipped)


def readable_splits(
    dataset: Dataset, recipe: Recipe, store: FrameStore, progress: Progress
) -> tuple[Split, Split | None, tuple[BadVideo, ...]]:
    """The readable part of the training and the validation split, and what was left out of both."""
    kept, skipped = dict(dataset.splits), ()
    for name in ("train", "val"):
        if name == "train" or name in dataset.splits:
            kept[name], report = screen(
                dataset.split(name), store, policy=recipe.on_bad_video, progress=stage(progress, f"decoding {name}")
            )
            skipped += report.skipped
    if recipe.validation > 0:  # the same videos whatever the seed
        least = min(ENOUGH_VIDEOS, len(kept["train"].videos) // 3)
        kept = with_validation(replace(dataset, splits=kept), fraction=recipe.validation, min_videos=least).splits
    if len(kept["train"].videos) < 2:
        raise DataError(
            f"{dataset.name}: 1 video to train on; at least 2 are needed. Give more, or hold none out: --validation 0"
        )
    return kept["train"], kept.get("val"), skipped


def _check_out(out: Path, *, resume: bool) -> None:
    for path in (out, *out.parents):
        if path.is_file():
            raise UsageError(f"{path} is a file; --out {out} is to be a folder")
    if resume:
        if not (out / TRAINING / CHECKPOINT).exists() and (out / CONFIG).exists():
            raise VopError(f"{out}: no {TRAINING}/{CHECKPOINT} to go on from: its training is done or was deleted")
    elif (out / CONFIG).exists() or (out / TRAINING / CHECKPOINT).exists():
        raise UsageError(f"{out} holds a run already: choose another --out, or go on with --resume")
