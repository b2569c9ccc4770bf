"""`vop.evaluate` on real files."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

import vop
from tiny_data import write_table, write_videos
from vop.cli import main
from vop.datasets.readers import load
from vop.errors import DataError, UsageError
from vop.models.pretrained import create


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    videos = write_videos(tmp_path_factory.mktemp("videos"))
    rows = [(path.name, f"clip {path.name}", "train" if n < 3 else "test") for n, path in enumerate(videos[:6])]
    return write_table(videos[0].parent / "some.csv", rows)


def test_evaluate_equals_the_command(table, tiny_folder, tmp_path):
    report = vop.evaluate(str(tiny_folder), str(table), num_frames=3)
    words = ["evaluate", str(tiny_folder), "--data", str(table), "--num-frames", "3", "--json", str(tmp_path / "r")]
    assert main(words) == 0
    assert json.loads((tmp_path / "r").read_text()) == report.to_dict()
    assert (report.split, report.gallery_size, report.method) == ("test", 3, "zero-shot")
    assert set(report.rescored) == {"dual softmax", "qb-norm"}


def test_open_models_and_data_are_accepted(table, tiny_folder):
    model = vop.load(tiny_folder, num_frames=3)
    report = vop.evaluate(model, load(str(table)))
    assert report.metrics == vop.evaluate(str(tiny_folder), table, num_frames=3, precision="fp32").metrics
    assert report.settings["precision"] == "float32"
    assert next(model.clip.parameters()).dtype == torch.float32


def test_settings_of_open_models_cannot_be_changed(table, tiny_folder):
    model = vop.load(tiny_folder)
    with pytest.raises(UsageError, match="num_frames"):
        vop.evaluate(model, table, num_frames=3)


def test_splits_can_be_chosen(table, tiny_folder, tmp_path):
    assert vop.evaluate(tiny_folder, table, split="train").split == "train"
    with pytest.raises(DataError, match="'val'"):
        vop.evaluate(tiny_folder, table, split="val")
    alone = tmp_path / "alone.csv"
    alone.write_text("\n".join(line for line in table.read_text().splitlines() if not line.endswith("test")))
    assert vop.evaluate(tiny_folder, alone, videos=table.parent).split == "train"


def test_results_can_be_written_to_the_card(table, tiny_folder, tmp_path, capsys):
    create("vop", str(tiny_folder), num_frames=3).save_pretrained(tmp_path / "run")
    before = load_file(tmp_path / "run" / "model.safetensors")
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(table), "--write-card", "--format", "csv"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = vop.load(tmp_path / "run").card["results"]
    assert printed[1].split(",")[2] == f"{results['t2v']['r1']:.1f}"
    assert (results["data"], results["split"], results["gallery_size"]) == ("some", "test", 3)
    assert results["made_with"]["vop_version"] == vop.__version__
    assert f"{results['t2v']['mnr']:.1f}" in (tmp_path / "run" / "README.md").read_text()
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_unchanged_runs_take_results(table, tiny_folder, tmp_path):
    create("vop", str(tiny_folder), num_frames=3).save_pretrained(tmp_path / "run")
    with pytest.raises(UsageError, match="not a run folder"):
        vop.evaluate(tiny_folder, table, write_card=tiny_folder)
    with pytest.raises(UsageError, match="num_frames is 4, but the run was trained with 3"):
        vop.evaluate(tmp_path / "run", table, num_frames=4, write_card=tmp_path / "run")


def test_reports_name_precision_and_device(table, tiny_folder):
    report = vop.evaluate(tiny_folder, table, precision="bf16")
    found = report.to_dict()["made_with"]
    assert (found["computed_in"], found["vop_version"]) == ("bfloat16", vop.__version__)
    assert found["torch_version"] == version("torch")
    assert found["transformers_version"] == version("transformers")


def test_invalid_devices_are_refused(table, tiny_folder, capsys):
    assert main(["evaluate", str(tiny_folder), "--data", str(table), "--device", "tpu"]) == 2
    assert "device is 'tpu'" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_folder), "--data", str(table), "--device", "cpu", "--format", "html"]) == 2
    assert "'html'" in capsys.readouterr().err
