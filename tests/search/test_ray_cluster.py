"""A Ray cluster of three node processes indexes a folder. `make cluster-test` runs this."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from search.owners_videos import write_video
from search.test_shards import Killed, assert_equal
from vop.cli import main
from vop.search.sharding import plan as plan_module
from vop.search.sharding.fragments import Target
from vop.search.sharding.plan import Plan
from vop.search.store import Store

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
VIDEOS = 24  # and four of the fixture `index_videos`


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    yield started
    ray.shutdown()
    started.shutdown()


def test_a_lost_node_and_a_killed_committer(cluster, folder, tiny_folder, index_videos, tmp_path, capsys, monkeypatch):
    """The library ends equal, row by row, to one that one process makes."""
    for number in range(VIDEOS):
        write_video(tmp_path / "videos" / f"{number}.mp4", seed=100 + number, seconds=12.0 if number % 5 else 30.0)
    lost, node = [], next(iter(cluster.worker_nodes))

    def results() -> list[Path]:
        return list(folder.glob("shards/*/*.result.json"))

    def lose_a_node():
        until = time.monotonic() + 200
        while not results() and time.monotonic() < until:
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        lost.append(len(results()))

    def kill(*_, **__):
        raise Killed

    small = ["--model", tiny_folder, "--num-frames", 2, "--precision", "fp32", "--workers", 1, "--batch-size", 3]
    words = list(map(str, ["index", folder, tmp_path / "videos", *small, "--ray", cluster.address, "--json"]))
    killer = threading.Thread(target=lose_a_node)
    killer.start()
    with monkeypatch.context() as patch:
        patch.setattr(Target, "commit", kill)
        patch.setattr(plan_module, "LEAST_BYTES", 1)  # small files in several shards for each worker
        with pytest.raises(Killed):
            main(words)
    killer.join()
    (plan,) = map(Plan.read, Plan.all_of(folder))
    assert 1 <= lost[0] < plan.num_shards == 12  # it was lost in the middle
    assert plan.unfinished() == []
    assert Store.open(folder).status().videos == 0

    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["added"]) == (VIDEOS + 4, 0)  # nothing was read again
    on_ray = folder.rename(tmp_path / "on Ray")
    index_videos()
    assert_equal(on_ray, folder)
