"""Figures of an experiment, drawn by Matplotlib: the paper's Figures 1 and 3 to 6, and curves of the trainings.

Their style is in `templates/figures.mplstyle`. pyplot is not used, because its state is global.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from importlib.resources import as_file, files
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from vop.errors import UsageError
from vop.experiments.labels import INK, QUIET, name_points, plain
from vop.experiments.results import (
    ABLATE,
    ABLATION_TITLES,
    COMPARE,
    ArmResult,
    ExperimentResults,
    SeedResult,
    Trial,
    file_stems,
)
from vop.utils.files import atomic_write

# Each figure's title in a report, and its caption.
TITLES = {
    "gains": "Gains over the baseline",
    "parameters": "Retrieval over trained parameters",
    "ablation": "Ablation",
    "curves": "Training",
    "rates": "Learning rates",
}
NOTES = {
    "gains": "Bars: mean over seeds, with the standard deviation.",
    "parameters": "Mean over seeds, with the standard deviation. All trained tensors are counted.",
    "ablation": "Mean over seeds, with the standard deviation; hollow diamonds: the paper's t2v results, if any.",
    "curves": "Thin lines: seeds; thick lines: their mean. A dot marks the evaluated epoch.",
    "rates": "Hollow: stopped early; cross: failed; ring: the learning rate of all seeds.",
}
LINE, PAPER = "#dfe2e6", "#ffffff"
# Colours of methods: warm for VoP, grey-blue for the others. They also differ in lightness.
COLOURS = {
    "zero-shot": INK,
    "full": "#17375e",
    "bias": "#7ba3c9",
    "proj": "#8b98a8",
    "partial": "#3f76a6",
    "adapter-attn": "#57697e",
    "adapter-ffn": "#9fb6c8",
    "lora": "#2f5f73",
    "vop": "#d99a0b",
    "vop-p": "#ea7a2f",
    "vop-c": "#c8402c",
    "vop-f": "#e27a9a",
    "vop-f+p": "#96203f",
    "vop-f+c": "#7a4a1f",
    "vop-f+p+bias": "#4f1020",
    "tempme": "#3d7a5a",
    "stop": "#6d8f2f",
    "discovla": "#2f8f7d",
    "dgl-linear": "#8d86c9",
    "dgl-transformer": "#5a4fa3",
}
# Colours for methods of other packages, and for further arms of a method.
_OTHERS = ("#4d8f8b", "#8a6fb0", "#7c9a3e", "#b0679a", "#5f7fd0", "#a08a4f", "#5c8a5c")
_MARKERS = "osD^v"
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_DIRECTIONS = {"t2v": ("text to video", COLOURS["vop-f+p"]), "v2t": ("video to text", COLOURS["partial"])}
_ERROR = {"ecolor": INK, "elinewidth": 1.0}
_PANELS = 4  # in a row
_PAPER: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK, "markersize": 5, "linestyle": "none"}

P = ParamSpec("P")
Curve = dict[int, float]  # by epoch
Drawings = dict[str, dict[str, Callable[[], Figure]]]  # by file stem and name; see `figures_of`


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a drawing function use the style of `figures.mplstyle`, and fix the layout of its figure.

    Each file that the figure is saved to would compute the layout again.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with as_file(files(__package__) / "templates" / "figures.mplstyle") as style, matplotlib.style.context(style):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return drawn


@dataclass(frozen=True)
class Look:
    """The look of an arm in all figures of an experiment."""

    colour: str
    marker: str
    dash: Any


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...


def looks(arms: Sequence[_Named]) -> dict[str, Look]:
    """Return a look for each arm's name: its method's colour, or another one if an earlier arm has it."""
    spare = cycle((colour, n) for n in range(len(_MARKERS)) for colour in _OTHERS)
    taken: set[str] = set()
    found = {}
    for arm in arms:
        colour, nth = COLOURS.get(arm.method, ""), 0
        if not colour or colour in taken:
            colour, nth = next(spare)
        taken.add(colour)
        found[arm.name] = Look(colour, _MARKERS[nth], _DASHES[nth % len(_DASHES)])
    return found


@dataclass(frozen=True)
class Mark:
    """A method in a figure: its trained parameters, its R@1 or gain, the spread over seeds, and how it is drawn."""

    name: str
    x: float
    y: float
    spread: float
    look: Look
    hollow: bool = False


@_styled
def gain_by_parameters(results: ExperimentResults) -> Figure:
    """Draw t2v R@1, or its gain over a baseline, against the share of trained parameters (Figure 1 of the paper).

    Raises:
        UsageError: no arm trains anything.
    """
    look = looks(results.arms)
    marks = [
        Mark(arm.name, arm.true_share, _height(results, arm), arm.spread_r1(), look[arm.name]) for arm in results.arms
    ]
    if not any(mark.x > 0 for mark in marks):
        raise UsageError(f"{results.data}: 0 arms with trained parameters: give at least one besides zero-shot")
    over = f"t2v R@1, points over {results.baseline}" if results.baseline_arm else "t2v R@1"
    return _over_parameters(
        results.heading,
        marks,
        x="trained parameters, in percent of the backbone's (log)",
        y=over,
        show=lambda share: f"{share:g} %",
    )


@_styled
def recall_by_parameters(title: str, marks: Sequence[Mark]) -> Figure:
    """Draw t2v R@1 against the number of trained parameters.

    Args:
        title: the benchmark and the backbone.
        marks: at least one with parameters.
    """
    return _over_parameters(title, marks, x="trained parameters (log)", y="t2v R@1", show=EngFormatter().format_eng)


def _over_parameters(title: str, marks: Sequence[Mark], *, x: str, y: str, show: Callable[[float], str]) -> Figure:
    """Draw a named point with an error bar for each mark with parameters, and a level for each without.

    Args:
        x, y: the names of the axes.
        show: formats a number of parameters.
    """
    figure, (axes,) = _new_figure(f"{title}: R@1 over trained parameters", height=5.2)
    points = [mark for mark in marks if mark.x > 0]
    for mark in points:
        style: dict[str, Any] = {"markerfacecolor": PAPER} if mark.hollow else {}
        style |= {"fmt": mark.look.marker, "color": mark.look.colour}
        axes.errorbar(mark.x, mark.y, mark.spread, markersize=7, elinewidth=1.2, **style)
    _log_axis(axes, [mark.x for mark in points], show=show)
    axes.margins(y=0.12)
    for mark in marks:
        if mark.x == 0:
            _level(axes, mark.y, mark.name)
    _name_axes(axes, x=x, y=y)
    name_points(axes, [(mark.x, mark.y, mark.name) for mark in points], spreads=[mark.spread for mark in points])
    return figure


def _height(results: ExperimentResults, arm: ArmResult) -> float:
    gain = results.gain(arm)
    return arm.mean_r1() if gain is None or results.baseline_arm is None else gain


@_styled
def gains_by_benchmark(several: Sequence[ExperimentResults]) -> Figure:
    """Draw gains in t2v R@1 over the baseline, a panel for each benchmark, with the paper's gains (Figure 3).

    Raises:
        UsageError: no comparison has a baseline.
    """
    several = [results for results in several if _has_gains(results)]
    if not several:
        raise UsageError("0 comparisons with a baseline: run one with a baseline, such as full")
    arms = {arm.name: arm for results in several for arm in results.arms}
    arms = {name: arm for name, arm in arms.items() if any(name != results.baseline for results in several)}
    height = 1.3 + 0.29 * len(arms)
    figure, panels = _new_figure("Gain over the baseline", height=height, columns=len(several), sharey=True)
    look = looks(list(arms.values()))
    for axes, results in zip(panels, several, strict=True):
        _gain_bars(axes, results, list(arms), look)
    panels[0].set_yticks(range(len(arms)), [plain(name) for name in arms])
    panels[0].set_ylim(len(arms) - 0.4, -0.6)  # the first on top
    named = {name: mark for axes in panels for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(list(named.values()), list(named), loc="outside lower right", ncols=len(named))
    return figure


def _has_gains(results: ExperimentResults) -> bool:
    """Return whether this is a comparison with a baseline. Figures of gains do not show the arms of ablations."""
    return results.kind == COMPARE and results.baseline_arm is not None


def _gain_bars(axes: Axes, results: ExperimentResults, names: Sequence[str], look: dict[str, Look]) -> None:
    own = {arm.name: arm for arm in results.arms if arm.name != results.baseline}
    placed = [(place, own[name]) for place, name in enumerate(names) if name in own]
    for place, arm in placed:
        ours = results.gain(arm)
        assert ours is not None, "there is a baseline"
        axes.barh(place, ours, 0.62, color=look[arm.name].colour, xerr=arm.spread_r1() or None, error_kw=_ERROR)
    for read, marker, label in (
        (results.paper_gain, "D", "the paper"),
        (results.paper_average, "o", "the paper, average over its five benchmarks"),
    ):
        points = [(value, place) for place, arm in placed if (value := read(arm)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, label=label, **_PAPER)
    axes.axvline(0, color=QUIET, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(plain(results.heading))
    _name_axes(axes, x=f"points of t2v R@1 over {results.baseline}")


@_styled
def training_curves(results: ExperimentResults) -> Figure:
    """Draw the loss, and R@1 on validation data, over epochs.

    Raises:
        UsageError: no arm has a history.
    """
    arms = [arm for arm in results.arms if any(run.history for run in arm.runs)]
    if not arms:
        raise UsageError(f"{results.data}: 0 arms with a training history: there are no curves")
    figure, (left, right) = _new_figure(f"{results.heading}: training", height=4.4, columns=2)
    look = looks(results.arms)
    for arm in arms:
        style = look[arm.name]
        _curves(left, [_losses(run) for run in arm.runs], arm.name, style)
        _curves(right, [_recalls(run) for run in arm.runs], arm.name, style)
        for run in arm.runs:
            if run.epoch in (curve := _recalls(run)):
                right.plot(run.epoch, curve[run.epoch], "o", color=style.colour, markersize=3.5)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_axes(left, x="epoch", y="training loss")
    _name_axes(right, x="epoch", y="t2v R@1 on validation data")
    _legend_outside(right, entries=len(arms))
    return figure


def _curves(axes: Axes, curves: Iterable[Curve], name: str, style: Look) -> None:
    """Draw a thin line for each seed, and their mean over the epochs that all seeds have."""
    curves = [curve for curve in curves if curve]
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=style.colour, linewidth=0.6, alpha=0.45)
    shared = [epoch for epoch in (curves[0] if curves else ()) if all(epoch in curve for curve in curves)]
    means = [sum(curve[epoch] for curve in curves) / len(curves) for epoch in shared]
    axes.plot(shared, means, color=style.colour, linestyle=style.dash, linewidth=1.8, label=plain(name))


def _losses(run: SeedResult) -> Curve:
    return {record.epoch: record.loss for record in run.history if record.loss is not None}


def _recalls(run: SeedResult) -> Curve:
    return {record.epoch: record.validation.t2v.r1 for record in run.history if record.validation is not None}


@_styled
def learning_rates(results: ExperimentResults) -> Figure:
    """Draw the score over the learning rate, a panel for each arm; a ring marks the chosen rate.

    Raises:
        UsageError: no learning rate was searched.
    """
    arms = [arm for arm in results.arms if arm.trials]
    if not arms:
        raise UsageError(f"{results.data}: 0 arms with trials: no learning rate was searched")
    columns = min(_PANELS, len(arms))
    rows = -(-len(arms) // columns)
    title = f"{results.heading}: search for the learning rate"
    figure, panels = _new_figure(title, height=0.9 + 1.7 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    look = looks(results.arms)
    for axes, arm in zip(panels, arms, strict=False):
        _trials(axes, arm, look[arm.name].colour)
        axes.set_title(plain(arm.name))
    _log_axis(panels[0], [trial.learning_rate for arm in arms for trial in arm.trials])
    panels[0].margins(y=0.3)
    for axes in panels[len(arms) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(arms) - columns) : len(arms)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("learning rate (log)", fontsize=10)
    figure.supylabel("score on validation data", fontsize=10)
    return figure


def _trials(axes: Axes, arm: ArmResult, colour: str) -> None:
    scored = [(t.learning_rate, t.score, t) for t in arm.trials if t.score is not None]
    scored.sort(key=lambda point: point[:2])
    whole = [(rate, score) for rate, score, trial in scored if trial.state == "complete"]
    axes.plot([rate for rate, _ in whole], [score for _, score in whole], color=colour, linewidth=1, alpha=0.6)
    for rate, score, trial in scored:
        face = colour if trial.state == "complete" else PAPER
        marker = "x" if trial.state == "failed" else "o"
        axes.plot(rate, score, marker, color=colour, markerfacecolor=face, markersize=5)
        if _is_chosen(trial, arm):
            axes.plot(rate, score, "o", color=INK, markerfacecolor="none", markersize=11)
            axes.annotate(f"{rate:.2g}", (rate, score), (0, 9), textcoords="offset points", ha="center", fontsize=8)
    for trial in arm.trials:
        if trial.score is None:  # a mark on the axis, without a height
            axes.plot(trial.learning_rate, 0, "x", color=colour, clip_on=False, transform=axes.get_xaxis_transform())


def _is_chosen(trial: Trial, arm: ArmResult) -> bool:
    return trial.state == "complete" and math.isclose(trial.learning_rate, arm.learning_rate or 0.0)


@_styled
def ablation(results: ExperimentResults) -> Figure:
    """Draw R@1 in both directions over the varied setting (Figures 4 to 6): lines for numbers, bars for names.

    Raises:
        UsageError: there are no arms.
    """
    if not results.arms:
        raise UsageError(f"{results.data}: 0 arms in the ablation: give at least one")
    name = results.ablation or ""
    figure, (axes,) = _new_figure(results.heading, height=4.2)
    varied = sorted(((arm.x, arm) for arm in results.arms if arm.x is not None), key=lambda pair: pair[0])
    if varied:
        _lines(axes, [x for x, _ in varied], [arm for _, arm in varied])
        for arm in results.arms:
            if arm.x is None:
                _level(axes, arm.mean_r1(), arm.name)
    else:
        _bars(axes, results.arms)
    _name_axes(axes, x=ABLATION_TITLES.get(name, (name, name))[1], y="R@1")
    return figure


def _lines(axes: Axes, places: Sequence[float], arms: Sequence[ArmResult]) -> None:
    higher = max(_DIRECTIONS, key=lambda direction: arms[-1].mean_r1(direction))
    for direction, (name, colour) in _DIRECTIONS.items():
        means = [arm.mean_r1(direction) for arm in arms]
        low = [arm.mean_r1(direction) - arm.spread_r1(direction) for arm in arms]
        high = [arm.mean_r1(direction) + arm.spread_r1(direction) for arm in arms]
        axes.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(places, means, "o-", color=colour, linewidth=1.8, markersize=5)
        side = "bottom" if direction == higher else "top"
        axes.annotate(name, (places[-1], means[-1]), (9, 0), textcoords="offset points", va=side)
    _paper_marks(axes, zip(places, arms, strict=True))
    axes.set_xticks(places, [f"{place:g}" for place in places])


def _bars(axes: Axes, arms: Sequence[ArmResult]) -> None:
    for offset, (direction, (name, colour)) in zip((-0.2, 0.2), _DIRECTIONS.items(), strict=True):
        places = [place + offset for place in range(len(arms))]
        heights = [arm.mean_r1(direction) for arm in arms]
        errors = [arm.spread_r1(direction) for arm in arms]
        axes.bar(places, heights, 0.36, color=colour, yerr=errors, error_kw=_ERROR, label=name)
    _paper_marks(axes, ((place - 0.2, arm) for place, arm in enumerate(arms)))
    axes.set_xticks(range(len(arms)), [plain(arm.name) for arm in arms])
    axes.tick_params(axis="x", length=0)
    _legend_outside(axes, entries=2)


def _paper_marks(axes: Axes, placed: Iterable[tuple[float, ArmResult]]) -> None:
    for place, arm in placed:
        value = arm.paper.value("t2v", "r1") if arm.paper else None
        if value is not None:
            axes.plot(place, value, marker="D", **_PAPER)


def _level(axes: Axes, height: float, name: str) -> None:
    """Draw a labelled dashed line for an arm without a position on the axis."""
    axes.axhline(height, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        plain(name),
        (1, height),
        (-4, 4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )


def _new_figure(
    title: str, *, height: float, rows: int = 1, columns: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a title, and its `rows` x `columns` empty axes, row by row; `height` is in inches."""
    figure = Figure()
    figure.set_figheight(height)
    figure.suptitle(plain(title), x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel().tolist()
    return figure, axes


def _name_axes(axes: Axes, *, x: str = "", y: str = "") -> None:
    axes.set_xlabel(plain(x))
    axes.set_ylabel(plain(y))


def _log_axis(axes: Axes, values: Sequence[float], *, show: Callable[[float], str] = "{:g}".format) -> None:
    """Make the x axis logarithmic, with numbers by `show` and limits at half the least and twice the largest value."""
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    wide = max(values) / min(values) >= 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend_outside(axes: Axes, *, entries: int) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=math.ceil(entries / 18))


