"""One loop for all methods.

AdamW on what the method and the head train, a cosine schedule with warm-up, symmetric InfoNCE. The validation split is
ranked before the training and after each epoch, of many short ones after every few. The run keeps the best epoch's
weights, or the untuned model if there is no evidence that they are better (`vop.training.selection`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from vop.backbones.work import forward_work
from vop.datasets.frames import FrameStore
from vop.datasets.loading import EpochSampler, FrameLoader, PairDataset, caption_groups, count_groups, frame_loader
from vop.datasets.types import Split
from vop.errors import DataError, UsageError, VopError
from vop.evaluation.embedding import embed_split
from vop.models.card import made_with
from vop.models.model import HEAD_PREFIX, TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import TRAINING, Card
from vop.training import checkpoint, selection
from vop.training.distributed import gather_rows, share_gradient
from vop.training.loss import contrastive_loss
from vop.training.recipe import ENOUGH_STEPS, PAPER_EPOCHS, TUNED, UNTUNED, Recipe
from vop.utils.progress import Progress, silent
from vop.utils.text import count
from vop.utils.threads import limit_threads

CHECKPOINT = "state.safetensors"
LOGIT_SCALE = "clip.log_logit_scale"
FEW_VIDEOS = 50  # to validate on
MOST_VALIDATIONS = 20  # of a training without as many as 20 long epochs
SAVING_SHARE = 20  # training goes on for so many times as long as the last checkpoint took


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        history: per epoch: epoch, loss, and validation metrics where it was validated.
        best_epoch: the best on validation, or without it the last; also where it was not kept.
        selection: how the saved weights were chosen: "validation-selected", "last", "untrained", or "untuned" if no
            epoch was better than the untuned model, which is what the run holds then.
        seconds: of training, resumed parts included.
        untuned: validation metrics of the untuned model; None where it was not validated.
        p: how often chance alone makes an epoch look as good beside the untuned model; None as well, and where there
            are too few videos to tell.
    """

    history: list[dict]
    best_epoch: int | None
    selection: str
    seconds: float
    untuned: dict | None = None
    p: float | None = None

    @property
    def best(self) -> dict | None:
        """The record of the best epoch."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    @property
    def is_proven(self) -> bool:
        """Whether there is evidence that the best epoch is better than the untuned model."""
        return self.p is not None and self.p < selection.LEVEL


class Trainer:
    """Trains `model` on `train`; `fit` does the whole job.

    Args:
        model: fresh from `vop.models.pretrained.create`.
        train: the pairs; every video of it is readable (`vop.datasets.validation.screen`).
        validation: selects the epoch; None keeps the last.
        out: the run's folder.
        store: gives the frames.
        data: the data set's name, for the model card.
        on_epoch: is given each epoch's record; what it raises ends the training.
        keep: writes the run and its checkpoints; a trial of a learning rate leaves nothing.
    """

    def __init__(
        self,
        model: TextVideoModel,
        train: Split,
        validation: Split | None,
        recipe: Recipe,
        out: Path,
        *,
        store: FrameStore,
        data: str = "",
        progress: Progress = silent,
        on_epoch: Callable[[dict], None] = lambda record: None,
        keep: bool = True,
    ) -> None:
        if not model.trainable():
            raise UsageError(f"{model.method_name} trains nothing: evaluate it as it is")
        if len(train) < 2:
            raise DataError(f"{len(train)} pair to train on; at least 2 are needed")
        # Precision is ours to choose (the backbone's dtype), not the launcher's.
        self.accelerator = Accelerator(
            cpu=model.device.type == "cpu", mixed_precision="no", gradient_accumulation_steps=1
        )
        self.model = model.to(self.accelerator.device).train()
        self.wrapped = self.accelerator.prepare_model(model)
        self.train, self.validation = train, validation
        self.out, self.store, self.data, self.show = out, store, data, progress
        self.on_epoch, self.keep = on_epoch, keep
        self.trained = model.trainable()
        self.progress = checkpoint.Progress()
        self.best: dict[str, Tensor] = {}
        self.saving_seconds = 0.0
        processes = self.accelerator.num_processes
        items = count_groups(train, size=recipe.captions_per_video)
        self.batch_size = min(recipe.batch_size, items // processes * processes)
        self.steps_per_epoch = items // self.batch_size
        self.recipe = resolved(recipe, model, steps_per_epoch=self.steps_per_epoch)
        self.rate = self.recipe.learning_rate
        self.optimizer = torch.optim.AdamW(_groups(self.trained, recipe.weight_decay), lr=self.rate)
        self.total_steps = self.steps_per_epoch * self.recipe.epochs
        if processes > 1:
            for name, parameter in self.trained.items():
                if name == LOGIT_SCALE or (model.pairwise and name.startswith("head.")):
                    share_gradient(parameter)

    def plan(self) -> list[str]:
        """What will be done, in words, and what speaks against expecting much of it."""
        held_out = len(self.validation.videos) if self.validation else 0
        lines = [
            f"videos to train on: {len(self.train.videos):,}, to validate on: {held_out:,}; "
            f"epochs: {self.recipe.epochs:,}, steps of each: {self.steps_per_epoch:,}, in all: {self.total_steps:,}"
        ]
        if self.total_steps < ENOUGH_STEPS:
            enough = math.ceil(ENOUGH_STEPS / self.steps_per_epoch)
            lines.append(
                f"{self.total_steps} steps are few: new prompts first do harm, and take about {ENOUGH_STEPS} steps to "
                f"do good; leave out --epochs, or give --epochs {enough}"
            )
        if self.validation is None:
            lines.append(
                "nothing is held out, so that nobody will know whether tuning did harm: leave out --validation 0"
            )
        elif held_out < selection.FEWEST:
            lines.append(f"{count('validation video', held_out)} cannot tell whether tuning does good or harm")
        elif held_out < FEW_VIDEOS:
            lines.append(
                f"on {held_out} validation videos only a large gain can be told from chance; without one "
                "the untuned model is kept"
            )
        return lines

    def fit(self, *, resume: bool = False) -> TrainingResult:
        """Trains to the end and writes the run.

        Raises:
            VopError: the loss is not finite (the best epoch so far is kept), the disk is full, or `resume` meets
                another training's checkpoint.
        """
        path = self.out / TRAINING / CHECKPOINT
        if resume and path.exists():
            self._load(path)
        videos = self.batch_size // self.accelerator.num_processes
        work = forward_work(self.model.backbone.sizes, frames=videos * self.model.num_frames)
        with self._logger() as log, limit_threads(work):
            if self.keep and self.validation is not None and self.progress.untuned is None:
                self.progress.untuned, self.progress.untuned_scores = self._validate(self._untuned())
            for epoch in range(self.progress.step // self.steps_per_epoch, self.recipe.epochs):
                self._epoch(epoch, log)
        return self._finish()

    def learning_rate(self, step: int) -> float:
        """Of the step with this number, from 0: linear warm-up, then a cosine to 0."""
        warmup = math.ceil(self.recipe.warmup * self.total_steps)
        if step < warmup:
            return self.rate * (step + 1) / warmup
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total_steps - warmup)))

    def _epoch(self, epoch: int, log) -> None:
        started = saved = time.monotonic()
        before = self.progress.seconds
        done = self.progress.step - epoch * self.steps_per_epoch
        for batch in self._batches(epoch, start=done):
            loss = self._step(batch)
            self.progress.loss_sum += loss
            self.progress.seconds = before + time.monotonic() - started
            log.add_scalar("train/loss", loss, self.progress.step)
            self._report(
                epoch, loss, self.progress.seconds - before, self.progress.step - epoch * self.steps_per_epoch - done
            )
            is_last = self.progress.step == (epoch + 1) * self.steps_per_epoch  # saved when the epoch has ended
            due = max(self.recipe.checkpoint_seconds, SAVING_SHARE * self.saving_seconds)
            if not is_last and time.monotonic() - saved >= due:
                self._save()
                saved = time.monotonic()
        is_validated = self._end_epoch(epoch, log)
        self.progress.seconds = before + time.monotonic() - started
        if is_validated:
            self._save()

    def _step(self, batch: dict) -> float:
        """One optimizer step; gives the loss before it."""
        rate = self.learning_rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(self._step_seed())  # of dropout, so that a resumed training draws what the whole one did
        loss = self._loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            self._stop_at(f"the loss became {value}", rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss * self.accelerator.num_processes)
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.recipe.max_grad_norm or math.inf)
        if not torch.isfinite(norm):
            self._stop_at(f"the gradient's norm became {norm.item()}", rate)
        self.optimizer.step()
        self.model.limit_logit_scale()
        self.progress.step += 1
        return value

    def _step_seed(self) -> int:
        """Different for every step and process."""
        process = self.accelerator.process_index
        return (self.recipe.seed * self.total_steps + self.progress.step) * self.accelerator.num_processes + process

    def _loss(self, batch: dict) -> Tensor:
        device = self.accelerator.device
        ids = self.model.tokenize(batch["captions"]).to(device)
        texts, videos = self.wrapped(ids, batch["frames"].to(device, non_blocking=True))
        rows, video_ids = batch["rows"].to(device), batch["video"].to(device)
        if self.accelerator.num_processes > 1:
            before = self.accelerator.process_index * len(video_ids)  # every process has as many videos
            rows = gather_rows(rows + before)
            texts, videos, video_ids = gather_rows(texts), gather_rows(videos), gather_rows(video_ids)
        return contrastive_loss(self.model.logits(texts, videos), rows, video_ids)

    def _batches(self, epoch: int, *, start: int) -> FrameLoader:
        size, seed = self.recipe.captions_per_video, self.recipe.seed
        groups = caption_groups(self.train, size=size, seed=seed, epoch=epoch)
        order = EpochSampler(
            len(groups),
            batch_size=self.batch_size,
            seed=seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            start_batch=start,
        )
        return frame_loader(PairDataset(self.train, self.store, groups), batches=order, workers=self.recipe.workers)

    def _end_epoch(self, epoch: int, log) -> bool:
        """Validates if that is due, and keeps the weights if none were better; says whether it was due."""
        record = {"epoch": epoch + 1, "loss": self.progress.loss_sum / self.steps_per_epoch}
        self.progress.loss_sum = 0.0
        last = epoch + 1 == self.recipe.epochs
        is_due = last or (epoch + 1) % math.ceil(self.recipe.epochs / MOST_VALIDATIONS) == 0
        if is_due and self.validation is not None:
            record["validation"], scores = self._validate(self.model)
            self.progress.scores.append(scores)
            log.add_scalar("validation/t2v_r1", record["validation"]["t2v"]["r1"], self.progress.step)
        self.progress.history.append(record)
        best = self.progress.best_epoch
        if is_due and (best is None or _score(record) > _score(self.progress.history[best - 1])):
            self.progress.best_epoch = epoch + 1
            self.best = {name: p.detach().clone() for name, p in self.trained.items()}
        self.on_epoch(record)
        return is_due

    def _validate(self, model: TextVideoModel) -> tuple[dict, list[float]]:
        """Metrics on the validation split, and the scores of its videos; every process is told the same."""
        found = None
        if self.accelerator.is_main_process:
            embedded = embed_split(
                model,
                self.validation,
                self.store,
                batch_size=self.batch_size,
                on_bad_video=self.recipe.on_bad_video,
            )
            metrics = embedded.metrics()
            found = metrics.to_dict(), selection.video_scores(metrics, embedded.split.targets).tolist()
        [found] = broadcast_object_list([found])
        return found

    def _untuned(self) -> TextVideoModel:
        """Zero-shot CLIP with the same backbone."""
        model = self.model
        return create(
            "zero-shot", model.backbone, dtype=model.clip.dtype, device=model.device, num_frames=model.num_frames
        ).eval()

    def _report(self, epoch: int, loss: float, seconds: float, steps: int) -> None:
        speed = steps * self.batch_size / max(seconds, 1e-9)
        note = f"epoch {epoch + 1}/{self.recipe.epochs}, loss {loss:.3f}, {speed:.0f} videos/s"
        self.show("training", self.progress.step, self.total_steps, note)

    def _stop_at(self, what: str, rate: float) -> NoReturn:
        """Keeps the best epoch so far, if there is one, and says why the training ends here."""
        kept = f"{self.out} holds no weights yet"
        if self.progress.best_epoch is not None:
            is_untuned = self._finish().selection == UNTUNED
            kept = f"{self.out} holds " + (
                "the untuned model" if is_untuned else f"the weights of epoch {self.progress.best_epoch}"
            )
        raise VopError(
            f"{what} at step {self.progress.step + 1} of {self.total_steps}, at a learning rate of "
            f"{rate:.2g}; {kept}. Train again into another --out with a lower --learning-rate"
        )

    def _finish(self) -> TrainingResult:
        """Puts the chosen weights into the model, or the untuned model into its place, and writes the run."""
        if self.best:
            for name, parameter in self.trained.items():
                parameter.data.copy_(self.best[name])
        result = self._result()
        tuned = self.model
        if result.selection == UNTUNED:
            self.model = self._untuned()
        self.model.eval()
        self.model.card = self._card(result, tuned)
        if self.keep and self.accelerator.is_main_process:
            self.model.save_pretrained(self.out)
        self.accelerator.wait_for_everyone()
        return result

    def _result(self) -> TrainingResult:
        """What was trained, and which weights are to be kept."""
        progress = self.progress
        result = TrainingResult(
            progress.history, progress.best_epoch, self._selection(), progress.seconds, untuned=progress.untuned
        )
        validated = [record["epoch"] for record in progress.history if "validation" in record]
        is_known = len(progress.scores) == len(validated)  # not of a training that an earlier version began
        if result.best is None or not is_known or len(progress.untuned_scores) < selection.FEWEST:
            return result
        chosen = validated.index(progress.best_epoch)
        p = selection.chance_of_gain(progress.scores, progress.untuned_scores, chosen=chosen)
        result = replace(result, p=p)
        is_kept = result.is_proven or self.recipe.if_worse == TUNED
        return result if is_kept else replace(result, selection=UNTUNED)

    def _selection(self) -> str:
        if self.progress.best_epoch is None:
            return "untrained"
        return "last" if self.validation is None else "validation-selected"

    def _card(self, result: TrainingResult, tuned: TextVideoModel) -> Card:
        is_untuned = result.selection == UNTUNED
        card: dict[str, Any] = {
            "data": self.data,
            "training_pairs": len(self.train),
            "training_videos": len(self.train.videos),
            "validation_videos": len(self.validation.videos) if self.validation else 0,
            "epoch": 0 if is_untuned else result.best_epoch,
            "selection": result.selection,
            "minutes": round(result.seconds / 60, 2),
        }
        recipe = asdict(self.recipe)
        card |= {key: value for key, value in recipe.items() if key != "validation"}
        if is_untuned:
            card["not_kept"] = f"{tuned.method_name}, no better than the untuned model on validation videos"
        validation = result.untuned if is_untuned else (result.best or {}).get("validation")
        card |= made_with(tuned.clip.dtype)
        return cast(Card, card | ({"validation": validation} if validation else {}))

    def _identity(self) -> dict:
        """What must be the same for a training to go on."""
        return identity_of(self.model, self.recipe, data=self.data) | {
            "training pairs": len(self.train),
            "content": [split.fingerprint for split in (self.train, self.validation) if split],
            "epochs": self.recipe.epochs,
        }

    def _save(self) -> None:
        if not (self.keep and self.accelerator.is_main_process):
            return
        started = time.monotonic()
        checkpoint.save_checkpoint(
            self.out / TRAINING / CHECKPOINT,
            trained=self.trained,
            best=self.best,
            optimizer=self.optimizer,
            progress=self.progress,
            identity=self._identity(),
        )
        self.saving_seconds = time.monotonic() - started

    def _load(self, path: Path) -> None:
        self.progress, best = checkpoint.load_checkpoint(
            path, trained=self.trained, optimizer=self.optimizer, identity=self._identity()
        )
        self.best = {name: tensor.to(self.accelerator.device) for name, tensor in best.items()}

    def _logger(self):
        keep = self.keep and self.accelerator.is_main_process
        return TensorBoard(self.out / TRAINING if keep else None)


def resolved(recipe: Recipe, model: TextVideoModel, *, steps_per_epoch: int) -> Recipe:
    """A recipe with the method's own learning rate, and enough epochs, where it names none."""
    rate = recipe.learning_rate or model.method.learning_rate
    epochs = recipe.epochs or max(PAPER_EPOCHS, math.ceil(ENOUGH_STEPS / steps_per_epoch))
    return replace(recipe, learning_rate=rate, epochs=epochs)


