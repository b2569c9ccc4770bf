"""The report of a standing comparison: which rows are ranked together, tables, figures, and the page with all of them.

The page is the Jinja2 template `templates/standing.md.j2`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import stdev
from typing import Any

from vop.experiments.figures import Mark, file_name, looks, recall_by_parameters, svg_text
from vop.experiments.report import environment, write_text
from vop.experiments.results import Number, unique_stems
from vop.experiments.standing_schema import (
    SCHEMA,
    SCHEMA_FILE,
    Both,
    Row,
    Scores,
    Source,
    Standing,
    as_text,
    shipped_schema,
)
from vop.experiments.tables import HEADS, Best, Cell, Column, Table, formatted, listed, number, size
from vop.utils.text import count

PAGE, DATA, FIGURE = "standing.md", "standing.json", "parameters"


@dataclass(frozen=True)
class Section:
    """The rows of a benchmark's split with a backbone.

    Attributes:
        stem: its name in file names.
        reference: the row that says what the ranked rows have in common.
        ranked: rows that can be compared with each other, the best first.
        others: the other rows, each with what distinguishes it from `reference`.
    """

    stem: str
    reference: Row
    ranked: list[Row]
    others: list[tuple[Row, list[str]]]

    @property
    def rows(self) -> list[Row]:
        return [*self.ranked, *(row for row, _ in self.others)]

    @property
    def title(self) -> str:
        split = "" if self.reference.split == "test" else f" ({self.reference.split})"
        return f"{self.reference.benchmark}{split} with {self.reference.backbone}"

    @property
    def has_figure(self) -> bool:
        return any(row.parameters for row in self.rows)


def sections(standing: Standing) -> list[Section]:
    """Return a section for each benchmark, split and backbone.

    Args:
        standing: rows sorted as by `vop.experiments.standing.merge`.
    """
    groups = [list(rows) for _, rows in groupby(standing.rows, lambda row: (row.benchmark, row.split, row.backbone))]
    stems = unique_stems(["-".join(dict.fromkeys(_named(rows[0]))) for rows in groups], usual="rows")
    return [_section(stem, rows) for stem, rows in zip(stems, groups, strict=True)]


def _named(row: Row) -> list[str]:
    return [row.benchmark, *([row.split] if row.split != "test" else []), row.backbone]


def _section(stem: str, rows: Sequence[Row]) -> Section:
    def rank(reference: Row) -> tuple[bool, bool, bool, int]:
        alike = sum(not differences(row, reference) for row in rows)
        return reference.source.kind == "vop", reference.trains, len(reference.runs) > 1, alike

    reference = max(rows, key=rank)  # the first of several
    compared = [(row, differences(row, reference)) for row in rows]
    ranked = [row for row, reasons in compared if not reasons]
    return Section(stem, reference, ranked, [(row, reasons) for row, reasons in compared if reasons])


def differences(row: Row, reference: Row) -> list[str]:
    """Return why a row cannot be ranked with the reference, in a few words each; nothing if it can.

    A row that trains nothing needs one seed, and has no facts of a training. What another source does not say is not
    another reason.
    """
    external = row.source.kind == "external"
    trained = row.trains and reference.trains
    reasons = []
    if external and row.source.citation != reference.source.citation:
        reasons.append("external" if reference.source.kind == "vop" else "another source")
    elsewhere = bool(reasons)
    if trained and not external and (len(row.runs) > 1) != (len(reference.runs) > 1):
        reasons.append(count("seed", len(row.runs)) if row.runs else "seeds unknown")
    own, others = _facts(row, trained=trained), _facts(reference, trained=trained)
    for name in dict.fromkeys([*own, *others]):
        value, other = own.get(name), others.get(name)
        if value != other and not (elsewhere and None in (value, other)):
            reasons.append(f"{name}: {'unknown' if value is None else value}")
    return reasons


def _facts(row: Row, *, trained: bool) -> dict[str, Any]:
    """Return what must be equal in two rows that are ranked together."""
    gallery, recipe = row.gallery, row.recipe
    facts: dict[str, Any] = {"videos": gallery.videos, "texts": gallery.texts, "ties": gallery.tie_rule}
    facts |= {"gallery": gallery.fingerprint, "frames": recipe.num_frames, "precision": recipe.precision}
    if not trained:
        return facts
    facts |= {"epochs": recipe.epochs, "batch": recipe.batch_size, "captions per video": recipe.captions_per_video}
    others = {f"recipe's {name}": value for name, value in recipe.other.items()}
    return {**facts, "learning rate": recipe.rate_choice, "weights": recipe.selection, **others}


def protocol(section: Section) -> dict[str, str]:
    """Return what the ranked rows have in common, and where they come from."""
    gallery, recipe, ranked = section.reference.gallery, section.reference.recipe, section.ranked
    training = [
        count("epoch", recipe.epochs) if recipe.epochs else "",
        f"batch {recipe.batch_size}" if recipe.batch_size else "",
        count("frame", recipe.num_frames) if recipe.num_frames else "",
        recipe.precision or "",
        listed(recipe.other),
    ]
    ties = f"; ties: {gallery.tie_rule}" if gallery.tie_rule else ""
    return {
        "ranked": f"{count('text', gallery.texts)}, gallery of {count('video', gallery.videos)}{ties}",
        "training": ", ".join(filter(None, training)),
        "learning rates": recipe.rate_choice or "",
        "weights": recipe.selection or "",
        **{name: text(ranked[0]) for name, text in _ORIGIN.items() if not _differ(ranked, text)},
    }


# Facts that have a column if they differ.
_ORIGIN: dict[str, Callable[[Row], str]] = {
    "machine": lambda row: row.cost.machine or "",
    "source": lambda row: row.source.text,
    "measured": lambda row: row.date,
}


def _differ(rows: Sequence[Row], text: Callable[[Row], str]) -> bool:
    return len({text(row) for row in rows}) > 1


def commands(section: Section) -> str:
    """Return the commands that repeat the measurements of the ranked rows, a line each."""
    return "\n".join(dict.fromkeys(row.source.command for row in section.ranked if row.source.command))


def notes(section: Section) -> list[str]:
    """Return the remarks on the rows. One that holds for all of them names none."""
    names: dict[str, list[str]] = {}
    for row in section.rows:
        for note in row.notes:
            names.setdefault(note, []).append(row.name)
    return [note if len(of) == len(section.rows) else f"{', '.join(of)}: {note}" for note, of in names.items()]


def linked(section: Section) -> list[Row]:
    """Return the rows with a link."""
    return [row for row in section.rows if row.source.url]


def ranked_table(section: Section) -> Table[Row]:
    """Return the table of the rows that are ranked."""
    return Table(section.title, list(_columns(section.ranked, best=True)), section.ranked)


def others_table(section: Section) -> Table[Row]:
    """Return the table of the other rows, with the reasons."""
    rows = [row for row, _ in section.others]
    reasons = {id(row): "; ".join(reasons) for row, reasons in section.others}
    why = Column[Row]("why not ranked", lambda row: Cell(reasons[id(row)]))
    method, *columns = _columns(rows, best=False)
    return Table(section.title, [method, why, *columns], rows)


def _columns(rows: Sequence[Row], *, best: bool) -> Iterator[Column[Row]]:
    """Yield the columns. Machines, sources and days have one only if they differ, or if the rows are not ranked."""
    yield Column("method", lambda row: Cell(row.name))
    yield Column("settings", lambda row: Cell(listed(row.settings)))
    for way, keys in {"t2v": ("r1", "r5", "r10", "mnr"), "v2t": ("r1",)}.items():
        for key in keys:
            yield Column(f"{way} {HEADS[key]}", _score(way, key), _best(best, min if key == "mnr" else max))
    for name in dict.fromkeys(name for row in rows for name in row.average.extras):
        yield Column(name, _extra(name), _best(best, max))
    yield Column("seeds", lambda row: Cell(", ".join(str(run.seed) for run in row.runs)))
    yield Column("learning rate", lambda row: formatted(row.recipe.learning_rate, "{:.2g}"))
    yield Column("parameters", lambda row: formatted(row.parameters, "{:,}"))
    yield Column("% of backbone", lambda row: formatted(row.percent_of_backbone, "{:.2f}"))
    yield Column("minutes", _minutes)
    yield Column("search minutes", lambda row: formatted(row.cost.search_minutes, "{:,.1f}"))
    yield Column("memory", lambda row: Cell(size(row.cost.peak_memory_bytes), row.cost.peak_memory_bytes))
    yield Column("10⁹ multiply-adds per video", lambda row: _scaled(row.cost.multiply_adds_per_video, 1e9))
    yield Column("ms per video", lambda row: formatted(row.cost.milliseconds_per_video, "{:,.1f}"))
    for head, text in _ORIGIN.items():
        if not best or _differ(rows, text):
            yield Column(head, _text(text))


def _text(read: Callable[[Row], str]) -> Callable[[Row], Cell]:
    return lambda row: Cell(read(row))


def _best(marked: bool, best: Best) -> Best | None:
    return best if marked else None


def _score(way: str, key: str) -> Callable[[Row], Cell]:
    def value(part: object) -> Number | None:
        scores = getattr(part, way, None)
        return None if scores is None else getattr(scores, key)

    return lambda row: _with_spread(value(row.average), value(row.deviation))


def _extra(name: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        spread = row.deviation
        return _with_spread(row.average.extras.get(name), spread.extras.get(name) if spread else None)

    return cell


def _minutes(row: Row) -> Cell:
    known = [run.minutes for run in row.runs if run.minutes is not None]
    return _with_spread(row.cost.minutes, stdev(known) if len(known) == len(row.runs) > 1 else None)


def _with_spread(value: Number | None, spread: Number | None) -> Cell:
    return Cell() if value is None else Cell(number(value), value, spread)


def _scaled(value: Number | None, unit: float) -> Cell:
    return Cell() if value is None else Cell(number(value / unit), value)


def figure_text(section: Section) -> str:
    """Return the figure as SVG: R@1 over trained parameters. Rows that are not ranked are hollow, with the reason."""
    look = looks(section.rows)
    reasons = {id(row): f" ({why[0].partition(':')[0]})" for row, why in section.others}
    marks = [
        Mark(
            f"{row.name}{reasons.get(id(row), '')}",
            row.parameters,
            row.average.t2v.r1,
            (row.deviation.t2v.r1 or 0.0) if row.deviation else 0.0,
            look[row.name],
            hollow=id(row) in reasons,
        )
        for row in section.rows
        if row.parameters is not None
    ]
    return svg_text(recall_by_parameters(section.title, marks))


@dataclass(frozen=True)
class Field:
    """A field of the schema: its name, the allowed values, and what it means."""

    name: str
    values: str
    meaning: str


def field_tables() -> list[Table[Field]]:
    """Return a table for each part of the schema."""
    schema = json.loads(shipped_schema())
    parts = {"Standing": schema, "Row": schema["$defs"]["Row"], **schema["$defs"]}
    columns: list[Column[Field]] = [
        Column("field", lambda field: Cell(field.name)),
        Column("values", lambda field: Cell(field.values)),
        Column("meaning", lambda field: Cell(field.meaning)),
    ]
    return [Table(f"{name}. {part['description']}", columns, list(_fields(part))) for name, part in parts.items()]


def _fields(part: Mapping[str, Any]) -> Iterator[Field]:
    for name, facts in part["properties"].items():
        required = name in part.get("required", ())
        yield Field(name, _values(facts) + (", required" if required else ""), facts.get("description", ""))


def _values(facts: Mapping[str, Any]) -> str:
    """Return the allowed values in words."""
    if "anyOf" in facts:  # or null
        return _values(facts["anyOf"][0])
    if "$ref" in facts:
        return facts["$ref"].rpartition("/")[2]
    if "const" in facts or "enum" in facts:
        return " or ".join(json.dumps(value) for value in facts.get("enum", [facts.get("const")]))
    if facts.get("type") == "array":
        return f"list of {_values(facts['items'])}"
    if facts.get("type") == "object":
        inner = facts.get("additionalProperties", True)
        return f"{'any values' if inner is True else _values(inner)} by name"
    kind = {"integer": "whole number", "string": "text"}.get(facts["type"], facts["type"])
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    words = [f"{word} {facts[key]:g}" for key, word in limits.items() if key in facts]
    return ", ".join([facts.get("format", kind), *words])


def example(section: Section) -> str:
    """Return a document with a made-up external row, for the page."""
    row = section.reference
    made = Row(
        benchmark=row.benchmark,
        split=row.split,
        backbone=row.backbone,
        gallery=row.gallery,
        method="my-method",
        mean=Both(t2v=Scores(r1=12.3, r5=34.5, r10=45.6)),
        parameters=12_345,
        source=Source(kind="external", citation="A. Author, Title, 2026", url="https://example.org/paper"),
        date="2026-01-31",
    )
    return as_text(Standing(schema=SCHEMA, rows=[made]).to_dict()).rstrip()


def write_standing(standing: Standing, folder: Path) -> Path:
    """Write the page, its figures, the data and their schema, each atomically. The same rows give the same bytes.

    Returns:
        the page.
    """
    several = sections(standing)
    templates = environment()
    functions = (protocol, commands, notes, linked, ranked_table, others_table, field_tables, example)
    templates.globals |= {function.__name__: function for function in functions}
    page = templates.get_template("standing.md.j2").render(
        sections=several, data=DATA, schema=SCHEMA, schema_file=SCHEMA_FILE, figure=FIGURE
    )
    write_text(folder / DATA, as_text(standing.to_dict()))
    write_text(folder / SCHEMA_FILE, shipped_schema())
    write_text(folder / PAGE, page)
    for section in several:
        if section.has_figure:
            write_text(folder / file_name(section.stem, FIGURE, "svg"), figure_text(section))
    return folder / PAGE
