"""How the figures of a study look: colours and axes. matplotlib's objects, never pyplot: no state is shared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES_WIDE, DOTS = 9.0, 100  # 900 pixels

INK, QUIET, LINE, PAPER = "#1b1f24", "#666e78", "#dfe2e6", "#ffffff"
# A method's colour: warm for VoP, grey-blue for what it is compared with. They differ in lightness too.
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
}
# Methods that somebody added, and further arms of one method.
_OTHERS = ("#4d8f8b", "#8a6fb0", "#7c9a3e", "#b0679a", "#5f7fd0", "#a08a4f", "#5c8a5c")
_MARKERS = "osD^v"
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


@dataclass(frozen=True)
class Look:
    """How an arm is drawn in all figures of a document."""

    colour: str
    marker: str
    dash: str | tuple


def looks(arms: Sequence[Mapping]) -> dict[str, Look]:
    """A look for each arm's name: its method's colour, if no arm before it has that; else another one."""
    spare = cycle((colour, n) for n in range(len(_MARKERS)) for colour in _OTHERS)
    taken: set[str] = set()
    found = {}
    for arm in arms:
        colour, nth = COLOURS.get(arm["method"]), 0
        if colour is None or colour in taken:
            colour, nth = next(spare)
        taken.add(colour)
        found[arm["name"]] = Look(colour, _MARKERS[nth], _DASHES[nth % len(_DASHES)])
    return found


def plain(text: object) -> str:
    """A name in which a dollar sign begins no formula, without letters that nobody can draw."""
    drawable = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return drawable.replace("$", r"\$")


def new_figure(title: str, *, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """A figure with its title and `rows` x `columns` empty axes, row by row; `height` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES_WIDE, height), dpi=DOTS, layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for one in axes:
        _bare(one)
    return figure, axes


def _bare(axes: Axes) -> None:
    """Two thin axes and faint horizontal lines; nothing else."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(which="both", color=QUIET, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def name_axes(axes: Axes, *, x: str = "", y: str = "") -> None:
    axes.set_xlabel(plain(x), color=INK, fontsize=10)
    axes.set_ylabel(plain(y), color=INK, fontsize=10)


def log_axis(axes: Axes, values: Iterable[float], *, unit: str = "") -> None:
    """A logarithmic x axis with plain numbers, and a third of a decade of room on both sides of the values."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = list(values)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    wide = max(values) / min(values) >= 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_outside(axes: Axes, *, entries: int) -> None:
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.4,
        ncols=math.ceil(entries / 18),
    )
