"""The example package, installed with pip and used by the program in new processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vop
from tiny_data import CAPTIONS, write_table, write_videos

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "vop-example"
TRAINING = ["--epochs", "1", "--batch-size", "2", "--num-frames", "2", "--workers", "0", "--precision", "fp32"]
PARTS = {"method": "frame-adapter", "head": "softmaxP", "backbone": "mini-half"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The installed package; the build does not change the checkout."""
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "vop-example")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=120)
    return target


@pytest.fixture(scope="module")
def run(site):
    """Runs Python with the package installed: (exit status, standard output, standard error)."""

    def run(*words, installed=True):
        path = [str(site)] * installed + [entry for entry in sys.path if entry]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos with sidecar captions, five to train on and three to test."""
    folder = tmp_path_factory.mktemp("data")
    for number, path in enumerate(write_videos(folder / "all")):
        split = folder / ("train" if number < 5 else "test")
        split.mkdir(exist_ok=True)
        path.rename(split / path.name)
        (split / path.name).with_suffix(".txt").write_text(f"a {CAPTIONS[number]} clip\n")
    return folder


@pytest.fixture(scope="module")
def trained(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "example"
    parts = [word for kind, name in PARTS.items() for word in (f"--{kind}", name)]
    given = ["--set", "hidden=4", "--set", "head.sharpness=2", *TRAINING, "--validation", "0"]
    status, _, err = run("vop", "train", "--data", f"sidecar:{data}", *parts, *given, "--out", out)
    assert status == 0, err
    return out


def test_params_counts_the_method(run):
    status, out, err = run("vop", "params", "--backbone", "mini", "--json")
    assert status == 0, err
    width, hidden = 128, 32  # of mini's joint space, and the setting's default
    expected = 2 * width + (width + 1) * hidden + (hidden + 1) * width
    assert json.loads(out)["methods"]["frame-adapter"]["true_count"] == expected


def test_runs_record_the_package(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["packages"] == dict.fromkeys(PARTS, "vop-example 0.1.0")
    assert (config["method"], config["settings"]["hidden"]) == ("frame-adapter", 4)
    assert config["head"] == {"name": "softmaxP", "settings": {"sharpness": 2}}
    assert config["backbone"]["name"] == "mini-half"
    assert config["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_runs_can_be_evaluated(run, trained, data):
    status, out, err = run("vop", "evaluate", trained, "--data", f"sidecar:{data}", "--precision", "fp32", "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["method"], report["data"], report["videos"]) == ("frame-adapter/softmaxP", "sidecar", 3)


def test_the_missing_package_is_named(run, trained, data, tmp_path):
    status, _, err = run("vop", "evaluate", trained, "--data", f"sidecar:{data}", installed=False)
    assert status == 2
    assert "'sidecar'" in err
    rows = [(str(path), "a clip", "test") for path in sorted((data / "test").glob("*.mp4"))]
    table = write_table(tmp_path / "test.csv", rows)
    status, _, err = run("vop", "evaluate", trained, "--data", table, installed=False)
    assert (status, "pip install vop-example" in err) == (1, True), err


def test_classes_can_be_named_by_path(run, site, data, tmp_path, monkeypatch):
    method, head = "vop_example.method:FrameAdapter", "vop_example.head:SoftmaxPooling"
    given = ["--method", method, "--head", head, "--backbone", "mini", *TRAINING, "--validation", "0"]
    status, _, err = run("vop", "train", "--data", f"sidecar:{data}", *given, "--out", tmp_path / "run")
    assert status == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["method"], config["head"]["name"]) == (method, head)
    monkeypatch.syspath_prepend(site)
    model = vop.load(tmp_path / "run")
    assert (model.method_name, model.head_name) == (method, head)


def test_the_packages_own_test_passes(run):
    status, out, err = run("pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests")
    assert status == 0, out + err
