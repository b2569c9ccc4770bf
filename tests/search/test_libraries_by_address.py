"""Libraries in object storage equal those on a disk; one process at a time writes to them."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback

import numpy as np
import pytest

from search.libraries import unit_vectors
from search.owners_videos import write_video
from vop.cli import main
from vop.errors import UsageError, VopError
from vop.models.pretrained import create
from vop.search import cached, lease
from vop.search.failures import UNREADABLE, failure
from vop.search.filters import Filters
from vop.search.lease import Lease
from vop.search.library import Library
from vop.search.store import Store
from vop.search.sync import check, forget, index, reembed, restore, salvage
from vop.search.sync.lock import library_lock
from vop.storage import loopback, objects, small_files
from vop.storage.address import Address
from vop.storage.errors import DeniedObject, StorageError

LIBRARY = Address("s3", "films", "libraries/holidays")
LOCK = LIBRARY.at("libraries/holidays/.lock")


@pytest.fixture
def films(object_server, monkeypatch):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    object_server.make_bucket()
    return object_server


@pytest.fixture
def index_there(films, videos, tiny_folder, tmp_path):
    """Indexes the folder of videos into the library by address."""

    def run(*paths, **settings):
        given = {"model": str(tiny_folder), "num_frames": 2, "precision": "fp32", "workers": 2, "batch_size": 3}
        return index(LIBRARY, paths or [tmp_path / "videos"], **given | settings)

    return run


def keys(films) -> set[str]:
    """The first names below the library's address."""
    return {info.address.parts[2] for info in objects.list_objects(LIBRARY)}


def lock() -> dict:
    return json.loads(objects.read(LOCK)[0])


def test_it_equals_a_library_on_a_disk(index_there, index_videos, folder, films, monkeypatch):
    report, of_folder = index_there(), index_videos()
    assert (report.library, report.added, report.segments) == (str(LIBRARY), 4, of_folder.segments)
    there, here = Store.open(str(LIBRARY)), Store.open(folder)
    own = {"made_at", "checksum"}
    rows_there, rows_here = (
        {row["segment"]: {n: v for n, v in row.items() if n not in own} for row in store.table.to_arrow().to_pylist()}
        for store in (there, here)
    )
    assert rows_there == rows_here
    vector = np.array(next(iter(rows_here.values()))["embedding_1"], np.float32)
    found = {moment.path: moment.score for moment in there.search(vector)}
    assert found == pytest.approx({moment.path: moment.score for moment in here.search(vector)})
    assert len(found) == 4
    looked = []
    with monkeypatch.context() as patch:
        patch.setattr("vop.search.following.stamp_of", lambda path: looked.append(path) or there._stamp)
        there.search(vector, filters=Filters(name="a*"))
    assert looked == [LIBRARY] * 2  # before and after a search
    assert there.status() == here.status()
    assert keys(films) == {"library.json", "database", "folders.json", ".lock", "confidence.safetensors"}
    assert lock()["free"] is True
    assert index_there().unchanged == 4


def test_it_is_changed_like_one_on_a_disk(index_there, videos, squashing_folder, tmp_path):
    index_there()
    library = Library.open(str(LIBRARY))
    videos["a"].unlink()
    assert index_there(prune=True).removed == 1
    assert restore(LIBRARY) == [str(videos["a"])]
    assert forget(LIBRARY, [videos["b"]], for_good=True) == 1
    assert library.exclude(add=["private"]) == ("private",)
    (tmp_path / "about.csv").write_text("path,stars\nc.mp4,5\n")
    assert index_there(videos["c"], metadata=tmp_path / "about.csv").described == 1
    assert library.columns == ["stars"]
    before = library.models
    moved = reembed(LIBRARY, str(squashing_folder), drop_unreadable=True, precision="fp32")
    assert (moved.videos, len(moved.dropped)) == (2, 1)
    assert library.models != before  # an open library follows


def test_videos_and_library_in_one_bucket(films, videos, index_there):
    for name, path in videos.items():
        films.put(f"s3://films/holidays/{name}.mp4", path)
    assert index_there("s3://films/holidays").added == 4
    report = index_there("s3://films")
    assert (report.unchanged, report.passed_over) == (4, {"a library of vop": 1})


def test_searching_while_indexing(index_there, videos, tmp_path):
    index_there(videos["a"])
    library = Library.open(str(LIBRARY))
    seen = []

    def progress(*_):
        seen.append(library.status().videos)

    index_there(progress=progress)
    assert seen[0] == 1
    assert library.status().videos == 4
    assert library.status().index is None


