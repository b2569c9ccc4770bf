"""The results in docs/: one data file, and the page and figures made from it."""

from __future__ import annotations

import re

import pytest

from tools.publish_results import DATA, DOCS, PAGE, read, tables, written_tables
from vop.experiments.plan import ABLATIONS
from vop.experiments.results import COMPARE
from vop.methods import METHODS

FOLDER = DOCS / "results"


@pytest.fixture(scope="module")
def experiments():
    return read(DOCS / DATA)


NOT_YET = {  # methods that came after the paper, without results on emoji-motion
    "tempme",
    "stop",
    "discovla",
    *("dgl-linear", "dgl-transformer"),
}


@pytest.fixture(scope="module")
def page():
    return (DOCS / PAGE).read_text(encoding="utf-8")


def test_tables_match_the_data_file(experiments, page):
    assert written_tables(page) == tables(experiments)


def test_all_methods_and_ablations_are_published(experiments):
    assert [one.ablation or one.kind for one in experiments] == [COMPARE, *ABLATIONS]
    assert {arm.name for arm in experiments[0].arms} == METHODS.keys() - NOT_YET
    assert experiments[0].seeds == [0, 1, 2]


def test_the_page_shows_exactly_the_published_figures(page):
    shown = re.findall(r"!\[[^]]*\]\(results/([^)]+)\)", page)
    assert sorted(shown) == sorted(path.name for path in FOLDER.glob("*.svg"))
    assert len(shown) <= 6


def test_the_folder_is_small():
    files = list(FOLDER.iterdir())
    assert len(files) <= 8
    assert sum(path.stat().st_size for path in files) < 1_000_000
