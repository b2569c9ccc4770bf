"""`vop.evaluate` on real files."""

from __future__ import annotations

import json

import pytest
import torch

import vop
from tiny_data import write_table, write_videos
from vop.cli import main
from vop.datasets.readers import load
from vop.errors import DataError, UsageError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    videos = write_videos(tmp_path_factory.mktemp("videos"))
    rows = [(path.name, f"clip {path.name}", "train" if n < 3 else "test") for n, path in enumerate(videos[:6])]
    return write_table(videos[0].parent / "some.csv", rows)


def test_it_is_what_the_command_does(table, tiny_folder, tmp_path):
    report = vop.evaluate(str(tiny_folder), str(table), num_frames=3)
    assert (
        main(["evaluate", str(tiny_folder), "--data", str(table), "--num-frames", "3", "--json", str(tmp_path / "r")])
        == 0
    )
    assert json.loads((tmp_path / "r").read_text()) == report.to_dict()
    assert (report.split, report.gallery_size, report.method) == ("test", 3, "zero-shot")
    assert set(report.rescored) == {"dual softmax", "qb-norm"}


def test_models_and_data_that_are_open_already(table, tiny_folder):
    model = vop.load(tiny_folder, num_frames=3)
    report = vop.evaluate(model, load(str(table)))
    assert report.metrics == vop.evaluate(str(tiny_folder), table, num_frames=3, precision="fp32").metrics
    assert report.settings["precision"] == "float32"
    assert next(model.clip.parameters()).dtype == torch.float32


def test_what_an_open_model_has_settled(table, tiny_folder):
    model = vop.load(tiny_folder)
    with pytest.raises(UsageError, match="num_frames"):
        vop.evaluate(model, table, num_frames=3)


def test_splits(table, tiny_folder, tmp_path):
    assert vop.evaluate(tiny_folder, table, split="train").split == "train"
    with pytest.raises(DataError, match="'val'"):
        vop.evaluate(tiny_folder, table, split="val")
    alone = tmp_path / "alone.csv"
    alone.write_text("\n".join(line for line in table.read_text().splitlines() if not line.endswith("test")))
    assert vop.evaluate(tiny_folder, alone, videos=table.parent).split == "train"
