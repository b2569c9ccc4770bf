"""The figures of a comparison, drawn from its document: the paper's Figures 1 and 3 to 6, and how the arms trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vop.errors import UsageError
from vop.experiments.drawing import (
    COLOURS,
    INK,
    LINE,
    PAPER,
    QUIET,
    Look,
    legend_outside,
    log_axis,
    looks,
    name_axes,
    new_figure,
    plain,
)
from vop.experiments.labels import name_points
from vop.experiments.reading import (
    STUDIES,
    baseline_of,
    found,
    gain,
    heading,
    mean_r1,
    paper_average,
    paper_gain,
    runs,
    spread_r1,
    stems,
    true_share,
)
from vop.experiments.svg import svg_text
from vop.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What a figure is called in a report, and what stands beneath it.
TITLES = {
    "gains": "Gains over the baseline",
    "parameters": "Retrieval over trained parameters",
    "ablation": "What was varied",
    "curves": "Training",
    "rates": "Learning rates",
}
NOTES = {
    "gains": "Bars: mean over seeds, with the standard deviation.",
    "parameters": "Mean over seeds, with the standard deviation. All trained tensors are counted.",
    "ablation": "Mean over seeds, with the standard deviation; hollow diamonds, where there are any: the paper, t2v.",
    "curves": "Thin: a seed; thick: their mean. A dot marks the epoch that was evaluated.",
    "rates": "Hollow: stopped early; a cross: failed; ringed: the rate that all seeds trained with.",
}
_DIRECTIONS = {"t2v": ("text to video", COLOURS["vop-f+p"]), "v2t": ("video to text", COLOURS["partial"])}
_ERROR = {"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5}
_PANELS = 4  # beside each other
_PAPER = {"markerfacecolor": PAPER, "markeredgecolor": INK, "markersize": 5, "linestyle": "none"}
# The paper's gains: how they are read, their marker, their name.
_PAPER_GAINS = ((paper_gain, "D", "the paper"), (paper_average, "o", "the paper, average over its five benchmarks"))


def gain_by_parameters(document: Mapping) -> Figure:
    """t2v R@1, as a gain where there is a baseline, over the trainable share (Figure 1 of the paper).

    Raises:
        UsageError: no arm trains anything.
    """
    arms = [arm for arm in document["arms"] if true_share(arm) > 0]
    if not arms:
        raise UsageError(f"{document['data']}: 0 arms with trained parameters: give at least one besides zero-shot")
    figure, (axes,) = new_figure(f"{heading(document)}: R@1 over what is trained", height=5.2)
    look, points = looks(document["arms"]), []
    for arm in arms:
        x, y = true_share(arm), _height(document, arm)
        style = look[arm["name"]]
        axes.errorbar(
            x, y, spread_r1(arm), fmt=style.marker, color=style.colour, markersize=7, elinewidth=1.2, capsize=2.5
        )
        points.append((x, y, arm["name"]))
    log_axis(axes, [x for x, _, _ in points], unit=" %")
    axes.margins(y=0.12)
    for arm in document["arms"]:
        if true_share(arm) == 0:
            _level(axes, _height(document, arm), arm["name"])
    name_axes(axes, x="trained parameters, share of the backbone's (log)", y=_height_name(document))
    name_points(axes, points, spreads=[spread_r1(arm) for arm in arms])
    return figure


def gains_by_benchmark(documents: Sequence[Mapping]) -> Figure:
    """t2v R@1 against the baseline, a group of bars a benchmark, the paper's gain beside ours (Figure 3).

    Raises:
        UsageError: no comparison has a baseline.
    """
    documents = [document for document in documents if _has_gains(document)]
    if not documents:
        raise UsageError("0 comparisons with a baseline: run one with a baseline, such as full")
    arms = {arm["name"]: arm for document in documents for arm in document["arms"]}
    arms = {name: arm for name, arm in arms.items() if any(name != document["baseline"] for document in documents)}
    height = 1.3 + 0.29 * len(arms)
    figure, panels = new_figure("Gain over the baseline", height=height, columns=len(documents), sharey=True)
    look = looks(list(arms.values()))
    for axes, document in zip(panels, documents, strict=True):
        _gain_bars(axes, document, list(arms), look)
    panels[0].set_yticks(range(len(arms)), [plain(name) for name in arms])
    panels[0].set_ylim(len(arms) - 0.4, -0.6)  # the first on top
    named = {name: mark for axes in panels for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        place = {"loc": "outside lower right", "ncols": len(named), "frameon": False, "fontsize": 9}
        figure.legend(named.values(), named.keys(), labelcolor=INK, **place)
    return figure


def _has_gains(document: Mapping) -> bool:
    """An ablation's arms are no methods to show beside those of a benchmark."""
    return document["kind"] == "compare" and baseline_of(document) is not None


