"""Whole experiments on real files with the tiny CLIP. Jobs run in this process, except in one test."""

from __future__ import annotations

import contextlib
import csv
import json
import queue
import re
import shutil
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from tiny_data import write_data
from vop import methods
from vop.cli import build_parser, compare, main
from vop.errors import DivergenceError, MemoryRanOutError, VopError
from vop.experiments import figures, processes, report, runner, work

SMALL = ["--epochs", "2", "--batch-size", "2", "--num-frames", "2", "--workers", "0", "--validation", "0.4"]
SEARCH = ["--trials", "3", "--trial-epochs", "1"]


class InThisProcess:
    """Stands in for `ProcessPoolExecutor`."""

    def __init__(self, *_, **__) -> None:
        pass

    def submit(self, function, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except (Exception, SystemExit) as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_) -> None:
        pass


class ManagerHere(contextlib.nullcontext):
    """Stands in for `SyncManager`: it starts no process."""

    def __init__(self, *, ctx) -> None:
        super().__init__(self)
        self.Queue = queue.Queue

    def start(self, initializer) -> None:
        pass


@pytest.fixture
def in_this_process(monkeypatch):
    """Jobs run in this process."""
    monkeypatch.setattr(processes, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(processes, "SyncManager", ManagerHere)


@pytest.fixture
def no_figures(monkeypatch):
    """Reports are written without figures."""
    monkeypatch.setattr(figures, "save_figure", lambda *_: None)
    monkeypatch.setattr(report, "_inline", lambda *_, **__: [])


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Five videos to train on, three to test; the folder is for this file alone."""
    return write_data(tmp_path_factory.mktemp("study-colours"))


@pytest.fixture
def study(tiny_folder, colours, tmp_path, capsys):
    """Runs `vop compare` or `vop ablate` in `tmp_path`: (exit status, standard output, standard error)."""

    def run(command, *words):
        given = ["--data", colours, "--backbone", tiny_folder, "--out", tmp_path / "out", *SMALL]
        status = main([str(word) for word in (command, *words, *given)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def trained_jobs(monkeypatch) -> list[str]:
    """Collects the folder names of the trainings from now on."""
    seen, original = [], work.train
    monkeypatch.setattr(
        work, "train", lambda *given, **more: (seen.append(more["out"].name), original(*given, **more))[1]
    )
    return seen


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A method in a third party's package."""
    folder = tmp_path / "site" / "my_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "part.py").write_text("SHARE = 0.5\n")
    (folder / "method.py").write_text(
        "from vop.methods.baselines import Bias\n\nfrom .part import SHARE\n\n\n"
        'class Mine(Bias):\n    """A method."""\n\n    share = SHARE\n'
    )
    monkeypatch.syspath_prepend(folder.parent)
    for name in ("my_package", "my_package.method", "my_package.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(methods.METHODS, "mine", "my_package.method:Mine")
    return SimpleNamespace(method=folder / "method.py", part=folder / "part.py")


def document(tmp_path, name="colours-compare"):
    return json.loads((tmp_path / "out" / "report" / f"{name}.json").read_text())


@pytest.mark.usefixtures("no_figures")
def test_jobs_run_in_parallel_processes(study, tmp_path):
    status, out, err = study("compare", "--methods", "zero-shot,vop", "--seeds", "0", *SEARCH, "--jobs", "2")
    assert status == 0
    assert "experiment: 3/3" in err  # zero-shot beside the search, and then a run
    assert "gallery of 3 videos" in out
    untrained, vop = document(tmp_path)["arms"]
    assert (len(untrained["runs"]), len(vop["runs"])) == (1, 1)
    assert len(vop["trials"]) == 3
    assert vop["learning_rate"] in [trial["learning_rate"] for trial in vop["trials"]]
    assert all(run["peak_memory_bytes"] > 2**26 and run["size_bytes"] > 1000 for run in vop["runs"])


@pytest.mark.usefixtures("in_this_process")
class TestReport:
    def test_files_and_numbers(self, study, tmp_path):
        methods = ["--methods", "zero-shot,full,vop,vop-f+p/x-pool"]
        status, out, _ = study("compare", *methods, "--seeds", "0,1", *SEARCH)
        assert status == 0
        report = tmp_path / "out" / "report"
        assert {"compare.html", "compare.md", "colours-compare.csv", "colours-compare.json", "gains.svg"} <= {
            path.name for path in report.iterdir()
        }
        found = document(tmp_path)
        full, vop = (next(arm for arm in found["arms"] if arm["name"] == name) for name in ("full", "vop"))
        assert found["baseline"] == "full"
        assert "gain" not in full
        assert vop["gain"]["t2v_r1"] == pytest.approx(vop["mean"]["t2v"]["r1"] - full["mean"]["t2v"]["r1"])
        assert vop["parameters"]["true_count"] == vop["parameters"]["paper_count"] == 3 * 8 * 48 + 2 * 8 * 32
        r1 = [run["t2v"]["r1"] for run in vop["runs"]]
        assert vop["mean"]["t2v"]["r1"] == pytest.approx(sum(r1) / 2)
        assert vop["spread"]["t2v"]["r1"] == pytest.approx(abs(r1[0] - r1[1]) / 2**0.5)
        assert found["gallery"]["videos"] == 3
        assert {run["selection"] for run in vop["runs"]} == {"validation-selected"}
        assert [len(run["history"]) for run in vop["runs"]] == [2, 2]
        rows = list(csv.DictReader((report / "colours-compare.csv").read_text().splitlines()))
        assert [(row["name"], row["seed"]) for row in rows][:3] == [("zero-shot", "0"), ("full", "0"), ("full", "1")]
        assert float(rows[3]["t2v_r1"]) == r1[0]
        page = (report / "compare.md").read_text()
        for name in ("zero-shot", "vop-f+p/x-pool", "gallery of 3 videos", "Learning rates that were tried"):
            assert name in page
        assert "vop-f+p/x-pool" in (report / "compare.html").read_text()
        assert all(name in out for name in ("zero-shot", "vop-f+p/x-pool", "compare.html"))


@pytest.mark.usefixtures("in_this_process", "no_figures")
class TestCompare:
    def test_json_holds_the_results(self, study):
        status, out, _ = study(
            "compare", "--methods", "zero-shot,vop", "--learning-rates", "1e-3", "--seeds", "3", "--json"
        )
        (found,) = json.loads(out)["studies"]
        assert (status, found["seeds"], found["search"]) == (0, [3], None)
        assert [arm["learning_rate"] for arm in found["arms"]] == [None, 1e-3]
        assert found["baseline"] == "zero-shot"

    def test_finished_runs_are_reused_when_arms_are_added(self, study, tmp_path, monkeypatch):
        seen = trained_jobs(monkeypatch)
        one = ["--learning-rates", "1e-3", "--seeds", "0"]
        study("compare", "--methods", "vop", *one)
        first = document(tmp_path)
        assert seen == ["vop-0.001-seed0"]
        study("compare", "--methods", "vop,bias", "--learning-rates", "1e-3", "--seeds", "0,1")
        assert sorted(seen) == ["bias-0.001-seed0", "bias-0.001-seed1", "vop-0.001-seed0", "vop-0.001-seed1"]
        assert document(tmp_path)["arms"][0]["runs"][0] == first["arms"][0]["runs"][0]

    def test_stopped_comparisons_resume(self, study, tmp_path, monkeypatch):
        """Stopped in the middle of a training: the checkpoint is used, and the results are the same."""
        given = ["--methods", "vop,vop-p", "--learning-rates", "1e-2", "--seeds", "0", "--checkpoint-seconds", "0"]
        study("compare", *given)
        whole = document(tmp_path)
        shutil.rmtree(tmp_path / "out")

        class Killed(BaseException):
            pass

        original = work.run_job

        def killed(job, progress):
            def watch(stage, done, total, note=""):
                if (stage, done, job.arm.name) == ("training", 2, "vop-p"):
                    raise Killed

            return original(job, watch)

        monkeypatch.setattr(processes, "run_job", killed)
        with pytest.raises(Killed):
            study("compare", *given)
        monkeypatch.setattr(processes, "run_job", original)
        seen = trained_jobs(monkeypatch)
        assert study("compare", *given)[0] == 0
        assert seen == ["vop-p-0.01-seed0"]
        for one, other in zip(whole["arms"], document(tmp_path)["arms"], strict=True):
            assert one["mean"]["t2v"] == other["mean"]["t2v"]
            assert [record["loss"] for record in one["runs"][0]["history"]] == [
                record["loss"] for record in other["runs"][0]["history"]
            ]

    def test_runs_of_changed_code_are_repeated_on_request(self, study, tmp_path, monkeypatch, mine):
        given = ["--methods", "mine,bias", "--seeds", "0", "--learning-rates", "1e-3"]
        seen = trained_jobs(monkeypatch)
        assert study("compare", *given)[0] == 0
        result = tmp_path / "out" / "runs" / "mine-0.001-seed0" / "result.json"
        first = json.loads(result.read_text())
        mine.part.write_text(mine.part.read_text().replace("0.5", "0.5  # of what it was") + "\n\n# a comment\n")
        mine.method.write_text(mine.method.read_text().replace("A method.", "Another docstring."))
        assert study("compare", *given)[0] == 0
        assert sorted(seen) == ["bias-0.001-seed0", "mine-0.001-seed0"]  # only comments and docstrings have changed

        mine.part.write_text(mine.part.read_text().replace("0.5", "0.25"))
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        status, _, err = study("compare", *given)
        assert status == 1
        assert "mine: changed since: my_package.part" in err
        assert "bias:" not in err
        assert f"--rerun mine (or --rerun all), which moves the old ones to {tmp_path / 'out' / 'replaced'}" in err
        assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

        seen.clear()
        status, _, err = study("compare", *given, "--rerun", "mine")
        assert (status, seen) == (0, ["mine-0.001-seed0"])
        moved = tmp_path / "out" / "replaced" / "1" / "runs" / "mine-0.001-seed0" / "result.json"
        assert json.loads(moved.read_text()) == first
        assert str(moved.parent.parent.parent) in err
        assert study("compare", *given)[0] == 0
        assert seen == ["mine-0.001-seed0"]

    def test_searches_of_changed_code_are_not_reused(self, study, tmp_path, mine):
        given = ["--methods", "mine", "--seeds", "0", "--learning-rates", "1e-3,1e-2", "--trial-epochs", "1"]
        assert study("compare", *given)[0] == 0
        shutil.rmtree(tmp_path / "out" / "runs")
        mine.part.write_text(mine.part.read_text().replace("0.5", "0.25"))
        status, _, err = study("compare", *given)
        assert (status, "mine: changed since: my_package.part" in err) == (1, True)
        assert study("compare", *given, "--rerun", "all")[0] == 0
        assert (tmp_path / "out" / "replaced" / "1" / "search" / "mine.json").exists()

    def test_runs_without_recorded_code_must_be_repeated(self, study, tmp_path):
        given = ["--methods", "vop", "--seeds", "0", "--learning-rates", "1e-3"]
        assert study("compare", *given)[0] == 0
        path = tmp_path / "out" / "study.json"
        saved = json.loads(path.read_text())
        del saved["code"]
        path.write_text(json.dumps(saved))
        status, _, err = study("compare", *given)
        assert (status, "vop: made before experiments recorded their code" in err) == (1, True)
        assert study("compare", *given, "--rerun", "vop")[0] == 0

    def test_damaged_results_can_be_repeated(self, study, tmp_path):
        given = ["--methods", "zero-shot,vop", "--seeds", "0", "--learning-rates", "1e-3"]
        assert study("compare", *given)[0] == 0
        for content in ("{", "[]", "{}", "[" * 100_000):
            (tmp_path / "out" / "runs" / "vop-0.001-seed0" / "result.json").write_text(content)
            status, _, err = study("compare", *given)
            assert (status, "result.json: damaged" in err, "--rerun vop" in err) == (1, True, True), content[:9]
        assert study("compare", *given, "--rerun", "vop")[0] == 0

    def test_unknown_methods_to_rerun_are_refused(self, study):
        status, _, err = study("compare", "--methods", "vop,bias", "--learning-rates", "1e-3", "--rerun", "vap")
        assert (status, "unknown method to rerun 'vap': did you mean vop?" in err) == (2, True)

    def test_code_that_changes_during_the_experiment_is_reported(self, study, monkeypatch, mine):
        original = work.train

        def edits(*given, **more):
            mine.part.write_text(mine.part.read_text().replace("0.5", "0.25"))
            return original(*given, **more)

        monkeypatch.setattr(work, "train", edits)
        given = ["--methods", "bias,mine", "--seeds", "0", "--learning-rates", "1e-3"]
        status, out, _ = study("compare", *given)
        assert (status, "my_package.part changed after the experiment began" in out) == (1, True)

    def test_changed_experiments_are_refused_with_the_difference(self, study, tiny_folder, colours, tmp_path, capsys):
        given = ["--methods", "vop", "--seeds", "0", "--learning-rates", "1e-3"]
        study("compare", *given)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        rest = ["--data", colours, "--backbone", tiny_folder, "--out", tmp_path / "out", *SMALL]
        for words, *differences in (
            (["--epochs", "3"], "epochs: 2 in the folder", "3 given"),
            (["--learning-rates", "1e-2"], "learning_rate: 0.001 in the folder", "0.01 given"),
            (["--num-frames", "3"], "num_frames: [2] in the folder", "[3] given"),
            (["--set", "visual_prompts=4"], "vop: {", "'settings': {'num_frames': 2}} in the folder"),
        ):
            assert main([str(word) for word in ("compare", *given, *rest, *words)]) == 1
            err = capsys.readouterr().err
            assert all(difference in err for difference in differences), err
            assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    def test_failed_arms_are_reported_and_the_others_finish(self, study, tmp_path, monkeypatch):
        original = work.train
        errors = {"vop-p": VopError("the loss became nan at step 3"), "bias": RuntimeError("CUDA error")}

        def breaks(*given, **more):
            if more["method"] in errors:
                raise errors[more["method"]]
            return original(*given, **more)

        monkeypatch.setattr(work, "train", breaks)
        given = ["--learning-rates", "1e-3", "--seeds", "0"]
        status, out, _ = study("compare", "--methods", "vop-p,bias,vop", *given)
        assert status == 1
        assert "failed: vop-p, vop-p seed 0: the loss became nan at step 3" in out
        assert "failed: bias, bias seed 0: RuntimeError: CUDA error" in out
        assert [arm["name"] for arm in document(tmp_path)["arms"]] == ["vop"]
        status, _, err = study("compare", "--methods", "vop-p", *given)
        assert (status, "every run failed" in err) == (1, True)

    def test_results_from_other_videos_are_refused_before_training(self, tiny_folder, tmp_path, capsys, monkeypatch):
        table = write_data(tmp_path / "data")
        given = ["--data", table, "--backbone", tiny_folder, "--out", tmp_path / "out", *SMALL]
        given = [str(word) for word in (*given, "--learning-rates", "1e-3")]
        assert main(["compare", "--methods", "vop", "--seeds", "0", *given]) == 0
        seen = trained_jobs(monkeypatch)
        for name, split in (("clip7.mp4", "test"), ("clip1.mp4", "train")):
            clip = table.parent / name
            content = clip.read_bytes()
            clip.write_bytes(b"")
            capsys.readouterr()
            assert main(["compare", "--methods", "bias,vop", "--seeds", "0", *given]) == 2
            err = capsys.readouterr().err
            assert f"vop-0.001-seed0/result.json was made with other videos of the split '{split}'" in err
            assert not seen
            clip.write_bytes(content)

    def test_bad_videos_can_fail_the_experiment(self, tiny_folder, tmp_path, capsys):
        table = write_data(tmp_path / "data")
        (table.parent / "clip7.mp4").write_bytes(b"")
        words = ["--data", table, "--backbone", tiny_folder, "--out", tmp_path / "out", *SMALL]
        words += ["--methods", "zero-shot", "--on-bad-video", "fail"]
        assert main(["compare", *map(str, words)]) == 1
        err = capsys.readouterr().err
        assert "1 video cannot be read; leave them out with --on-bad-video skip" in err
        assert "clip7.mp4: the file is empty" in err

    def test_missing_videos_are_listed_beside_the_gallery(self, tiny_folder, tmp_path, capsys):
        table = write_data(tmp_path / "data")
        (table.parent / "clip7.mp4").unlink()
        given = ["--data", table, "--backbone", tiny_folder, "--out", tmp_path / "out", *SMALL]
        words = ["compare", "--methods", "zero-shot", *given, "--learning-rates", "1e-3"]
        assert main([str(word) for word in words]) == 0
        assert "gallery of 2 videos (3 listed)" in capsys.readouterr().out
        assert document(tmp_path)["left_out_of_training"] == []
        (skipped,) = document(tmp_path)["gallery"]["skipped"]
        assert (skipped["id"], skipped["reason"]) == ("clip7.mp4", "the file does not exist")

    def test_several_recipes_make_one_report(self, tiny_folder, colours, tmp_path, capsys):
        """Two recipes are two studies in one report. Options override both."""
        for name, epochs in (("one", 1), ("two", 2)):
            table = shutil.copy(colours, colours.parent / f"{name}.csv")
            (tmp_path / f"{name}.yaml").write_text(
                f"data: {table}\nbackbone: {tiny_folder}\nepochs: {epochs}\nbatch_size: 2\nworkers: 0\n"
                "validation: 0.4\nsettings: {num_frames: 2, visual_prompts: 4}\n"
                "study: {methods: [zero-shot, vop], seeds: [5], learning_rates: [1e-3, 1e-2], trial_epochs: 1}\n"
            )
        recipes = [word for name in ("one", "two") for word in ("--recipe", str(tmp_path / f"{name}.yaml"))]
        assert main(["compare", *recipes, "--seeds", "6", "--out", str(tmp_path / "out")]) == 0
        documents = [document(tmp_path, f"{name}-compare") for name in ("one", "two")]
        assert [found["recipe"]["epochs"] for found in documents] == [1, 2]
        for found in documents:
            assert found["seeds"] == [6]
            assert found["arms"][1]["settings"] == {"num_frames": 2, "visual_prompts": 4}
            assert sorted(trial["learning_rate"] for trial in found["arms"][1]["trials"]) == [1e-3, 1e-2]

    @pytest.mark.parametrize(
        ("words", "status", "says"),
        [
            (["--methods", "vopp"], 2, "unknown method 'vopp': did you mean vop"),
            (["--methods", "vop", "--seeds", "a"], 2, "seeds: 'a' is not a whole number"),
            (["--methods", "vop", "--learning-rates", "fast"], 2, "learning_rates: 'fast' is not a number"),
            (["--methods", "vop", "--rate-range", "1e-3"], 2, "rate_range is [0.001]; give two numbers"),
            (["--methods", "vop", "--rate-range", "1e-2,1e-3"], 2, "range of learning rates is 0.01 to 0.001"),
            (["--methods", "vop", "--trials", "0"], 2, "trials of the search is 0"),
            (["--methods", "vop", "--jobs", "0"], 2, "jobs is 0; give 1 or more"),
            (["--methods", "vop,vop/meanP"], 2, "the arms 'vop' and 'vop/meanP' have the same training"),
            (["--methods", "vop", "--baseline", "bias"], 2, "the baseline 'bias' is not among the arms: vop"),
            (["--methods", "vop", "--split", "val"], 1, "colours has no 'val' split; it has: train, test"),
            (["--methods", "vop,vop-p", "--set", "specific_prompts=0"], 2, "specific_prompts is 0"),
            (["--methods", "vop,vop/seqTrans"], 2, "unknown head 'seqTrans': did you mean seqTransf"),
            (["--methods", "vop", "--set", "cmm=lstm"], 2, "unknown setting 'cmm'"),
            (
                ["--methods", "vop", "--captions-per-video", "2"],
                2,
                "captions_per_video is 2, but no video of train has",
            ),
        ],
    )
    def test_invalid_options_are_refused(self, study, tmp_path, words, status, says):
        got, out, err = study("compare", *words)
        assert (got, out) == (status, "")
        assert says in err
        assert not (tmp_path / "out" / "runs").exists()

    def test_errors_are_found_before_data_is_opened(self, tiny_folder, tmp_path, capsys, monkeypatch):
        """Opening emoji-motion renders videos; opening data of the hub downloads it."""
        monkeypatch.setattr(compare, "load_data", lambda *_: pytest.fail("the data was opened"))
        without = shutil.copytree(tiny_folder, tmp_path / "without")
        (without / "tokenizer.json").unlink()
        (tmp_path / "file").touch()
        for words, says in [
            (["--methods", "bias,vop-p", "--set", "specific_prompts=0"], "specific_prompts is 0"),
            (
                ["--methods", "vop", "--num-frames", 10**9],
                "num_frames is 1,000,000,000; it must be",
            ),
            (["--methods", "vop", "--head", "seqTrans"], "unknown head 'seqTrans'"),
            (["--methods", "vop-c,vop", "--rates", "text=2,*.context.*=3"], "unknown part in rates '*.context.*'"),
            (["--methods", "vop", "--report", tmp_path / "file"], f"{tmp_path / 'file'} is a file; --report"),
            (["--methods", "vop", "--rerun", "bias"], "unknown method to rerun 'bias'"),
            (
                ["--methods", "vop", "--backbone", without],
                "vocabulary (tokenizer.json, or vocab.json and merges.txt)",
            ),
        ]:
            given = ["--data", "emoji-motion", "--backbone", tiny_folder, "--out", tmp_path / "out", *words]
            assert main([str(word) for word in ("compare", *given)]) in (1, 2)
            assert says in capsys.readouterr().err
            assert not (tmp_path / "out").exists()

    def test_searches_need_validation_videos(self, tiny_folder, colours, tmp_path, capsys):
        words = ["--data", colours, "--backbone", tiny_folder, "--out", tmp_path]
        words += ["--methods", "vop", "--validation", "0"]
        assert main(["compare", *map(str, words)]) == 2
        assert "validation is 0" in capsys.readouterr().err

    def test_folders_with_other_files_are_refused(self, study, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").touch()
        status, _, err = study("compare", "--methods", "vop")
        assert (status, "is not empty and holds no experiment" in err) == (2, True)

    def test_locked_folders_are_refused(self, study, tmp_path):
        from filelock import FileLock

        (tmp_path / "out").mkdir()
        with FileLock(tmp_path / "out" / runner.LOCK):
            status, _, err = study("compare", "--methods", "vop")
        assert (status, "another process" in err, str(tmp_path / "out") in err) == (1, True, True)

    def test_out_must_not_be_a_file(self, study, tmp_path):
        (tmp_path / "out").touch()
        status, _, err = study("compare", "--methods", "vop")
        assert (status, "is a file; --out" in err) == (2, True)

    def test_damaged_experiments_are_named(self, study, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "study.json").write_text('{"identity": ')
        status, _, err = study("compare", "--methods", "vop")
        assert (status, "study.json: damaged" in err) == (1, True)

    def test_all_experiments_are_checked_before_the_first_starts(
        self, tiny_folder, colours, tmp_path, capsys, monkeypatch
    ):
        seen = trained_jobs(monkeypatch)
        only_train = tmp_path / "only.csv"
        only_train.write_text(colours.read_text().replace(",test", ",train").replace("clip", f"{colours.parent}/clip"))
        for name, table in (("one", colours), ("two", only_train)):
            (tmp_path / f"{name}.yaml").write_text(f"data: {table}\nbackbone: {tiny_folder}\n")
        recipes = [word for name in ("one", "two") for word in ("--recipe", str(tmp_path / f"{name}.yaml"))]
        words = ["--methods", "vop", "--learning-rates", "1e-3", "--out", str(tmp_path / "out"), *SMALL]
        assert main(["compare", *recipes, *words]) == 1
        assert "only has no 'test' split" in capsys.readouterr().err
        assert not seen

    @pytest.mark.parametrize(("library", "words"), [("matplotlib", ["--learning-rates", "1e-3"]), ("optuna", [])])
    def test_missing_dependencies_are_named(self, study, monkeypatch, library, words):
        from vop.cli import compare

        original = compare.find_spec
        monkeypatch.setattr(compare, "find_spec", lambda name: None if name == library else original(name))
        status, _, err = study("compare", "--methods", "vop", *words)
        assert (status, f"needs the library {library}: pip install 'vop[{compare.EXTRA}]'" in err) == (2, True)

    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (MemoryRanOutError("no memory at step 1", "Resume with --resume"), "no memory at step 1. .*--recompute"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "can't allocate memory.*--batch-size"),
            (DivergenceError("the loss became nan", "Use a lower --learning-rate"), "became nan. .*--learning-rates"),
        ],
    )
    def test_failed_runs_advise_what_a_comparison_has(self, study, tmp_path, monkeypatch, error, says):
        def fails(*_, **__):
            raise error

        monkeypatch.setattr(work, "train", fails)
        assert study("compare", "--methods", "zero-shot,vop", "--learning-rates", "1e-3", "--seeds", "0")[0] == 1
        (failure,) = document(tmp_path)["failures"]
        assert re.search(says, failure)
        words = ["compare", *(f"{option}=1" for option in re.findall(r"--[\w-]+", failure))]
        build_parser().parse_args([word for word in words if word != "--precision=1"])

    @pytest.mark.parametrize("error", [ValueError("a wrong shape"), SystemExit(3)])
    def test_errors_of_a_method_keep_their_traceback(self, study, tmp_path, monkeypatch, caplog, error):
        def fails(*_, **__):
            raise error

        monkeypatch.setattr(work, "train", fails)
        assert study("compare", "--methods", "zero-shot,vop", "--learning-rates", "1e-3", "--seeds", "0")[0] == 1
        assert document(tmp_path)["failures"] == [f"vop, vop seed 0: {type(error).__name__}: {error}"]
        assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]

    def test_what_takes_hours_is_compared_only_by_name(self):
        assert set(methods.available()) - set(compare._methods(None)) == {"stop"}
        assert compare._methods(["stop"]) == ["stop"]

    def test_data_is_required(self, capsys):
        assert main(["compare", "--methods", "vop"]) == 2
        assert "no data: give --data SPEC" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process", "no_figures")
