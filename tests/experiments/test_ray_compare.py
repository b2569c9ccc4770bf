"""`vop compare --ray`: the results are those of `--jobs 1`. `make cluster-test` also runs this."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tiny_data import write_data
from vop.cli import main
from vop.datasets.readers import load
from vop.experiments import figures, report
from vop.experiments.cluster import Place, WrongNode, check_node
from vop.experiments.plan import Plan, arms_of
from vop.experiments.runner import MANIFEST
from vop.experiments.work import Job
from vop.training.recipe import Recipe
from vop.version import VERSION

SMALL = ["--epochs", "3", "--batch-size", "2", "--num-frames", "2", "--workers", "0", "--validation", "0.4"]
MEASURED = {"minutes", "peak_memory_bytes"}


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs, and two nodes with one, which can import the methods of this test."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield started
    ray.shutdown()
    started.shutdown()


def records(out: Path) -> dict[str, dict]:
    """The results of all jobs, without what differs from run to run."""
    found = {}
    for path in [*out.glob("search/*.json"), *out.glob("runs/*/result.json")]:
        values = {name: value for name, value in json.loads(path.read_text()).items() if name not in MEASURED}
        for part in [*values.get("trials", ()), *values.get("history", ())]:
            for name in ("minutes", "seconds"):
                part.pop(name, None)
        found[str(path.relative_to(out))] = values
    return found


def test_a_lost_node_and_killed_workers(cluster, tiny_folder, tmp_path, monkeypatch, capsys):
    """A training resumes on another node; a job whose process is always killed fails alone."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "save_figure", lambda *_: None)
    monkeypatch.setattr(report, "_inline", lambda *_, **__: [])
    methods = "zero-shot,experiments.unlucky:Lost"
    common = ["--data", "colours.csv", "--backbone", str(tiny_folder), *SMALL, "--seeds", "0", "--trial-epochs", "1"]
    words = ["compare", "--learning-rates", "1e-3,1e-2", *common, "--json"]
    lost = []

    def lose_a_node():
        until = time.monotonic() + 250
        while not lost and time.monotonic() < until:
            time.sleep(0.05)
            waits = (tmp_path / "node").read_text() if (tmp_path / "node").exists() else ""
            lost.extend(node for node in cluster.worker_nodes if node.node_id == waits)
        cluster.remove_node(lost[0], allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    signal.signal(signal.SIGTERM, stop := lambda *_: None)
    more = f"{methods},experiments.unlucky:Killed"
    assert main([*words, "--methods", more, "--out", "out", "--ray", cluster.address]) == 1
    thread.join()
    assert signal.signal(signal.SIGTERM, signal.SIG_DFL) is stop  # not Ray's handler
    out, err = capsys.readouterr()
    (study,) = json.loads(out)["studies"]
    (failure,) = study["failures"]
    assert "Killed" in failure
    assert "lost 3 times" in failure
    assert "experiment: 5/5" in err
    assert len(lost) == 1

    assert main([*words, "--methods", methods, "--out", "alone", "--jobs", "1"]) == 0
    alone = records(Path("alone"))
    assert len(alone) == 3
    assert records(Path("out")) == alone
    (weights,) = Path("alone").glob("runs/*Lost*/model.safetensors")
    assert Path("out", *weights.parts[1:]).read_bytes() == weights.read_bytes()


def test_a_cluster_that_is_not_there(tiny_folder, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = ["--data", write_data(tmp_path), "--backbone", tiny_folder, "--learning-rates", "1e-3", *SMALL]
    assert main([*map(str, ["compare", "--methods", "bias", "--out", tmp_path / "out", *given]), "--ray", address]) == 1
    assert address in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_gpus_of_no_cluster(capsys):
    assert main(["compare", "--data", "colours.csv", "--gpus-per-worker", "0.5"]) == 2
    assert "--ray" in capsys.readouterr().err


@pytest.fixture
def job(tiny_folder, tmp_path):
    dataset = load(str(write_data(tmp_path)))
    recipe = Recipe(epochs=1, batch_size=2, precision="fp32", learning_rate=1e-3)
    plan = Plan(kind="compare", data="colours.csv", arms=arms_of(["bias"]), recipe=recipe, backbone=str(tiny_folder))
    return Job(
        plan=plan, arm=plan.arms[0], dataset=dataset, out=tmp_path / "out", cache=tmp_path / "cache", data={}, code={}
    )


def test_nodes_that_would_compute_other_results(job, tiny, tmp_path):
    place = Place(folder=tmp_path, vop_version=VERSION, missing=frozenset(), variables={})
    with pytest.raises(WrongNode, match=str(job.out)):
        check_node(job, place)
    job.out.mkdir()
    identity = {"precision": "float32", "backbone": tiny.content_hash()}
    (job.out / MANIFEST).write_text(json.dumps({"identity": identity}))
    with pytest.raises(WrongNode, match=str(job.cache)):
        check_node(job, place)
    job.cache.mkdir()
    check_node(job, place)
    with pytest.raises(WrongNode, match=r"0\.0\.1"):
        check_node(job, replace(place, vop_version="0.0.1"))
    for name, other in (("precision", "bfloat16"), ("backbone", "other")):
        (job.out / MANIFEST).write_text(json.dumps({"identity": identity | {name: other}}))
        with pytest.raises(WrongNode, match="bfloat16 where" if name == "precision" else "other weights"):
            check_node(job, place)
    gone = job.dataset.videos[0].path
    gone.unlink()
    with pytest.raises(WrongNode, match=gone.name):
        check_node(job, place)
    (job.out / MANIFEST).write_text(json.dumps({"identity": identity}))
    check_node(job, replace(place, missing=frozenset({str(gone)})))
