"""The tables of an experiment: their cells, and the columns that fit a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from experiments.documents import ablation_document, compare_document, typed, with_paper
from vop.experiments import tables
from vop.experiments.formats import Terminal
from vop.experiments.tables import Cell, Column, Table, number, signed, size


def of_document(function):
    """Takes a document instead of typed results."""
    return lambda document: function(typed(document))


rich_table = of_document(Terminal)
kind_tables = of_document(tables.kind_tables)
main_table = of_document(tables.main_table)
order_table = of_document(tables.order_table)
trial_table = of_document(tables.trial_table)
protocol = of_document(tables.protocol)
remarks = of_document(tables.remarks)

LONG = "vop-f+c/tightTransf"


def on_terminal(document: dict, *, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width)
    console.print(rich_table(document))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


def big(**changes) -> dict:
    """Long names, and the widest numbers."""
    document = compare_document(**changes)
    row = document["arms"][-1]
    row |= {
        "name": LONG,
        "gain": {"t2v_r1": -100.0, "interval": [-100.0, -99.9], "p": 0.0005},
        "learning_rate": 1.2e-06,
    }
    row["parameters"]["true_count"] = 151_277_313
    row["spread"] = row["spread"] | {way: dict.fromkeys(row["mean"][way], 10.1) for way in ("t2v", "v2t")}
    for way in ("t2v", "v2t"):
        row["mean"][way] = {"r1": 100.0, "r5": 100.0, "r10": 100.0, "mdr": 1.0, "mnr": 12_345.6}
    row["mean"] |= {"minutes": 12_345.6, "peak_memory_bytes": 78_000_000_000, "size_bytes": 605_000_000}
    return document


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_terminals_cut_no_cell(width):
    lines = on_terminal(big(), width=width)
    assert "…" not in "".join(lines)
    row = next(line for line in lines if line.startswith(LONG))
    assert "100.0 ± 10.1" in row


def test_terminals_show_the_most_important_columns():
    def row(width):
        return next(line for line in on_terminal(big(), width=width) if line.startswith(LONG)).split()

    first = [LONG, "100.0", "±", "10.1", "-100.0", "0.0005"]
    assert row(60) == [*first, "100.0"]  # t2v R@5, which is narrow
    assert row(80) == [*first, "100.0", "±", "10.1", "100.0", "100.0"]
    assert row(100) == [*first, "100.0", "±", "10.1", "100.0", "100.0", "12,345.6", "63.1"]
    costs = ["1.2e-06", "151,277,313", "12,345.6", "78.0", "GB", "605", "MB"]
    assert row(160) == [*first, "100.0", "±", "10.1", "100.0", "100.0", "12,345.6", "63.1", *costs]
    said = (
        "columns that do not fit: v2t R@1, t2v R@10, t2v MnR, order, learning rate, parameters, minutes, memory, disk"
    )
    assert said in " ".join(line.strip() for line in on_terminal(big(), width=60))
    assert not [line for line in on_terminal(big(), width=160) if "no room" in line]


def test_redirected_output_shows_all_columns():
    lines = on_terminal(compare_document(), width=140)
    assert not [line for line in lines if "no room" in line]
    row = next(line for line in lines if line.startswith("vop-f+p")).split()
    metrics = ["39.7", "±", "1.1", "+5.6", "0.0123", "34.6", "±", "1.1", "80.7", "91.7", "5.6", "65.9"]
    assert row[1:] == [*metrics, "0.03", "49,536", "3.1", "812", "MB", "198", "kB"]


def test_names_wider_than_the_terminal_wrap():
    document = compare_document(names=("full", "vop"))
    document["arms"][1]["name"] = "a" * 70 + "b" * 40
    lines = on_terminal(document, width=80)
    assert sum(line.count("a" * 10) for line in lines) >= 5
    assert "".join(lines).count("b") >= 40
    assert "32.5 ± 1.1" in "".join(lines)


def test_terminals_show_protocol_and_failures():
    failure = "lora, seed 1: the loss is not finite"
    document = compare_document(names=("full", "vop"), failures=[failure], notes=["[b]x"])
    lines = on_terminal(document, width=140)
    for line in (*(f"{name}: {text}" for name, text in protocol(document).items()), *remarks(document)):
        assert line in lines
    assert f"failed: {failure}" in lines
    assert "[b]x" in lines


def column(table: Table, head: str) -> dict[str, str]:
    """The text of each arm's cell in a column."""
    (cells,) = (found.cells for found in table.filled() if found.head == head)
    names = [cell.text for cell in table.filled()[0].cells]
    return dict(zip(names, (cell.whole for cell in cells), strict=True))


def written(table: Table) -> list[tuple[str, ...]]:
    return list(zip(*([cell.whole for cell in found.cells] for found in table.filled()), strict=True))


