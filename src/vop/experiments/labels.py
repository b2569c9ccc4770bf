"""Labels beside the points of a figure, placed so that they do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

INK, QUIET = "#1b1f24", "#666e78"
Point = tuple[float, float, str]


def plain(text: object) -> str:
    """Escape dollar signs, which would start a formula, and drop characters that cannot be drawn."""
    drawable = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return drawable.replace("$", r"\$")


# Possible distances of a label from its point, in pixels, in each of sixteen directions.
_DISTANCES = (11, 18, 28, 42, 58, 78, 100)
_NEAR = 18  # at this distance and beyond, a line connects the label with its point


def name_points(axes: Axes, points: Sequence[Point], *, spreads: Sequence[float]) -> list[Annotation]:
    """Write each point's name near it, without covering other names, points or error bars.

    Args:
        points: x, y and the name, in the axes' units; the limits of the axes must be final.
        spreads: half of each error bar, in the same units as y.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes belong to a figure"
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # Matplotlib has no type here
    figure.draw_without_rendering()  # computes the layout
    taken = [box for point, spread in zip(points, spreads, strict=True) for box in _boxes(axes, point, spread)]
    written = []
    for point in sorted(points, key=lambda point: (-point[1], point[0])):
        label = _name(axes, point, taken, renderer)
        taken.append(label.get_window_extent(renderer).padded(1))
        written.append(label)
    return written


def _boxes(axes: Axes, point: Point, spread: float) -> tuple[Bbox, Bbox]:
    """Return the area of a point and its error bar, in pixels."""
    x, y, _ = point
    (left, low), (_, high) = axes.transData.transform([(x, y - spread), (x, y + spread)])
    middle = (low + high) / 2
    dot = Bbox.from_extents(left - 6, middle - 6, left + 6, middle + 6)
    return dot, Bbox.from_extents(left - 2, low, left + 2, high)


def _name(axes: Axes, point: Point, taken: list[Bbox], renderer: RendererBase) -> Annotation:
    """Return the label of a point at its best place: the one with the least overlap, then the nearest."""
    x, y, text = point
    label = axes.annotate(plain(text), (x, y), (0, 0), textcoords="offset pixels", fontsize=9, color=INK)
    label.set_in_layout(False)
    size = label.get_window_extent(renderer)
    anchor = axes.transData.transform((x, y)).tolist()
    inside = axes.get_window_extent(renderer)

    def cost(place: tuple[float, float]) -> tuple[float, float]:
        box = _placed(size, anchor, place)
        covered = sum(_common(box, other) for other in taken)
        return covered + box.width * box.height - _common(box, inside), math.hypot(*place) - (place[0] > 0)

    dx, dy = best = min(_places(), key=cost)
    label.set(ha=_side(dx), va="center")
    label.set_position(best)
    if math.hypot(dx, dy) >= _NEAR:
        leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4}
        label.remove()
        label = axes.annotate(
            plain(text), (x, y), best, textcoords="offset pixels", fontsize=9, color=INK, arrowprops=leader
        )
        label.set(ha=_side(dx), va="center")
        label.set_in_layout(False)
    return label


def _places() -> list[tuple[float, float]]:
    angles = [2 * math.pi * n / 16 for n in range(16)]
    return [(d * math.cos(a), d * math.sin(a)) for d in _DISTANCES for a in angles]


def _side(dx: float) -> str:
    """Return the alignment: a label on the right of its point starts there, one on the left ends there."""
    return "center" if abs(dx) < 4 else "left" if dx > 0 else "right"


def _placed(size: Bbox, anchor: Sequence[float], place: tuple[float, float]) -> Bbox:
    x, y = anchor[0] + place[0], anchor[1] + place[1]
    left = x - size.width * {"left": 0, "center": 0.5, "right": 1}[_side(place[0])]
    return Bbox.from_bounds(left, y - size.height / 2, size.width, size.height)


def _common(box: Bbox, other: Bbox) -> float:
    """Return the area of the intersection."""
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))
