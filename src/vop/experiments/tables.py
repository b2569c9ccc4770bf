"""Contents of an experiment's tables, and the facts shown with them. `formats` and `report` render them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any, Generic, TypeVar

from vop.experiments.results import (
    ArmResult,
    ExperimentResults,
    Gallery,
    KindResult,
    Number,
    OrderVerdict,
    OverSeeds,
    SeedResult,
    Trial,
    UnreadableVideo,
)
from vop.utils.text import count
from vop.utils.text import signed as with_sign

HEADS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR", "mnr": "MnR"}
KINDS = {
    "t2v_r1": "t2v R@1 by kind of content (videos), mean over seeds",
    "order": "Order accuracy by kind of content (videos; chance 50), mean over seeds",
}
_MARKS = {"holds": "✓", "within the spread": "≈", "does not hold": "✗"}

Row = TypeVar("Row")
Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text, which may be empty.
        value: the sort key in its column. The text by default.
        spread: the standard deviation behind the text.
        notes: small lines below the text, on pages only.
        best: whether its value is the best of its column.
    """

    text: str = ""
    value: float | None = None
    spread: float | None = None
    notes: tuple[str, ...] = ()
    best: bool = False

    @property
    def whole(self) -> str:
        """The text with the spread."""
        return self.text if self.spread is None else f"{self.text} ± {self.spread:,.1f}"


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column.

    Attributes:
        head: its heading.
        cell: makes a row's cell.
        best: the function that selects the best value: `max`, `min` or None.
        rank: priority where space is short: 0, then 1. Columns with 2 appear on pages only.
    """

    head: str
    cell: Callable[[Row], Cell]
    best: Best | None = None
    rank: int = 2


@dataclass(frozen=True)
class FilledColumn:
    """A column with its cells, row by row."""

    head: str
    rank: int
    cells: Sequence[Cell]

    @property
    def is_number(self) -> bool:
        return any(cell.value is not None for cell in self.cells)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """The contents of a table, for every renderer."""

    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]

    def filled(self) -> list[FilledColumn]:
        """Return the columns with their cells, the best of which are marked. Empty columns are left out."""
        columns = [
            FilledColumn(column.head, column.rank, _marked([column.cell(row) for row in self.rows], column.best))
            for column in self.columns
        ]
        return [column for column in columns if any(cell.text for cell in column.cells)]


def _marked(cells: list[Cell], best: Best | None) -> list[Cell]:
    """Mark the best cells: all that show the best number."""
    values = [round(cell.value, 1) for cell in cells if cell.value is not None]
    if best is None or len(set(values)) < 2:  # if all are equal, none is the best
        return cells
    top = best(values)
    return [replace(cell, best=cell.value is not None and round(cell.value, 1) == top) for cell in cells]


def formatted(value: Number | None, form: str) -> Cell:
    return Cell() if value is None else Cell(form.format(value), value)


def main_table(results: ExperimentResults) -> Table[ArmResult]:
    """Return the main table, with a row for each arm: metrics, gain, trained parameters and costs."""
    extras = dict.fromkeys(name for arm in results.arms for name in arm.mean.extras)
    with_head = len(results.heads) > 1
    columns = [
        Column("arm", lambda arm: _arm(arm, with_head=with_head), rank=0),
        *_direction("t2v", ranks={"r1": 0, "r5": 1, "r10": 1, "mnr": 1}),
        Column(f"gain over {results.baseline}", lambda arm: _gain(results, arm), rank=0),
        Column("95 % interval", _gain_interval),
        Column("p", lambda arm: formatted(arm.gain.p if arm.gain else None, "{:.4f}"), rank=0),
        Column("paper t2v R@1", lambda arm: formatted(_paper(arm, "t2v", "r1"), "{:.1f}")),
        Column("ours - paper", _beside_paper),
        *_direction("v2t", ranks={"r1": 0}),
        Column("R-sum", _r_sum, max),
        *(Column(name, _extra(name), max, rank=1) for name in extras),
        Column("learning rate", lambda arm: formatted(arm.learning_rate, "{:.2g}"), rank=1),
        Column("parameters", lambda arm: _parameters(arm.parameters.true_count, arm.parameters.true_percent), rank=1),
        Column("paper's count", lambda arm: _parameters(arm.parameters.paper_count, arm.parameters.paper_percent)),
        Column("minutes", _minutes, rank=1),
        Column("memory", lambda arm: _size(arm.mean.peak_memory_bytes), rank=1),
        Column("disk", lambda arm: _size(arm.mean.size_bytes), rank=1),
    ]
    return Table(results.heading, columns, results.arms)


def _arm(arm: ArmResult, *, with_head: bool) -> Cell:
    notes = [arm.method] if arm.method != arm.name else []
    notes += [f"head {arm.head}"] if with_head and arm.head else []
    return Cell(arm.name, notes=tuple(notes))


def _direction(way: str, *, ranks: Mapping[str, int]) -> list[Column[ArmResult]]:
    return [
        Column(f"{way} {head}", _metric(way, key), min if key in ("mdr", "mnr") else max, ranks.get(key, 2))
        for key, head in HEADS.items()
    ]


def _metric(way: str, key: str) -> Callable[[ArmResult], Cell]:
    """Return the function for a mean's cell, whose notes have its interval and the paper's number."""

    def cell(arm: ArmResult) -> Cell:
        value, paper = arm.mean.direction(way).value(key), _paper(arm, way, key)
        spread = arm.spread.direction(way).value(key) if arm.spread else None
        notes = []
        if arm.interval and (interval := arm.interval.of(way, key)):
            notes.append(f"{100 * arm.interval.level:g} %: {number(interval[0])}–{number(interval[1])}")
        if paper is not None:
            notes.append(f"paper {number(paper)}, {signed(value - paper)}")
        return Cell(number(value), value, spread, tuple(notes))

    return cell


def _r_sum(arm: ArmResult) -> Cell:
    spread = stdev(run.r_sum for run in arm.runs) if len(arm.runs) > 1 else None
    return Cell(number(arm.mean.r_sum), arm.mean.r_sum, spread)


def _extra(name: str) -> Callable[[ArmResult], Cell]:
    def cell(arm: ArmResult) -> Cell:
        return _over_seeds(arm, lambda over: over.extras.get(name))

    return cell


def _minutes(arm: ArmResult) -> Cell:
    return _over_seeds(arm, lambda over: over.minutes)


def _over_seeds(arm: ArmResult, read: Callable[[OverSeeds], Number | None]) -> Cell:
    value = read(arm.mean)
    return Cell(number(value), value, read(arm.spread) if arm.spread else None)


def _gain(results: ExperimentResults, arm: ArmResult) -> Cell:
    value = None if arm.name == results.baseline else results.gain(arm)
    return Cell(signed(value), value)


def _gain_interval(arm: ArmResult) -> Cell:
    if arm.gain is None:
        return Cell()
    low, high = arm.gain.interval
    return Cell(f"{signed(low)} to {signed(high)}", low)


def _paper(arm: ArmResult, way: str, key: str) -> Number | None:
    return arm.paper.value(way, key) if arm.paper else None


def _beside_paper(arm: ArmResult) -> Cell:
    paper = _paper(arm, "t2v", "r1")
    value = None if paper is None else arm.mean_r1() - paper
    return Cell(signed(value), value)


def _parameters(count: int, percent: Number) -> Cell:
    return Cell(f"{count:,}", count, notes=(f"{percent:.3f} %",))


def _size(value: Number | None) -> Cell:
    return Cell(size(value), value)


def kind_tables(results: ExperimentResults) -> list[Table[ArmResult]]:
    """Return the tables by kind of content, if the benchmark has kinds."""
    arms = [arm for arm in results.arms if arm.kinds]
    kinds = arms[0].kinds if arms else {}
    return [
        Table(
            title,
            [
                Column("arm", _name),
                *(Column(f"{kind} ({facts.videos:g})", _of_kind(kind, key), max) for kind, facts in kinds.items()),
            ],
            arms,
        )
        for key, title in KINDS.items()
        if any(facts.value(key) is not None for facts in kinds.values())
    ]


def _name(arm: ArmResult) -> Cell:
    return Cell(arm.name)


def _of_kind(kind: str, key: str) -> Callable[[ArmResult], Cell]:
    def cell(arm: ArmResult) -> Cell:
        found: KindResult | None = arm.kinds.get(kind)
        return formatted(found.value(key) if found else None, "{:.1f}")

    return cell


def order_table(results: ExperimentResults) -> Table[OrderVerdict]:
    """Return the table of the paper's rankings of two methods, and whether they hold here."""
    columns: list[Column[OrderVerdict]] = [
        Column("ranking", lambda pair: Cell(f"{pair.lower} < {pair.higher}")),
        Column("paper's difference", lambda pair: Cell(signed(pair.paper), pair.paper)),
        Column("our difference", lambda pair: Cell(signed(pair.ours), pair.ours, pair.spread)),
        Column("verdict", lambda pair: Cell(f"{_MARKS.get(pair.verdict, '')} {pair.verdict}".strip())),
    ]
    title = "The paper's rankings by t2v R@1 (its differences: over five benchmarks, for zero-shot on MSR-VTT-9k only)"
    return Table(title, columns, results.order)