def test_cells_of_arms():
    table = main_table(with_paper(compare_document(names=("zero-shot", "full", "vop"))))
    assert column(table, "t2v R@1") == {"zero-shot": "18.6", "full": "34.1 ± 1.1", "vop": "32.5 ± 1.1"}
    assert column(table, "gain over full") == {"zero-shot": "-15.5", "full": "", "vop": "-1.6"}
    assert column(table, "95 % interval")["vop"] == "-4.8 to +1.5"
    assert column(table, "paper t2v R@1") == {"zero-shot": "", "full": "41.7", "vop": "39.6"}
    assert column(table, "ours - paper")["vop"] == "-7.1"
    assert column(table, "learning rate") == {"zero-shot": "", "full": "0.0001", "vop": "0.03"}
    assert column(table, "parameters")["full"] == "8,123,456"
    assert column(table, "paper's count")["full"] == "6,900,000"


def test_rsum_adds_recalls_of_both_directions():
    table = main_table(compare_document(names=("zero-shot", "full", "vop")))
    assert column(table, "R-sum") == {"zero-shot": "298.2", "full": "387.3 ± 0.0", "vop": "374.7 ± 0.0"}


def test_empty_columns_are_omitted():
    heads = [found.head for found in main_table(compare_document(names=("vop", "vop-p"))).filled()]
    assert "t2v R@1" in heads
    assert not [head for head in heads if "gain" in head or "paper t2v" in head or head in ("p", "95 % interval")]


def test_values_that_round_the_same_are_best_together():
    def best(*values):
        cells = Column("R@1", lambda value: Cell(number(value), value), best=max)
        (found,) = Table("", [cells], values).filled()
        return [cell.text for cell in found.cells if cell.best]

    assert best(9.04, 10.5, 10.52, None) == ["10.5", "10.5"]
    assert best(3.0, 3.0) == []


def test_kinds_are_columns():
    r1, order = kind_tables(compare_document(names=("full", "vop")))
    assert column(r1, "move (115)") == {"full": "45.6", "vop": "44.0"}
    assert column(order, "leave (56)") == {"full": "58.2", "vop": "49.1"}
    assert [found.head for found in order.filled()] == ["arm", "leave (56)", "move (115)"]
    document = compare_document(names=("full", "vop"))
    for row in document["arms"]:
        del row["kinds"]
    assert kind_tables(document) == []


def test_each_order_and_trial_is_a_row():
    document = compare_document(names=("zero-shot", "vop"))
    document["order"][0] |= {"paper": None, "spread": None}
    rows = written(order_table(document))
    assert rows[0] == ("vop < vop-p", "", "+5.4", "✓ holds")
    assert rows[2] == ("vop-c < vop-f+c", "+0.4", "-1.4 ± 1.1", "✗ does not hold")
    ((arm, tried, minutes),) = written(trial_table(document))
    assert (arm, minutes) == ("vop", "3.0")
    assert tried == "0.003: 26.5, 0.0095: 31.0, 0.03: 32.5, 0.095: 31.0, 0.3: 26.5 (pruned), 0.9 (failed)"
    for row in document["arms"]:
        row["trials"] = [{key: trial[key] for key in trial.keys() - {"minutes"}} for trial in row["trials"]]
    assert [found.head for found in trial_table(document).filled()] == ["arm", trial_table(document).columns[1].head]


@pytest.mark.parametrize(
    ("search", "rate", "says"),
    [
        (
            {"low": 1e-6, "high": 1e-2, "rates": [], "trials": 8, "epochs": 2, "steps": 1000},
            None,
            "searched on validation videos, 1e-06 to 0.01; trials: 8, epochs per trial: 2, "
            "steps per trial: at most 1,000",
        ),
        (
            {"low": 1e-6, "high": 1e-2, "rates": [1e-3, 1e-2], "trials": 8, "epochs": 1, "steps": 50},
            None,
            "searched on validation videos, 2 given rates; trials: 2, epochs per trial: 1, steps per trial: at most 50",
        ),
        (None, 1e-3, "0.001 for all arms, given"),
    ],
)
def test_the_protocol_states_the_origin_of_learning_rates(search, rate, says):
    assert protocol(compare_document(search=search, learning_rate=rate))["learning rates"] == says


def test_the_protocol_of_one_seed_and_a_whole_gallery():
    document = ablation_document(seeds=(4,))
    document["gallery"] |= {"listed_videos": 500, "skipped": []}
    found = protocol(document)
    assert found["seeds"] == "4"
    assert found["ranked"] == "500 texts, gallery of 500 videos; ties: pessimistic"
    assert found["training"] == "12 epochs, batch 32, 6 frames, fp32"
    assert remarks(document) == []


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (number(None), ""),
        (number(1234.56), "1,234.6"),
        (Cell("3.0", 3.0, 0.25).whole, "3.0 ± 0.2"),
        (Cell("3.0", 3.0, 0.0).whole, "3.0 ± 0.0"),
        (signed(None), ""),
        (signed(-0.04), "0.0"),
        (signed(2.25), "+2.2"),
        (signed(-1.0), "-1.0"),
        (size(None), ""),
        (size(999), "999 B"),
        (size(86_016), "86 kB"),
        (size(2_500_000_000), "2.5 GB"),
    ],
)
def test_numbers_are_formatted(written, text):
    assert written == text
