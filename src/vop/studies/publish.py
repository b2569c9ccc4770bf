"""Writes what a study found into a folder: documents, tables, figures, a page to read and one to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vop.files import atomic_write
from vop.studies.figures import save_figures
from vop.studies.html import write_html
from vop.studies.reading import heading, stems
from vop.studies.tables import csv_text, kinds_table, markdown_table, order_table, protocol, trials_table

_CAPTIONS = {
    "gains": "Gains over the baseline",
    "parameters": "R@1 over trained parameters",
    "ablation": "What was varied",
    "curves": "Loss and validation R@1",
    "rates": "Learning rates",
}


def publish(documents: Sequence[dict[str, Any]], folder: Path, *, name: str) -> Path:
    """Writes everything, each file whole or not at all.

    `DATA-STUDY.json` and `.csv` for each document, the figures as SVG and PNG, `NAME.md` with tables and figures, and
    `NAME.html`, one file with everything in it.

    Returns:
        the HTML file.
    """
    figures = save_figures(documents, folder)
    for stem, document in zip(stems(documents), documents, strict=True):
        _write(folder / f"{stem}.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        _write(folder / f"{stem}.csv", csv_text(document))
    _write(folder / f"{name}.md", "\n".join(_page(documents, figures)))
    return write_html(documents, folder / f"{name}.html")


def _page(documents: Sequence[dict[str, Any]], figures: Sequence[str]) -> Iterator[str]:
    yield f"# {', '.join(dict.fromkeys(heading(document) for document in documents))}\n"
    yield "Written by the command below; nothing here is typed in by hand.\n"
    pictures = [figure for figure in figures if figure.endswith(".svg")]
    own = stems(documents)
    yield from (_picture(figure) for figure in pictures if not any(figure.startswith(f"{stem}-") for stem in own))
    for stem, document in zip(own, documents, strict=True):
        yield f"## {heading(document)}\n"
        yield from _facts(document)
        yield from (f"{part}\n" for part in _tables(document) if part)
        yield from (_picture(figure) for figure in pictures if figure.startswith(f"{stem}-"))


def _facts(document: dict[str, Any]) -> Iterator[str]:
    yield f"```sh\n{document['command']}\n```\n"
    yield f"- {document['machine']}, {document['jobs']} at a time; vop {document['vop_version']}"
    yield f"- started {document['started']}; this call took {document['minutes']:.0f} minutes"
    yield from (f"- {line}" for line in protocol(document))
    yield from (f"- {note}" for note in document["notes"])
    yield ""


def _tables(document: dict[str, Any]) -> Iterator[str]:
    yield markdown_table(document)
    for heading_, key in (
        ("t2v R@1 by kind of content (videos)", "t2v_r1"),
        ("Order accuracy by kind (chance 50)", "order"),
    ):
        table = kinds_table(document, key)
        yield f"{heading_}, mean over seeds:\n\n{table}" if table else ""
    order = order_table(document)
    yield (
        f"Where the paper's order of t2v R@1 holds (there: averaged over its five benchmarks):\n\n{order}"
        if order
        else ""
    )
    trials = trials_table(document)
    yield f"Learning rates that were tried:\n\n{trials}" if trials else ""


def _picture(figure: str) -> str:
    caption = next((text for name, text in _CAPTIONS.items() if figure.removesuffix(".svg").endswith(name)), figure)
    return f"![{caption}]({figure})\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
