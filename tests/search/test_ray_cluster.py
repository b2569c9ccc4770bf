"""A Ray cluster of three node processes indexes a folder and a bucket. `make cluster-test` runs this."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from search import dying
from search.owners_videos import write_video
from search.test_reembed_in_shards import assert_same
from search.test_shards import Killed, assert_equal
from vop.cli import main
from vop.models.pretrained import create
from vop.search import lease, vector_index
from vop.search.sharding import plan as plan_module
from vop.search.sharding.fragments import Target
from vop.search.sharding.plan import Plan
from vop.search.store import Store
from vop.search.sync import index, reembed
from vop.storage.address import Address

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
VIDEOS = 24  # and four of the fixture `index_videos`
CLIPS = 300


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


def test_a_library_is_moved_to_another_model(cluster, folder, tiny_folder, index_videos, tmp_path, capsys, monkeypatch):
    """The workers also build its vector index, in parts."""
    index_videos()
    tuned = str(tmp_path / "run")
    create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tuned)
    by_one_process = shutil.copytree(folder, tmp_path / "by one process")
    reembed(by_one_process, tuned, precision="fp32")
    chosen = ["--precision", "fp32", "--workers", 1, "--device", "cpu", "--threads", 1]
    words = ["library", "reembed", folder, "--model", tuned, *chosen, "--ray", cluster.address, "--json"]
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 3)
    monkeypatch.setattr(vector_index, "build_index", None)  # this process does not call it
    assert main(list(map(str, words))) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 4
    assert_same(folder, by_one_process)
    moved = Store.open(folder)
    assert moved.table.index_stats(f"{moved.models[0].column}_idx").num_indices >= 2


def test_a_bucket_is_indexed_into_a_library_in_it(object_server, cluster, folder, tmp_path, capsys, monkeypatch):
    """A node and then the committer are killed. The library ends equal to one that one process makes on a disk."""
    object_server.make_bucket()
    for number in range(CLIPS):
        clip = write_video(tmp_path / "clip.mp4", seed=number, seconds=0.4 + 0.2 * (number % 3))
        object_server.put(f"s3://films/clips/{number:03}.mp4", clip)
    library, clips = Address("s3", "films", "library"), Address("s3", "films", "clips")
    small = ["--model", "mini", "--num-frames", 2, "--precision", "fp32", "--workers", 1]
    words = list(map(str, ["index", library, clips, *small, "--ray", cluster.address, "--json"]))

    first = subprocess.Popen([sys.executable, dying.__file__, *words])
    plans: list[Plan] = []
    until = time.monotonic() + 200
    while first.poll() is None and time.monotonic() < until and not (plans and plans[0].results()):
        plans = [Plan.read(found) for found in Plan.all_of(library)]
        time.sleep(0.1)
    (plan,) = plans
    lost_after = len(plan.results())
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert first.wait(200) == -signal.SIGKILL
    finished = [file for number in plan.results() for file in plan.files(number)]
    committed = [file for number in plan.committed() for file in plan.files(number)]
    assert 1 <= lost_after < plan.num_shards == 12
    assert Store.open(library).status().videos == len(committed) < len(finished)

    monkeypatch.setattr(lease, "LEASE_SECONDS", 6.0)  # the dead process has not released the lock
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.5)
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["added"]) == (len(finished), CLIPS - len(finished))  # none was read again
    index(folder, [str(clips)], model="mini", num_frames=2, precision="fp32", workers=1)
    assert_equal(library, folder)
    assert Store.open(library).table.count_rows() == CLIPS
