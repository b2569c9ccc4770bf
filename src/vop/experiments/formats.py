"""Tables as Markdown, LaTeX and CSV, and for a terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments.results import DIRECTIONS, ArmResult, ExperimentResults, SeedResult
from vop.experiments.tables import FilledColumn, Table, main_table, protocol, remarks
from vop.utils.text import in_markdown, in_spreadsheet, on_one_line, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as RichTable

_IN_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "✓": r"$\checkmark$",
    "≈": r"$\approx$",
    "✗": r"$\times$",
    "<": r"$<$",
    ">": r"$>$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def markdown_table(table: Table[Any]) -> str:
    """Return a table as Markdown, with the best values of a column in bold."""
    columns = table.filled()
    written = [
        [f"**{in_markdown(cell.whole)}**" if cell.best else in_markdown(cell.whole) for cell in column.cells]
        for column in columns
    ]
    lines = [
        [in_markdown(column.head) for column in columns],
        ["---:" if column.is_number else "---" for column in columns],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (*lines, *zip(*written, strict=True)))


def latex_table(table: Table[Any]) -> str:
    """Return a table as a LaTeX `tabular` for the package booktabs, with the best values of a column in bold."""
    columns = table.filled()
    written = [
        [f"\\textbf{{{in_latex(cell.whole)}}}" if cell.best else in_latex(cell.whole) for cell in column.cells]
        for column in columns
    ]
    heads = " & ".join(in_latex(column.head) for column in columns)
    rows = [f"{' & '.join(line)} \\\\" for line in zip(*written, strict=True)]
    alignment = "".join("r" if column.is_number else "l" for column in columns)
    begin = [f"% {on_one_line(table.title)}", f"\\begin{{tabular}}{{{alignment}}}", "\\toprule", f"{heads} \\\\"]
    return "\n".join([*begin, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}"])


def in_latex(text: str) -> str:
    """Escape text for LaTeX."""
    return re.sub("|".join(map(re.escape, _IN_LATEX)), lambda found: _IN_LATEX[found[0]], on_one_line(text))


def csv_text(results: ExperimentResults) -> str:
    """Return CSV with a line for each run and unrounded numbers. An arm's values repeat on each of its lines."""
    rows = [_flat(results, arm, run) for arm in results.arms for run in arm.runs]
    out = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(out, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: in_spreadsheet(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _flat(results: ExperimentResults, arm: ArmResult, run: SeedResult) -> dict[str, Any]:
    facts: dict[str, Any] = {"data": results.data, "split": results.split, "backbone": results.backbone}
    facts |= {"study": results.ablation, "name": arm.name, "method": arm.method, "head": arm.head, "x": arm.x}
    facts |= {"learning_rate": arm.learning_rate, "seed": run.seed, "epoch": run.epoch, "selection": run.selection}
    facts |= {f"{way}_{key}": run.direction(way).value(key) for way in DIRECTIONS for key in METRIC_NAMES}
    facts |= {"r_sum": run.r_sum, "videos": results.gallery.videos, "texts": results.gallery.texts}
    facts |= {"tie_rule": results.gallery.tie_rule}
    facts |= {"paper_count": arm.parameters.paper_count, "true_count": arm.parameters.true_count}
    facts |= {"minutes": run.minutes, "peak_memory_bytes": run.peak_memory_bytes, "size_bytes": run.size_bytes}
    return facts | {"machine": run.machine} | run.extras


@dataclass(frozen=True)
class Terminal:
    """The main table for a terminal, with the most important columns that fit, and the protocol."""

    results: ExperimentResults

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        table = main_table(self.results)
        columns = sorted((column for column in table.filled() if column.rank < 2), key=lambda column: column.rank)
        chosen, missing = columns[:2], list[FilledColumn]()
        for column in columns[2:]:
            wide = console.measure(_rich([*chosen, column]), options=options.update(width=10_000)).maximum
            (chosen if wide <= options.max_width else missing).append(column)
        yield Text(visible(f"\n{table.title}\n"))
        yield _rich(chosen)
        lines = [f"{name}: {text}" for name, text in protocol(self.results).items() if text]
        lines += [f"columns that do not fit: {', '.join(column.head for column in missing)}"] if missing else []
        yield Text(visible("\n".join(["", *lines, *remarks(self.results)])))


def _rich(columns: Sequence[FilledColumn]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    written = []
    for n, column in enumerate(columns):
        texts = [on_one_line(cell.whole if column.rank == 0 else cell.text) for cell in column.cells]
        head = "\n".join(wrap(visible(column.head), max(map(len, texts)), break_long_words=False))
        # A name may continue on the next line, a number must not.
        table.add_column(Text(head), justify="right" if n else "left", no_wrap=n > 0, overflow="fold")
        written.append(
            [Text(t, style="bold" if cell.best else "") for t, cell in zip(texts, column.cells, strict=True)]
        )
    for row in zip(*written, strict=True):
        table.add_row(*row)
    return table
