"""Indexing in shards: the library ends equal, row by row, to one that is indexed by one process."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lancedb.index import BTree

from search.libraries import a_file, make_library, rows_of, unit_vectors
from search.owners_videos import rows, write_video
from vop.errors import UsageError, VopError
from vop.search import vector_index
from vop.search.schema import damaged_rows, with_checksums
from vop.search.sharding import commands, fragments, work
from vop.search.sharding.commands import index_in_shards, index_part
from vop.search.sharding.fragments import Target
from vop.search.sharding.plan import Plan, PlannedFile, cut
from vop.search.sharding.publish import Publisher
from vop.search.sharding.work import Worker
from vop.search.store import Store
from vop.search.sync.lock import library_lock

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
TIMES = {"made_at", "checksum"}  # of a row; the checksum includes the time


def worked(plan, numbers):
    """A runner in this process."""
    with Worker(plan, workers=2, batch_size=3) as worker:
        for number in numbers:
            worker.work(number)
            yield number


@pytest.fixture
def settings(tiny_folder) -> dict:
    return {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32"}


@pytest.fixture
def in_shards(folder, videos, tmp_path, settings):
    """Indexes the folder of videos in shards, in this process."""

    def run(*paths, parts=3, **given):
        own = {"run": worked, "parts": parts} | settings | given
        return index_in_shards(folder, paths or [tmp_path / "videos"], **own)

    return run


@pytest.fixture
def a_part(folder, videos, tmp_path, settings):
    """Works on one part of the shards."""

    def run(part, parts=2, **given):
        return index_part(
            folder, [tmp_path / "videos"], part=part, parts=parts, workers=2, batch_size=3, **settings | given
        )

    return run


@pytest.fixture
def by_one_process(folder, index_videos, tmp_path):
    """Repeats in a second library, with one process, what is called for the first one."""
    other = tmp_path / "by one process"

    def run(**given):
        folder_before = folder.with_name("kept")
        if folder.exists():
            folder.rename(folder_before)
        if other.exists():
            other.rename(folder)
        report = index_videos(**given)
        folder.rename(other)
        if folder_before.exists():
            folder_before.rename(folder)
        return report, other

    return run


def assert_equal(one: Path, other: Path) -> None:
    found, wanted = rows(one), rows(other)
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        for name, value in row.items():
            if name == "embedding_1":
                np.testing.assert_allclose(found[key][name], value, atol=1e-6)
            elif name not in TIMES:
                assert found[key][name] == value, (key, name)
    seen = [[replace(failed, seen_at="") for failed in Store.open(folder).failures()] for folder in (one, other)]
    assert seen[0] == seen[1]


def numbers_of(report) -> dict:
    """Return a report's numbers that do not depend on the time; shards add the hours in another order."""
    document = report.to_dict()
    return document | {"seconds": 0, "library": "", "failures": [], "hours": round(document["hours"], 9)}


def versions(folder: Path) -> int:
    return Store.open(folder).table.version


