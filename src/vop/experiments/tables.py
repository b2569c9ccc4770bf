"""The tables of a study's document, cell by cell, for whoever lays them out; and the main one on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vop.experiments.reading import found, gain, heading, heads, number, protocol, remarks, signed, size
from vop.utils.text import on_one_line, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as RichTable

HEADS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "mdr": "MdR", "mnr": "MnR"}
KINDS = {
    "t2v_r1": "t2v R@1 by kind of content (videos), mean over seeds",
    "order": "Order accuracy by kind of content (videos; chance 50), mean over seeds",
}
_MARKS = {"holds": "✓", "within the spread": "≈", "does not hold": "✗"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says; nothing if it is empty.
        value: what its column is sorted by; the text if there is none.
        spread: the standard deviation behind the text.
        notes: small lines beneath, where a page has room for them.
        best: whether it is the best of its column.
    """

    text: str = ""
    value: float | None = None
    spread: float | None = None
    notes: tuple[str, ...] = ()
    best: bool = False

    @property
    def whole(self) -> str:
        """The text with the spread."""
        return self.text if self.spread is None else f"{self.text} ± {self.spread:,.1f}"


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: its heading.
        cell: makes a row's cell.
        best: which of the values is the best: `max`, `min` or none.
        rank: where there is no room for all, 0 comes first, then 1; 2 is for pages alone.
    """

    head: str
    cell: Callable[[Any], Cell]
    best: Callable[[Iterable[float]], float] | None = None
    rank: int = 2


@dataclass(frozen=True)
class Table:
    """What every renderer lays out."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Any]

    def filled(self) -> list[tuple[Column, list[Cell]]]:
        """The cells, column by column: the best ones marked, and no column without content."""
        cells = [(column, _marked([column.cell(row) for row in self.rows], column.best)) for column in self.columns]
        return [(column, own) for column, own in cells if any(cell.text for cell in own)]


def _marked(cells: list[Cell], best: Callable | None) -> list[Cell]:
    """The cells, the best of them marked as such; all that read the same are."""
    values = [round(cell.value, 1) for cell in cells if cell.value is not None]
    if best is None or len(set(values)) < 2:  # where all are the same, none is the best
        return cells
    top = best(values)
    return [replace(cell, best=cell.value is not None and round(cell.value, 1) == top) for cell in cells]


def formatted(value: float | None, form: str) -> Cell:
    return Cell() if value is None else Cell(form.format(value), value)


def main_table(document: Mapping) -> Table:
    """A row an arm: how well it retrieves, what it gains, what it trains, what it costs."""
    extras = dict.fromkeys(name for arm in document["arms"] for name in found(arm, "mean", "extras") or ())
    with_head = len(heads(document)) > 1
    columns = [
        Column("arm", lambda arm: _arm(arm, with_head=with_head), rank=0),
        *_direction("t2v", ranks={"r1": 0, "r5": 1, "r10": 1, "mnr": 1}),
        Column(f"gain over {document.get('baseline')}", lambda arm: _gain(document, arm), rank=0),
        Column("95 % interval", _gain_interval),
        Column("p", lambda arm: formatted(found(arm, "gain", "p"), "{:.4f}"), rank=0),
        Column("paper t2v R@1", lambda arm: formatted(found(arm, "paper", "t2v", "r1"), "{:.1f}")),
        Column("ours - paper", _beside_paper),
        *_direction("v2t", ranks={"r1": 0}),
        *(Column(name, _mean("extras", name), max, rank=1) for name in extras),
        Column("learning rate", lambda arm: formatted(arm.get("learning_rate"), "{:.2g}"), rank=1),
        Column("parameters", lambda arm: _parameters(arm, "true"), rank=1),
        Column("paper's count", lambda arm: _parameters(arm, "paper")),
        Column("minutes", _mean("minutes"), rank=1),
        Column("memory", lambda arm: _size(arm, "peak_memory_bytes"), rank=1),
        Column("disk", lambda arm: _size(arm, "size_bytes"), rank=1),
    ]
    return Table(heading(document), columns, document["arms"])


def _arm(arm: Mapping, *, with_head: bool) -> Cell:
    notes = [arm["method"]] if arm["method"] != arm["name"] else []
    notes += [f"head {arm['head']}"] if with_head and arm.get("head") else []
    return Cell(arm["name"], notes=tuple(notes))


def _direction(way: str, *, ranks: Mapping[str, int]) -> list[Column]:
    return [
        Column(f"{way} {head}", _mean(way, key), min if key in ("mdr", "mnr") else max, ranks.get(key, 2))
        for key, head in HEADS.items()
    ]


def _mean(*keys: str) -> Callable[[Mapping], Cell]:
    """The cell of a mean: beneath it its interval, and the paper's number with the difference."""

    def cell(arm: Mapping) -> Cell:
        value, spread, paper = found(arm, "mean", *keys), found(arm, "spread", *keys), found(arm, "paper", *keys)
        interval = found(arm, "interval", *keys)
        notes = []
        if interval:
            notes.append(f"{100 * arm['interval']['level']:g} %: {number(interval[0])}–{number(interval[1])}")
        if None not in (value, paper):
            notes.append(f"paper {number(paper)}, {signed(value - paper)}")
        return Cell(number(value), value, spread, tuple(notes))

    return cell


