"""`vop.train`: train a method on a data set and write the run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState

from vop import methods
from vop.backbones import DEFAULT_HUB_ID
from vop.datasets.frames import FrameStore
from vop.datasets.loading import count_groups
from vop.datasets.readers import load as load_data
from vop.datasets.splits import with_validation
from vop.datasets.types import Dataset, Split
from vop.datasets.validation import readable_part
from vop.datasets.views import candidates
from vop.errors import DataError, FileFailure, UsageError, VopError
from vop.heads import MEAN
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import CARD, CONFIG, TRAINING, WEIGHTS
from vop.training.checkpoint import CHECKPOINT, check_identity, identity_of
from vop.training.loss import check_matryoshka, loss_of
from vop.training.rates import factors_of
from vop.training.recipe import DEFAULT_METHOD, Recipe, TrainingConfig, read_config
from vop.training.selection import TrainingResult
from vop.training.tracking import trackers_of
from vop.training.trainer import Trainer
from vop.utils.device import resolve_precision
from vop.utils.files import remove_unfinished
from vop.utils.lock import locked
from vop.utils.progress import Progress, silent, stage
from vop.utils.ranks import ALONE, Ranks, join
from vop.utils.watch import watched

ENOUGH_VIDEOS = 100  # for validation; see `vop.training.selection`
FRAMES = "frames"
LOCK = ".lock"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model: the model that the run keeps, in eval mode.
        result: epochs, selection and metrics.
        skipped: the videos that could not be read.
        dataset: the data set as it was read.
    """

    model: TextVideoModel
    result: TrainingResult
    skipped: tuple[FileFailure, ...]
    dataset: Dataset


@watched()
def train(
    data: Dataset | str | Path | None = None,
    *,
    out: str | Path,
    method: str | None = None,
    backbone: str | Path | None = None,
    head: str | None = None,
    settings: Mapping[str, object] | None = None,
    recipe: Recipe | TrainingConfig | str | Path | None = None,
    videos: str | Path | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
    cache: Path | None = None,
    resume: bool = False,
    compile: bool = False,
    track: Sequence[str] | None = None,
    progress: Progress = silent,
    note: Callable[[str], None] = lambda line: None,
    lock: bool = True,
) -> Trained:
    """Tune a method on captioned videos and write the run to `out`, as `vop train` does.

    Several processes (`torchrun`, `accelerate launch`) share the work; each of them calls this function. If one of them
    fails, the others end within seconds.

    Every video is decoded once, into `cache` or into a temporary folder in `out`. The validation split selects the
    epoch. Without one, the fraction `recipe.validation` of the readable training videos is held out. The test split is
    never read.

    Args:
        data: a SPEC (`msrvtt-9k:/data/msrvtt`, `train.csv`), or a `Dataset`. By default the data that the
            recipe file names.
        out: the run's folder.
        method: a name of `vop.methods.METHODS`; "vop-f+p" by default.
        backbone: "mini", a hub id or a CLIP folder; OpenAI's ViT-B/32 by default.
        head: a name of `vop.heads.HEADS`; "meanP" by default.
        settings: settings of the method, including `num_frames`; those of the head are called `head.NAME`.
        recipe: a `Recipe`, the path of a recipe file, or the name of a recipe that comes with vop. The arguments above
            override the values of the file.
        videos, video_column, caption_column: as for `vop.datasets.load`, if `data` is a SPEC.
        cache: a folder for decoded frames. Existing ones are reused, missing ones added.
        resume: resume a training that was stopped.
        compile: compile the layers, as for `vop.load`. The run and its checkpoints are like those of other trainings.
        track: names of experiment trackers ("tensorboard", "wandb", "mlflow"; `accelerate` knows more), or "none". By
            default TensorBoard, if it is installed.
        note: called with each remark on the data and each line of the plan, before the training.
        lock: refuse an `out` in which another process trains. Without it, the caller makes sure that there is none.

    Raises:
        UsageError: a name or a value is not allowed, or `out` already holds a run and `resume` is False.
        VopError: the backbone or the data cannot be read, another process trains in `out`, or the loss is no longer
            finite.
    """
    config = _config_of(recipe)
    data = data if data is not None else config.data
    if data is None:
        raise UsageError("no data: give a SPEC as `data`, or a recipe file with `data:`")
    method, out, recipe = method or config.method or DEFAULT_METHOD, Path(out), config.recipe
    methods.find_trainable(method)
    trackers_of(track)  # fails before every video is decoded
    _check_out(out, resume=resume)
    dataset = data
    if not isinstance(dataset, Dataset):
        dataset = load_data(str(data), videos=videos, video_column=video_column, caption_column=caption_column)
    ranks, device = join(), PartialState().device
    torch.manual_seed(recipe.seed)
    model = create(
        method,
        backbone or config.backbone or DEFAULT_HUB_ID,
        head=head or config.head or MEAN,
        dtype=resolve_precision(recipe.precision, device),
        device=device,
        compile=compile,
        **{**config.settings, **(settings or {})},
    )
    if not model.trainable():  # fails before every video is decoded
        raise UsageError(f"{method} has no trainable parameters: evaluate it without training")
    model.check_vocabulary()
    loss_of(model, recipe)
    check_matryoshka(model, recipe)
    factors_of(model.trainable(), recipe.rates)
    count_groups(dataset.split("train"), size=recipe.captions_per_video)
    checkpoint = out / TRAINING / CHECKPOINT
    if resume and checkpoint.exists():
        check_identity(checkpoint, identity_of(model, recipe, data=dataset.name))
    with _alone_in(out) if lock and ranks.is_first else nullcontext():
        if ranks.is_first:
            _check_out(out, resume=resume)  # another process may have trained here in the meantime
            for path in (checkpoint, *(out / name for name in (CONFIG, WEIGHTS, CARD))):
                remove_unfinished(path)
        store = FrameStore(
            model.num_frames, model.resizing, cache=cache or out / TRAINING / FRAMES, aspect=recipe.aspect
        )
        train_split, validation, skipped = readable_splits(dataset, recipe, store, progress, ranks=ranks)
        trainer = Trainer(
            model, train_split, validation, recipe, out, store=store, data=dataset.name, track=track, progress=progress
        )
        if ranks.is_first:
            for line in (*dataset.notes, *trainer.plan()):
                note(line)
        result = trainer.fit(resume=resume)
        if cache is None and not ranks.local_rank:
            shutil.rmtree(out / TRAINING / FRAMES, ignore_errors=True)
        return Trained(trainer.model, result, skipped, dataset)