def test_a_new_library_and_a_changed_one(in_shards, by_one_process, folder, videos, tmp_path):
    """New, unreadable, copied, changed, moved, damaged and deleted files, with metadata."""
    (tmp_path / "videos" / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    shutil.copy(videos["a"], tmp_path / "videos" / "copy of a.mp4")
    table = tmp_path / "about.csv"
    table.write_text("path,author\nvideos/b.mp4,bob\nvideos/copy of a.mp4,ann\nnowhere.mp4,eve\n")

    report = in_shards(metadata=table)
    alone, other = by_one_process(metadata=table)
    assert numbers_of(report) == numbers_of(alone)
    assert (report.added, report.duplicates, report.unreadable, report.unmatched) == (4, 1, 1, ["nowhere.mp4"])
    assert report.described == 0
    assert rows(folder)["a.mp4", 0]["about_author"] == "ann"
    assert_equal(folder, other)
    assert not (folder / "shards").exists()

    before = rows(folder)
    write_video(videos["b"], seed=40, seconds=26.0)  # changed
    videos["c"].rename(videos["c"].with_name("moved.mp4"))
    os.utime(videos["a"], ns=(5, 5))  # the same content
    videos["d"].write_bytes(b"no video any more")
    write_video(tmp_path / "videos" / "new.mp4", seed=41)
    (tmp_path / "videos" / "noise.mp4").unlink()
    report, (alone, other) = in_shards(), by_one_process()
    assert numbers_of(report) == numbers_of(alone)
    assert (report.added, report.changed, report.moved, report.unchanged, report.unreadable) == (1, 1, 1, 1, 1)
    assert_equal(folder, other)
    after = rows(folder)
    assert not {("c.mp4", 0), ("d.mp4", 0)} & after.keys()
    assert after["moved.mp4", 0]["segment"] == before["c.mp4", 0]["segment"]
    assert after["a.mp4", 0]["mtime_ns"] == 5
    assert len(after) == len({row["segment"] for row in after.values()}) == 6

    (tmp_path / "videos" / "new.mp4").unlink()
    report, (alone, other) = in_shards(prune=True, yes=True), by_one_process(prune=True, yes=True)
    assert (report.removed, numbers_of(report)) == (1, numbers_of(alone))
    assert_equal(folder, other)


def test_one_version_replaces_changed_videos(in_shards, folder, videos, monkeypatch):
    """No reader meets old and new rows of a video together, or neither of them."""
    in_shards()
    monkeypatch.setattr(commands, "finish", lambda *_, **__: None)  # it tidies up
    before = versions(folder)
    write_video(videos["a"], seed=50)
    write_video(videos["c"], seed=51)
    in_shards()
    assert versions(folder) == before + 1
    properties = Target(Store.open(folder).table_folder).properties()[-1]
    assert json.loads(properties["vop.shards"]) == [0, 1]
    found = rows(folder)
    assert (len(found), len({row["video"] for row in found.values()})) == (6, 4)


def test_rows_of_a_path_whose_old_content_has_moved(in_shards, folder, videos, tmp_path):
    """Shards are published in any order: the old content's new rows and the path's new rows both stay."""
    in_shards()
    content = rows(folder)["b.mp4", 0]["video"]
    videos["b"].rename(tmp_path / "videos" / "old b.mp4")
    write_video(videos["b"], seed=60)
    for order in (1, -1):

        def one_by_one(plan, numbers, order=order):
            for number in list(numbers)[::order]:
                yield from worked(plan, [number])
                Publisher(Store.open(folder), plan).publish()

        shutil.copytree(folder, tmp_path / "kept", dirs_exist_ok=True)
        in_shards(run=one_by_one)
        found = rows(folder)
        assert {name for name, _ in found} == {"a.mp4", "b.mp4", "c.mp4", "d.mp4", "old b.mp4"}
        assert found["old b.mp4", 2]["video"] == content
        assert ("b.mp4", 1) not in found
        shutil.rmtree(folder)
        (tmp_path / "kept").rename(folder)


class Killed(BaseException):
    """Stands in for SIGKILL: nothing handles it."""


@pytest.mark.parametrize("moment", ["before the commit", "before it is listed", "after a clean-up"])
def test_a_killed_committer(a_part, by_one_process, folder, monkeypatch, moment):
    """Each shard is published once, whenever the committer is killed."""
    for part in (1, 2):
        a_part(part)
    (plan,) = map(Plan.read, Plan.all_of(folder))
    before = versions(folder)
    written = sum(1 for number in plan.results() if plan.read_result(number)["fragments"])

    def kill(*_, **__):
        raise Killed

    if moment == "before the commit":  # the files were moved
        monkeypatch.setattr(Target, "commit", kill)
    else:
        monkeypatch.setattr(Plan, "write_committed", kill)
    with pytest.raises(Killed):
        commands.publish(folder)
    monkeypatch.undo()
    assert versions(folder) == before + (moment != "before the commit")
    if moment == "after a clean-up":
        with library_lock(folder):
            Store.open(folder).keep_up()
    committed = versions(folder)

    if moment == "before the commit":
        report = commands.publish(folder)
        assert (report.published, report.shards, len(report.completed)) == (written, 0, 1)
    else:
        monkeypatch.setattr(commands, "finish", lambda *_, **__: None)
        report = commands.publish(folder)
        assert (report.published, versions(folder)) == (0, committed)
    _, other = by_one_process()
    assert_equal(folder, other)


def test_files_that_a_clean_up_deleted_are_read_again(a_part, folder, by_one_process, monkeypatch):
    a_part(1, 1)

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Target, "commit", kill)
        with pytest.raises(Killed):
            commands.publish(folder)
    with library_lock(folder):
        Store.open(folder).keep_up()  # deletes the files that no version has
    report = commands.publish(folder)
    assert (report.published, report.completed) == (0, [])
    assert a_part(1, 1).written == report.shards
    assert len(commands.publish(folder).completed) == 1
    assert_equal(folder, by_one_process()[1])