class TestAblate:
    def test_ablations_share_the_default_run(self, study, tmp_path, monkeypatch):
        seen = trained_jobs(monkeypatch)
        rates = ["--learning-rates", "1e-3", "--seeds", "0"]
        study("compare", "--methods", "vop", *rates)
        status, out, _ = study("ablate", "towers", "depth", *rates)
        assert status == 0
        assert seen.count("vop-0.001-seed0") == 1
        assert len(seen) == 1 + 2 + 2  # of three layers: the lowest, the lowest two
        assert "layers 1-2" in out
        towers, depth = (document(tmp_path, f"colours-{name}") for name in ("towers", "depth"))
        assert [arm["name"] for arm in towers["arms"]] == ["both towers", "visual prompts only", "text prompts only"]
        assert [arm["x"] for arm in depth["arms"]] == [1, 2, 3]
        assert (tmp_path / "out" / "report" / "ablate.html").exists()

    def test_the_learning_rate_is_searched_once(self, study, tmp_path):
        study("ablate", "cmm-role", *SEARCH, "--seeds", "0")
        assert [path.name for path in (tmp_path / "out" / "search").glob("*.json")] == ["vop-c.json"]
        makes, replaces = document(tmp_path, "colours-cmm-role")["arms"]
        assert makes["learning_rate"] == replaces["learning_rate"]

    def test_unknown_ablations_are_refused(self, study):
        status, _, err = study("ablate", "size")
        assert (status, "unknown ablation 'size'" in err) == (2, True)
