"""`vop demo`: render the built-in benchmark, tune, evaluate, index the gallery, and search it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vop.benchmarks import rendering
from vop.benchmarks.artwork import CREDIT
from vop.benchmarks.emoji_motion_2 import benchmark
from vop.datasets.types import Split
from vop.errors import UsageError
from vop.evaluation.figures import Clip, SheetRow, contact_sheet
from vop.evaluation.job import evaluate
from vop.evaluation.report import EvaluationReport
from vop.models.model import TextVideoModel
from vop.models.pretrained import load
from vop.search.library import Library
from vop.training.job import train
from vop.training.recipe import TUNED, Recipe
from vop.utils.device import resolve_precision
from vop.utils.progress import Progress, silent, stage

METHOD, BACKBONE = "vop-f+p", "mini-2"
# Fewer frames and epochs than recipes/emoji-motion-2.yaml, for computers without bf16: on two cores with AVX2, training
# takes 75 s. With 6 frames and 8 epochs it takes 214 s, and R@1 is the same within its standard error of 4 points.
FRAMES = 4
RECIPE = Recipe(epochs=5, learning_rate=3e-2, validation=0.1, if_worse=TUNED, workers=0)
SENTENCES, TOP = 5, 3
SHOWN = 2  # clips of each model in a row of the sheet


@dataclass(frozen=True)
class Answer:
    """A video that was found for a sentence."""

    path: Path
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class DemoResult:
    """The files and results of the demo.

    Attributes:
        library: the gallery, indexed by the tuned model.
        reports: the evaluations of zero-shot CLIP and of the tuned method on the gallery.
        answers: the best videos for each sentence, found in the library.
        zero_shot_answers: the best videos for each sentence by the untuned model.
    """

    run: Path
    sheet: Path
    library: Path
    reports: tuple[EvaluationReport, EvaluationReport]
    answers: dict[str, list[Answer]]
    zero_shot_answers: dict[str, list[Answer]]


def run_demo(out: Path, *, plan: benchmark.Plan = benchmark.DEMO, progress: Progress = silent) -> DemoResult:
    """Run the demo and write its files to `out`: `data/`, `cache/`, `run/`, `library/`, `contact_sheet.png`.

    Reuses the videos and the cache of an earlier demo.
    """
    _remove_earlier(out)
    dataset = benchmark.dataset(out / "data", plan=plan, progress=stage(progress, "rendering videos"))
    cache, run = out / "cache", out / "run"
    tuned = train(
        dataset,
        out=run,
        method=METHOD,
        backbone=BACKBONE,
        settings={"num_frames": FRAMES},
        recipe=RECIPE,
        cache=cache,
        progress=progress,
    ).model
    plain = load(BACKBONE, num_frames=FRAMES, dtype=resolve_precision("auto", tuned.device))
    before, after = (evaluate(model, dataset, cache=cache, bank_videos=0) for model in (plain, tuned))
    tuned.card["results"] = {**after.metrics.to_dict()}
    tuned.save_pretrained(run)
    split = dataset.split("test")
    library = Library.create(out / "library", model=str(run))
    library.index([video.path for video in split.videos], progress=progress)
    rows = _evenly(len(split.captions), SENTENCES)
    answers, untuned = _found_by_library(library, split, rows), _found_by_model(plain, split, rows)
    sheet = _draw({"zero-shot": untuned, METHOD: answers}, out / "contact_sheet.png")
    return DemoResult(run, sheet, out / "library", (before, after), answers, untuned)


def _remove_earlier(out: Path) -> None:
    """Remove the run and the library of an earlier demo. Fail if another program made them."""
    for made in (out / "run", out / "library"):
        if made.exists() and not (out / "data" / rendering.MARKER).exists():
            raise UsageError(f"{made} exists but was not made by a demo: choose another --out")
        shutil.rmtree(made, ignore_errors=True)


def _evenly(total: int, count: int) -> list[int]:
    """Return `count` rows at equal distances, so that the sentences are not hand-picked."""
    return [row * total // count for row in range(count)]


def _found_by_library(library: Library, split: Split, rows: list[int]) -> dict[str, list[Answer]]:
    places = {video.path.resolve(): place for place, video in enumerate(split.videos)}
    found = {}
    for row in rows:
        moments = library.search(split.captions[row], k=TOP)
        ranked = [(places[Path(moment.path).resolve()], moment.score) for moment in moments]
        found[split.captions[row]] = _answers(split, row, ranked)
    return found


def _found_by_model(model: TextVideoModel, split: Split, rows: list[int]) -> dict[str, list[Answer]]:
    sentences = [split.captions[row] for row in rows]
    scores = model.encode_text(sentences) @ model.encode_video([video.path for video in split.videos]).T
    best = scores.topk(min(TOP, len(split.videos)))
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return {
        split.captions[row]: _answers(split, row, list(zip(*found, strict=True)))
        for row, found in zip(rows, ranked, strict=True)
    }


def _answers(split: Split, row: int, ranked: list[tuple[int, float]]) -> list[Answer]:
    """Describe the found videos, given by their places in the split with their scores."""
    return [
        Answer(
            path=split.videos[place].path,
            caption=split.captions[split.captions_of[place][0]],
            score=score,
            right=place == split.targets[row],
        )
        for place, score in ranked
    ]


def _draw(found: dict[str, dict[str, list[Answer]]], path: Path) -> Path:
    """Draw a row for each sentence, with the best videos of each model side by side."""
    from vop.video.frames import read_frames

    sentences = list(next(iter(found.values())))
    rows = [
        SheetRow(
            sentence,
            [
                Clip(
                    frames=read_frames(answer.path, num_frames=5, size=96),
                    score=answer.score,
                    right=answer.right,
                    caption=answer.caption,
                    place=place,
                    label=name,
                )
                for name, answers in found.items()
                for place, answer in enumerate(answers[sentence][:SHOWN], start=1)
            ],
        )
        for sentence in sentences
    ]
    names = " and ".join(found)
    title = f"{BACKBONE}: five sentences at equal distances in the test split, and the best {SHOWN} of {names}"
    return contact_sheet(rows, path, title=title, footer=CREDIT)
