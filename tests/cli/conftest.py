from __future__ import annotations

import pytest

from tiny_data import write_data
from vop.cli import main

TRAINING = ["--epochs", "2", "--batch-size", "2", "--num-frames", "2", "--workers", "0", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def _quick(captions_embedded_once):
    """Many commands index the same few videos."""


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A table of five training videos and three test videos."""
    return write_data(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def vop(capsys):
    """Runs a command in this process: (exit status, standard output, standard error)."""

    def run(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # argparse
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def train(vop, tiny_folder, table, tmp_path):
    """`vop train` on `table` with the tiny backbone; the given options override the defaults."""

    def run(*words):
        given = ["--data", table, "--method", "vop", "--backbone", tiny_folder, "--out", tmp_path / "run", *TRAINING]
        return vop("train", *given, *words)

    return run


@pytest.fixture(scope="session")
def a_run(tiny_folder, table, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "colours"
    given = ["--data", table, "--method", "vop-f+p", "--backbone", tiny_folder, "--out", out, *TRAINING]
    assert main(["train", *(str(word) for word in given)]) == 0
    return out
