"""Write the results of the project's own experiments to docs/: a data file and a page for each benchmark, and figures.

    python -m tools.publish_results runs/emoji-motion/report    # after `vop compare` and `vop ablate`
    python -m tools.publish_results                             # rewrite only what is made from the data

`PAGES` has the data file and the page of each benchmark. The tables are between two comments of the page. All JSON files
in `docs/results/`, of results and of rows that others published, make the standing comparison in `docs/standing/`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vop.experiments.figures import NOTES, TITLES, figures_of, svg_text
from vop.experiments.formats import markdown_table
from vop.experiments.plan import ABLATIONS
from vop.experiments.results import COMPARE, ExperimentResults, file_stems, read_results
from vop.experiments.standing import merge
from vop.experiments.standing_report import write_standing
from vop.experiments.standing_schema import SCHEMA_FILE, schema_text
from vop.experiments.tables import Table, kind_tables, main_table, order_table, origin, protocol, remarks
from vop.utils.text import in_markdown, markdown_block

DOCS = Path(__file__).resolve().parents[1] / "docs"
STANDING = "standing"
SCHEMA_PATH = DOCS.parent / "src" / "vop" / "experiments" / SCHEMA_FILE
BEGIN, END = "<!-- Written by tools/publish_results.py: begin -->", "<!-- end -->"
# The data file and the page, by benchmark.
PAGES = {
    "emoji-motion": ("results/results.json", "results.md"),
    "emoji-motion-2": ("results/emoji-motion-2.json", "emoji-motion-2.md"),
}
# The figures on a page, by the name of the comparison or ablation.
SHOWN = {
    COMPARE: ("parameters", "curves"),
    "depth": ("ablation",),
    "length": ("ablation",),
    "split-layer": ("ablation",),
}
HIDDEN_COLUMNS = {"t2v MdR", "v2t MdR", "v2t MnR", "95 % interval", "paper's count", "memory", "disk"}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, nargs="?", help="Folder of a report. By default use the data file.")
    report: Path | None = parser.parse_args(words).report
    if report is not None:
        publish(report)
    for data, page in PAGES.values():
        experiments = read(DOCS / data)
        text = (DOCS / page).read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        (DOCS / page).write_text(f"{before}{BEGIN}\n\n{tables(experiments)}\n\n{END}{after}", encoding="utf-8")
        for stem, name, draw in _figures(experiments):
            (DOCS / "results" / f"{stem}-{name}.svg").write_text(svg_text(draw()), encoding="utf-8")
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
    write_standing(merge(standing_sources()), DOCS / STANDING)


def publish(report: Path) -> None:
    """Write the data file of the benchmark that a report is about."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in report.glob("*.json")]
    experiments = sorted(read_results(documents), key=_place)
    (data,) = {one.data for one in experiments}
    compact = json.dumps([one.to_dict() for one in experiments], ensure_ascii=False, separators=(",", ":"))
    (DOCS / PAGES[data][0]).write_text(compact + "\n", encoding="utf-8")


def standing_sources() -> list[Path]:
    return sorted((DOCS / "results").glob("*.json"))


def read(path: Path) -> list[ExperimentResults]:
    documents: list[Any] = json.loads(path.read_text(encoding="utf-8"))
    return read_results(documents)


def written_tables(page: str) -> str:
    """Return the text between the two comments of the page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def tables(experiments: Sequence[ExperimentResults]) -> str:
    """Return the generated part of the page."""
    return "\n\n".join(part for one in experiments for part in _section(one, experiments))


def _section(one: ExperimentResults, experiments: Sequence[ExperimentResults]) -> Iterator[str]:
    comparison = one.kind == COMPARE
    title = one.heading.partition(": ")[2]
    yield f"### {'All methods' if comparison else in_markdown(title[:1].upper() + title[1:])}"
    if one is next(other for other in experiments if other.command == one.command):  # one call runs several ablations
        yield markdown_block(one.command, "sh")
        facts = {**protocol(one), **origin(one)}
        yield "\n".join(f"- {name}: {in_markdown(text)}" for name, text in facts.items() if text)
    if remarks(one):
        yield "\n".join(f"- {in_markdown(line)}" for line in remarks(one))
    table = main_table(one)
    yield markdown_table(
        replace(table, columns=[column for column in table.columns if column.head not in HIDDEN_COLUMNS])
    )
    for other in [*(kind_tables(one) if comparison else []), order_table(one)]:
        yield from _titled(other)
    for shown, name, _ in _figures([one]):
        yield f"![{TITLES[name]}](results/{shown}-{name}.svg)"
        yield NOTES[name]


def _titled(table: Table[Any]) -> Iterator[str]:
    if table.rows:
        yield f"{in_markdown(table.title)}:"
        yield markdown_table(table)


def _named(experiments: Sequence[ExperimentResults]) -> list[tuple[str, ExperimentResults]]:
    return list(zip(file_stems(experiments), experiments, strict=True))


def _figures(experiments: Sequence[ExperimentResults]) -> Iterator[tuple[str, str, Any]]:
    """Yield stem, name and drawing function of each figure on the page."""
    drawings = figures_of(experiments)
    for stem, one in _named(experiments):
        for name in SHOWN.get(one.ablation or one.kind, ()):
            yield stem, name, drawings[stem][name]


def _place(one: ExperimentResults) -> int:
    return [COMPARE, *ABLATIONS].index(one.ablation or one.kind)


if __name__ == "__main__":
    main()