def _gain_bars(axes: Axes, document: Mapping, names: list[str], look: Mapping[str, Look]) -> None:
    own = {arm["name"]: arm for arm in document["arms"] if arm["name"] != document["baseline"]}
    placed = [(place, own[name]) for place, name in enumerate(names) if name in own]
    for place, arm in placed:
        ours = gain(document, arm)
        axes.barh(place, ours, 0.62, color=look[arm["name"]].colour, xerr=spread_r1(arm) or None, error_kw=_ERROR)
    for read, marker, label in _PAPER_GAINS:
        points = [(value, place) for place, arm in placed if (value := read(document, arm)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, label=label, **_PAPER)
    axes.axvline(0, color=QUIET, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(plain(heading(document)), loc="left", fontsize=10, color=INK)
    name_axes(axes, x=f"points of t2v R@1 over {document['baseline']}")


def training_curves(document: Mapping) -> Figure:
    """The loss, and R@1 on validation data, over epochs.

    Raises:
        UsageError: no arm has a history.
    """
    arms = [arm for arm in document["arms"] if any(run.get("history") for run in runs(arm))]
    if not arms:
        raise UsageError(f"{document['data']}: 0 arms with a history of training: there are no curves")
    figure, (left, right) = new_figure(f"{heading(document)}: training", height=4.4, columns=2)
    look = looks(document["arms"])
    for arm in arms:
        style = look[arm["name"]]
        _curves(left, arm, ("loss",), style)
        _curves(right, arm, ("validation", "t2v", "r1"), style)
        for run in runs(arm):
            chosen = [_curve(run, ("validation", "t2v", "r1")).get(run.get("epoch"))]
            if chosen != [None]:
                right.plot(run["epoch"], chosen, "o", color=style.colour, markersize=3.5)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    name_axes(left, x="epoch", y="training loss")
    name_axes(right, x="epoch", y="t2v R@1 on validation data")
    legend_outside(right, entries=len(arms))
    return figure


def _curves(axes: Axes, arm: Mapping, keys: tuple[str, ...], style: Look) -> None:
    """A thin line a seed, and their mean over the epochs that all of them have."""
    curves = [curve for run in runs(arm) if (curve := _curve(run, keys))]
    for curve in curves:
        axes.plot(*zip(*curve.items(), strict=True), color=style.colour, linewidth=0.6, alpha=0.45)
    shared = [epoch for epoch in (curves[0] if curves else ()) if all(epoch in curve for curve in curves)]
    means = [sum(curve[epoch] for curve in curves) / len(curves) for epoch in shared]
    axes.plot(shared, means, color=style.colour, linestyle=style.dash, linewidth=1.8, label=plain(arm["name"]))


def _curve(run: Mapping, keys: tuple[str, ...]) -> dict[int, float]:
    values = {record["epoch"]: found(record, *keys) for record in run.get("history") or ()}
    return {epoch: value for epoch, value in values.items() if value is not None}


def learning_rates(document: Mapping) -> Figure:
    """The score over the learning rate, a panel an arm; the chosen rate is ringed.

    Raises:
        UsageError: nothing was searched.
    """
    arms = [arm for arm in document["arms"] if arm.get("trials")]
    if not arms:
        raise UsageError(f"{document['data']}: 0 arms with trials: no learning rate was searched")
    columns = min(_PANELS, len(arms))
    rows = -(-len(arms) // columns)
    title = f"{heading(document)}: search for the learning rate"
    figure, panels = new_figure(title, height=0.9 + 1.7 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    rates = [trial["learning_rate"] for arm in arms for trial in arm["trials"]]
    look = looks(document["arms"])
    for axes, arm in zip(panels, arms, strict=False):
        _trials(axes, arm, look[arm["name"]].colour)
        axes.set_title(plain(arm["name"]), loc="left", fontsize=10, color=INK)
    log_axis(panels[0], rates)
    panels[0].margins(y=0.3)
    for axes in panels[len(arms) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(arms) - columns) : len(arms)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("learning rate (log)", fontsize=10, color=INK)
    figure.supylabel("score on validation data", fontsize=10, color=INK)
    return figure


def _trials(axes: Axes, arm: Mapping, colour: str) -> None:
    scored = sorted((t["learning_rate"], t["score"], t["state"]) for t in arm["trials"] if t.get("score") is not None)
    whole = [(rate, score) for rate, score, state in scored if state == "complete"]
    axes.plot(*zip(*whole, strict=True) if whole else ((), ()), color=colour, linewidth=1, alpha=0.6)
    for rate, score, state in scored:
        face = colour if state == "complete" else PAPER
        axes.plot(rate, score, "x" if state == "failed" else "o", color=colour, markerfacecolor=face, markersize=5)
        if state == "complete" and math.isclose(rate, arm.get("learning_rate") or 0.0):
            axes.plot(rate, score, "o", color=INK, markerfacecolor="none", markersize=11)
            name = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": INK}
            axes.annotate(f"{rate:.2g}", (rate, score), (0, 9), **name)
    for trial in arm["trials"]:
        if trial.get("score") is None:  # a mark on the axis: it has no height
            axes.plot(trial["learning_rate"], 0, "x", color=colour, clip_on=False, transform=axes.get_xaxis_transform())


def ablation(document: Mapping) -> Figure:
    """R@1 in both directions over what was varied (Figures 4 to 6): lines over numbers, bars over names.

    Raises:
        UsageError: there are no arms.
    """
    if not document["arms"]:
        raise UsageError(f"{document['data']}: 0 arms in the ablation: give at least one")
    study = document.get("study") or ""
    _, axis = STUDIES.get(study, (study, study))
    figure, (axes,) = new_figure(heading(document), height=4.2)
    varied = sorted((arm for arm in document["arms"] if arm.get("x") is not None), key=lambda arm: arm["x"])
    if varied:
        _lines(axes, varied)
        for arm in document["arms"]:
            if arm.get("x") is None:
                _level(axes, mean_r1(arm), arm["name"])
    else:
        _bars(axes, document["arms"])
    name_axes(axes, x=axis, y="R@1")
    return figure


def _lines(axes: Axes, arms: Sequence[Mapping]) -> None:
    places = [arm["x"] for arm in arms]
    higher = max(_DIRECTIONS, key=lambda direction: mean_r1(arms[-1], direction))
    for direction, (name, colour) in _DIRECTIONS.items():
        means = [mean_r1(arm, direction) for arm in arms]
        spreads = [spread_r1(arm, direction) for arm in arms]
        low, high = zip(*((m - s, m + s) for m, s in zip(means, spreads, strict=True)), strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(places, means, "o-", color=colour, linewidth=1.8, markersize=5)
        side = {"textcoords": "offset points", "va": "bottom" if direction == higher else "top", "color": INK}
        axes.annotate(name, (places[-1], means[-1]), (9, 0), **side)
    _paper_marks(axes, zip(places, arms, strict=True))
    axes.set_xticks(places, [f"{place:g}" for place in places])


def _bars(axes: Axes, arms: Sequence[Mapping]) -> None:
    for offset, (direction, (name, colour)) in zip((-0.2, 0.2), _DIRECTIONS.items(), strict=True):
        places = [place + offset for place in range(len(arms))]
        heights = [mean_r1(arm, direction) for arm in arms]
        errors = [spread_r1(arm, direction) for arm in arms]
        axes.bar(places, heights, 0.36, color=colour, yerr=errors, error_kw=_ERROR, label=name)
    _paper_marks(axes, ((place - 0.2, arm) for place, arm in enumerate(arms)))
    axes.set_xticks(range(len(arms)), [plain(arm["name"]) for arm in arms])
    axes.tick_params(axis="x", length=0)
    legend_outside(axes, entries=2)


def _paper_marks(axes: Axes, placed) -> None:
    for place, arm in placed:
        value = found(arm, "paper", "t2v", "r1")
        if value is not None:
            axes.plot(place, value, marker="D", **_PAPER)


def _height(document: Mapping, arm: Mapping) -> float:
    """What Figure 1 draws of an arm."""
    return gain(document, arm) if baseline_of(document) else mean_r1(arm)


def _height_name(document: Mapping) -> str:
    return f"t2v R@1, points over {document['baseline']}" if baseline_of(document) else "t2v R@1"


def _level(axes: Axes, height: float, name: str) -> None:
    """A dashed line with its name, for an arm that has no place on the axis."""
    axes.axhline(height, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    place = {"xytext": (-4, 4), "textcoords": "offset points", "ha": "right", "fontsize": 9, "color": INK}
    axes.annotate(plain(name), (1, height), xycoords=axes.get_yaxis_transform(), **place)


def figures_of(documents: Sequence[Mapping]) -> dict[str, dict[str, Callable[[], Figure]]]:
    """What draws each figure that applies.

    Returns:
        by the document's stem ("" for those of all documents together), then by the figure's name.
    """
    figures = {"": {"gains": partial(gains_by_benchmark, documents)} if any(map(_has_gains, documents)) else {}}
    for stem, document in zip(stems(documents), documents, strict=True):
        figures[stem] = {name: partial(draw, document) for name, draw in _own(document).items()}
    return figures


def _own(document: Mapping) -> dict[str, Callable[[Mapping], Figure]]:
    arms = document["arms"]
    figures: dict[str, Callable[[Mapping], Figure]] = {}
    if document["kind"] == "ablate" and arms:
        figures["ablation"] = ablation
    elif any(true_share(arm) > 0 for arm in arms):
        figures["parameters"] = gain_by_parameters
    if any(run.get("history") for arm in arms for run in runs(arm)):
        figures["curves"] = training_curves
    if any(arm.get("trials") for arm in arms):
        figures["rates"] = learning_rates
    return figures


def file_name(stem: str, figure: str, suffix: str) -> str:
    """The name of a figure's file, of a document or, without a stem, of all: `DATA-KIND-curves.svg`, `gains.svg`."""
    return f"{stem}-{figure}.{suffix}" if stem else f"{figure}.{suffix}"


def save_figures(documents: Sequence[Mapping], folder: str | Path) -> None:
    """Writes every figure of `figures_of` as SVG and PNG."""
    for stem, figures in figures_of(documents).items():
        for name, draw in figures.items():
            figure = draw()
            with atomic_write(Path(folder) / file_name(stem, name, "svg")) as temporary:
                temporary.write_text(svg_text(figure), encoding="utf-8", errors="replace")
            with atomic_write(Path(folder) / file_name(stem, name, "png")) as temporary:
                figure.savefig(temporary, format="png", dpi=150)