def _gain(document: Mapping, arm: Mapping) -> Cell:
    value = None if arm["name"] == document.get("baseline") else gain(document, arm)
    return Cell(signed(value), value)


def _gain_interval(arm: Mapping) -> Cell:
    interval = found(arm, "gain", "interval")
    return Cell(f"{signed(interval[0])} to {signed(interval[1])}", interval[0]) if interval else Cell()


def _beside_paper(arm: Mapping) -> Cell:
    paper = found(arm, "paper", "t2v", "r1")
    value = None if paper is None else arm["mean"]["t2v"]["r1"] - paper
    return Cell(signed(value), value)


def _parameters(arm: Mapping, way: str) -> Cell:
    count, percent = (found(arm, "parameters", f"{way}_{unit}") for unit in ("count", "percent"))
    return Cell() if count is None else Cell(f"{count:,}", count, notes=(f"{percent or 0:.3f} %",))


def _size(arm: Mapping, key: str) -> Cell:
    value = found(arm, "mean", key)
    return Cell(size(value), value)


def kind_tables(document: Mapping) -> list[Table]:
    """Tables by kind of content, where the benchmark has kinds."""
    arms = [arm for arm in document["arms"] if arm.get("kinds")]
    kinds = arms[0]["kinds"] if arms else {}
    return [
        Table(
            title,
            [
                Column("arm", lambda arm: Cell(arm["name"])),
                *(Column(f"{kind} ({facts['videos']:g})", _of_kind(kind, key), max) for kind, facts in kinds.items()),
            ],
            arms,
        )
        for key, title in KINDS.items()
        if any(key in facts for facts in kinds.values())
    ]


def _of_kind(kind: str, key: str) -> Callable[[Mapping], Cell]:
    return lambda arm: formatted(found(arm, "kinds", kind, key), "{:.1f}")


def order_table(document: Mapping) -> Table:
    """Pairs that the paper puts in an order, and whether they come in it here."""
    columns = [
        Column("the paper has", lambda pair: Cell(f"{pair['lower']} < {pair['higher']}")),
        Column("there", lambda pair: Cell(signed(pair["paper"]), pair["paper"])),
        Column("here", lambda pair: Cell(signed(pair["ours"]), pair["ours"], pair["spread"])),
        Column("verdict", lambda pair: Cell(f"{_MARKS.get(pair['verdict'], '')} {pair['verdict']}".strip())),
    ]
    title = "Where the paper's order of t2v R@1 holds (there: over its five benchmarks, for zero-shot MSR-VTT-9k alone)"
    return Table(title, columns, document.get("order") or ())


def trial_table(document: Mapping) -> Table:
    """Every learning rate that was tried."""
    columns = [
        Column("arm", lambda arm: Cell(arm["name"])),
        Column("rate: mean of R@1, R@5 and R@10 in both directions on validation videos", _trials),
        Column("minutes", lambda arm: _sum(trial.get("minutes") for trial in arm["trials"])),
    ]
    return Table("Learning rates that were tried", columns, [arm for arm in document["arms"] if arm.get("trials")])


def _trials(arm: Mapping) -> Cell:
    return Cell(", ".join(map(_trial, sorted(arm["trials"], key=lambda trial: trial["learning_rate"]))))


def _trial(trial: Mapping) -> str:
    score = "" if trial["score"] is None else f": {trial['score']:.1f}"
    return f"{trial['learning_rate']:.2g}{score}" + ("" if trial["state"] == "complete" else f" ({trial['state']})")


def _sum(minutes: Iterable[float | None]) -> Cell:
    known = [value for value in minutes if value is not None]
    return formatted(sum(known), "{:,.1f}") if known else Cell()


def rich_table(document: Mapping) -> RenderableType:
    """For a terminal: as many columns as it has room for, the most important first, and the protocol."""
    return _Terminal(document)


@dataclass(frozen=True)
class _Terminal:
    """The main table in the width that it is printed with."""

    document: Mapping

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        table = main_table(self.document)
        columns = sorted((pair for pair in table.filled() if pair[0].rank < 2), key=lambda pair: pair[0].rank)
        chosen, missing = columns[:2], []
        for pair in columns[2:]:
            wide = console.measure(_rich([*chosen, pair]), options=options.update(width=10_000)).maximum
            (chosen if wide <= options.max_width else missing).append(pair)
        yield Text(visible(f"\n{table.title}\n"))
        yield _rich(chosen)
        lines = [f"{name}: {text}" for name, text in protocol(self.document).items() if text]
        lines += [f"no room here: {', '.join(column.head for column, _ in missing)}"] if missing else []
        yield Text(visible("\n".join(["", *lines, *remarks(self.document)])))


def _rich(columns: Sequence[tuple[Column, list[Cell]]]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    written = []
    for n, (column, cells) in enumerate(columns):
        texts = [on_one_line(cell.whole if column.rank == 0 else cell.text) for cell in cells]
        head = "\n".join(wrap(visible(column.head), max(map(len, texts)), break_long_words=False))
        # A name may go on in the next line; a number must not.
        table.add_column(Text(head), justify="right" if n else "left", no_wrap=n > 0, overflow="fold")
        written.append([Text(t, style="bold" if cell.best else "") for t, cell in zip(texts, cells, strict=True)])
    for row in zip(*written, strict=True):
        table.add_row(*row)
    return table