def _alone_in(out: Path) -> AbstractContextManager[None]:
    """Lock a run's folder, so that no other process trains in it."""
    busy = f"{out}: another process is training here: wait for it, or choose another --out"
    return locked(out / TRAINING / LOCK, busy=busy)


def _config_of(recipe: Recipe | TrainingConfig | str | Path | None) -> TrainingConfig:
    if isinstance(recipe, TrainingConfig):
        return recipe
    if recipe is None or isinstance(recipe, Recipe):
        return TrainingConfig(recipe=recipe or Recipe())
    return read_config(recipe)


def readable_splits(
    dataset: Dataset, recipe: Recipe, store: FrameStore, progress: Progress, *, ranks: Ranks = ALONE
) -> tuple[Split, Split | None, tuple[FileFailure, ...]]:
    """Return the readable parts of the training and the validation split, and the videos left out of both.

    This decodes every frame that the training needs, into the cache of `store` if it has one. `ranks` share the work.
    """
    kept: dict[str, Split] = dict(dataset.splits)
    skipped: tuple[FileFailure, ...] = ()
    for name in ("train", "val"):
        if name == "train" or name in dataset.splits:
            kept[name], failures = readable_part(
                dataset.split(name),
                candidates(store, recipe.augmentation) if name == "train" else store,
                on_bad_video=recipe.on_bad_video,
                progress=stage(progress, f"decoding {name}"),
                ranks=ranks,
            )
            skipped += failures
    if recipe.validation > 0:  # the same videos for every seed
        least = min(ENOUGH_VIDEOS, len(kept["train"].videos) // 3)
        divided = with_validation(replace(dataset, splits=kept), fraction=recipe.validation, min_videos=least)
        kept = dict(divided.splits)
    if len(kept["train"].videos) < 2:
        raise DataError(
            f"{dataset.name}: 1 video to train on; at least 2 are needed. Give more videos, "
            "or hold out none: --validation 0"
        )
    return kept["train"], kept.get("val"), skipped


def _check_out(out: Path, *, resume: bool) -> None:
    for path in (out, *out.parents):
        if path.is_file():
            raise UsageError(f"{path} is a file; --out {out} must be a folder")
    if resume:
        if not (out / TRAINING / CHECKPOINT).exists() and (out / CONFIG).exists():
            raise VopError(
                f"{out}: no {TRAINING}/{CHECKPOINT} to resume from: the training has finished, or its state was deleted"
            )
    elif (out / CONFIG).exists() or (out / TRAINING / CHECKPOINT).exists():
        raise UsageError(f"{out} already holds a run: choose another --out, or resume with --resume")
