"""A folder of an earlier version, from before results were typed, can be read and gives the same report."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import vop.experiments
from tiny_data import write_data
from vop.datasets.readers import load
from vop.experiments import paper
from vop.experiments.plan import Plan, Search, arms_of
from vop.experiments.report import write_report
from vop.experiments.results import ExperimentResults, PaperRow, RunRecord, SearchRecord
from vop.experiments.scheduler import Outcome
from vop.experiments.summary import summarize
from vop.experiments.work import Job
from vop.training.recipe import Recipe

FOLDER = Path(__file__).parent / "old_folder"
DOCUMENT = FOLDER / "report" / "colours-compare.json"
SOURCE = Path(vop.experiments.__file__).parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load(str(write_data(tmp_path_factory.mktemp("old-folder"))))


@pytest.fixture(scope="module")
def plan(dataset):
    return Plan(
        kind="compare",
        data="colours.csv",
        arms=arms_of(["zero-shot", "vop", "vop-f+p/x-pool"], settings={"num_frames": 2}),
        recipe=Recipe(epochs=2, batch_size=2, workers=0, validation=0.4),
        backbone="tiny-clip0",
        seeds=(0, 1),
        search=Search(rates=(1e-3, 1e-2), epochs=1),
        baseline="zero-shot",
    )


def outcome_of(plan, dataset) -> Outcome:
    """The results of the folder's jobs, as the scheduler reuses finished ones."""
    outcome = Outcome()
    for arm in plan.arms:
        job = Job(plan=plan, arm=arm, dataset=dataset, out=FOLDER, cache=FOLDER, data={}, code={})
        if (search := job.result()) is not None:
            assert isinstance(search, SearchRecord)
            outcome.rates[arm.name] = search
        rate = search.learning_rate if search else 0.0
        runs = [job_of_seed(job, rate=rate, seed=seed) for seed in (plan.seeds if arm.trains else (0,))]
        outcome.runs[arm.name] = runs
    return outcome


def job_of_seed(job: Job, *, rate: float, seed: int) -> RunRecord:
    found = replace(job, rate=rate, seed=seed).result()
    assert isinstance(found, RunRecord)
    return found


def summarized(plan, dataset) -> ExperimentResults:
    saved = ExperimentResults.from_dict(json.loads(DOCUMENT.read_text(encoding="utf-8")))
    parameters = {arm.name: arm.parameters for arm in saved.arms}
    return summarize(plan, outcome_of(plan, dataset), dataset, parameters=parameters, command=saved.command)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (DOCUMENT, ExperimentResults),
        *((path, RunRecord) for path in sorted(FOLDER.glob("runs/*/result.json"))),
        *((path, SearchRecord) for path in sorted(FOLDER.glob("search/*.json"))),
    ],
    ids=lambda given: given.parent.name if isinstance(given, Path) else given.__name__,
)
def test_old_files_round_trip_unchanged(path, kind):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(kind.from_dict(document).to_dict())) == document


def test_old_runs_give_the_same_results(plan, dataset):
    saved = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    found = json.loads(json.dumps(summarized(plan, dataset).to_dict()))
    assert found.keys() == saved.keys()
    assert found["arms"] == saved["arms"]
    for key in found.keys() - {"arms", "written", "examples", "data"}:
        assert found[key] == saved[key], key


def test_a_method_with_a_head_has_its_own_published_row(plan, dataset, monkeypatch):
    row = PaperRow(t2v={"r1": 46.9})
    monkeypatch.setattr(paper, "row", lambda data, name: row if name == "vop-f+p/x-pool" else None)
    found = {arm.name: arm.paper for arm in summarized(plan, dataset).arms}
    assert found == {"zero-shot": None, "vop": None, "vop-f+p/x-pool": row}


def test_reports_run_code_of_few_files(plan, dataset, tmp_path):
    """Counts modules in which a function runs, without shared utilities and templates."""
    seen: set[str] = set()

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_name != "<module>" and frame.f_code.co_flags & 1:
            seen.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        page = write_report([summarized(plan, dataset)], tmp_path, name="compare")
    finally:
        sys.setprofile(before)
    own = {Path(name).relative_to(SOURCE) for name in seen if name.startswith(str(SOURCE))}
    shared = ("utils", "config.py", "errors.py")
    files = {str(path) for path in own if path.suffix == ".py" and path.parts[0] not in shared}
    assert page.exists()
    assert "experiments/report.py" in files
    assert len(files) <= 12, "\n".join(sorted(files))
