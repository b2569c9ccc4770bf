"""`--threads`, and threads that sleep while waiting."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from vop.cli import build_parser

NEEDED = {
    "train": ["--out", "run"],
    "evaluate": ["run", "--data", "test.csv"],
    "compare": [],
    "ablate": [],
    "demo": [],
    "index": ["library", "videos"],
    "search": ["library", "a dog"],
    "serve": ["library"],
    "library reembed": ["library", "--model", "mini"],
}


@pytest.mark.parametrize("command", NEEDED)
def test_all_commands_that_compute_take_threads(command):
    words = [*command.split(), *NEEDED[command]]
    assert build_parser().parse_args(words).threads is None
    assert build_parser().parse_args([*words, "--threads", "3"]).threads == 3


def test_commands_use_the_given_threads(train, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    seen = []
    monkeypatch.setattr("vop.training.job.train", lambda *args, **kwargs: seen.append(torch.get_num_threads()) or 1 / 0)
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        train("--threads", "3")
    torch.set_num_threads(before)
    assert seen == [3]


@pytest.mark.parametrize("number", ["0", "-2"])
def test_threads_below_one_are_refused(train, tmp_path, number):
    assert train("--threads", number) == (2, "", f"vop: threads is {number}; it must be 1 or more\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_do_not_depend_on_threads(table, tiny_folder, tmp_path):
    weights = {}
    for threads in ("1", "2"):
        out = tmp_path / threads
        command = [sys.executable, "-m", "vop", "train", "--data", str(table), "--method", "vop-f+p", "--epochs", "1"]
        command += ["--backbone", str(tiny_folder), "--out", str(out), "--threads", threads]
        command += ["--batch-size", "2", "--num-frames", "2", "--workers", "0", "--precision", "fp32"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment | {"OMP_DISPLAY_ENV": "true"}, timeout=240
        )
        assert done.returncode == 0, done.stderr
        if sys.platform == "linux":  # where OpenMP prints its settings
            assert f"OMP_NUM_THREADS = '{threads}'" in done.stderr
            assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
        weights[threads] = load_file(out / "model.safetensors")
    assert weights["1"].keys() == weights["2"].keys()
    assert all(torch.equal(weights["1"][name], weights["2"][name]) for name in weights["1"])
