"""What the pages of a study are made of: escaped text, numbers as they are written, tables that sort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says; escaped when it is written.
        value: what its column is sorted by; the text if there is none.
        notes: small lines beneath.
        best: whether it is the best of its column.
    """

    text: str = NOTHING
    value: float | None = None
    notes: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its heading, how a row becomes its cell, and which of the values is the best (`max`, `min`)."""

    head: str
    cell: Callable[[Any], Cell]
    group: str = ""
    best: Callable[[Iterable[float]], float] | None = None


def sortable_table(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """A table of which a click on a heading sorts the rows; a column without content is left out."""
    filled = [(column, [column.cell(row) for row in rows]) for column in columns]
    filled = [(column, cells) for column, cells in filled if any(cell.text != NOTHING for cell in cells)]
    heads, written = [], []
    for column, cells in filled:
        kind = "" if any(cell.value is not None for cell in cells) else ' class="text"'
        tag = "td" if written else "th"
        heads.append(f'<th scope="col"{kind}><button>{escape(column.head)}</button></th>')
        written.append([_written(cell, tag, kind) for cell in _marked(cells, column.best)])
    groups = _groups([column.group for column, _ in filled])
    lines = "".join(f"<tr>{''.join(line)}</tr>" for line in zip(*written, strict=True))
    table = f"<table><thead>{groups}<tr>{''.join(heads)}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _marked(cells: Sequence[Cell], best: Callable | None) -> Sequence[Cell]:
    """The cells, the best of them marked as such; all that read the same are."""
    values = [round(cell.value, 1) for cell in cells if cell.value is not None]
    if best is None or len(set(values)) < 2:  # where all are the same, none is the best
        return cells
    top = best(values)
    return [replace(cell, best=cell.value is not None and round(cell.value, 1) == top) for cell in cells]


def _written(cell: Cell, tag: str, kind: str) -> str:
    notes = "".join(f"<small>{escape(note)}</small>" for note in cell.notes)
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    key = "" if cell.value is None else f' data-value="{cell.value!r}"'
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{kind}{key}>{text}{notes}</{tag}>"


def _groups(names: Sequence[str]) -> str:
    """A row above the headings with the names of the groups of columns; nothing if there are none."""
    if not any(names):
        return ""
    spans: list[tuple[str, int]] = []
    for name in names:
        if name and spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1] + 1)
        else:
            spans.append((name, 1))
    cells = "".join(f'<th scope="colgroup" colspan="{span}">{escape(name)}</th>' for name, span in spans)
    return f'<tr class="groups">{cells}</tr>'


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they are, without those that are empty."""
    lines = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items() if value)
    return f"<dl>{''.join(lines)}</dl>"


def folded(title: str, content: str) -> str:
    """A part that opens with a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def number(value: float | None, spread: float | None = None) -> str:
    """One digit, with the spread behind it where there is one."""
    if value is None:
        return NOTHING
    return f"{value:,.1f}" if not spread else f"{value:,.1f} ± {spread:.1f}"


def signed(points: float | None) -> str:
    """One digit with its sign; what rounds to nothing has none."""
    if points is None:
        return NOTHING
    text = f"{points:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def size(count: float | None) -> str:
    """Bytes as a person reads them."""
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def listed(settings: Mapping[str, Any] | None) -> str:
    """Settings in one line."""
    return ", ".join(f"{name}: {value}" for name, value in (settings or {}).items())
