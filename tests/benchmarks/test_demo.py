"""The demo with few videos."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from PIL import Image

import vop
from vop.benchmarks import demo
from vop.benchmarks.demo import run_demo
from vop.benchmarks.emoji_motion_2 import benchmark
from vop.cli import build_parser, main
from vop.errors import UsageError
from vop.search.store import Store

PLAN = benchmark.Plan(train=24, val=0, test=16, seed=7)


@pytest.mark.slow
def test_the_demo_trains_evaluates_and_searches(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "RECIPE", demo.Recipe(epochs=1, workers=0, validation=0.1, if_worse="tuned"))
    monkeypatch.setattr(benchmark, "DEMO", PLAN)
    monkeypatch.setattr(run_demo, "__kwdefaults__", run_demo.__kwdefaults__ | {"plan": PLAN})
    results = []

    def run_once(*args, **kwargs):
        results[:] = results or [run_demo(*args, **kwargs)]
        return results[0]

    monkeypatch.setattr(demo, "run_demo", run_once)
    out = str(tmp_path / "my demo")
    assert main(["demo", "--out", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reports"].keys() == {"zero-shot", "vop-f+p"}
    assert all(report["gallery_size"] == 16 for report in found["reports"].values())
    assert found["answers"].keys() == found["zero_shot_answers"].keys()
    assert len(found["answers"]) == 5
    for answers in [*found["answers"].values(), *found["zero_shot_answers"].values()]:
        scores = [answer["score"] for answer in answers]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    model = vop.load(found["run"], device="cpu")
    sentence, answers = next(iter(found["answers"].items()))
    again = model.encode_text([sentence]) @ model.encode_video([answer["path"] for answer in answers]).T
    torch.testing.assert_close(
        again[0], torch.tensor([a["score"] for a in answers]), rtol=0, atol=0.02
    )  # the index holds bf16 values
    library = Store.open(found["library"])
    assert library.status().videos == 16
    assert main(["search", found["library"], sentence, "-k", "3", "--json"]) == 0
    moments = json.loads(capsys.readouterr().out)["results"]
    assert [moment["path"] for moment in moments] == [answer["path"] for answer in answers]
    with Image.open(found["sheet"]) as sheet:
        assert min(sheet.size) > 500

    assert main(["demo", "--out", out]) == 0
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("    vop ")]
    serve, search, *of_your_own = [words[1:] for words in printed]
    assert main(search) == 0
    assert ".mp4" in capsys.readouterr().out
    for words in (serve, *of_your_own):  # which serve forever, or need the user's videos
        build_parser().parse_args(words)
    assert [words[0] for words in of_your_own] == ["index", "data", "train", "evaluate"]


@pytest.mark.parametrize("name", ["run", "library"])
def test_the_demo_keeps_other_files(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not made by a demo"):
        run_demo(tmp_path, plan=PLAN)
    assert (tmp_path / name / "precious.txt").read_text() == "mine"