def trial_table(results: ExperimentResults) -> Table[ArmResult]:
    """Return the table of all trials."""
    columns: list[Column[ArmResult]] = [
        Column("arm", _name),
        Column("rate: mean of R@1, R@5 and R@10 in both directions on validation videos", _trials),
        Column("minutes", lambda arm: _sum(trial.minutes for trial in arm.trials)),
    ]
    return Table("Learning rates that were tried", columns, [arm for arm in results.arms if arm.trials])


def _trials(arm: ArmResult) -> Cell:
    return Cell(", ".join(map(_trial, sorted(arm.trials, key=_rate))))


def _rate(trial: Trial) -> Number:
    return trial.learning_rate


def _trial(trial: Trial) -> str:
    score = "" if trial.score is None else f": {trial.score:.1f}"
    return f"{trial.learning_rate:.2g}{score}" + ("" if trial.state == "complete" else f" ({trial.state})")


def _sum(minutes: Iterable[Number | None]) -> Cell:
    known = [value for value in minutes if value is not None]
    return formatted(sum(known), "{:,.1f}") if known else Cell()


def settings_table(results: ExperimentResults) -> Table[ArmResult]:
    """Return the table of each arm's settings besides the recipe."""
    return Table(
        "Recipe and settings",
        [Column("arm", _name), Column("settings", lambda arm: Cell(listed(arm.settings)))],
        results.arms,
    )


