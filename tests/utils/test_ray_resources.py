"""How a Ray cluster is divided, and one that is not there; `make cluster-test` indexes on a real one."""

from __future__ import annotations

import socket
import sys

import pytest

from vop.errors import UsageError, VopError
from vop.utils.cluster import Cluster, Resources, chosen_variables


def nodes(*each: tuple[float, float]) -> list[dict]:
    """Nodes with these numbers of CPUs and GPUs."""
    return [{"Alive": True, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})} for cpus, gpus in each]


def test_workers_take_over_the_choice_of_threads_and_device(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VOP_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    assert chosen_variables() == {}
    monkeypatch.setenv("VOP_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert chosen_variables() == {"VOP_DEVICE": "cpu", "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("cluster", "given", "wanted"),
    [
        (nodes((8, 0), (8, 0)), {}, (2, 0, 8)),
        (nodes((8, 0), (6, 0)), {"jobs": 4}, (4, 0, 3)),
        (nodes((16, 4), (16, 4), (32, 0)), {}, (8, 1, 4)),
        (nodes((16, 4)), {"gpus_per_worker": 0.5}, (8, 0.5, 2)),
        (nodes((16, 4), (16, 1)), {"gpus_per_worker": 2}, (2, 2, 8)),
        (nodes((16, 4)), {"gpus_per_worker": 0}, (1, 0, 16)),
        (nodes((20, 1)), {"gpus_per_worker": 0.2}, (5, 0.2, 4)),
        (nodes((16, 8), (16, 1)), {}, (9, 1, 2)),
        (nodes((16, 8), (4, 1)), {"jobs": 4}, (4, 1, 4)),
        (nodes((1, 0)), {"jobs": 3}, (3, 0, 1)),
        ([*nodes((4, 0)), {"Alive": False, "Resources": {"CPU": 64}}, *nodes((0, 0))], {}, (1, 0, 4)),
    ],
)
def test_workers_of_a_cluster(cluster, given, wanted):
    found = Resources.of(cluster, **{"jobs": None, "gpus_per_worker": None} | given)
    assert (found.jobs, found.gpus, found.cpus) == wanted


@pytest.mark.parametrize(
    ("given", "named"), [({"gpus_per_worker": 2}, "2"), ({"gpus_per_worker": -1}, "-1"), ({"jobs": 0}, "0")]
)
def test_workers_that_a_cluster_cannot_have(given, named):
    with pytest.raises(UsageError, match=named):
        Resources.of(nodes((8, 1)), **{"jobs": None, "gpus_per_worker": None} | given)


def test_a_cluster_without_workers():
    with pytest.raises(VopError, match="ray start"):
        Resources.of([], jobs=None, gpus_per_worker=None)


def test_a_cluster_that_is_not_there():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(VopError, match=address):
        Cluster(address)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"vop\[cluster\]"):
        Cluster()
