"""The results in docs/: one data file, and the page and figures made from it."""

from __future__ import annotations

import re

import pytest

from tools.publish_results import DOCS, PAGES, read, tables, written_tables
from vop.experiments.plan import ABLATIONS
from vop.experiments.results import COMPARE
from vop.methods import METHODS

FOLDER = DOCS / "results"


LATER = {"vop-f+p+bias", "tempme", "stop", "discovla", "dgl-linear", "dgl-transformer"}
PUBLISHED = {"emoji-motion": METHODS.keys() - LATER, "emoji-motion-2": {"zero-shot", "full", "vop", "vop-f+p"}}


@pytest.fixture(scope="module", params=PAGES)
def benchmark(request):
    return request.param


@pytest.fixture(scope="module")
def experiments(benchmark):
    return read(DOCS / PAGES[benchmark][0])


@pytest.fixture(scope="module")
def page(benchmark):
    return (DOCS / PAGES[benchmark][1]).read_text(encoding="utf-8")


def test_tables_match_the_data_file(experiments, page):
    assert written_tables(page) == tables(experiments)


def test_methods_are_published_with_three_seeds(benchmark, experiments):
    assert {one.data for one in experiments} == {benchmark}
    assert {arm.name for arm in experiments[0].arms} == PUBLISHED[benchmark]
    assert experiments[0].seeds == [0, 1, 2]


def test_all_ablations_of_the_first_version_are_published():
    experiments = read(DOCS / PAGES["emoji-motion"][0])
    assert [one.ablation or one.kind for one in experiments] == [COMPARE, *ABLATIONS]


def test_the_pages_show_exactly_the_published_figures():
    pages = [(DOCS / page).read_text(encoding="utf-8") for _, page in PAGES.values()]
    shown = [name for page in pages for name in re.findall(r"!\[[^]]*\]\(results/([^)]+)\)", page)]
    assert sorted(shown) == sorted(path.name for path in FOLDER.glob("*.svg"))


def test_the_folder_is_small():
    files = list(FOLDER.iterdir())
    assert len(files) <= 12
    assert sum(path.stat().st_size for path in files) < 1_000_000
