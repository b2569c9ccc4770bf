"""The jobs of an experiment: search one learning rate, or train and rank one run.

Each job runs in its own process and writes its result file atomically.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vop.datasets.frames import FrameStore
from vop.datasets.types import Dataset, Split
from vop.errors import DivergenceError, MemoryRanOutError, VopError
from vop.evaluation.embedding import embed_split
from vop.evaluation.job import report_facts, report_from_embeddings
from vop.experiments.plan import Arm, Plan
from vop.experiments.results import EpochRecord, KindResult, RankedReport, RunRecord, SearchRecord
from vop.experiments.source import changed_modules, code_of
from vop.experiments.tune import OnEpoch, part_of, score_of, search_rate
from vop.models.model import TextVideoModel
from vop.models.pretrained import create
from vop.models.run_folder import CONFIG, TRAINING, WEIGHTS
from vop.training import checkpoint
from vop.training.checkpoint import CHECKPOINT
from vop.training.job import readable_splits, train
from vop.training.trainer import Trainer
from vop.utils.device import default_device, machine_name, resolve_precision
from vop.utils.files import atomic_write, read_file
from vop.utils.fitting import is_out_of_memory
from vop.utils.parsing import parse_json
from vop.utils.progress import Progress
from vop.utils.threads import use_threads
from vop.version import VERSION

RESULT = "result.json"
MAX_RESULT_BYTES = 2**30  # limit for a result file: ranks, and the first video of each text
EMBED_BATCH = 32  # videos per forward pass of the ranking
# Benchmark metrics in addition to retrieval metrics: (similarity, split) -> {"extras": …, "kinds": …}.
MEASURES = dict.fromkeys(("emoji-motion", "emoji-motion-2"), "vop.benchmarks.order:measure")


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of one process: search the learning rate of `arm` or, with a `rate`, train and rank.

    Attributes:
        out: the experiment's folder.
        seed: the seed of the training.
        side_by_side: the number of jobs that share the cores.
        gpu: the GPU to use, as in CUDA_VISIBLE_DEVICES; None for any.
        data: the fingerprint of each split's readable part.
        code: hashes of the method's and the head's code at the start of the experiment; see `vop.experiments.source`.
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
        """The folder of the run."""
        return self.out / "runs" / f"{self.arm.key}-{self.rate:.3g}-seed{self.seed}"

    def result(self) -> RunRecord | SearchRecord | None:
        """Return the result of an earlier process, or None."""
        return self.existing_result() if self.result_path.exists() else None

    def existing_result(self) -> RunRecord | SearchRecord:
        """Read the result file.

        Raises:
            VopError: it is damaged.
        """
        try:
            values = parse_json(read_file(self.result_path, at_most=MAX_RESULT_BYTES))
            return SearchRecord.from_dict(values) if self.is_search else RunRecord.from_dict(values)
        except (ValueError, VopError) as error:
            raise VopError(f"{self.result_path}: damaged ({error}); repeat it with --rerun {self.arm.method}") from None


def run_job(job: Job, progress: Progress) -> RunRecord | SearchRecord:
    """Run the job unless its result exists."""
    done = job.result()
    if done is not None:
        return done
    if job.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    use_threads(processes=job.side_by_side)
    _check_code(job)
    with _own_advice():
        found = _search(job, progress) if job.is_search else _train_and_rank(job, progress)
    found = found.model_copy(update={"data": job.data, "machine": machine_name(), "vop_version": VERSION})
    with atomic_write(job.result_path) as path:
        path.write_text(json.dumps(found.to_dict()), encoding="utf-8")
    return found


@contextmanager
def _own_advice() -> Iterator[None]:
    """Give errors that end a job the advice that helps in an experiment, whose options are not those of a training."""
    try:
        yield
    except DivergenceError as error:
        advice = "Give lower --learning-rates, or a lower --rate-range, and another --out"
        raise VopError(f"{error.what}. {advice}") from None
    except (MemoryRanOutError, RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryRanOutError) or is_out_of_memory(error)):
            raise
        what = error.what if isinstance(error, MemoryRanOutError) else f"memory ran out ({error or 'MemoryError'})"
        raise VopError(
            f"{what}. Run the same command with --recompute layers or fewer --jobs, which change no result. Or choose "
            "another --out, and --chunk-size, a smaller --batch-size, fewer --num-frames, --precision bf16, or a "
            "backbone with fewer tokens per frame"
        ) from None


def _check_code(job: Job) -> None:
    """Raise a VopError if the code of a method changed during the experiment."""
    changed = changed_modules(job.code, code_of(job.arm.method, job.arm.head))
    if changed:
        raise VopError(
            f"{', '.join(changed)} changed after the experiment began; run it again with --rerun {job.arm.method}"
        )


def _search(job: Job, progress: Progress) -> SearchRecord:
    plan, arm, search = job.plan, job.arm, job.plan.search
    assert search is not None, "the plan has a learning rate"
    model = _model(job)
    store = FrameStore(model.num_frames, model.resizing, cache=job.cache, aspect=job.plan.recipe.aspect)
    splits, validation, _ = readable_splits(job.dataset, plan.recipe, store, progress)
    part = part_of(splits, search, plan.recipe)
    tried = 0

    def evaluate(rate: float, on_epoch: OnEpoch) -> float:
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
    return SearchRecord(learning_rate=rate, trials=trials)


def _train_and_rank(job: Job, progress: Progress) -> RunRecord:
    _reset_peak()
    model, history = _trained(job, progress)
    split = job.dataset.split(job.plan.split)
    store = FrameStore(model.num_frames, model.resizing, cache=job.cache, aspect=job.plan.recipe.aspect)
    embedded = embed_split(
        model, split, store, batch_size=EMBED_BATCH, on_bad_video=job.plan.recipe.on_bad_video, progress=progress
    )
    report = report_from_embeddings(embedded, listed=split, rescore=False, facts=report_facts(model, job.dataset))
    similarity = embedded.similarity()
    weights = job.folder / WEIGHTS
    record = RunRecord(
        seed=job.seed,
        learning_rate=job.rate if history else None,
        run=str(job.folder.relative_to(job.out)),
        epoch=report.epoch,
        selection=report.selection,
        minutes=model.card.get("minutes", 0.0),
        peak_memory_bytes=_peak_memory(),
        size_bytes=weights.stat().st_size if weights.exists() else 0,
        history=[EpochRecord.from_dict(epoch) for epoch in history],
        report=RankedReport.from_dict(report.to_dict()),
        first=_first_videos(similarity, report.metrics.t2v.ranks.tolist(), embedded.split.targets),
    )
    return record.model_copy(update=_measured(job, similarity, embedded.split))


def _trained(job: Job, progress: Progress) -> tuple[TextVideoModel, list[checkpoint.EpochRecord]]:
    """Train, and return the model with the selected weights and its history."""
    model = _model(job)
    if not model.trainable():
        return model.eval(), []
    plan, folder, rate = job.plan, job.folder, job.rate
    assert rate is not None, "a search trains no run"
    if (folder / CONFIG).exists() and not (folder / TRAINING / CHECKPOINT).exists():
        shutil.rmtree(folder)  # trained, but stopped before it was ranked: its history is lost
    trained = train(
        job.dataset,
        out=folder,
        method=job.arm.method,
        backbone=plan.backbone,
        head=job.arm.head,
        recipe=plan.recipe_of(rate=rate, seed=job.seed),
        cache=job.cache,
        resume=(folder / TRAINING / CHECKPOINT).exists(),
        progress=progress,
        settings=job.arm.settings,
        lock=False,  # the experiment has one, and a lost node may hold that of a run
    )
    return trained.model, trained.result.history


def _model(job: Job) -> TextVideoModel:
    device = default_device()
    dtype = resolve_precision(job.plan.recipe.precision, device)
    return create(job.arm.method, job.plan.backbone, head=job.arm.head, dtype=dtype, device=device, **job.arm.settings)


def _first_videos(similarity: Tensor, ranks: Sequence[int], targets: Sequence[int]) -> list[int]:
    """Return the first-ranked video of each text. In a tie a wrong video comes first, as in the ranks."""
    scores = similarity.clone()
    behind = [row for row, rank in enumerate(ranks) if rank > 1]
    scores[behind, [targets[row] for row in behind]] = -torch.inf
    first: list[int] = scores.argmax(dim=1).tolist()
    return first


def _measured(job: Job, similarity: Tensor, split: Split) -> dict[str, Any]:
    """Return `extras` and `kinds` if the benchmark has them."""
    name = job.plan.data.partition(":")[0]
    if name not in MEASURES:
        return {}
    module, _, function = MEASURES[name].partition(":")
    found = getattr(import_module(module), function)(similarity, split)
    kinds = {kind: KindResult.from_dict(values) for kind, values in found["kinds"].items()}
    return {"extras": found["extras"], "kinds": kinds}


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> int | None:
    """Return the peak memory in bytes: the GPU's if there is one, else this process's. None if it is unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on other systems
