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
UNMEASURED = {"vop-p", "vop-c", "vop-f", "vop-f+c"}
PUBLISHED = {"emoji-motion": METHODS.keys() - LATER, "emoji-motion-2": METHODS.keys() - LATER - UNMEASURED}
OURS, PROMPTS = FOLDER / "emoji-motion-2-ours.json", FOLDER / "emoji-motion-2-prompts.json"


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
    section = page.partition("### Other methods, at a given rate")[2].partition("\n###")[0]
    shown = [line for line in section.splitlines() if line.startswith("| ") and "R@1" not in line and "---" not in line]
    arms = {
        arm.name: arm for path in (FOLDER / "emoji-motion-2.json", PROMPTS) for one in read(path) for arm in one.arms
    }
    assert len(shown) == 7
    for line in shown:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        arm = arms[name.removesuffix(", one seed")]
        means = [arm.mean.t2v.r1, arm.mean.t2v.r5, arm.mean.v2t.r1, arm.mean.r_sum, arm.mean.extras["order"]]
        assert [cell.split(" ± ")[0] for cell in cells[:5]] == [f"{mean:.1f}" for mean in means]
        assert cells[5] == f"{arm.parameters.true_count:,}"


def test_our_own_recipes_table_matches_its_data_file():
    page = (DOCS / "emoji-motion-2.md").read_text(encoding="utf-8")
    section = page.partition("## A recipe of our own")[2].partition("<!--")[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|") and "±" in line
    ]
    published = [[*row[1:4], row[5], row[6]] for row in rows]
    measured = [one for path in (FOLDER / "emoji-motion-2.json", OURS) for one in read(path)]
    arms = [arm for one in measured for arm in one.arms if arm.method.startswith("vop-f+p") or arm.method == "full"]
    assert len(published) == len(arms) > 3
    for arm in arms:
        mean, spread = arm.mean, arm.spread
        t2v = [f"{getattr(mean.t2v, name):.1f} ± {getattr(spread.t2v, name):.1f}" for name in ("r1", "r5")]
        v2t = f"{mean.v2t.r1:.1f} ± {spread.v2t.r1:.1f}"
        order = f"{mean.extras['order']:.1f} ± {spread.extras['order']:.1f}"
        assert [*t2v, v2t, order, f"{arm.parameters.true_count:,}"] in published