def test_what_another_indexing_has_read_later_stays(a_part, folder, index_videos, videos):
    """A worker has read the files before one is replaced and another one moved."""
    a_part(1, parts=1)
    write_video(videos["a"], seed=60)
    videos["b"].rename(videos["b"].with_name("moved.mp4"))
    index_videos()
    later = rows(folder)
    assert commands.publish(folder).published == 1
    found = rows(folder)
    assert found.keys() == later.keys()
    assert {key: row["video"] for key, row in found.items()} == {key: row["video"] for key, row in later.items()}
    assert len({row["video"] for row in found.values()}) == 4
    assert index_videos().unchanged == 4


def test_frames_of_unpublished_segments_stay(a_part, folder, index_videos, videos, tmp_path):
    index_videos(videos["a"], keep_frames=True)
    a_part(1, parts=1)
    index_videos(videos["a"])
    commands.publish(folder)
    names = {path.stem for path in (folder / "frames").rglob("*.safetensors")}
    assert names == {row["segment"] for row in rows(folder).values()}


def test_parts_of_a_batch_job(a_part, folder, by_one_process, videos, monkeypatch):
    first = a_part(1)
    assert (first.written, first.finished) == (first.shards // 2, first.shards // 2)
    decoded = []
    monkeypatch.setattr(work, "open_models", lambda *_, **__: decoded.append(1))
    assert a_part(1).written == 0  # it was written before
    monkeypatch.undo()
    assert not decoded
    report = commands.publish(folder)
    assert (report.published, report.committed, report.completed) == (first.written, first.written, [])
    assert 0 < Store.open(folder).status().videos < 4
    videos["c"].with_name("late.mp4").write_bytes(videos["c"].read_bytes())  # after the plan
    assert a_part(2).finished == first.shards
    (completed,) = commands.publish(folder).completed
    completed = completed.report
    videos["c"].with_name("late.mp4").unlink()
    alone, other = by_one_process()
    assert numbers_of(completed) == numbers_of(alone)
    assert_equal(folder, other)
    assert commands.publish(folder).shards == 0


def test_an_interrupted_call_is_continued(in_shards, folder, by_one_process, monkeypatch):
    def stopped(plan, numbers):
        yield from worked(plan, list(numbers)[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_shards(run=stopped)
    had = Store.open(folder).status().videos
    assert 0 < had < 4
    read = []

    def counted(plan, numbers):
        read.extend(file.location for number in numbers for file in plan.files(number))
        return worked(plan, numbers)

    report = in_shards(run=counted)
    assert (len(read), report.unchanged, report.added) == (4 - had, had, 4 - had)
    assert_equal(folder, by_one_process()[1])


def test_shards_of_other_weights_and_versions_are_refused(a_part, folder, monkeypatch, tiny_folder):
    a_part(1)
    (plan,) = map(Plan.read, Plan.all_of(folder))
    with monkeypatch.context() as patch:
        patch.setattr(work, "VERSION", "9.9")
        with pytest.raises(VopError, match=r"vop is 9\.9"):
            Worker(plan, workers=1, batch_size=1)
    with monkeypatch.context() as patch:
        patch.setattr("vop.search.models.fingerprint", lambda model: "f" * 16)
        with pytest.raises(VopError, match="fingerprint") as refused:
            Worker(plan, workers=1, batch_size=1)
    assert work.name() in str(refused.value)
    number, *others = plan.results()
    plan.write_result(number, plan.read_result(number) | {"vop_version": "9.9", "worker": "worker node7:12"})
    with pytest.raises(VopError, match=r"node7:12 with vop_version 9\.9"):
        commands.publish(folder)
    assert plan.committed() == set(others)
    assert number in plan.unfinished()


def test_a_plan_of_a_library_that_moved_to_another_model(a_part, folder, tmp_path):
    a_part(1)
    (place,) = Plan.all_of(folder)
    document = json.loads((place / "plan.json").read_text())
    (place / "plan.json").write_text(json.dumps(document | {"table": "segments_other"}))
    with pytest.raises(VopError, match="--discard"):
        commands.publish(folder)
    assert commands.publish(folder, discard=True).discarded == 1
    assert not (folder / "shards").exists()


def test_videos_in_object_storage(object_server, in_shards, index_videos, folder, videos, tmp_path):
    object_server.make_bucket()
    for name, path in videos.items():
        object_server.put(f"s3://films/2024/{name}.mp4", path)
    object_server.put("s3://films/2024/copy.mp4", videos["a"])
    report = in_shards("s3://films/2024")
    in_parts = folder.rename(tmp_path / "in shards")
    assert (report.added, report.duplicates) == (4, 1)
    assert numbers_of(index_videos("s3://films/2024")) == numbers_of(report)
    assert rows(in_parts)["b.mp4", 2]["path"] == "s3://films/2024/b.mp4"
    assert {row["segment"] for row in rows(in_parts).values()} == {row["segment"] for row in rows(folder).values()}


def test_objects_of_one_size_are_not_read_to_cut_them():
    objects = [PlannedFile(location=f"s3://films/{number}.mp4", size=10, mtime_ns=number) for number in range(8)]
    shards = cut([*objects, *planned(5, 6)], parts=4, content_id=lambda path: pytest.fail(f"{path} was read"))
    assert sorted(map(len, shards)) == [1, 1, 8]
    assert str(objects[3].file.path) == "s3://films/3.mp4"


def test_parts_are_counted_from_one(a_part):
    for part, parts in ((0, 2), (3, 2)):
        with pytest.raises(UsageError, match=f"{part}/{parts}"):
            a_part(part, parts)


@pytest.fixture
def searched(monkeypatch) -> list[str]:
    """The paths and videos that a publication searches the table for."""
    values: list[str] = []
    real = Target.rows_with

    def rows_with(target, column, wanted, *, columns):
        values.extend(wanted)
        return real(target, column, wanted, columns=columns)

    monkeypatch.setattr(Target, "rows_with", rows_with)
    return values


def test_a_table_is_searched_only_for_what_it_can_have(a_part, folder, videos, index_videos, by_one_process, searched):
    """New videos are searched for only if another process has written meanwhile."""
    for part in (1, 2):
        a_part(part)
        commands.publish(folder)
    assert searched == []
    write_video(videos["b"], seed=70)
    old = rows(folder)["b.mp4", 0]["video"]
    write_video(videos["b"].with_name("new.mp4"), seed=71)
    write_video(videos["b"].with_name("later.mp4"), seed=72)
    a_part(1)
    index_videos(videos["b"])  # another process
    Store.open(folder).remove([str(videos["d"])])
    a_part(2)
    assert len(commands.publish(folder).completed) == 1
    found = rows(folder)
    assert {str(videos["b"].with_name("new.mp4")), str(videos["b"].with_name("later.mp4"))} <= set(searched)
    assert [key for key in found if key[0] == "b.mp4"] == [("b.mp4", 0)]
    assert found["b.mp4", 0]["video"] != old
    assert {name for name, _ in found} == {"a.mp4", "b.mp4", "c.mp4", "later.mp4", "new.mp4"}


def test_a_second_publisher_waits(a_part, folder):
    a_part(1, 1)
    waits, reports = threading.Event(), []
    with library_lock(folder):
        second = threading.Thread(target=lambda: reports.append(commands.publish(folder, waiting=waits.set)))
        second.start()
        assert waits.wait(60)
        assert not reports
        assert Store.open(folder).status().videos == 0
    second.join(60)
    assert len(reports[0].completed) == 1
    assert Store.open(folder).status().videos == 4


# -- cutting


def planned(*sizes: int) -> list[PlannedFile]:
    return [PlannedFile(location=f"/v/{place}.mp4", size=size, mtime_ns=0) for place, size in enumerate(sizes)]


def bytes_of(shards) -> list[int]:
    return sorted(sum(file.size for file in shard) for shard in shards)


def test_a_damaged_result_is_written_again(a_part, folder):
    a_part(1, 1)
    (plan,) = Plan.all_of(folder)
    (plan / "00000.result.json").write_text("{")
    assert commands.publish(folder).completed == []
    a_part(1, 1)
    assert len(commands.publish(folder).completed) == 1
    assert len(rows(folder)) == 6


def test_a_damaged_plan_is_named(a_part, folder):
    a_part(1, 3)
    (plan,) = Plan.all_of(folder)
    (plan / "committed.json").write_text("{")
    with pytest.raises(VopError, match=r"committed.json: this file is damaged.*publish .* --discard"):
        commands.publish(folder)
    assert commands.publish(folder, discard=True).discarded == 1


def test_shards_have_about_the_same_size():
    files = planned(*range(100, 140))
    shards = cut(files, parts=4, content_id=str)
    assert len(shards) == 4
    assert sorted(file.location for shard in shards for file in shard) == sorted(file.location for file in files)
    assert max(bytes_of(shards)) - min(bytes_of(shards)) <= 10
    assert cut([], parts=4, content_id=str) == []
    assert len(cut(planned(1, 2), parts=4, content_id=str)) == 2


def test_shards_of_large_files_are_limited():
    gigabytes = [2**30 + place for place in range(40)]
    assert len(cut(planned(*gigabytes), parts=2, content_id=str)) == 40  # one each
    assert len(cut(planned(*range(2**22, 2**22 + 3000)), parts=1, content_id=str)) == 12


def test_possible_copies_stay_together():
    files = planned(50, 7, 50, 7, 60, 70)
    for shard in cut(files, parts=3, content_id=str):
        assert len({file.size for file in shard} & {50}) in (0, 1)
    places = {file.location: place for place, shard in enumerate(cut(files, parts=3, content_id=str)) for file in shard}
    assert places["/v/1.mp4"] == places["/v/3.mp4"]
    same = planned(*[10] * 8)  # too many for one shard: only the same content stays together
    shards = cut(same, parts=4, content_id=lambda path: "copy" if path.stem in "05" else path.stem)
    assert len(shards) == 4
    (both,) = [shard for shard in shards if any(file.location == "/v/0.mp4" for file in shard)]
    assert "/v/5.mp4" in {file.location for file in both}


# -- the versions of LanceDB and of Lance's own package agree


def test_the_index_of_a_table_stays_right(tmp_path):
    """A commit next to LanceDB's indexes: searches find the new rows, and not those that were deleted."""
    before = [a_file(f"/v/{number}.mp4") for number in range(300)]
    library = make_library(tmp_path / "library", before)
    vector_index.build_index(library.table, library.models[0].column)
    library.table.create_index("video", config=BTree())
    new = rows_of(library, a_file("/v/new.mp4"), unit_vectors(2, seed=5))
    target = Target(library.table_folder)
    staged = tmp_path / "staged"
    written = fragments.write(with_checksums(new), staged, storage_version=target.storage_version)
    gone = target.rows_with("video", [before[7].video, before[8].video], columns=["segment", "path"])
    assert {row["path"] for row in gone} == {"/v/7.mp4", "/v/8.mp4"}
    deleting = {gone[0]["fragment"]: {row["segment"] for row in gone}}
    version = library.table.version
    target.commit(target.move(written, staged), deleting=deleting, properties={"vop.plan": "x"})
    assert library.table.version == version + 1
    indexed = vector_index.Indexed(library.path / "database", {}, table=library.manifest.table)
    for query in (unit_vectors(2, seed=5)[1], unit_vectors(300)[7]):
        found = indexed.search(library.models[0].column, query, limit=400, columns=["path"]).column("path").to_pylist()
        assert len(found) == 300
        assert not {"/v/7.mp4", "/v/8.mp4"} & {*found}
        assert found.count("/v/new.mp4") == 2
    assert library.search(unit_vectors(2, seed=5)[1], k=1)[0].path == "/v/new.mp4"
    library.keep_up()
    assert library.status().videos == 299
    assert not damaged_rows(library.table.to_arrow()).any()


def test_rows_without_a_column_that_was_added_later(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/0.mp4")])
    new = with_checksums(rows_of(library, a_file("/v/1.mp4"), unit_vectors(1)))
    written = fragments.write(new, tmp_path / "staged", storage_version=Target(library.table_folder).storage_version)
    library.add_columns(["author"])
    target = Target(library.table_folder)
    target.commit(target.move(written, tmp_path / "staged"), deleting={}, properties={})
    assert library.videos()["/v/1.mp4"].metadata == {"author": None}
