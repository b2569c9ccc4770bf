"""The systemd units start commands that exist."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from vop.cli import build_parser

UNITS = sorted((Path(__file__).parents[2] / "examples" / "systemd").glob("*.service"))


def read(unit: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(unit.read_text(encoding="utf-8"))
    return parser


def command(unit: Path) -> list[str]:
    return shlex.split(read(unit)["Service"]["ExecStart"])


def test_one_follows_and_one_serves():
    assert [unit.stem for unit in UNITS] == ["vop-serve", "vop-watch"]
    libraries = set()
    for unit in UNITS:
        program, *words = command(unit)
        assert program == "%h/.venv/bin/vop"
        arguments = build_parser().parse_args(words)
        libraries |= {getattr(arguments, "library", None) or arguments.libraries[0]}
        assert getattr(arguments, "watch", True)
    assert libraries == {Path("%h/library")}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_they_start_with_the_account_and_again_after_a_failure(unit):
    parsed = read(unit)
    assert parsed["Install"]["WantedBy"] == "default.target"
    assert parsed["Service"]["Restart"] == "on-failure"
    assert parsed["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_them(unit, tmp_path):
    """With a program that exists here: systemd checks that too."""
    text = unit.read_text(encoding="utf-8").replace("ExecStart=%h/.venv/bin/vop", f"ExecStart={sys.executable}")
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    checked = ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / unit.name)]
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(checked, capture_output=True, text=True, check=False, env=environment)
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, []), done.stderr
