"""What a study's processes do: search one learning rate, or train and rank one run. Results are files, whole or absent.

Everything that comes in and goes out travels between processes.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split
from vop.errors import VopError
from vop.evaluation.embedding import embed_split
from vop.evaluation.job import report_facts, report_from_embeddings
from vop.experiments.plan import Arm, Plan
from vop.experiments.search import part_of, score_of, search_rate
from vop.experiments.source import changed_modules, code_of
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import CONFIG, TRAINING, WEIGHTS
from vop.training.checkpoint import CHECKPOINT
from vop.training.job import readable_splits, train
from vop.training.trainer import Trainer
from vop.utils.device import default_device, machine_name, resolve_precision
from vop.utils.files import atomic_write, read_file
from vop.utils.parsing import parse_json
from vop.utils.progress import Progress
from vop.utils.threads import use_threads
from vop.version import VERSION

RESULT = "result.json"
MAX_RESULT_BYTES = 2**30  # ranks, and the first video of each text
EMBED_BATCH = 32  # videos per forward pass of the ranking
# More than retrieval metrics can say, where a benchmark is made for it: (similarity, split) -> {"extras": …, …}.
MEASURES = {"emoji-motion": "vop.benchmarks.order:measure"}


@dataclass(frozen=True)
class Job:
    """One process's work: the search for `arm`, or with a `rate` its training and ranking.

    Attributes:
        out: the study's folder.
        seed: of the training.
        side_by_side: jobs that share the cores.
        gpu: which of several it may use, as CUDA_VISIBLE_DEVICES names it; None for any.
        data: the fingerprint of each split's readable part, which its result was made from.
        code: of the method and the head when the study began; see `vop.experiments.source`.
    """

    plan: Plan
    arm: Arm
    dataset: Dataset
    out: Path
    cache: Path
    data: dict[str, str]
    code: dict[str, str]
    seed: int = 0
    rate: float | None = None
    side_by_side: int = 1
    gpu: str | None = None

    @property
    def is_search(self) -> bool:
        return self.rate is None

    @property
    def name(self) -> str:
        return f"{self.arm.key} rates" if self.is_search else f"{self.arm.key} seed {self.seed}"

    @property
    def result_path(self) -> Path:
        if self.is_search:
            return self.out / "search" / f"{self.arm.key}.json"
        return self.folder / RESULT

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.out / "runs" / f"{self.arm.key}-{self.rate:.3g}-seed{self.seed}"

    def result(self) -> dict | None:
        """What an earlier process has found; None if none has."""
        if not self.result_path.exists():
            return None
        try:
            found = parse_json(read_file(self.result_path, at_most=MAX_RESULT_BYTES))
            return {**found, "data": dict(found["data"])}
        except (ValueError, KeyError, TypeError) as error:
            raise VopError(
                f"{self.result_path}: damaged ({error!r}); do it again with --rerun {self.arm.method}"
            ) from None


def run_job(job: Job, progress: Progress) -> dict:
    """Does the work, if it is not done already, and gives its result."""
    found = job.result()
    if found is not None:
        return found
    if job.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    use_threads(processes=job.side_by_side)
    _check_code(job)
    found = _search(job, progress) if job.is_search else _train_and_rank(job, progress)
    found |= {"data": job.data, "machine": machine_name(), "vop_version": VERSION}
    with atomic_write(job.result_path) as path:
        path.write_text(json.dumps(found), encoding="utf-8")
    return found


def _check_code(job: Job) -> None:
    """A study takes hours, in which somebody may edit a method that waits for its turn."""
    changed = changed_modules(job.code, code_of(job.arm.method, job.arm.head))
    if changed:
        raise VopError(
            f"{', '.join(changed)} changed after the study began; run it again with --rerun {job.arm.method}"
        )


def _search(job: Job, progress: Progress) -> dict:
    """`{"learning_rate", "trials"}`."""
    plan, arm, search = job.plan, job.arm, job.plan.search
    model = _model(job)
    store = FrameStore(model.num_frames, model.image_size, cache=job.cache, aspect=job.plan.recipe.aspect)
    splits, validation, _ = readable_splits(job.dataset, plan.recipe, store, progress)
    part = part_of(splits, search, plan.recipe)
    tried = 0

    def evaluate(rate: float, on_epoch: Callable[[dict], None]) -> float:
        nonlocal tried
        tried += 1
        recipe = plan.recipe_of(rate=rate, seed=job.seed, epochs=search.epochs)
        torch.manual_seed(recipe.seed)

        def show(stage: str, done: int, total: int, note: str = "") -> None:
            progress(stage, done, total, f"trial {tried}, {note}")

        trainer = Trainer(
            _model(job), part, validation, recipe, job.out, store=store, progress=show, on_epoch=on_epoch, keep=False
        )
        return score_of(trainer.fit().history[-1]["validation"])

    journal = job.out / "search" / f"{arm.key}.log"
    journal.parent.mkdir(parents=True, exist_ok=True)
    rate, trials = search_rate(search, evaluate, journal, seed=job.seed)
    return {"learning_rate": rate, "trials": trials}


def _train_and_rank(job: Job, progress: Progress) -> dict:
    """Everything that tables and figures say about a run."""
    _reset_peak()
    model, history = _trained(job, progress)
    split = job.dataset.split(job.plan.split)
    store = FrameStore(model.num_frames, model.image_size, cache=job.cache, aspect=job.plan.recipe.aspect)
    embedded = embed_split(
        model, split, store, batch_size=EMBED_BATCH, on_bad_video=job.plan.recipe.on_bad_video, progress=progress
    )
    report = report_from_embeddings(embedded, listed=split, rescore=False, facts=report_facts(model, job.dataset))
    similarity = embedded.similarity()
    weights = job.folder / WEIGHTS
    return {
        "seed": job.seed,
        "learning_rate": job.rate if history else None,
        "run": str(job.folder.relative_to(job.out)),
        "epoch": report.epoch,
        "selection": report.selection,
        "minutes": model.card.get("minutes", 0.0),
        "peak_memory_bytes": _peak_memory(),
        "size_bytes": weights.stat().st_size if weights.exists() else 0,
        "history": history,
        "report": report.to_dict(),
        "first": _first_videos(similarity, report.metrics.t2v.ranks, embedded.split.targets),
        **_measured(job, similarity, embedded.split),
    }


def _trained(job: Job, progress: Progress) -> tuple[TextVideoModel, list[dict]]:
    """The model with the chosen weights, and its history."""
    model = _model(job)
    if not model.trainable():
        return model.eval(), []
    plan, folder = job.plan, job.folder
    if (folder / CONFIG).exists() and not (folder / TRAINING / CHECKPOINT).exists():
        shutil.rmtree(folder)  # trained, but stopped before it was ranked, and its history is gone
    trained = train(
        job.dataset,
        out=folder,
        method=job.arm.method,
        backbone=plan.backbone,
        head=job.arm.head,
        recipe=plan.recipe_of(rate=job.rate, seed=job.seed),
        cache=job.cache,
        resume=(folder / TRAINING / CHECKPOINT).exists(),
        progress=progress,
        settings=job.arm.settings,
    )
    return trained.model, trained.result.history


def _model(job: Job) -> TextVideoModel:
    device = default_device()
    dtype = resolve_precision(job.plan.recipe.precision, device)
    return create(job.arm.method, job.plan.backbone, head=job.arm.head, dtype=dtype, device=device, **job.arm.settings)


def _first_videos(similarity: Tensor, ranks: Sequence[int], targets: Sequence[int]) -> list[int]:
    """For each text the video that is ranked first; of those that tie, a wrong one, as in the ranks."""
    scores = similarity.clone()
    behind = [row for row, rank in enumerate(ranks) if rank > 1]
    scores[behind, [targets[row] for row in behind]] = -torch.inf
    return scores.argmax(dim=1).tolist()


def _measured(job: Job, similarity: Tensor, split: Split) -> dict:
    name = job.plan.data.partition(":")[0]
    if name not in MEASURES:
        return {}
    module, _, function = MEASURES[name].partition(":")
    return getattr(import_module(module), function)(similarity, split)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> int:
    """Bytes: of the GPU's memory where there is one, else of this process since it began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes elsewhere