def test_rows_are_read_once(index_there, videos, monkeypatch, tmp_path):
    index_there(videos["a"])
    vector, read, read_part = unit_vectors(1, size=Store.open(LIBRARY).models[0].embed_dim)[0], [], loopback.read_part

    def counted(address, start, end):
        read.extend([address] * cached.is_immutable(address.key))
        return read_part(address, start, end)

    def search() -> tuple[dict[str, float], bool]:
        """Search like another process; return the results, and whether rows were read from the server."""
        read.clear()
        return {moment.path: moment.score for moment in Store.open(LIBRARY).search(vector)}, bool(read)

    monkeypatch.setattr(loopback, "read_part", counted)
    found, has_read = search()
    assert (list(found), has_read) == ([str(videos["a"])], True)
    assert search() == (found, False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    assert search() == (found, False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # the clients for the server are open
    assert search() == (found, False)
    monkeypatch.delenv("HTTP_PROXY")
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    assert search() == (found, True)
    index_there()
    assert len(search()[0]) == 4
    monkeypatch.setenv("VOP_CACHE_SIZE", "0")
    assert (len(search()[0]), read) == (4, [])


def test_only_files_that_never_change_are_kept():
    once = "data/1a.lance", "_indices/5f/index.idx", "_deletions/0-3-9.arrow"
    others = "_versions/184.manifest", "_versions/latest_version_hint.json", "_transactions/3-5f.txn"
    assert all(cached.is_immutable(f"data/lib/database/words.lance/{name}") for name in once)
    assert not any(cached.is_immutable(f"data/lib/database/words.lance/{name}") for name in others)
    assert not any(map(cached.is_immutable, ("data/library.json", "a.lance/library.json", "a/frames/data/1.lance")))
    assert cached.is_immutable(f"a.lance/data/lib/database/words.lance/{once[0]}")  # the library's own address
    assert not any(cached.is_immutable(f"a.lance/data/lib/database/words.lance/{name}") for name in others)


@pytest.mark.slow
def test_the_program_uses_addresses(index_there, videos, capsys, monkeypatch):
    index_there()
    assert main(["index", str(LIBRARY), str(videos["a"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1
    assert main(["search", str(LIBRARY), "a dog", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 4
    assert main(["library", "info", str(LIBRARY), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["library"] == str(LIBRARY)
    assert main(["library", "check", str(LIBRARY), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["videos"], report["sound"], report["without_checksum"]) == (4, True, 0)


# -- damage and kept frames


def test_lost_objects_are_found_and_repaired(index_there, films, videos, tmp_path):
    index_there()
    write_video(tmp_path / "new.mp4", seed=50)
    index_there(tmp_path / "new.mp4")
    with library_lock(LIBRARY):
        Store.open(LIBRARY).put_failures([failure("/v/broken.mp4", UNREADABLE, "cut short")])
    videos["a"].unlink()
    report = check(LIBRARY)
    assert (report.sound, report.videos, report.deleted) == (True, 5, [str(videos["a"])])
    rows = [info.address for info in objects.list_objects(small_files.child(Store.open(LIBRARY).table_folder, "data"))]
    objects.delete(rows[0])
    report = check(LIBRARY)
    assert not report.sound
    assert report.damaged_videos or report.damaged_files
    assert check(LIBRARY, repair=True).repaired
    after = check(LIBRARY)
    assert after.sound
    assert after.videos < 5
    library = Store.open(LIBRARY)
    assert [failed.path for failed in library.failures()] == ["/v/broken.mp4"]
    assert len(library.table.to_arrow()) == after.segments


def test_an_outage_is_not_damage(index_there, films, monkeypatch):
    """Otherwise a repair would drop all videos."""
    import moto.settings

    def denied(*_, **__):
        raise DeniedObject(LOCK, "access is denied")

    index_there()
    with monkeypatch.context() as patch:
        patch.setattr("vop.search.sync.integrity.library_lock", denied)
        assert check(LIBRARY).sound  # a check needs no permission to write
        with pytest.raises(DeniedObject):
            check(LIBRARY, repair=True)
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    monkeypatch.setattr(salvage, "exists", lambda place: True)  # which fails, too
    for read in (salvage.failures_damage, salvage.removed_damage, salvage.table_damage, salvage.scan_table):
        with pytest.raises(StorageError, match="nothing was changed"):
            read(LIBRARY, "failures")


def test_kept_frames_replace_missing_videos(index_there, videos, tiny_folder, films, tmp_path):
    segments = index_there(keep_frames=True).segments
    kept = [info.address for info in objects.list_objects(LIBRARY.at(f"{LIBRARY.key}/frames"))]
    assert len(kept) == segments
    assert forget(LIBRARY, [videos["b"]], for_good=True) == 1
    left = [info.address for info in objects.list_objects(LIBRARY.at(f"{LIBRARY.key}/frames"))]
    assert 0 < len(left) < segments
    for path in videos.values():
        path.unlink()
    tuned = tmp_path / "tuned"
    create("vop-f+p", str(tiny_folder), num_frames=2, device="cpu").save_pretrained(tuned)
    moved = reembed(LIBRARY, str(tuned), precision="fp32")
    assert (moved.videos, moved.dropped) == (3, [])
    content = bytearray(objects.read(left[0])[0])
    content[-100] ^= 4
    films.put(str(left[0]), bytes(content))
    assert check(LIBRARY).damaged_frames == 1
    assert check(LIBRARY, repair=True).damaged_frames == 1
    report = check(LIBRARY)
    assert (report.sound, report.videos) == (True, 3)


# -- the lock


def test_a_second_writer_waits(index_there, videos):
    first = lease.hold(LOCK, lambda: None)
    told, done = threading.Event(), threading.Event()

    def second() -> None:
        index_there(videos["a"], waiting=told.set)
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert told.wait(30)
    assert not done.wait(0.3)
    lease.release_held(first)
    assert done.wait(60)
    thread.join()
    assert Store.open(LIBRARY).status().videos == 1


def test_one_of_many_takes_the_lock_at_a_time(films):
    holders, most, turn = [], [], threading.Lock()

    def work() -> None:
        own = Lease(LOCK)
        own.acquire(lambda: None)
        with turn:
            holders.append(own)
            most.append(len(holders))
        with turn:
            holders.remove(own)
        own.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1, 1]


def test_the_lock_of_a_dead_process_expires(films, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.5)
    objects.write(LOCK, b'{"free": false, "holder": "dead"}', replacing=None)
    told = []
    own = Lease(LOCK)
    own.acquire(lambda: told.append(1))
    own.check()
    assert (told, lock()["free"]) == ([1], False)
    own.release()
    assert lock()["free"] is True


def test_a_living_process_keeps_the_lock(films, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    own, taken = Lease(LOCK), threading.Event()
    own.acquire(lambda: None)
    other = Lease(LOCK)

    def take() -> None:
        other.acquire(lambda: None)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(4.5)
    own.check()
    own.release()
    assert taken.wait(30)
    thread.join()
    other.release()


def test_a_process_that_has_lost_the_lock_does_not_commit(index_there, videos, monkeypatch, films):
    index_there(videos["a"])
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held = lease.hold(LOCK, lambda: None)
    films.put(str(LOCK), b'{"free": false, "holder": "another"}')
    held._renewing.join(30)
    library = Store.open(LIBRARY)
    with pytest.raises(VopError, match="could not renew its lock in time"):
        library.remove([str(videos["a"])])
    lease.release_held(held)
    assert lock()["holder"] == "another"
    assert library.status().videos == 1


def test_a_lost_answer_does_not_lose_the_lock(films, monkeypatch):
    real, calls = lease.write, []

    def write(address, content, *, replacing):
        info = real(address, content, replacing=replacing)
        calls.append(content)
        if len(calls) == 2:
            raise StorageError("the server cannot be reached")
        return info

    monkeypatch.setattr(lease, "write", write)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    held = lease.hold(LOCK, lambda: None)
    deadline = time.monotonic() + 30
    while len(calls) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    held.check()
    lease.release_held(held)
    assert lock()["free"] is True


# -- bad input


def test_missing_libraries_and_buckets(films):
    with pytest.raises(UsageError, match="s3://films/libraries/holidays: no library exists here"):
        Library.open(str(LIBRARY))
    for opening in (Library.open, Library.create):
        with pytest.raises(StorageError, match="s3://no-such-bucket: this bucket does not exist"):
            opening("s3://no-such-bucket/x")


def test_addresses_that_cannot_be_libraries(films, tiny_folder, videos):
    films.put("s3://films/holidays/a.mp4", videos["a"])
    with pytest.raises(UsageError, match="s3://films/holidays has objects and is not a library"):
        Library.create("s3://films/holidays", model=str(tiny_folder))
    with pytest.raises(UsageError, match="s3://films/NAME"):
        Library.create("s3://films", model=str(tiny_folder))
    with pytest.raises(UsageError, match="s3://films/libraries/holidays: no library exists here"):
        check(str(LIBRARY))


def test_wrong_credentials_are_named_and_not_shown(index_there, films, monkeypatch):
    import moto.settings

    from object_server import KEY_ID, SECRET

    index_there()
    store = Store.open(LIBRARY)
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    for fails in (lambda: Store.open(LIBRARY), store.status):
        with pytest.raises(StorageError, match=r"s3://films.*(denied|wrong)"):
            fails()
    monkeypatch.setattr("vop.search.following.stamp_of", lambda path: store._stamp)
    monkeypatch.setattr("vop.search.following._ATTEMPTS", 1)
    with pytest.raises(VopError, match="database cannot be read or written") as failed:
        store.status()
    shown = "".join(traceback.format_exception(failed.value))
    assert not {word for word in (KEY_ID, SECRET, "<Error>") if word in shown}


def test_a_profile_opens_libraries(index_there, monkeypatch, tmp_path):
    from object_server import KEY_ID, SECRET

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "profiles").write_text(f"[work]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert index_there().added == 4
    assert Store.open(LIBRARY).status().videos == 4


def test_an_index_of_a_new_video_is_whole(index_there, tmp_path):
    """A large commit and the removal of old versions leave a library that opens."""
    index_there()
    for seed in range(3):
        index_there(write_video(tmp_path / f"new{seed}.mp4", seed=50 + seed))
    assert Store.open(LIBRARY).status().videos == 7