def figures_of(several: Sequence[ExperimentResults]) -> Drawings:
    """Return the drawing function of each figure that applies. Each draws once, and then returns the same figure.

    Returns:
        a mapping by the experiment's file stem ("" for figures of all experiments), then by the figure's name.
    """
    figures: Drawings = {"": {}}
    if any(map(_has_gains, several)):
        figures[""]["gains"] = cache(partial(gains_by_benchmark, several))
    for stem, results in zip(file_stems(several), several, strict=True):
        figures[stem] = {name: cache(partial(draw, results)) for name, draw in _figures_of_one(results).items()}
    return figures


def _figures_of_one(results: ExperimentResults) -> dict[str, Callable[[ExperimentResults], Figure]]:
    figures: dict[str, Callable[[ExperimentResults], Figure]] = {}
    if results.kind == ABLATE and results.arms:
        figures["ablation"] = ablation
    elif any(arm.true_share > 0 for arm in results.arms):
        figures["parameters"] = gain_by_parameters
    if any(run.history for arm in results.arms for run in arm.runs):
        figures["curves"] = training_curves
    if any(arm.trials for arm in results.arms):
        figures["rates"] = learning_rates
    return figures


def file_name(stem: str, figure: str, suffix: str) -> str:
    """Return the file name of a figure: `DATA-KIND-curves.svg`, or without a stem `gains.svg`."""
    return f"{stem}-{figure}.{suffix}" if stem else f"{figure}.{suffix}"


def svg_text(figure: Figure, **options: Any) -> str:
    """Return the figure as SVG with its text as text. The same figure gives the same bytes.

    Args:
        options: passed to `Figure.savefig`.
    """
    target = StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vop"}):
        figure.savefig(target, format="svg", metadata=metadata, **options)
    return target.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.svg and `name`.png."""
    with atomic_write(folder / f"{name}.svg") as temporary:
        temporary.write_text(svg_text(figure), encoding="utf-8", errors="replace")
    with atomic_write(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)
