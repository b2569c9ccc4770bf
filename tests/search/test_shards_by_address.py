"""Shards into a library in object storage: everything that holds for folders, and what differs."""

from __future__ import annotations

import os
import shutil
import threading
from collections import namedtuple

import pytest

from object_server import KEY_ID, SECRET
from search.owners_videos import rows, write_video
from search.test_shards import Killed, assert_equal, numbers_of, worked
from vop.cli import main
from vop.errors import VopError
from vop.search import lease
from vop.search.sharding import commands, work
from vop.search.sharding.commands import index_in_shards, index_part
from vop.search.sharding.fragments import Target
from vop.search.sharding.plan import Plan
from vop.search.sharding.publish import Publisher
from vop.search.sharding.work import Worker
from vop.search.store import Store
from vop.search.sync import forget, index
from vop.search.sync.lock import library_lock
from vop.storage import objects
from vop.storage.address import Address
from vop.storage.errors import ScratchFull, StorageError

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
LIBRARY = Address("s3", "films", "libraries/holi days")
LOCK = LIBRARY.at(f"{LIBRARY.key}/.lock")


@pytest.fixture
def films(object_server, monkeypatch):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    object_server.make_bucket()
    return object_server


@pytest.fixture
def given(tiny_folder) -> dict:
    return {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32"}


@pytest.fixture
def in_shards(films, videos, tmp_path, given):
    def run(*paths, parts=3, **settings):
        own = {"run": worked, "parts": parts} | given | settings
        return index_in_shards(LIBRARY, paths or [tmp_path / "videos"], **own)

    return run


@pytest.fixture
def a_part(films, videos, tmp_path, given):
    def run(part, parts=2):
        return index_part(LIBRARY, [tmp_path / "videos"], part=part, parts=parts, workers=2, batch_size=3, **given)

    return run


def keys(part: str) -> list[str]:
    """The names of the objects of the library with this name in their key."""
    return [info.address.name for info in objects.list_objects(LIBRARY) if part in info.address.parts]


def plan() -> Plan:
    (found,) = map(Plan.read, Plan.all_of(LIBRARY))
    return found


def written_files() -> set[str]:
    """The names of the files in the folder of the table of segments, with those that no version has."""
    folder = Store.open(LIBRARY).table_folder
    return {info.address.name for info in objects.list_objects(folder.at(f"{folder.key}/data"))}


def files_of_table() -> set[str]:
    return Target(Store.open(LIBRARY).table_folder).files


def kill(*_, **__):
    raise Killed


def test_a_new_library_and_a_changed_one(in_shards, index_videos, folder, videos, tmp_path):
    shutil.copy(videos["a"], tmp_path / "videos" / "copy of a.mp4")
    (tmp_path / "videos" / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    report, alone = in_shards(), index_videos()
    assert numbers_of(report) == numbers_of(alone)
    assert (report.added, report.duplicates, report.unreadable) == (4, 1, 1)
    assert_equal(LIBRARY, folder)
    assert keys("shards") == []
    assert {info.address.parts[2] for info in objects.list_objects(LIBRARY)} == {
        "library.json",
        "database",
        "confidence.safetensors",
        "folders.json",
        ".lock",
    }

    write_video(videos["b"], seed=40, seconds=26.0)  # changed
    videos["c"].rename(videos["c"].with_name("moved.mp4"))
    os.utime(videos["a"], ns=(5, 5))  # the same content
    videos["d"].write_bytes(b"no video any more")
    (tmp_path / "videos" / "noise.mp4").unlink()
    report, alone = in_shards(), index_videos()
    assert numbers_of(report) == numbers_of(alone)
    assert (report.changed, report.moved, report.unchanged, report.unreadable) == (1, 1, 1, 1)
    assert_equal(LIBRARY, folder)
    segments = [row["segment"] for row in rows(LIBRARY).values()]
    assert len(segments) == len({*segments}) == 5
    assert written_files() >= files_of_table()


def test_what_another_indexing_has_read_later_stays(a_part, videos, tmp_path, given):
    a_part(1, parts=1)
    write_video(videos["a"], seed=60)
    videos["b"].rename(videos["b"].with_name("moved.mp4"))
    index(LIBRARY, [tmp_path / "videos"], workers=2, batch_size=3, **given)
    later = {key: row["video"] for key, row in rows(LIBRARY).items()}
    assert commands.publish(LIBRARY).published == 1
    assert {key: row["video"] for key, row in rows(LIBRARY).items()} == later


@pytest.mark.parametrize("moment", ["before the commit", "before it is listed"])
def test_a_killed_committer(a_part, index_videos, folder, monkeypatch, moment):
    for part in (1, 2):
        a_part(part)
    before, written = Store.open(LIBRARY).table.version, len(plan().results())
    with monkeypatch.context() as patch:
        if moment == "before the commit":
            patch.setattr(Target, "commit", kill)
        else:
            patch.setattr(Plan, "write_committed", kill)
        with pytest.raises(Killed):
            commands.publish(LIBRARY)
    committed = moment != "before the commit"
    assert Store.open(LIBRARY).table.version == before + committed
    with monkeypatch.context() as patch:
        patch.setattr(commands, "finish", lambda *_, **__: None)
        report = commands.publish(LIBRARY)
    assert (report.published, len(report.completed)) == (0 if committed else written, 1)
    assert Store.open(LIBRARY).table.version == before + 1
    index_videos()
    assert_equal(LIBRARY, folder)


def test_written_rows_survive_a_clean_up_and_not_a_discard(a_part, videos, films, given):
    a_part(1)
    written = {
        file["path"] for result in plan().read_results([0, 1]).values() for file in result["fragments"][0]["files"]
    }
    assert written
    assert written <= written_files() - files_of_table()
    index(LIBRARY, [videos["a"]], workers=2, **given)  # another process, which cleans up
    assert written <= written_files() - files_of_table()
    assert a_part(1).written == 0  # nor is it worked on again
    report = commands.publish(LIBRARY)
    assert (report.published, report.completed) == (1, [])
    assert commands.publish(LIBRARY, discard=True).discarded == 1
    assert keys("shards") == []
    assert written_files() == files_of_table()


def test_rows_that_an_earlier_version_deleted_are_read_again(a_part, index_videos, folder, monkeypatch):
    a_part(1, 1)
    with monkeypatch.context() as patch, library_lock(LIBRARY):
        patch.setattr(Store, "_has_workers", lambda store: False)
        Store.open(LIBRARY).keep_up()
    report = commands.publish(LIBRARY)
    assert (report.published, report.completed) == (0, [])
    assert a_part(1, 1).written == report.shards
    assert len(commands.publish(LIBRARY).completed) == 1
    index_videos()
    assert_equal(LIBRARY, folder)


def test_the_first_of_two_workers_of_a_shard_counts(a_part, monkeypatch):
    a_part(1, 1)
    own, first = plan(), plan().read_result(0)
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "read_result", lambda *_: None)  # before the other one has finished
        Worker(own, workers=1, batch_size=3).work(0)
    assert own.read_result(0) == first
    assert len(commands.publish(LIBRARY).completed) == 1
    assert Store.open(LIBRARY).status().videos == 4
    assert written_files() == files_of_table()  # the other's rows were deleted


def test_a_publisher_that_has_lost_the_lock_commits_nothing(a_part, films, monkeypatch):
    a_part(1, 1)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held = lease.hold(LOCK, lambda: None)
    films.put(str(LOCK), b'{"free": false, "holder": "another"}')
    held._renewing.join(30)
    with pytest.raises(VopError, match="could not renew its lock in time"):
        Publisher(Store.open(LIBRARY), plan()).publish()
    lease.release_held(held)
    assert Store.open(LIBRARY).status().videos == 0
    assert plan().committed() == set()


def test_a_second_publisher_waits(a_part):
    a_part(1, 1)
    waits, reports = threading.Event(), []
    with library_lock(LIBRARY):
        second = threading.Thread(target=lambda: reports.append(commands.publish(LIBRARY, waiting=waits.set)))
        second.start()
        assert waits.wait(60)
        assert not reports
    second.join(60)
    assert len(reports[0].completed) == 1


def test_shards_of_other_weights_and_versions_are_refused(a_part, monkeypatch):
    a_part(1, 1)
    own = plan()
    with monkeypatch.context() as patch:
        patch.setattr("vop.search.models.fingerprint", lambda model: "f" * 16)
        with pytest.raises(VopError, match="fingerprint") as refused:
            Worker(own, workers=1, batch_size=1)
    assert work.name() in str(refused.value)
    result = own.read_result(0)
    own.drop_result(0)
    own.write_result(0, result | {"made_with": "another", "worker": "worker node7:12"})
    with pytest.raises(VopError, match="node7:12 with made_with another"):
        commands.publish(LIBRARY)
    assert own.unfinished() == [0]


def test_what_killed_planners_left_behind_is_removed(in_shards, films, videos):
    in_shards()
    for name in ("00000.files.json", "00000.progress.json"):
        films.put(f"{LIBRARY}/shards/abandoned/{name}", b"[]")
    write_video(videos["a"].with_name("new.mp4"), seed=44)
    assert in_shards().added == 1
    assert keys("shards") == []


@pytest.mark.usefixtures("real_processes")
def test_the_commands(films, videos, tiny_folder, tmp_path, index_videos, folder, capsys):
    small = ["--model", tiny_folder, "--num-frames", 2, "--precision", "fp32", "--workers", 1, "--batch-size", 3]
    words = list(map(str, ["index", LIBRARY, tmp_path / "videos", *small, "--threads", 1]))
    assert main([*words, "--shard", "1/2"]) == 0
    assert main(["library", "info", str(LIBRARY)]) == 0
    assert f"vop library publish '{LIBRARY}'" in capsys.readouterr().out
    assert main([*words, "--jobs", "2"]) == 0
    index_videos()
    assert_equal(LIBRARY, folder)
    assert forget(LIBRARY, [videos["a"]]) == 1


# -- bad input


@pytest.mark.parametrize("way", [["--jobs", "2"], ["--shard", "1/2"]])
def test_missing_buckets_and_wrong_credentials(films, videos, tiny_folder, monkeypatch, capsys, way):
    import moto.settings

    words = ["index", "s3://no-such-bucket/library", str(videos["a"]), "--model", str(tiny_folder), *way]
    assert main(words) == 1
    assert "s3://no-such-bucket: this bucket does not exist" in capsys.readouterr().err
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    words[1] = str(LIBRARY)
    for command in (words, ["library", "publish", str(LIBRARY)]):
        assert main(command) == 1
        err = capsys.readouterr().err
        assert "s3://films" in err
        assert not [secret for secret in (KEY_ID, SECRET, "<Error>") if secret in err]


def test_a_table_that_cannot_be_read_is_explained_without_secrets(a_part, monkeypatch):
    import moto.settings

    a_part(1, 1)
    place = Store.open(LIBRARY).table_folder
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(VopError, match=rf"^{LIBRARY}: its database cannot be read or written") as failed:
        Target(place)
    assert not [secret for secret in (KEY_ID, SECRET, "<Error>") if secret in str(failed.value)]


def test_a_worker_with_wrong_credentials_stops_the_work(in_shards, films, monkeypatch):
    import moto.settings

    def without_access(own, numbers):
        with monkeypatch.context() as patch:
            patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
            yield from worked(own, numbers)

    with pytest.raises(StorageError, match="s3://films"):
        in_shards(run=without_access)


def test_a_full_scratch_disk_stops_the_work_after_what_is_finished(in_shards, films, videos, monkeypatch):
    for name, path in videos.items():
        films.put(f"s3://films/clips/{name}.mp4", path)
    usage = namedtuple("usage", "total used free")

    def full_later(own, numbers):
        yield from worked(own, numbers[:1])
        with monkeypatch.context() as patch:
            patch.setattr("vop.storage.scratch.shutil.disk_usage", lambda _: usage(10**9, 10**9, 0))
            yield from worked(own, numbers[1:])

    with pytest.raises(ScratchFull, match="VOP_SCRATCH"):
        in_shards("s3://films/clips", run=full_later, parts=2)
    had = Store.open(LIBRARY).status()
    assert 0 < had.videos < 4
    assert had.failures == 0
    assert in_shards("s3://films/clips", parts=2).added == 4 - had.videos


def test_a_cluster_that_is_not_there_leaves_nothing(films, videos, tiny_folder, capsys):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'vop[cluster]'")
    words = ["index", str(LIBRARY), str(videos["a"]), "--model", str(tiny_folder), "--ray", "127.0.0.1:1"]
    assert main(words) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert list(objects.list_objects(LIBRARY)) == []
