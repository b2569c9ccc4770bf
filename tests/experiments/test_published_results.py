"""The results in docs/: one data file, and the page and figures made from it."""

from __future__ import annotations

import re
from operator import attrgetter
from statistics import mean, stdev

import pytest

from tools.publish_results import DOCS, PAGES, read, tables, written_tables
from vop.experiments.plan import ABLATIONS
from vop.experiments.results import COMPARE
from vop.methods import METHODS

FOLDER = DOCS / "results"


OURS = "vop-f+p+bias"
LATER = {"tempme", "stop", "discovla", "dgl-linear", "dgl-transformer"}
OTHERS = LATER | {"vop-p", "vop-c", "vop-f", "vop-f+c"}  # measured on a GPU
PUBLISHED = {"emoji-motion": METHODS.keys() - LATER - {OURS}, "emoji-motion-2": METHODS.keys() - OTHERS - {OURS}}
FILES = {name: FOLDER / f"emoji-motion-2{name}.json" for name in ("", "-others", "-ours")}


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


def test_the_table_of_other_methods_matches_the_data_files():
    page = (DOCS / "emoji-motion-2.md").read_text(encoding="utf-8")
    section = page.partition("### Other methods")[2].partition("\n###")[0]
    shown = [line for line in section.splitlines() if line.startswith("| ") and "R@1" not in line and "---" not in line]
    (first,), (others, check) = read(FILES[""]), read(FILES["-others"])
    assert {arm.name for arm in others.arms} == OTHERS
    assert others.seeds == check.seeds == first.seeds
    assert (others.recipe, others.search) == (first.recipe, first.search)
    expected = [
        *(_cells(arm, f"{arm.name}, on a CPU") for arm in first.arms if arm.name in ("vop", "vop-f+p", "full", "lora")),
        *(_cells(arm, arm.name) for one in (others, check) for arm in one.arms),
    ]
    assert sorted([cell.strip() for cell in line.strip("|").split("|")] for line in shown) == sorted(expected)


def _cells(arm, name):
    measures = attrgetter("t2v.r1", "t2v.r5", "v2t.r1", "r_sum"), lambda run: (run.extras["order"],)
    columns = zip(*([value for measure in measures for value in measure(run)] for run in arm.runs), strict=True)
    shown = [f"{mean(column):.1f} ± {stdev(column):.1f}" for column in columns]
    return [name, *shown, f"{arm.parameters.true_count:,}"]


def test_our_own_recipes_table_matches_its_data_file():
    page = (DOCS / "emoji-motion-2.md").read_text(encoding="utf-8")
    section = page.partition("## A recipe of our own")[2].partition("<!--")[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|") and "±" in line
    ]
    published = [[*row[1:4], row[5], row[6]] for row in rows]
    measured = [one for path in (FILES[""], FILES["-ours"]) for one in read(path)]
    arms = [arm for one in measured for arm in one.arms if arm.method.startswith("vop-f+p") or arm.method == "full"]
    assert len(published) == len(arms) > 3
    for arm in arms:
        mean, spread = arm.mean, arm.spread
        t2v = [f"{getattr(mean.t2v, name):.1f} ± {getattr(spread.t2v, name):.1f}" for name in ("r1", "r5")]
        v2t = f"{mean.v2t.r1:.1f} ± {spread.v2t.r1:.1f}"
        order = f"{mean.extras['order']:.1f} ± {spread.extras['order']:.1f}"
        assert [*t2v, v2t, order, f"{arm.parameters.true_count:,}"] in published
