"""What the pages of a study are made of: escaped text, and tables that sort."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from vop.experiments.tables import Cell, Table

NOTHING = "–"


def sortable_table(table: Table) -> str:
    """A table of which a click on a heading sorts the rows."""
    heads, written = [], []
    for column, cells in table.filled():
        kind = "" if any(cell.value is not None for cell in cells) else ' class="text"'
        tag = "td" if written else "th"
        heads.append(f'<th scope="col"{kind}><button>{escape(column.head)}</button></th>')
        written.append([_written(cell, tag, kind) for cell in cells])
    lines = "".join(f"<tr>{''.join(line)}</tr>" for line in zip(*written, strict=True))
    return f'<div class="wide"><table><thead><tr>{"".join(heads)}</tr></thead><tbody>{lines}</tbody></table></div>'


def _written(cell: Cell, tag: str, kind: str) -> str:
    notes = "".join(f"<small>{escape(note)}</small>" for note in cell.notes)
    text = escape(cell.whole or NOTHING)
    text = f"<b>{text}</b>" if cell.best else text
    key = "" if cell.value is None else f' data-value="{cell.value!r}"'
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{kind}{key}>{text}{notes}</{tag}>"


def titled(table: Table) -> str:
    """A table beneath its title; nothing where it has no rows."""
    return f"<h3>{escape(table.title)}</h3>{sortable_table(table)}" if table.rows else ""


def folded(table: Table, *, above: str = "") -> str:
    """A table that opens with a click on its title; nothing where it has no rows."""
    content = f"{above}{sortable_table(table)}"
    return f"<details><summary>{escape(table.title)}</summary>{content}</details>" if table.rows else ""


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they are, without those that are empty."""
    lines = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs.items() if value)
    return f"<dl>{''.join(lines)}</dl>"
