"""One loop for all methods.

AdamW on what the method trains, a cosine schedule with warm-up, symmetric InfoNCE, the logit scale frozen. After each
epoch the validation split is ranked; the run keeps the best epoch's weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from vop.data.frames import FrameStore
from vop.data.loading import EpochSampler, FrameLoader, PairDataset, frame_loader
from vop.data.types import Split
from vop.errors import DataError, UsageError, VopError
from vop.evaluation.embedding import embed_split
from vop.evaluation.metrics import metrics_from_embeddings
from vop.model import TextVideoModel
from vop.progress import Progress, silent
from vop.run_folder import TRAINING
from vop.training import checkpoint
from vop.training.distributed import gather_rows
from vop.training.loss import contrastive_loss
from vop.training.recipe import Recipe

CHECKPOINT = "state.safetensors"


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        history: per epoch: epoch, loss, validation metrics.
        selection: how the saved weights were chosen: "validation-selected", "last" or "untrained".
        seconds: of training, resumed parts included.
    """

    history: list[dict]
    best_epoch: int | None
    selection: str
    seconds: float


class Trainer:
    """Trains `model` on `train`; `fit` does the whole job.

    Args:
        model: fresh from `vop.model.create`.
        train: the pairs; every video of it is readable (`vop.data.screening.screen`).
        validation: selects the epoch; None keeps the last.
        out: the run's folder.
        store: gives the frames.
        data: the data set's name, for the model card.
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
        self.recipe, self.out, self.store, self.data, self.show = recipe, out, store, data, progress
        self.trained = model.trainable()
        self.rate = recipe.learning_rate
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=self.rate, weight_decay=recipe.weight_decay)
        self.progress = checkpoint.Progress()
        self.best: dict[str, Tensor] = {}
        processes = self.accelerator.num_processes
        self.batch_size = min(recipe.batch_size, len(train) // processes * processes)
        self.steps_per_epoch = len(train) // self.batch_size
        self.total_steps = self.steps_per_epoch * recipe.epochs

    def fit(self, *, resume: bool = False) -> TrainingResult:
        """Trains to the end and writes the run.

        Raises:
            VopError: the loss is not finite (the best epoch so far is kept), the disk is full, or `resume` meets
                another training's checkpoint.
        """
        path = self.out / TRAINING / CHECKPOINT
        if resume and path.exists():
            self._load(path)
        with self._logger() as log:
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
            if time.monotonic() - saved >= self.recipe.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
        self._end_epoch(epoch, log)
        self.progress.seconds = before + time.monotonic() - started
        self._save()

    def _step(self, batch: dict) -> float:
        """One optimizer step; gives the loss before it."""
        rate = self.learning_rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
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
        self.progress.step += 1
        return value

    def _loss(self, batch: dict) -> Tensor:
        device = self.accelerator.device
        ids = self.model.tokenize(batch["caption"]).to(device)
        texts, videos = self.wrapped(ids, batch["frames"].to(device, non_blocking=True))
        video_ids = batch["video"].to(device)
        if self.accelerator.num_processes > 1:
            texts, videos, video_ids = gather_rows(texts), gather_rows(videos), gather_rows(video_ids)
        return contrastive_loss(texts, videos, video_ids, logit_scale=self.model.logit_scale)

    def _batches(self, epoch: int, *, start: int) -> FrameLoader:
        order = EpochSampler(
            len(self.train),
            batch_size=self.batch_size,
            seed=self.recipe.seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            start_batch=start,
        )
        return frame_loader(PairDataset(self.train, self.store), batches=order, workers=self.recipe.workers)

    def _end_epoch(self, epoch: int, log) -> None:
        """Validates, and keeps the weights if none were better."""
        record = {"epoch": epoch + 1, "loss": self.progress.loss_sum / self.steps_per_epoch}
        self.progress.loss_sum = 0.0
        if self.validation is not None and self.accelerator.is_main_process:
            record["validation"] = self._validate()
            log.add_scalar("validation/t2v_r1", record["validation"]["t2v"]["r1"], self.progress.step)
        [record] = broadcast_object_list([record])  # every process keeps the same epoch
        self.progress.history.append(record)
        if self.progress.best_epoch is None or _score(record) > _score(
            self.progress.history[self.progress.best_epoch - 1]
        ):
            self.progress.best_epoch = epoch + 1
            self.best = {name: p.detach().clone() for name, p in self.trained.items()}

    def _validate(self) -> dict:
        embedded = embed_split(
            self.model,
            self.validation,
            self.store,
            batch_size=self.batch_size,
            on_bad_video=self.recipe.on_bad_video,
        )
        return metrics_from_embeddings(embedded.texts, embedded.videos, targets=embedded.split.targets).to_dict()

    def _report(self, epoch: int, loss: float, seconds: float, steps: int) -> None:
        speed = steps * self.batch_size / max(seconds, 1e-9)
        note = f"epoch {epoch + 1}/{self.recipe.epochs}, loss {loss:.3f}, {speed:.0f} videos/s"
        self.show("training", self.progress.step, self.total_steps, note)

    def _stop_at(self, what: str, rate: float) -> NoReturn:
        """Keeps the best epoch so far, if there is one, and says why the training ends here."""
        kept = f"{self.out} holds no weights yet"
        if self.progress.best_epoch is not None:
            self._finish()
            kept = f"{self.out} holds the weights of epoch {self.progress.best_epoch}"
        raise VopError(
            f"{what} at step {self.progress.step + 1} of {self.total_steps}, at a learning rate of "
            f"{rate:.2g}; {kept}. Train again into another --out with a lower --learning-rate"
        )

    def _finish(self) -> TrainingResult:
        """Puts the chosen weights into the model and writes the run."""
        if self.best:
            for name, parameter in self.trained.items():
                parameter.data.copy_(self.best[name])
        result = TrainingResult(
            self.progress.history, self.progress.best_epoch, self._selection(), self.progress.seconds
        )
        self.model.eval()
        self.model.card = self._card(result)
        if self.accelerator.is_main_process:
            self.model.save_pretrained(self.out)
        self.accelerator.wait_for_everyone()
        return result

    def _selection(self) -> str:
        if self.progress.best_epoch is None:
            return "untrained"
        return "last" if self.validation is None else "validation-selected"

    def _card(self, result: TrainingResult) -> dict:
        card = {
            "data": self.data,
            "training_pairs": len(self.train),
            "training_videos": len(self.train.videos),
            "validation_videos": len(self.validation.videos) if self.validation else 0,
            "epoch": result.best_epoch,
            "selection": result.selection,
            "minutes": round(result.seconds / 60, 2),
        }
        recipe = asdict(self.recipe)
        card |= {key: value for key, value in recipe.items() if key != "validation"}
        if result.best_epoch and self.validation is not None:
            card["validation"] = result.history[result.best_epoch - 1].get("validation")
        return card

    def _identity(self) -> dict:
        """What must be the same for a training to go on."""
        recipe = asdict(self.recipe)
        for free in ("workers", "checkpoint_seconds", "on_bad_video"):
            recipe.pop(free)
        return {
            "method": self.model.method_name,
            **self.model.method.settings,
            "backbone": self.model.backbone.content_hash(),
            "data": self.data,
            "training pairs": len(self.train),
            "content": _content_hash(self.train, self.validation),
            **recipe,
            "precision": str(next(self.model.clip.parameters()).dtype),
        }

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            checkpoint.save_checkpoint(
                self.out / TRAINING / CHECKPOINT,
                trained=self.trained,
                best=self.best,
                optimizer=self.optimizer,
                progress=self.progress,
                identity=self._identity(),
            )

    def _load(self, path: Path) -> None:
        self.progress, best = checkpoint.load_checkpoint(
            path, trained=self.trained, optimizer=self.optimizer, identity=self._identity()
        )
        self.best = {name: tensor.to(self.accelerator.device) for name, tensor in best.items()}

    def _logger(self):
        return TensorBoard(self.out / TRAINING) if self.accelerator.is_main_process else TensorBoard(None)


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


def _content_hash(*splits: Split | None) -> str:
    """Tells apart data sets of the same name and size."""
    content = [[[video.id for video in split.videos], split.captions, split.targets] for split in splits if split]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _score(record: dict) -> tuple[float, float]:
    """Orders epochs: by t2v R@1, then by mean rank; without validation the later one wins."""
    t2v = record.get("validation", {}).get("t2v")
    return (t2v["r1"], -t2v["mnr"]) if t2v else (0.0, float(record["epoch"]))
