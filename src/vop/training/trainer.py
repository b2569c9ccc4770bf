"""The training loop of all methods.

AdamW on the trained parameters of method and head, a cosine schedule with warm-up, the loss that the backbone was
trained with (symmetric InfoNCE for CLIP). Validation runs before the training and after each epoch, or after every few
epochs if there are many short ones. The run keeps the weights of the best epoch, or the untuned model if there is no
evidence of a gain (`vop.training.selection`).

Several processes share a batch, its embeddings and the validation. `DistributedDataParallel` averages the gradients of
a whole batch; those of parts (gradient cache, accumulation) are added up once, at the end of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from vop.backbones.layers import recompute_layers
from vop.backbones.work import forward_work
from vop.datasets.frames import FrameSource, FrameStore
from vop.datasets.hard_negatives import Neighbours, captions_by_video, grouped_order, nearest_videos
from vop.datasets.loading import Batch, EpochSampler, FrameLoader, PairDataset, caption_groups, count_groups
from vop.datasets.types import Split
from vop.datasets.views import RandomViews
from vop.errors import DataError, DivergenceError, MemoryRanOutError, TrainingError, UsageError, VopError
from vop.evaluation.embedding import embed_split, embed_texts
from vop.evaluation.metrics import MetricsDict
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import TRAINING
from vop.training.averaging import MovingAverage
from vop.training.checkpoint import (
    CHECKPOINT,
    EpochRecord,
    TrainingState,
    identity_of,
    load_checkpoint,
    save_checkpoint,
)
from vop.training.distributed import gather_rows, share_gradient, sum_gradients
from vop.training.gradient_cache import cached_gradient
from vop.training.loss import LOSSES, check_matryoshka, loss_of, matryoshka_loss
from vop.training.rates import LOSS_PARAMETERS, factors_of, optimizer_groups
from vop.training.recipe import LAYERS, SEED_LIMIT, UNTUNED, Recipe
from vop.training.schedule import Schedule
from vop.training.selection import TrainingResult, card_of, is_better, result_of, video_scores
from vop.training.tracking import TENSORBOARD, tracked, trackers_of
from vop.utils.fitting import empty_caches, is_out_of_memory
from vop.utils.progress import Progress, silent
from vop.utils.ranks import Ranks
from vop.utils.text import count
from vop.utils.threads import limit_threads

SAVING_SHARE = 20  # training between two checkpoints takes at least this many times as long as saving one


class Trainer:
    """Trains `model` on `train` with `fit`.

    Args:
        model: fresh from `vop.models.pretrained.create`.
        train: the training pairs; every video must be readable (`vop.datasets.validation.readable_part`).
        validation: the split that selects the epoch; None keeps the last epoch.
        out: the run's folder.
        store: loads the frames.
        data: the data set's name, for the model card.
        track: names of trackers (`vop.training.tracking`).
        on_epoch: called with each epoch's record. If it raises an exception, the training ends.
        keep: whether to write the run and its checkpoints. False for trials of a learning rate.
    """

    def __init__(
        self,
        model: TextVideoModel,
        train: Split,
        validation: Split | None,
        recipe: Recipe,
        out: Path,
        *,
        store: FrameSource,
        data: str = "",
        track: Sequence[str] | None = None,
        progress: Progress = silent,
        on_epoch: Callable[[EpochRecord], None] = lambda record: None,
        keep: bool = True,
    ) -> None:
        if not model.trainable():
            raise UsageError(f"{model.method_name} has no trainable parameters: evaluate it without training")
        if len(train) < 2:
            raise DataError(f"{len(train)} pair to train on; at least 2 are needed")
        self.accelerator = Accelerator(
            cpu=model.device.type == "cpu",
            mixed_precision="no",  # the backbone's dtype decides, not the launcher
            gradient_accumulation_steps=1,
            log_with=(trackers_of(track) if keep else []) or None,
            project_dir=str(out / TRAINING / TENSORBOARD),
        )
        check_matryoshka(model, recipe)
        model.matryoshka_dimensions = recipe.matryoshka
        recipe = replace(recipe, loss=loss_of(model, recipe))
        self.criterion = LOSSES[recipe.loss]
        if not recompute_layers(model, recipe.recompute == LAYERS) and recipe.recompute == LAYERS:
            raise UsageError(
                f"recompute is {recipe.recompute!r}, but {model.backbone.name} has no layers that vop could recompute: "
                "leave it out"
            )
        self.model = model.to(self.accelerator.device).train()
        self.trained = model.trainable()
        factors = factors_of(self.trained, recipe.rates)
        for name, parameter in self.trained.items():
            parameter.requires_grad_(factors[name] > 0)
        self.wrapped = self.accelerator.prepare_model(model)
        self.train, self.validation = train, validation
        self.out, self.store, self.data, self.show = out, store, data, progress
        self.views = _views_of(store, recipe)
        self.on_epoch, self.keep = on_epoch, keep
        self.state = TrainingState()
        self.neighbours: Neighbours | None = None
        self.best: dict[str, Tensor] = {}
        self.saving_seconds = 0.0
        self.saved_at = 0.0  # when the last checkpoint was written, or the training began
        self.ranks = Ranks.current()
        processes = self.accelerator.num_processes
        items = count_groups(train, size=recipe.captions_per_video)
        self.batch_size = min(recipe.batch_size, items // processes * processes)
        share = self.batch_size // processes
        self.chunk_size = min(recipe.chunk_size or share, share)  # videos that a process embeds at a time
        self.in_parts = self.chunk_size < share or recipe.accumulate > 1
        batches = items // self.batch_size
        if batches < recipe.accumulate:
            raise UsageError(
                f"accumulate is {recipe.accumulate}, but an epoch has only {count('batch', batches)} of "
                f"{self.batch_size}: make accumulate or batch_size smaller"
            )
        self.schedule = Schedule.of(
            recipe, steps_per_epoch=batches // recipe.accumulate, default_rate=model.method.learning_rate
        )
        self.recipe = self.schedule.resolve(recipe)
        groups = optimizer_groups(self.trained, factors, weight_decay=recipe.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=self.schedule.peak_rate)
        decay = recipe.ema_decay
        self.average = None if decay is None else MovingAverage(self.trained, decay=decay)
        if processes > 1:
            for name, parameter in self.trained.items():
                is_after = name in LOSS_PARAMETERS or (model.pairwise and name.startswith("head."))
                if is_after and parameter.requires_grad:
                    share_gradient(parameter)

    def plan(self) -> list[str]:
        """Return the lines of the training plan."""
        held_out = len(self.validation.videos) if self.validation else 0
        return self.schedule.in_words(videos=len(self.train.videos), held_out=held_out)

    def fit(self, *, resume: bool = False) -> TrainingResult:
        """Train to the end and write the run.

        Raises:
            VopError: the loss is not finite (the best epoch so far is kept), the disk is full, or `resume` finds
                the checkpoint of another training.
        """
        path = self.out / TRAINING / CHECKPOINT
        if resume and self._is_everywhere(path):
            self._load(path)
        self.saved_at = time.monotonic()
        work = forward_work(self.model.backbone.sizes, frames=self.chunk_size * self.model.num_frames)
        with tracked(self.accelerator, self.out, config=self._identity()), limit_threads(work):
            if self.keep and self.validation is not None and self.state.untuned is None:
                self.state.untuned, self.state.untuned_scores = self._validate(self._untuned(), self.validation)
            for epoch in range(self.state.step // self.schedule.steps_per_epoch, self.schedule.epochs):
                self._epoch(epoch)
        return self._finish()

    def _epoch(self, epoch: int) -> None:
        steps = self.schedule.steps_per_epoch
        started = time.monotonic()
        before = self.state.seconds
        done = self.state.step - epoch * steps
        for batches in self._steps(epoch, start=done):
            loss = self._step(batches)
            self.state.loss_sum += loss
            self.state.seconds = before + time.monotonic() - started
            self.accelerator.log({"train/loss": loss}, step=self.state.step)
            self._report(epoch, loss, self.state.seconds - before, self.state.step - epoch * steps - done)
            is_last = self.state.step == (epoch + 1) * steps  # saved at the end of the epoch
            if not is_last and self._is_saving_due():
                self._save()
        self._end_epoch(epoch)
        self.state.seconds = before + time.monotonic() - started
        if self.schedule.is_validated(epoch) or self._is_saving_due():
            self._save()

    def _is_saving_due(self) -> bool:
        due = max(self.recipe.checkpoint_seconds, SAVING_SHARE * self.saving_seconds)
        return time.monotonic() - self.saved_at >= due

    def _is_everywhere(self, path: Path) -> bool:
        """Return whether a file exists.

        Raises:
            VopError: only some of the processes see it.
        """
        seen = self.ranks.gather(path.exists())
        if any(seen) and not all(seen):
            missing = ", ".join(str(rank) for rank, sees in enumerate(seen) if not sees)
            raise VopError(
                f"{path} does not exist for rank {missing} of {len(seen)}: to resume on several machines, give an "
                "--out in a folder that they share, or copy the file to all of them"
            )
        return seen[0]

    def _step(self, batches: Iterator[list[Batch]]) -> float:
        """Do one optimizer step; return the loss before it.

        The batch is part of the loss, so no smaller one is tried if it does not fit into memory.

        Args:
            batches: those of the step, each in chunks.

        Raises:
            DivergenceError: loss or gradient are not finite.
            MemoryRanOutError: memory ran out.
        """
        try:
            return self._optimize(batches)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, because the error's traceback keeps the tensors of the step.
        self.optimizer.zero_grad(set_to_none=True)
        empty_caches()
        sizes, precision = self.model.backbone.sizes.vision, str(self.model.clip.dtype).removeprefix("torch.")
        content = [count("video", self.chunk_size), count("frame", self.model.num_frames)]
        if sizes.layers:
            content.append(count("token", sizes.patches + sizes.summaries))
        advice = "The batch is part of the loss and stays as it is. "
        if self.chunk_size > 1:
            advice += f"Resume with --resume --chunk-size {self.chunk_size // 2}, which embeds it in parts. Or train"
        else:
            advice += "Train"
        self._stop_at(
            f"memory ran out with batch_size {self.batch_size} ({' x '.join(content)} in a process, {precision})",
            f"{advice} again with a smaller --batch-size, fewer --num-frames, --recompute layers, --precision bf16, "
            "or a backbone with fewer tokens per frame, and another --out",
            error=MemoryRanOutError,
            alone=True,
        )

    def _optimize(self, batches: Iterator[list[Batch]]) -> float:
        rate = self.schedule.learning_rate(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        torch.manual_seed(self._step_seed())  # a resumed training repeats the dropout of an uninterrupted one
        self.optimizer.zero_grad(set_to_none=True)
        value = self._add_gradients(batches, rate)
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.recipe.max_grad_norm or math.inf)
        if not torch.isfinite(norm):
            self._stop_at_rate(f"the gradient's norm became {norm.item()}", rate)
        self.optimizer.step()
        self.model.limit_logit_scale()
        if self.average is not None:
            self.average.update()
        self.state.step += 1
        return value

    def _add_gradients(self, batches: Iterator[list[Batch]], rate: float) -> float:
        """Add the gradient of a step's loss to the parameters; return the loss."""
        if self.in_parts:
            value = sum(self._add_gradient(chunks, number, rate) for number, chunks in enumerate(batches))
            if self.ranks.size > 1:
                sum_gradients(self.trained.values())
            return value
        ((batch,),) = batches
        loss = self._loss(batch)
        value = self._checked(loss.item(), rate)
        self.accelerator.backward(loss * self.accelerator.num_processes)
        return value

    def _checked(self, loss: float, rate: float) -> float:
        if not math.isfinite(loss):
            self._stop_at_rate(f"the loss became {loss}", rate)
        return loss

    def _add_gradient(self, chunks: list[Batch], number: int, rate: float) -> float:
        """Add the gradient of one of the batches of a step to the parameters; return its share of the step's loss."""
        share, model = 1 / self.recipe.accumulate, self.model
        ids = model.tokenize([caption for chunk in chunks for caption in chunk["captions"]])  # of one length
        parts = ids.split([len(chunk["captions"]) for chunk in chunks])
        before = np.cumsum([0, *(len(chunk["video"]) for chunk in chunks)]).tolist()
        rows = torch.cat([chunk["rows"] + start for chunk, start in zip(chunks, before, strict=False)])
        video_ids = torch.cat([chunk["video"] for chunk in chunks])

        def embed(chunk: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            ids, frames = (tensor.to(self.accelerator.device, non_blocking=True) for tensor in chunk)
            embedded: tuple[Tensor, Tensor] = model(ids, frames)
            return embedded

        def loss(texts: Tensor, videos: Tensor) -> Tensor:
            return share * self._loss_of(texts, videos, rows, video_ids)

        pieces = [(some, chunk["frames"]) for some, chunk in zip(parts, chunks, strict=True)]
        if len(pieces) == 1:
            value = loss(*embed(pieces[0]))
            self._checked(value.item(), rate)
            value.backward()
            return value.item()
        seeds = np.random.SeedSequence([self._step_seed(), number]).generate_state(len(pieces) + 1).tolist()
        return self._checked(cached_gradient(pieces, embed, loss, seeds=seeds), rate)

    def _step_seed(self) -> int:
        """Return a seed that differs for every step and process."""
        process = int(self.accelerator.process_index)
        step = self.recipe.seed * self.schedule.total_steps + self.state.step
        return (step * int(self.accelerator.num_processes) + process) % SEED_LIMIT

    def _loss(self, batch: Batch) -> Tensor:
        device = self.accelerator.device
        ids = self.model.tokenize(batch["captions"]).to(device)
        texts, videos = self.wrapped(ids, batch["frames"].to(device, non_blocking=True))
        return self._loss_of(texts, videos, batch["rows"], batch["video"])

    def _loss_of(self, texts: Tensor, videos: Tensor, rows: Tensor, video_ids: Tensor) -> Tensor:
        """Return the loss of a batch, of which this process embedded its part."""
        rows, video_ids = rows.to(texts.device), video_ids.to(texts.device)
        if self.ranks.size > 1:
            before = self.ranks.rank * len(video_ids)  # every process has the same number of videos
            rows = gather_rows(rows + before)
            texts, videos, video_ids = gather_rows(texts), gather_rows(videos), gather_rows(video_ids)

        def loss(texts: Tensor, videos: Tensor) -> Tensor:
            return self.criterion(self.model.logits(texts, videos), rows, video_ids)

        return matryoshka_loss(loss, texts, videos, dimensions=self.recipe.matryoshka)

    def _steps(self, epoch: int, *, start: int) -> Iterator[Iterator[list[Batch]]]:
        """Yield the batches of each step of an epoch, each in chunks, from step `start` on.

        A step takes all of its batches before the next one begins.
        """
        chunks = self._batches(epoch, start=start * self.recipe.accumulate)
        loaded = iter(chunks)
        for _ in range(start, self.schedule.steps_per_epoch):
            yield (list(islice(loaded, chunks.batches.chunks)) for _ in range(self.recipe.accumulate))

    def _batches(self, epoch: int, *, start: int) -> FrameLoader:
        size, seed = self.recipe.captions_per_video, self.recipe.seed
        groups = caption_groups(self.train, size=size, seed=seed, epoch=epoch)
        alike = self.recipe.hard_negatives + 1
        order = None
        if alike > 1:
            videos = [self.train.targets[rows[0]] for rows in groups]
            captions = captions_by_video(self.train)
            order = grouped_order(
                videos,
                self._neighbours(),
                size=alike,
                batch_size=self.batch_size,
                key=[seed, epoch],
                captions=captions,
            )
        batches = EpochSampler(
            len(groups),
            batch_size=self.batch_size,
            seed=seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            start_batch=start,
            chunk_size=self.chunk_size,
            order=order,
        )
        pairs = PairDataset(self.train, self.store, groups, views=self.views, epoch=epoch)
        return FrameLoader(pairs, batches=batches, workers=self.recipe.workers)

    def _neighbours(self) -> Neighbours:
        """Return the videos whose captions are most alike, the same in every process."""
        if self.neighbours is None:
            embedded = embed_texts(self._untuned(), self.train.captions, progress=self.show, ranks=self.ranks)
            self.neighbours = nearest_videos(self.train, embedded, ranks=self.ranks)
        return self.neighbours

    def _end_epoch(self, epoch: int) -> None:
        """Validate if the schedule says so, and keep the weights if they are the best so far.

        With a moving average, these are the averaged weights.
        """
        with nullcontext() if self.average is None else self.average.applied():
            record = self._validated(epoch)
        self.on_epoch(record)

    def _validated(self, epoch: int) -> EpochRecord:
        """Return the record of an epoch, after its validation if there is one."""
        record: EpochRecord = {"epoch": epoch + 1, "loss": self.state.loss_sum / self.schedule.steps_per_epoch}
        self.state.loss_sum = 0.0
        is_due = self.schedule.is_validated(epoch)
        if is_due and self.validation is not None:
            record["validation"], scores = self._validate(self.model, self.validation)
            self.state.scores.append(scores)
            self.accelerator.log({"validation/t2v_r1": record["validation"]["t2v"]["r1"]}, step=self.state.step)
        self.state.history.append(record)
        best = self.state.best_epoch
        if is_due and (best is None or is_better(record, self.state.history[best - 1])):
            self.state.best_epoch = epoch + 1
            self.best = {name: p.detach().clone() for name, p in self.trained.items()}
        return record

    def _validate(self, model: TextVideoModel, split: Split) -> tuple[MetricsDict, list[float]]:
        """Return the metrics on the validation split and the scores of its videos, the same in every process."""
        embedded = embed_split(
            model,
            split,
            self.store,
            batch_size=self.batch_size if self.recipe.chunk_size is None else self.chunk_size,
            on_bad_video=self.recipe.on_bad_video,
            ranks=self.ranks,
        )
        metrics = embedded.metrics()
        scores = video_scores(metrics, embedded.split.targets).tolist()
        # Those of the first process, so that all select the same epoch, even if their machines round differently.
        return self.ranks.gather((metrics.to_dict(), scores))[0]

    def _untuned(self) -> TextVideoModel:
        """Return zero-shot CLIP with the same backbone."""
        model = self.model
        return create(
            "zero-shot",
            model.backbone,
            dtype=model.clip.dtype,
            device=model.device,
            compile=model.compiled,
            num_frames=model.num_frames,
        ).eval()

    def _report(self, epoch: int, loss: float, seconds: float, steps: int) -> None:
        speed = steps * self.batch_size * self.recipe.accumulate / max(seconds, 1e-9)
        note = f"epoch {epoch + 1}/{self.schedule.epochs}, loss {loss:.3f}, {speed:.0f} videos/s"
        self.show("training", self.state.step, self.schedule.total_steps, note)

    def _stop_at_rate(self, what: str, rate: float) -> NoReturn:
        advice = f"The learning rate was {rate:.2g}. Train again with a lower --learning-rate and another --out"
        self._stop_at(what, advice, error=DivergenceError)

    def _stop_at(self, what: str, advice: str, *, error: type[TrainingError], alone: bool = False) -> NoReturn:
        """Save the best epoch so far, if any, and raise the error that ends the training.

        Args:
            error: the class of the error.
            alone: whether other processes may go on. Then they cannot take part in saving.
        """
        kept = "no weights yet"
        if self.state.best_epoch is not None and not (alone and self.ranks.size > 1):
            is_untuned = self._finish().selection == UNTUNED
            kept = "the untuned model" if is_untuned else f"the weights of epoch {self.state.best_epoch}"
        holds = f"; {self.out} holds {kept}" if self.keep else ""
        raise error(f"{what} at step {self.state.step + 1} of {self.schedule.total_steps}{holds}", advice)

    def _finish(self) -> TrainingResult:
        """Load the selected weights, or take the untuned model, and write the run."""
        for name, tensor in self.best.items():
            self.trained[name].data.copy_(tensor)
        for parameter in self.trained.values():
            parameter.requires_grad_()  # a run saves the frozen ones, too
        recompute_layers(self.model, False)
        result = result_of(self.state, with_validation=self.validation is not None, if_worse=self.recipe.if_worse)
        tuned = self.model
        if result.selection == UNTUNED:
            self.model = self._untuned()
        self.model.eval()
        self.model.card = card_of(
            result, tuned, self.recipe, data=self.data, train=self.train, validation=self.validation
        )
        if self.keep and self.accelerator.is_main_process:
            self.model.save_pretrained(self.out)
        self.accelerator.wait_for_everyone()
        return result

    def _identity(self) -> dict[str, object]:
        """Return the values that must be unchanged when a training resumes."""
        return identity_of(self.model, self.recipe, data=self.data) | {
            "training pairs": len(self.train),
            "content": [split.fingerprint for split in (self.train, self.validation) if split],
            "epochs": self.recipe.epochs,
        }

    def _save(self) -> None:
        if not (self.keep and self.accelerator.is_main_process):
            return
        started = time.monotonic()
        save_checkpoint(
            self.out / TRAINING / CHECKPOINT,
            trained=self.trained,
            average={} if self.average is None else self.average.tensors(),
            best=self.best,
            optimizer=self.optimizer,
            state=self.state,
            identity=self._identity(),
        )
        self.saved_at = time.monotonic()
        self.saving_seconds = self.saved_at - started

    def _load(self, path: Path) -> None:
        self.state, average, best = load_checkpoint(
            path, trained=self.trained, optimizer=self.optimizer, identity=self._identity()
        )
        if self.average is not None:
            self.average.load(average, steps=self.state.step)
        self.best = {name: tensor.to(self.accelerator.device) for name, tensor in best.items()}


def _views_of(store: FrameSource, recipe: Recipe) -> RandomViews | None:
    if not recipe.augmentation:
        return None
    if not isinstance(store, FrameStore):
        raise UsageError(f"store is {type(store).__name__}; random views need a FrameStore")
    return RandomViews(store, recipe.augmentation, recipe.seed)