def training_table(results: ExperimentResults) -> Table[tuple[ArmResult, SeedResult]]:
    """Return the table of all trainings. It names the machines only if there are several."""
    several = len(results.machines) > 1
    columns: list[Column[tuple[ArmResult, SeedResult]]] = [
        Column("arm", lambda pair: Cell(pair[0].name)),
        Column("seed", lambda pair: formatted(pair[1].seed, "{}")),
        Column("epoch", lambda pair: formatted(pair[1].epoch, "{}")),
        Column("weights", lambda pair: Cell(pair[1].selection or "")),
        Column("t2v R@1", lambda pair: formatted(pair[1].t2v.r1, "{:.1f}")),
        Column("v2t R@1", lambda pair: formatted(pair[1].v2t.r1, "{:.1f}")),
        Column("minutes", lambda pair: formatted(pair[1].minutes, "{:.1f}")),
        Column("machine", lambda pair: Cell((pair[1].machine or "") if several else "")),
        Column("folder", lambda pair: Cell(pair[1].run or "")),
    ]
    return Table("Trainings", columns, [(arm, run) for arm in results.arms for run in arm.runs])


def video_tables(results: ExperimentResults) -> list[Table[UnreadableVideo]]:
    """Return the tables of the videos that could not be read."""
    columns: list[Column[UnreadableVideo]] = [
        Column("id", lambda video: Cell(video.id)),
        Column("path", lambda video: Cell(video.path)),
        Column("reason", lambda video: Cell(video.reason)),
    ]
    lists = {
        "Skipped videos": results.gallery.skipped,
        "Videos left out of the training": results.left_out_of_training,
    }
    return [Table(f"{title} ({len(videos):,})", columns, videos) for title, videos in lists.items() if videos]


