"""The documentation's snippet for publishing a run writes the results of `vop evaluate` into its card."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from huggingface_hub import ModelCard

from tiny_data import write_data
from vop.cli import main
from vop.models.pretrained import create

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_documented_snippet_gives_the_results_of_vop_evaluate(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("vop.utils.device.has_bf16", lambda device: True)  # "auto" then means bfloat16
    monkeypatch.chdir(tmp_path)
    shutil.copy(write_data(tmp_path), "test.csv")
    create("vop", str(tiny_folder), num_frames=2, device="cpu").save_pretrained("runs/cooking")
    snippet = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").partition("## Publish")[2], re.DOTALL)
    exec(compile(snippet[1], str(PAGE), "exec"), {})
    assert main(["evaluate", "runs/cooking", "--data", "test.csv", "--json", "report.json"]) == 0
    report, card = json.loads(Path("report.json").read_text()), ModelCard.load("runs/cooking/README.md")
    assert report["settings"]["precision"] == "bfloat16"
    saved = json.loads(Path("runs/cooking/config.json").read_text())["card"]["results"]
    assert {way: saved[way] for way in ("t2v", "v2t")} == {way: report[way] for way in ("t2v", "v2t")}
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values["text to video R@1"] == round(report["t2v"]["r1"], 2)
    assert values["video to text MnR"] == round(report["v2t"]["mnr"], 2)
    assert card.data.eval_results[0].dataset_split == "test"
    assert card.data.license == "mit"
