"""The standing comparison: its schema, merging of files, which rows are ranked together, its page and figure."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from statistics import stdev
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.documents import ablation_document, compare_document
from tools.publish_results import DOCS, PAGES, SCHEMA_PATH, STANDING, standing_sources
from vop.cli import main
from vop.errors import VopError
from vop.experiments.results import COMPARE
from vop.experiments.standing import merge
from vop.experiments.standing_report import differences, figure_text, ranked_table, sections, write_standing
from vop.experiments.standing_schema import SCHEMA, as_text, schema_text, shipped_schema

PUBLISHED = DOCS / PAGES["emoji-motion"][0]
GALLERY = {"videos": 500, "texts": 500, "tie_rule": "pessimistic", "fingerprint": "2f1c9a"}
PAPER = {"kind": "external", "citation": "A. Author, 2026", "url": "https://example.org/paper"}
OURS = {"kind": "vop", "version": "0.2.0"}


def scores(r1: float) -> dict:
    return {"t2v": {"r1": r1, "r5": r1 + 20, "r10": r1 + 30}}


def runs(*recalls: float) -> list[dict]:
    return [{"seed": seed, **scores(r1)} for seed, r1 in enumerate(recalls)]


def row(**changes) -> dict:
    """A row of a method that others measured with vop, three seeds."""
    return {
        "benchmark": "a world",
        "split": "test",
        "backbone": "a tower",
        "gallery": GALLERY,
        "method": "mine",
        "runs": runs(40, 42, 44),
        "parameters": 1000,
        "source": OURS,
        "date": "2026-01-31",
    } | changes


def document(*rows: dict) -> dict:
    return {"schema": SCHEMA, "rows": list(rows)}


def save(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def merged(tmp_path):
    def of(*contents: object):
        return merge([save(tmp_path / f"{n}.json", content) for n, content in enumerate(contents)])

    return of


def only(found):
    (section,) = sections(found)
    return section


def names(rows) -> list[str]:
    return [one.name for one in rows]


def reasons(section) -> dict[str, list[str]]:
    return {one.name: why for one, why in section.others}


# The schema


def test_the_shipped_schema_is_up_to_date():
    assert shipped_schema() == schema_text(), "run `python -m tools.publish_results`"
    assert SCHEMA_PATH.read_text(encoding="utf-8") == shipped_schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped_schema()))


BAD_ROWS = [
    ({"benchmark": None}, "benchmark is None: input should be a valid string"),
    ({"benchmrk": "a world"}, "benchmrk", "did you mean benchmark"),
    ({"source": {"kind": "paper"}}, "source.kind is 'paper'", "'vop' or 'external'"),
    ({"gallery": GALLERY | {"videos": 0}}, "gallery.videos is 0", "greater than or equal to 1"),
    ({"gallery": GALLERY | {"tie_rule": "random"}}, "gallery.tie_rule is 'random'", "'pessimistic' or 'optimistic'"),
    ({"mean": scores(120), "runs": []}, "mean.t2v.r1 is 120", "less than or equal to 100"),
    ({"mean": {"t2v": {"r1": "40"}}, "runs": []}, "mean.t2v.r1 is '40'", "valid number"),
    ({"recipe": {"epoch": 3}}, "recipe.epoch", "did you mean epochs"),
    ({"mean": {"t2w": {}}, "runs": []}, "'mean.t2v' is missing"),
    ({"cost": {"milliseconds_per_video": 0}}, "cost.milliseconds_per_video is 0", "greater than 0"),
    ({"source": OURS | {"url": "javascript:alert(1)"}}, "source.url is 'javascript:alert(1)'", "https?"),
    # What only the program checks, because a JSON Schema cannot.
    ({"name": "mine", "benchmark": "  "}, "benchmark", "'  ' is blank"),
    ({"date": "2026-02-30"}, "date", "'2026-02-30'", "YYYY-MM-DD"),
    ({"source": {"kind": "external"}}, "source", "citation is missing"),
    ({"source": {"kind": "vop"}}, "source", "version is missing"),
    ({"runs": []}, "mean is missing"),
    ({"runs": [*runs(40), *runs(42)]}, "seeds [0, 0]"),
    ({"runs": [{"seed": 0, "t2v": {"r1": 40, "r5": 39}}]}, "runs.0.t2v", "[40.0, 39.0]"),
    ({"mean": scores(45)}, "mean.t2v.r1 is 45", "42"),
    ({"runs": runs(40), "spread": {"t2v": {"r1": 1}}}, "spread is given", "one run"),
    ({"spread": {"t2v": {"mnr": 1}}}, "spread.t2v.mnr is 1", "not every run"),
]
IN_SCHEMA = 11


@pytest.mark.parametrize(("changes", "parts"), [(changes, parts) for changes, *parts in BAD_ROWS])
def test_errors_name_file_row_field_and_what_is_allowed(merged, tmp_path, changes, parts):
    with pytest.raises(VopError) as error:
        merged(document(row(), row() | changes))
    for part in (str(tmp_path / "0.json"), "row 2 (mine)", *parts):
        assert part in str(error.value)


@pytest.mark.parametrize("changes", [changes for changes, *_ in BAD_ROWS[:IN_SCHEMA]])
def test_the_schema_refuses_what_the_program_refuses(changes):
    schema = json.loads(shipped_schema())
    jsonschema.validate(document(row()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document(row() | changes), schema)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ["not readable as JSON"]),
        ('{"schema": NaN}', ["NaN"]),
        ("[" * 100_000, ["not readable as JSON"]),
        ("3", ["vop compare", SCHEMA]),
        ('{"rows": []}', ["vop compare", SCHEMA]),
        ('{"schema": "vop-standing/2", "rows": []}', ["'vop-standing/2'", SCHEMA]),
        (json.dumps({"schema": SCHEMA, "rows": 3}), ["rows is 3"]),
        (json.dumps({"schema": SCHEMA, "rows": [3]}), ["row 1", "3"]),
        (json.dumps({"schema": SCHEMA}), ["'rows' is missing"]),
        (json.dumps({"schema": SCHEMA, "row": []}), ["'rows' is missing"]),
        (json.dumps(document()), ["0 rows"]),
        (json.dumps([ablation_document()]), ["0 rows"]),
        (json.dumps(compare_document(backbone=3)), ["backbone"]),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, text, parts):
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(VopError) as error:
        merge([path])
    for part in (str(path), *parts):
        assert part in str(error.value)


# Results of `vop compare`


def test_every_arm_of_the_published_comparison_is_a_row():
    (results,) = [one for one in json.loads(PUBLISHED.read_text(encoding="utf-8")) if one["kind"] == COMPARE]
    rows = {one.name: one for one in merge([PUBLISHED]).rows}
    assert rows.keys() == {arm["name"] for arm in results["arms"]}
    for arm in results["arms"]:
        found = rows[arm["name"]]
        for way in ("t2v", "v2t"):
            for key, value in arm["mean"][way].items():
                assert getattr(getattr(found.average, way), key) == pytest.approx(value)
                if arm["spread"]:
                    assert getattr(getattr(found.deviation, way), key) == pytest.approx(arm["spread"][way][key])
        assert found.average.extras == pytest.approx(arm["mean"]["extras"])
        assert [run.seed for run in found.runs] == [run["seed"] for run in arm["runs"]]
        assert found.parameters == arm["parameters"]["true_count"]
        assert found.recipe.learning_rate == arm["learning_rate"]
        assert found.cost.minutes == arm["mean"]["minutes"]
        assert found.cost.search_minutes == (sum(t["minutes"] for t in arm["trials"]) if arm["trials"] else None)
        assert found.gallery.fingerprint == results["gallery"]["fingerprint"]
        assert (found.source.version, found.date) == ("0.1.0", results["written"][:10])
    assert rows["vop"].recipe.epochs == 8
    assert rows["vop"].recipe.num_frames == 6
    assert rows["vop"].settings == {}
    assert rows["zero-shot"].recipe.epochs is None


def test_results_in_a_list_alone_and_as_printed_are_the_same(merged):
    one = compare_document(data="another world", backbone="another tower")
    rows = merged([ablation_document(), one])
    assert rows == merged(one) == merged({"studies": [one, ablation_document()], "report": "page"})
    assert {found.backbone for found in rows.rows} == {"another tower"}


def test_a_head_is_a_setting(merged):
    results = compare_document(names=("vop",))
    results["arms"] = [results["arms"][0] | {"name": "vop/x-pool", "head": "x-pool"}]
    (found,) = merged(results).rows
    assert (found.name, found.method, found.settings) == ("vop/x-pool", "vop", {"prompts": 8, "head": "x-pool"})


# Merging


def test_a_document_can_be_merged_again(merged, tmp_path):
    found = merged(compare_document(), document(row(), row(method="theirs", source=PAPER, runs=[], mean=scores(50.5))))
    text = as_text(found.to_dict())
    (tmp_path / "again.json").write_text(text, encoding="utf-8")
    assert as_text(merge([tmp_path / "again.json", tmp_path / "1.json"]).to_dict()) == text
    jsonschema.validate(json.loads(text), json.loads(shipped_schema()))


def test_unknown_and_repeated_keys_are_not_lost(merged, tmp_path):
    with pytest.raises(VopError, match="0.json: .*row_notes"):
        merged(document(row()) | {"row_notes": "measured at night"})
    text = json.dumps(document(row()))
    (tmp_path / "twice.json").write_text(text.replace('"method":', '"method": "other", "method":'))
    with pytest.raises(VopError, match=r"twice.json: .*'method' 2 times"):
        merge([tmp_path / "twice.json"])


def test_the_order_of_runs_does_not_matter(merged):
    found = merged(document(row()), document(row(runs=runs(40, 42, 44)[::-1])))
    assert [run.seed for run in found.rows[0].runs] == [0, 1, 2]
    assert len(found.rows) == 1


def test_statistics_are_computed_from_the_seeds(merged):
    (found,) = merged(document(row(mean=scores(42.04), runs=runs(40, 41, 45)))).to_dict()["rows"]
    assert found["mean"]["t2v"]["r1"] == pytest.approx(42)
    assert found["spread"]["t2v"]["r1"] == pytest.approx(stdev([40, 41, 45]))
    assert "v2t" not in found["mean"]


def test_rows_that_contradict_each_other_are_refused(merged, tmp_path):
    with pytest.raises(VopError) as error:
        merged(document(row()), document(row(method="other"), row(runs=runs(50, 51, 52))))
    assert all(part in str(error.value) for part in ("0.json: row 1", "1.json: row 2", "mine"))
    assert len(merged(document(row()), document(row(), row(source=PAPER))).rows) == 2


FACTS = st.fixed_dictionaries(
    {
        "backbone": st.sampled_from(["a tower", "a tower", "b/tower"]),
        "gallery": st.sampled_from([GALLERY, GALLERY | {"videos": 30}]),
        "recipe": st.sampled_from([{}, {"epochs": 3}, {"epochs": 9}, {"other": {"videos": 500}}]),
        "runs": st.lists(st.integers(0, 70), min_size=1, max_size=2).map(lambda recalls: runs(*recalls)),
        "parameters": st.sampled_from([0, 1000, None]),
        "source": st.sampled_from([OURS, PAPER, PAPER | {"citation": "B. Other"}]),
    }
)


def alike(one: dict, other: dict) -> bool:
    """Whether two of the rows above may be ranked together."""
    trained = one["parameters"] != 0 and other["parameters"] != 0
    same = one["source"] == other["source"] and one["gallery"] == other["gallery"]
    seeds = one["source"]["kind"] == "external" or (len(one["runs"]) > 1) == (len(other["runs"]) > 1)
    return same and (not trained or (one["recipe"] == other["recipe"] and seeds))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=st.lists(FACTS, min_size=2, max_size=10), seed=st.integers(0, 999))
def test_the_order_of_rows_and_files_does_not_matter_and_only_alike_rows_are_ranked(tmp_path, facts, seed):
    rows = [row(method=f"m{n}", **one) for n, one in enumerate(facts)]
    found = merge([save(tmp_path / "all.json", document(*rows))])
    shuffled = random.Random(seed).sample(rows, len(rows))
    cut = seed % len(rows)
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    again = merge([save(tmp_path / f"{n}.json", document(*part)) for n, part in enumerate(parts)])
    assert as_text(again.to_dict()) == as_text(found.to_dict())

    by_name = {one["method"]: one for one in rows}
    everything = [name for section in sections(found) for name in names(section.rows)]
    assert sorted(everything) == sorted(by_name)
    for section in sections(found):
        assert section.ranked
        assert len({one.backbone for one in section.rows}) == 1
        recalls = [one.average.t2v.r1 for one in section.ranked]
        assert recalls == sorted(recalls, reverse=True)
        for one, other in combinations(names(section.ranked), 2):
            assert alike(by_name[one], by_name[other]), (one, other)
        for other in names(one for one, _ in section.others):
            assert not alike(by_name[other], by_name[section.reference.name])


# Ranking and the page


def test_each_row_that_is_not_ranked_has_its_reasons(merged):
    section = only(
        merged(
            document(
                row(method="a", recipe={"epochs": 3}),
                row(method="b", recipe={"epochs": 3}),
                row(method="untrained", parameters=0, runs=runs(9)),
                row(method="longer", recipe={"epochs": 9}),
                row(method="unknown"),
                row(method="other", recipe={"epochs": 3, "other": {"augment": "release"}}),
                row(method="once", recipe={"epochs": 3}, runs=runs(60)),
                row(method="small", recipe={"epochs": 3}, gallery=GALLERY | {"videos": 20, "fingerprint": "f"}),
                row(method="odd", recipe={"epochs": 3, "other": {"videos": 500}}, gallery=GALLERY | {"videos": 20}),
                row(method="published", source=PAPER, runs=[], mean=scores(65), gallery={"videos": 20, "texts": 500}),
            )
        )
    )
    assert names(section.ranked) == ["a", "b", "untrained"]
    assert reasons(section) == {
        "published": ["external", "videos: 20"],
        "once": ["1 seed"],
        "longer": ["epochs: 9"],
        "small": ["videos: 20", "gallery: f"],
        "odd": ["videos: 20", "recipe's videos: 500"],
        "unknown": ["epochs: unknown"],
        "other": ["recipe's augment: release"],
    }


def test_publications_are_ranked_only_within_themselves(merged):
    published = [row(method=name, source=PAPER, runs=[], mean=scores(r1)) for name, r1 in (("a", 60), ("b", 50))]
    other = row(method="c", source=PAPER | {"citation": "B. Other"}, runs=[], mean=scores(70))
    section = only(merged(document(*published, other)))
    assert names(section.ranked) == ["a", "b"]
    assert reasons(section) == {"c": ["another source"]}
    assert differences(section.ranked[0], section.others[0][0]) == ["another source"]


def test_the_table_marks_the_best_of_the_ranked_rows(merged):
    section = only(merged(document(row(method="a"), row(method="b", runs=runs(10, 11, 12)))))
    columns = {column.head: column for column in ranked_table(section).filled()}
    assert [(cell.whole, cell.best) for cell in columns["t2v R@1"].cells] == [
        ("42.0 ± 2.0", True),
        ("11.0 ± 1.0", False),
    ]
    assert [cell.text for cell in columns["seeds"].cells] == ["0, 1, 2", "0, 1, 2"]
    assert "machine" not in columns
    assert "v2t R@1" not in columns


def test_hostile_names_stay_in_their_cells(merged, tmp_path):
    hostile = "a|b\n# [x](javascript:y) <script>"
    page = write_standing(
        merged(document(row(method=hostile, backbone=hostile, notes=[hostile], source=OURS | {"command": "```\n# c"}))),
        tmp_path / "out",
    ).read_text(encoding="utf-8")
    assert "\n# [" not in page
    assert "<script>" not in page.partition("```json")[0]
    (line,) = [line for line in page.splitlines() if "42.0 ± 2.0" in line]
    assert line.startswith(r"| a\|b # \[x\]")
    assert len(list((tmp_path / "out").glob("*.svg"))) == 1


def test_the_figure_shows_ranked_rows_filled_and_others_hollow(merged):
    found = merged(
        document(row(), row(method="theirs", source=PAPER), row(method="nothing", parameters=0, runs=runs(5)))
    )
    root = ElementTree.fromstring(figure_text(only(found)))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"mine", "theirs (external)", "nothing", "t2v R@1"} <= set(texts)
    assert figure_text(only(found)) == figure_text(only(found))


def test_the_published_page_is_up_to_date(tmp_path):
    written = write_standing(merge(standing_sources()), tmp_path)
    published = DOCS / STANDING
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in published.iterdir()}
    for path in (path for path in tmp_path.iterdir() if path.suffix != ".svg"):  # fonts differ between machines
        again = (published / path.name).read_text(encoding="utf-8")
        assert again == path.read_text(encoding="utf-8"), "run `python -m tools.publish_results`"
    assert written.name == "standing.md"


# The command


def test_the_command_writes_all_files_and_prints_the_rows(tmp_path, capsys):
    other = save(tmp_path / "rows.json", document(row(benchmark="other")))
    out = tmp_path / "out"
    assert main(["compare", "--merge", str(PUBLISHED), "--merge", str(other), "--report", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "standing.json").read_text(encoding="utf-8"))
    assert len(printed["rows"]) == 15
    assert sorted(path.name for path in out.iterdir()) == [
        "emoji-motion-mini-parameters.svg",
        "other-a-tower-parameters.svg",
        "standing.json",
        "standing.md",
        "standing.schema.json",
    ]


@pytest.mark.parametrize(
    ("words", "status", "part"),
    [
        (["--methods", "vop"], 2, "--methods"),
        (["--set", "prompts=3", "--jobs", "2"], 2, "--jobs, --set"),
        ([], 2, "--report"),
        (["--merge", "missing.json", "--report", "out"], 1, "missing.json"),
    ],
)
def test_the_command_refuses_wrong_calls(tmp_path, monkeypatch, capsys, words, status, part):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--merge", str(PUBLISHED), *words]) == status
    assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