def protocol(results: ExperimentResults) -> dict[str, str]:
    """Return the protocol of training and evaluation, which is shown with every table."""
    recipe, seeds = results.recipe, results.seeds
    return {
        "data": f"{results.data}, split {results.split}",
        "backbone": results.backbone,
        "head": ", ".join(results.heads),
        "ranked": _gallery(results.gallery),
        "weights": _weights(results),
        "training": f"{count('epoch', recipe['epochs'])}, batch {recipe['batch_size']}, "
        f"{count('frame', recipe['num_frames'])}, {recipe['precision']}",
        "seeds": ", ".join(map(str, seeds)) + (": mean ± standard deviation" if len(seeds) > 1 else ""),
        "learning rates": rate_choice(results),
    }


def origin(results: ExperimentResults) -> dict[str, str]:
    """Return where the numbers come from, except for the command."""
    written = results.written.replace("T", " ")
    return {
        "machine": "; ".join(results.machines),
        "time": f"{number(results.minutes)} minutes of training in all; written {written}",
        "version": f"vop {', '.join(results.vop_versions)}",
    }


def remarks(results: ExperimentResults) -> list[str]:
    """Return remarks for the reader, and failures."""
    lines = list(results.notes)
    for videos, where in (
        (results.gallery.skipped, "missing from the gallery, with their captions"),
        (results.left_out_of_training, "left out of the training"),
    ):
        if videos:
            lines.append(f"{count('video', len(videos))} could not be read: {where}")
    return lines + [f"failed: {line}" for line in results.failures]


def _gallery(gallery: Gallery) -> str:
    videos, listed_videos = gallery.videos, gallery.listed_videos
    aside = f" ({listed_videos:,} listed)" if listed_videos != videos else ""
    return f"{count('text', gallery.texts)}, gallery of {count('video', videos)}{aside}; ties: {gallery.tie_rule}"


def _weights(results: ExperimentResults) -> str:
    """Return how the evaluated weights were selected, and the epochs that they come from."""
    every_run = [run for arm in results.arms for run in arm.runs]
    trained = [run for run in every_run if run.epoch is not None]
    choices = ", ".join(dict.fromkeys(run.selection for run in trained or every_run if run.selection))
    epochs = sorted({run.epoch for run in trained if run.epoch is not None})
    if not epochs:
        return choices
    return f"{choices}, epoch {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "")


def rate_choice(results: ExperimentResults) -> str:
    """Return how the learning rates were chosen."""
    search, rate = results.search, results.learning_rate
    if not search:
        return "" if rate is None else f"{rate:g} for all arms, given"
    tried = f"{len(search.rates)} given rates" if search.rates else f"{search.low:g} to {search.high:g}"
    return (
        f"searched on validation videos, {tried}; trials: {len(search.rates) or search.trials}, "
        f"epochs per trial: {search.epochs}, steps per trial: at most {search.steps:,}"
    )


def listed(settings: Mapping[str, Any]) -> str:
    """Format settings in one line."""
    return ", ".join(f"{name}: {value}" for name, value in settings.items())


def number(value: Number | None) -> str:
    """Format a number with one decimal place."""
    return "" if value is None else f"{value:,.1f}"


def signed(points: Number | None) -> str:
    """Format points with a sign and one decimal place; None as an empty text."""
    return "" if points is None else with_sign(points)


def size(count: Number | None) -> str:
    """Format a number of bytes."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
