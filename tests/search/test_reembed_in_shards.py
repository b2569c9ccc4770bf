"""Re-embedding in shards: the library ends equal, row by row, to one that one process re-embeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vop.models.pretrained
from search.test_shards import TIMES
from vop.cli import main
from vop.errors import VopError
from vop.search import lease
from vop.search.sharding import commands
from vop.search.sharding.fragments import Target
from vop.search.sharding.plan import Plan
from vop.search.sharding.reembedding import reembed_in_shards
from vop.search.sharding.runners import open_worker
from vop.search.store import Store
from vop.search.sync import index, reembed
from vop.search.sync.lock import library_lock
from vop.storage import objects
from vop.storage.address import Address

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
LIBRARY = Address("s3", "films", "library")


def worked(plan, numbers):
    """A runner in this process."""
    worker = open_worker(plan, workers=2, batch_size=3, compile=False)
    for number in numbers:
        worker.work(number)
        yield number


@pytest.fixture
def tuned(tmp_path, tiny_folder) -> str:
    model = vop.models.pretrained.create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu")
    model.save_pretrained(tmp_path / "run")
    return str(tmp_path / "run")


@pytest.fixture
def library(index_videos, folder) -> Path:
    index_videos()
    return folder


@pytest.fixture
def moved(library, tuned, tmp_path) -> Path:
    """A copy of the library that one process has re-embedded."""
    other = tmp_path / "by one process"
    shutil.copytree(library, other)
    reembed(other, tuned, precision="fp32")
    return other


def assert_same(one, other) -> None:
    stores = Store.open(one), Store.open(other)
    assert stores[0].manifest == stores[1].manifest
    found, wanted = ({row["segment"]: row for row in store.table.to_arrow().to_pylist()} for store in stores)
    assert found.keys() == wanted.keys()
    for segment, row in wanted.items():
        for name in row.keys() - TIMES:
            if name.startswith("embedding"):
                np.testing.assert_allclose(found[segment][name], row[name], atol=1e-6)
            else:
                assert found[segment][name] == row[name], name


def test_it_equals_one_process(library, moved, tuned):
    shown = []
    report = reembed_in_shards(
        library, tuned, run=worked, parts=3, precision="fp32", progress=lambda *step: shown.append(step)
    )
    assert (report.videos, report.segments, report.resumed, report.dropped) == (4, 6, 0, [])
    assert_same(library, moved)
    assert not (library / "reembedding").exists()
    assert shown[-1] == ("videos", 4, 4)
    vector = np.array(Store.open(library).table.to_arrow().to_pylist()[0][Store.open(library).models[0].column])
    assert Store.open(library).search(vector.astype(np.float32), k=1)[0].score == pytest.approx(1, abs=1e-5)


def test_a_model_can_be_added(library, tuned):
    before = {row["segment"]: row["embedding_1"] for row in Store.open(library).table.to_arrow().to_pylist()}
    reembed_in_shards(library, tuned, run=worked, parts=2, keep=True, precision="fp32")
    after = Store.open(library).table.to_arrow().to_pylist()
    assert {row["segment"]: row["embedding_1"] for row in after} == before
    assert Store.open(library).models[0].column == "embedding_2"
    assert all(np.linalg.norm(row["embedding_2"]) == pytest.approx(1, abs=1e-5) for row in after)


def test_an_interrupted_one_uses_what_was_written(library, moved, tuned, monkeypatch, capsys):
    def stopped(plan, numbers):
        yield from worked(plan, numbers[:2])
        raise KeyboardInterrupt

    def kill(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Target, "commit", kill)  # nor is it published
        with pytest.raises(SystemExit):
            reembed_in_shards(library, tuned, run=stopped, parts=4, precision="fp32")
    (place,) = Plan.all_of(library, under="reembedding")
    finished = sum(len(Plan.read(place).files(number)) for number in Plan.read(place).results())
    assert finished == 2
    assert commands.publish(library).completed == []  # that is for indexing
    assert main(["library", "info", str(library)]) == 0
    assert "publish" not in capsys.readouterr().out
    read = []

    def counted(plan, numbers):
        read.extend(file.location for number in numbers for file in plan.files(number))
        return worked(plan, numbers)

    report = reembed_in_shards(library, tuned, run=counted, parts=4, precision="fp32")
    assert (report.videos, report.resumed, len(read)) == (4, finished, 4 - finished)
    assert_same(library, moved)


def test_unreadable_videos_leave_the_library_unchanged(library, tuned, videos):
    before = Store.open(library).manifest
    videos["b"].unlink()
    with pytest.raises(VopError, match=r"b\.mp4.*deleted or has changed"):
        reembed_in_shards(library, tuned, run=worked, parts=2, precision="fp32")
    assert Store.open(library).manifest == before
    assert not Plan.all_of(library, under="reembedding")
    report = reembed_in_shards(library, tuned, run=worked, parts=2, precision="fp32", drop_unreadable=True)
    assert ([failure.path for failure in report.dropped], report.resumed) == ([str(videos["b"])], 3)


def test_in_object_storage(object_server, library, moved, videos, tiny_folder, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    object_server.make_bucket()
    index(LIBRARY, [tmp_path / "videos"], model=str(tiny_folder), num_frames=2, precision="fp32", workers=2)
    reembed_in_shards(LIBRARY, tuned, run=worked, parts=3, precision="fp32")
    assert_same(LIBRARY, moved)
    names = {info.address.name for info in objects.list_objects(LIBRARY) if "data" in info.address.parts}
    assert Target(Store.open(LIBRARY).table_folder).files <= names
    assert not [info for info in objects.list_objects(LIBRARY) if "reembedding" in info.address.parts]


@pytest.mark.usefixtures("real_processes")
def test_the_command(library, moved, tuned, capsys):
    words = ["library", "reembed", str(library), "--model", tuned, "--precision", "fp32", "--workers", "1"]
    assert main([*words, "--gpus-per-worker", "1"]) == 2
    assert "--ray" in capsys.readouterr().err
    assert main([*words, "--jobs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 4
    assert_same(library, moved)


@pytest.fixture
def part(library, tuned, capsys):
    """Does one of two parts of a batch job, and returns its report."""

    def do(number: int) -> dict:
        words = ["library", "reembed", str(library), "--model", tuned, "--precision", "fp32", "--workers", "1"]
        assert main([*words, "--shard", f"{number}/2", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return do


@pytest.fixture
def publish(library, capsys):
    def do(*words: str) -> dict:
        assert main(["library", "publish", str(library), "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)

    return do


def test_a_batch_job(library, moved, part, publish):
    before = Store.open(library).manifest
    assert (part(2)["written"], part(2)["written"]) == (1, 0)
    assert (publish()["committed"], Store.open(library).manifest) == (1, before)
    with library_lock(library):
        Store.open(library).change(exclude=("*.tmp",))  # it stays
    report = part(1)
    assert (report["written"], report["finished"], report["shards"]) == (1, 2, 2)
    (done,) = publish()["reembedded"]
    assert (done["videos"], done["segments"], done["resumed"], done["dropped"]) == (4, 6, 0, [])
    assert Store.open(library).manifest == Store.open(moved).manifest.with_(exclude=("*.tmp",))
    assert not (library / "reembedding").exists()
    with library_lock(library):
        Store.open(library).change(exclude=())
    assert_same(library, moved)


def test_a_plan_that_another_command_has_completed(library, moved, tuned, part, publish):
    part(1)
    reembed(library, tuned, precision="fp32")
    assert publish() == publish()
    assert not Plan.all_of(library, under="reembedding")
    assert_same(library, moved)


def test_a_batch_job_and_a_video_that_comes_later(library, index_videos, videos, part, publish, capsys):
    before = Store.open(library).manifest
    videos["b"].with_name("later.mp4").write_bytes(videos["a"].read_bytes()[:-1] + b"-")
    part(1), part(2)
    index_videos()
    added = len(Store.open(library).videos()) - 4
    assert main(["library", "publish", str(library)]) == 1
    assert "later.mp4" in capsys.readouterr().err
    assert Store.open(library).manifest == before
    part(1), part(2)
    (done,) = publish()["reembedded"]
    assert (added, done["videos"], done["resumed"]) == (1, 5, 4)


def test_a_batch_job_and_an_unreadable_video(library, videos, part, publish, capsys):
    before = Store.open(library).manifest
    videos["b"].unlink()
    part(1), part(2)
    assert main(["library", "publish", str(library)]) == 1
    assert "b.mp4: its file was deleted" in capsys.readouterr().err
    assert Store.open(library).manifest == before
    (done,) = publish("--drop-unreadable")["reembedded"]
    assert ([path for path, _ in done["dropped"]], done["videos"]) == ([str(videos["b"])], 3)
