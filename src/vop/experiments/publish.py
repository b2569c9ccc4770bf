"""Writes what a study found into a folder: documents, tables, figures, a page to read and one to look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vop.evaluation.metrics import METRIC_NAMES
from vop.experiments.figures import NOTES, TITLES, figures_of, file_name, save_figures
from vop.experiments.html import write_html
from vop.experiments.reading import heading, origin, protocol, remarks, runs, stems
from vop.experiments.tables import Cell, Table, kind_tables, main_table, order_table, trial_table
from vop.utils.files import atomic_write
from vop.utils.text import in_markdown, in_spreadsheet, markdown_block


def publish(documents: Sequence[Mapping], folder: Path, *, name: str) -> Path:
    """Writes everything, each file whole or not at all.

    `DATA-STUDY.json` and `.csv` for each document, `NAME.md` with tables and figures, the figures as SVG and PNG, and
    `NAME.html`, one file with everything in it. What is drawn comes last, so that it cannot cost the numbers.

    Returns:
        the HTML file.
    """
    for stem, document in zip(stems(documents), documents, strict=True):
        _write(folder / f"{stem}.json", json.dumps(_to_publish(document), indent=1, ensure_ascii=False) + "\n")
        _write(folder / f"{stem}.csv", csv_text(document))
    _write(folder / f"{name}.md", "\n".join(_page(documents, html=f"{name}.html")))
    save_figures(documents, folder)
    return write_html(documents, folder / f"{name}.html")


def _to_publish(document: Mapping) -> dict[str, Any]:
    """The document with names of files where it has paths of this machine: the examples' clips."""

    def named(clip: Mapping) -> dict[str, Any]:
        return {**clip, "path": Path(clip["path"]).name}

    examples = [{**named(one), "found": [named(clip) for clip in one["found"]]} for one in document.get("examples", ())]
    return {**document, "examples": examples}


def _page(documents: Sequence[Mapping], *, html: str) -> Iterator[str]:
    yield f"# {in_markdown(', '.join(dict.fromkeys(map(heading, documents))))}\n"
    yield f"[{html}]({html}) is all of it in one file: tables that sort, figures, the clips that were found first.\n"
    yield "Written by the command below; nothing here is typed in by hand.\n"
    figures = figures_of(documents)
    yield from _pictures("", figures[""])
    for stem, document in zip(stems(documents), documents, strict=True):
        yield f"## {in_markdown(heading(document))}\n"
        yield f"{markdown_block(document['command'], 'sh')}\n"
        facts = protocol(document) | origin(document)
        yield from (f"- {name}: {in_markdown(text)}" for name, text in facts.items() if text)
        yield from (f"- {in_markdown(line)}" for line in remarks(document))
        yield f"\n{markdown_table(main_table(document))}\n"
        for table in (*kind_tables(document), order_table(document), trial_table(document)):
            if table.rows:
                yield f"{in_markdown(table.title)}:\n\n{markdown_table(table)}\n"
        yield from _pictures(stem, figures[stem])


def _pictures(stem: str, figures: Iterable[str]) -> Iterator[str]:
    for name in figures:
        yield f"![{TITLES[name]}]({file_name(stem, name, 'svg')})\n\n{NOTES[name]}\n"


def markdown_table(table: Table) -> str:
    """A table as Markdown, the best of a column bold."""
    columns = table.filled()
    numbers = [any(cell.value is not None for cell in cells) for _, cells in columns]
    written = [[_bold(cell) for cell in cells] for _, cells in columns]
    lines = [[in_markdown(column.head) for column, _ in columns], ["---:" if right else "---" for right in numbers]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (*lines, *zip(*written, strict=True)))


def _bold(cell: Cell) -> str:
    """A cell's text, in bold where it is the best of its column."""
    text = in_markdown(cell.whole)
    return f"**{text}**" if cell.best else text


def csv_text(document: Mapping) -> str:
    """A line for each run, numbers unrounded; an arm's own facts stand on each of its lines."""
    rows = [_flat(document, arm, run) for arm in document["arms"] for run in runs(arm)]
    out = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(out, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: in_spreadsheet(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _flat(document: Mapping, arm: Mapping, run: Mapping) -> dict[str, Any]:
    facts = {key: document[key] for key in ("data", "split", "backbone", "study")}
    facts |= {key: arm[key] for key in ("name", "method", "head", "x", "learning_rate")}
    facts |= {key: run[key] for key in ("seed", "epoch", "selection")}
    facts |= {f"{way}_{key}": run[way][key] for way in ("t2v", "v2t") for key in METRIC_NAMES}
    facts |= {key: document["gallery"][key] for key in ("videos", "texts", "tie_rule")}
    facts |= {key: arm["parameters"][key] for key in ("paper_count", "true_count")}
    facts |= {key: run[key] for key in ("minutes", "peak_memory_bytes", "size_bytes")}
    return facts | {"machine": run.get("machine")} | run.get("extras", {})


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # names may hold halves of letters
