"""The folder of a report: its files, their links, and the files that remain if drawing fails."""

from __future__ import annotations

import csv
import json
import re

import pytest

from experiments.documents import ablation_document, compare_document, typed, with_paper
from vop.cli.common import print_table
from vop.experiments import figures
from vop.experiments import report as reporting
from vop.experiments.formats import Terminal, csv_text, latex_table, markdown_table
from vop.experiments.report import write_report
from vop.experiments.tables import Cell, Column, Table, main_table


def publish(documents, folder, *, name):
    return write_report([typed(document) for document in documents], folder, name=name)


@pytest.fixture
def no_figures(monkeypatch):
    """Reports are written without drawing figures."""
    monkeypatch.setattr(figures, "save_figure", lambda *_: None)
    monkeypatch.setattr(reporting, "_inline", lambda *_, **__: [])


def small(**changes) -> dict:
    return compare_document(names=("zero-shot", "full", "vop"), **changes)


def sections(folder, name: str) -> dict[str, list[str]]:
    """The pictures of a Markdown page, under their headings."""
    parts = re.split(r"^## (.*)$", (folder / f"{name}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pictures = [re.findall(r"!\[.*?\]\((.*?)\)", part) for part in parts[::2]]
    return dict(zip(["", *parts[1::2]], pictures, strict=True))


def test_figures_are_in_the_section_of_their_experiment(tmp_path):
    documents = [ablation_document("cmm", ("lstm", "bilstm")), ablation_document("cmm-role", ("makes", "replaces"))]
    publish(documents, tmp_path, name="ablate")
    found = sections(tmp_path, "ablate")
    figures = ("ablation", "curves", "rates")
    assert found == {
        "": [],
        "emoji-motion: the context modelling module": [f"emoji-motion-cmm-{figure}.svg" for figure in figures],
        "emoji-motion: the role of the CMM's output": [f"emoji-motion-cmm-role-{figure}.svg" for figure in figures],
    }
    assert all((tmp_path / picture).exists() for pictures in found.values() for picture in pictures)


@pytest.mark.usefixtures("no_figures")
def test_names_that_differ_in_case_get_different_files(tmp_path):
    documents = [small(data="x"), small(data="X")]
    publish(documents, tmp_path, name="compare")
    figures = ("parameters", "curves", "rates")
    assert sections(tmp_path, "compare") == {
        "": ["gains.svg"],
        "x": [f"x-compare-{figure}.svg" for figure in figures],
        "X": [f"x-compare-2-{figure}.svg" for figure in figures],
    }
    assert json.loads((tmp_path / "x-compare-2.json").read_text(encoding="utf-8")) == documents[1]


def test_failing_figures_lose_no_numbers(tmp_path, monkeypatch):
    def fails(*_):
        raise MemoryError("no room to draw in")

    monkeypatch.setattr(figures, "save_figure", fails)
    with pytest.raises(MemoryError, match="no room to draw in"):
        publish([small()], tmp_path, name="compare")
    assert {path.name for path in tmp_path.iterdir()} == {
        "emoji-motion-compare.json",
        "emoji-motion-compare.csv",
        "emoji-motion-compare.tex",
        "compare.md",
    }


def test_failing_pages_lose_no_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "markdown_table", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        publish([small(), ablation_document()], tmp_path, name="compare")
    names = [f"emoji-motion-{kind}.{suffix}" for kind in ("compare", "length") for suffix in ("csv", "json", "tex")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.usefixtures("no_figures")
def test_the_page_states_where_numbers_come_from(tmp_path):
    document = with_paper(small(data="msrvtt-9k", notes=["a note"], failures=["lora, seed 1: it broke"]))
    page = publish([document], tmp_path, name="compare")
    assert page == tmp_path / "compare.html"
    lines = (tmp_path / "compare.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# msrvtt-9k"
    assert lines[2].startswith("[compare.html](compare.html) ")
    for line in (
        "vop compare --data msrvtt-9k --backbone mini --seeds 3",
        "- backbone: mini",
        "- training: 12 epochs, batch 32, 6 frames, fp32",
        "- machine: Intel(R) Xeon(R) Processor, 2 cores",
        "- time: 190.4 minutes of training in all; written 2025-01-31 09:30:00+00:00",
        "- version: vop 0.1.0",
        "- a note",
        "- 1 video could not be read: missing from the gallery, with their captions",
        "- failed: lora, seed 1: it broke",
        "| vop < vop-p | +0.5 | +5.4 ± 1.1 | ✓ holds |",
        "| vop | 38.1 | 44.0 | 36.0 |",
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("Learning rates that were tried")]


def test_markdown_tables_escape_separators():
    columns = [
        Column("a|b", lambda row: Cell(row[0])),
        Column("R@1", lambda row: Cell(str(row[1]), row[1], 0.5), max),
        Column("nothing", lambda row: Cell()),
    ]
    assert markdown_table(Table("", columns, [("x|y\nz", 1.0), ("w", 2.0)])).splitlines() == [
        "| a\\|b | R@1 |",
        "| --- | ---: |",
        "| x\\|y z | 1.0 ± 0.5 |",
        "| w | **2.0 ± 0.5** |",
    ]
    lines = markdown_table(main_table(typed(small()))).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_latex_tables_escape_special_characters():
    columns = [
        Column("arm_1 & more", lambda row: Cell(row[0])),
        Column("R@1", lambda row: Cell(str(row[1]), row[1], 0.5), max),
    ]
    assert latex_table(Table("95 %", columns, [("x_y", 1.0), ("\\input{w}", 2.0)])).splitlines() == [
        "% 95 %",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"arm\_1 \& more & R@1 \\",
        r"\midrule",
        r"x\_y & 1.0 $\pm$ 0.5 \\",
        r"\textbackslash{}input\{w\} & \textbf{2.0 $\pm$ 0.5} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_has_a_row_per_run_unrounded():
    document = small()
    document["arms"][1]["runs"][2]["machine"] = "an H100"
    document["arms"][0]["runs"][0]["extras"] = {}
    rows = list(csv.DictReader(csv_text(typed(document)).splitlines()))
    assert [(row["name"], row["seed"]) for row in rows] == [
        ("zero-shot", "0"),
        *((name, str(seed)) for name in ("full", "vop") for seed in range(3)),
    ]
    assert float(rows[4]["t2v_r1"]) == document["arms"][2]["runs"][0]["t2v"]["r1"]
    assert float(rows[4]["t2v_mnr"]) == document["arms"][2]["runs"][0]["t2v"]["mnr"]
    assert [row["order"] for row in rows][:2] == ["", str(58.2 - 1.1)]
    assert (rows[2]["machine"], rows[3]["machine"]) == ("Intel(R) Xeon(R) Processor, 2 cores", "an H100")


def test_reports_contain_no_local_paths(tmp_path):
    path = str(tmp_path / "secret" / "a.mp4")
    clip = {"arm": "full", "path": path, "right": False, "caption": "a cat"}
    document = small(seeds=(0,), examples=[{"sentence": "a dog", "path": path, "found": [clip]}])
    page = publish([document], tmp_path / "report", name="compare")
    for written in page.parent.iterdir():
        assert str(tmp_path).encode() not in written.read_bytes(), written.name
    saved = json.loads((page.parent / "emoji-motion-compare.json").read_text())
    assert saved["examples"][0]["path"] == "a.mp4"


HOSTILE = "=x|`<img src=x onerror=alert(1)>`[a](javascript:b)\n# \x1b[31m"


def hostile() -> dict:
    """A document with names that could break a table, a page, a spreadsheet or a terminal."""
    document = small(data=HOSTILE, backbone=HOSTILE, notes=[HOSTILE], failures=[HOSTILE])
    document["command"] = f"vop compare --data '{HOSTILE}\n```\n'"
    document["machines"] = [HOSTILE]
    for arm in document["arms"]:
        arm["name"] = arm["method"] = f"{HOSTILE}{arm['name']}"
        arm["head"] = "@head"
    document["baseline"] = document["arms"][1]["name"]
    return document


@pytest.mark.usefixtures("no_figures")
def test_names_cannot_break_markdown(tmp_path):
    document = hostile()
    publish([document], tmp_path, name="compare")
    text = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "\x1b" not in text
    fence = re.search(r"^(`{3,})sh$", text, re.MULTILINE)[1]
    assert len(fence) > 3
    outside = re.sub(rf"^{fence}sh$.*?^{fence}$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in outside
    assert not re.search(r"(?<!\\)\[a\]", outside)
    assert not re.search(r"(?<!\\)`", outside)
    assert [line for line in outside.splitlines() if line.startswith("# ")] == [outside.splitlines()[0]]
    rows = [line for line in outside.splitlines() if line.startswith("| ") and "---" not in line]
    table = markdown_table(main_table(typed(document))).splitlines()
    assert len(table) == 2 + len(document["arms"])
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert set(table) - {table[1]} <= set(rows)


def test_names_cannot_become_spreadsheet_formulas():
    document = hostile()
    rows = list(csv.DictReader(csv_text(typed(document)).splitlines(keepends=True)))
    assert len(rows) == sum(len(arm["runs"]) for arm in document["arms"])
    assert rows[0]["name"] == f"'{document['arms'][0]['name']}"
    assert (rows[0]["head"], rows[0]["data"]) == ("'@head", f"'{HOSTILE}")
    for row in rows:
        for value in row.values():
            assert value[:1] not in ("=", "+", "@", "\t", "\r")
            assert value[:1] != "-" or float(value) < 0  # a number


def test_names_cannot_inject_html(tmp_path):
    page = publish([hostile()], tmp_path, name="compare").read_text(encoding="utf-8")
    assert "<img src=x" not in page


def test_names_cannot_control_the_terminal(capsys):
    print_table(Terminal(typed(hostile())))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31m" in out
