"""`vop demo`: render the built-in benchmark, tune, evaluate, index the gallery, and search it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vop.benchmarks import emoji_motion
from vop.benchmarks.artwork import CREDIT
from vop.datasets.types import Split
from vop.errors import UsageError
from vop.evaluation.figures import Clip, SheetRow, contact_sheet
from vop.evaluation.job import evaluate
from vop.evaluation.report import EvaluationReport
from vop.models.pretrained import load
from vop.search.library import Library
from vop.training.job import train
from vop.training.recipe import TUNED, Recipe
from vop.utils.device import resolve_precision
from vop.utils.progress import Progress, silent, stage

METHOD = "vop-f+p"
FRAMES = 6
# The learning rate of docs/results.md.
RECIPE = Recipe(epochs=8, learning_rate=3e-2, validation=0.1, if_worse=TUNED, workers=0)
SENTENCES, TOP = 5, 3


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
        answers: the best videos for each sentence.
    """

    run: Path
    sheet: Path
    library: Path
    reports: tuple[EvaluationReport, EvaluationReport]
    answers: dict[str, list[Answer]]


def run_demo(out: Path, *, plan: emoji_motion.Plan = emoji_motion.DEMO, progress: Progress = silent) -> DemoResult:
    """Run the demo and write its files to `out`: `data/`, `cache/`, `run/`, `library/`, `contact_sheet.png`.

    Reuses the videos and the cache of an earlier demo.
    """
    _remove_earlier(out)
    dataset = emoji_motion.dataset(out / "data", plan=plan, progress=stage(progress, "rendering videos"))
    cache, run = out / "cache", out / "run"
    tuned = train(
        dataset,
        out=run,
        method=METHOD,
        backbone="mini",
        settings={"num_frames": FRAMES},
        recipe=RECIPE,
        cache=cache,
        progress=progress,
    ).model
    plain = load("mini", num_frames=FRAMES, dtype=resolve_precision("auto", tuned.device))
    before, after = (evaluate(model, dataset, cache=cache, bank_videos=0) for model in (plain, tuned))
    tuned.card["results"] = {**after.metrics.to_dict()}
    tuned.save_pretrained(run)
    split = dataset.split("test")
    library = Library.create(out / "library", model=str(run))
    library.index([video.path for video in split.videos], progress=progress)
    answers = _answers(library, split, _sentences(split, out / "data", plan))
    sheet = _draw(answers, out / "contact_sheet.png")
    return DemoResult(run, sheet, out / "library", (before, after), answers)


def _remove_earlier(out: Path) -> None:
    """Remove the run and the library of an earlier demo. Fail if another program made them."""
    for made in (out / "run", out / "library"):
        if made.exists() and not (out / "data" / emoji_motion.MARKER).exists():
            raise UsageError(f"{made} exists but was not made by a demo: choose another --out")
        shutil.rmtree(made, ignore_errors=True)


def _sentences(split: Split, root: Path, plan: emoji_motion.Plan) -> list[int]:
    """Return the first caption of each of the first kinds, so that easy captions are not hand-picked."""
    metadata = emoji_motion.load_metadata(root, plan=plan)
    first: dict[str, int] = {}
    for row, target in enumerate(split.targets):
        first.setdefault(metadata[split.videos[target].id].kind, row)
    return [first[kind] for kind in sorted(first)][:SENTENCES]


def _answers(library: Library, split: Split, rows: list[int]) -> dict[str, list[Answer]]:
    places = {video.path.resolve(): place for place, video in enumerate(split.videos)}
    found: dict[str, list[Answer]] = {}
    for row in rows:
        sentence = split.captions[row]
        found[sentence] = []
        for moment in library.search(sentence, k=TOP):
            place = places[Path(moment.path).resolve()]
            found[sentence].append(
                Answer(
                    path=split.videos[place].path,
                    caption=split.captions[split.captions_of[place][0]],
                    score=moment.score,
                    right=place == split.targets[row],
                )
            )
    return found


def _draw(answers: dict[str, list[Answer]], path: Path) -> Path:
    from vop.video.frames import read_frames

    rows = [
        SheetRow(
            sentence,
            [
                Clip(
                    frames=read_frames(answer.path, num_frames=5, size=96),
                    score=answer.score,
                    right=answer.right,
                    caption=answer.caption,
                )
                for answer in found
            ],
        )
        for sentence, found in answers.items()
    ]
    title = f"{METHOD} on mini: five sentences, their top {TOP}"
    return contact_sheet(rows, path, title=title, footer=CREDIT)
