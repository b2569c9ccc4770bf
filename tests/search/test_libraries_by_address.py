"""Libraries in object storage equal those on a disk; one process at a time writes to them."""

from __future__ import annotations

import json
import threading
import traceback

import numpy as np
import pytest

from search.owners_videos import write_video
from vop.cli import main
from vop.errors import UsageError, VopError
from vop.search import lease
from vop.search.filters import Filters
from vop.search.lease import Lease
from vop.search.library import Library
from vop.search.store import Store
from vop.search.sync import check, forget, index, reembed, restore
from vop.storage import objects
from vop.storage.address import Address
from vop.storage.errors import StorageError

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
    assert looked == [LIBRARY]  # once in a search
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


@pytest.mark.slow
def test_the_program_uses_addresses(index_there, videos, capsys, monkeypatch):
    index_there()
    assert main(["index", str(LIBRARY), str(videos["a"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 1
    assert main(["search", str(LIBRARY), "a dog", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 4
    assert main(["library", "info", str(LIBRARY), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["library"] == str(LIBRARY)
    assert main(["library", "check", str(LIBRARY)]) == 2
    assert "must be local" in capsys.readouterr().err


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
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    own, taken = Lease(LOCK), threading.Event()
    own.acquire(lambda: None)
    other = Lease(LOCK)

    def take() -> None:
        other.acquire(lambda: None)
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(2.5)
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
    with pytest.raises(UsageError, match="cannot keep frames"):
        Library.create(str(LIBRARY), model=str(tiny_folder), keep_frames=True)
    with pytest.raises(UsageError, match="must be local"):
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