def identity_of(model: TextVideoModel, recipe: Recipe, *, data: str) -> dict:
    """What must be the same for a training to go on, as far as it is known before any video is read."""
    free = ("epochs", "workers", "checkpoint_seconds", "on_bad_video", "if_worse")
    return {
        "method": model.method_name,
        **model.method.settings,
        "head": model.head_name,
        **{f"{HEAD_PREFIX}{name}": value for name, value in model.head.settings.items()},
        "backbone": model.backbone.content_hash(),
        "data": data,
        **{name: value for name, value in asdict(recipe).items() if name not in free},
        "learning_rate": recipe.learning_rate or model.method.learning_rate,
        "precision": str(model.clip.dtype),
    }


class TensorBoard:
    """Scalars for TensorBoard, if it is installed."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)


def _groups(trained: dict[str, nn.Parameter], weight_decay: float) -> list[dict]:
    """The optimizer's groups: all that trains decays, but for the logit scale (as in CLIP's own training)."""
    decayed = [parameter for name, parameter in trained.items() if name != LOGIT_SCALE]
    scale = [parameter for name, parameter in trained.items() if name == LOGIT_SCALE]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": scale, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _score(record: dict) -> tuple[float, float]:
    """Orders epochs: by t2v R@1, then by mean rank; without validation the later one wins."""
    t2v = record.get("validation", {}).get("t2v")
    return (t2v["r1"], -t2v["mnr"]) if t2v else (0.0, float(record["epoch"]))
