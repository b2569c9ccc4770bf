"""Writing to a library while others read it."""

from __future__ import annotations

import threading
from collections import Counter

import pyarrow as pa
import pytest

from search.libraries import a_file, content_of, make_library, rows_of, unit_vectors
from vop.search.failures import DUPLICATE, PARTIAL, UNREADABLE, failure
from vop.search.filters import METADATA, Filters
from vop.search.schema import with_column
from vop.search.store import Store
from vop.search.sync.lock import library_lock

QUERY = unit_vectors(1, seed=99)[0]


def contents(library: Store) -> Counter[tuple[str, str]]:
    """Return the number of rows of each path and video."""
    rows = library.table.search().select(["path", "video"]).to_arrow().to_pylist()
    return Counter((row["path"], row["video"]) for row in rows)


def version(library: Store, number: int, *, segments: int = 3) -> pa.Table:
    """Return rows of /v/a.mp4 with the content of this version."""
    return rows_of(library, a_file("/v/a.mp4", content=f"version {number}"), unit_vectors(segments, seed=number))


@pytest.fixture
def library(tmp_path) -> Store:
    return make_library(tmp_path / "library", [a_file(f"/v/{name}.mp4") for name in "abcd"], segments=2)


class TestPut:
    def test_new_content_replaces_the_old(self, library):
        library.put(version(library, 1), replacing=["/v/a.mp4"])
        library.put(version(library, 2, segments=1), replacing=["/v/a.mp4", "/v/not there.mp4"])
        others = {(f"/v/{name}.mp4", content_of(f"/v/{name}.mp4")): 2 for name in "bcd"}
        assert contents(library) == others | {("/v/a.mp4", content_of("version 2")): 1}

    def test_the_same_content_can_be_written_again(self, library):
        before = contents(library)
        rows = rows_of(library, a_file("/v/a.mp4"), unit_vectors(2, seed=5))
        library.put(rows, replacing=["/v/a.mp4"])
        assert contents(library) == before
        assert library.search(unit_vectors(2, seed=5)[1])[0].score == pytest.approx(1)

    def test_moved_content_gets_its_new_path(self, library):
        rows = with_column(library.rows_of([content_of("/v/a.mp4")]), "path", "/w/new.mp4")
        library.put(rows, replacing=["/v/a.mp4", "/w/new.mp4"])
        found = contents(library)
        assert found[("/w/new.mp4", content_of("/v/a.mp4"))] == 2
        assert len(found) == 4

    def test_moved_content_replaces_other_content(self, library):
        rows = with_column(library.rows_of([content_of("/v/a.mp4")]), "path", "/v/b.mp4")
        library.put(rows, replacing=["/v/a.mp4", "/v/b.mp4"])
        kept = {("/v/b.mp4", content_of("/v/a.mp4")), *((f"/v/{n}.mp4", content_of(f"/v/{n}.mp4")) for n in "cd")}
        assert contents(library) == dict.fromkeys(kept, 2)

    def test_paths_may_have_special_characters(self, library):
        odd = ["/v/it's.mp4", "/v/new\nline.mp4", "/v/😀%_\\.mp4", '/v/"quoted".mp4']
        for _ in range(2):
            library.put(
                pa.concat_tables(rows_of(library, a_file(path), unit_vectors(2, seed=1)) for path in odd), replacing=odd
            )
        assert [contents(library)[(path, content_of(path))] for path in odd] == [2] * 4
        library.remove(odd)
        assert {path for path, _ in contents(library)} == {f"/v/{name}.mp4" for name in "abcd"}

    def test_a_reader_sees_one_version(self, library):
        """A complete one, never both or neither, through its own store and through the writer's."""
        seen: dict[str, set] = {"own": set(), "shared": set()}
        wrong, done = [], threading.Event()

        def read(name: str, reader: Store) -> None:
            while not done.is_set():
                rows = (
                    reader.table.search().where("path = '/v/a.mp4'").select(["video", "place"]).to_arrow().to_pylist()
                )
                found = reader.search(QUERY, k=10, filters=Filters(name="a.mp4"))
                videos = {row["video"] for row in rows}
                if len(videos) != 1 or sorted(row["place"] for row in rows) != [0, 1, 2] or len(found) != 1:
                    wrong.append((rows, found))
                seen[name] |= videos | {moment.video for moment in found}

        library.put(version(library, 0), replacing=["/v/a.mp4"])
        readers = [("own", Store.open(library.path)), ("shared", library)]
        threads = [threading.Thread(target=read, args=reader) for reader in readers]
        for thread in threads:
            thread.start()
        for number in range(1, 121):
            library.put(version(library, number), replacing=["/v/a.mp4"])
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert min(len(videos) for videos in seen.values()) > 15  # they read between the writes


def test_remove_deletes_rows(library):
    library.remove(["/v/b.mp4", "/v/c.mp4", "/v/not there.mp4"])
    assert {path for path, _ in contents(library)} == {"/v/a.mp4", "/v/d.mp4"}
    library.remove([])
    library.remove(f"/v/{number}.mp4" for number in range(2500))
    library.remove(["/v/a.mp4", "/v/d.mp4"])
    assert library.search(QUERY) == []
    library.put(version(library, 1))
    assert len(library.search(QUERY)) == 1


class TestFailures:
    def test_failures_are_sorted_by_path(self, library):
        given = [
            failure("/v/y.mp4", UNREADABLE, "it is empty"),
            failure("/v/it's\n😀.mp4", PARTIAL, "1 of 2 segments are damaged", size=7, mtime_ns=8),
        ]
        library.put_failures(given)
        assert library.failures() == given[::-1]
        assert Store.open(library.path).failures() == given[::-1]
        assert library.status().failures == 2

    def test_a_later_failure_replaces_an_earlier_one(self, library):
        library.put_failures([failure("/v/x.mp4", UNREADABLE, "it is empty"), failure("/v/y.mp4", UNREADABLE, "no")])
        library.put_failures([failure("/v/x.mp4", DUPLICATE, "it has the content of /v/a.mp4")])
        assert [(failed.path, failed.kind) for failed in library.failures()] == [
            ("/v/x.mp4", "duplicate"),
            ("/v/y.mp4", "unreadable"),
        ]
        library.put_failures([], remove=["/v/x.mp4", "/v/not there.mp4"])
        assert [failed.path for failed in library.failures()] == ["/v/y.mp4"]
        library.put_failures([failure("/v/z.mp4", UNREADABLE, "no")], remove=["/v/y.mp4"])
        assert [failed.path for failed in library.failures()] == ["/v/z.mp4"]
        library.put_failures([])
        assert len(library.failures()) == 1


def test_metadata_columns_can_be_added(library):
    reader = Store.open(library.path)
    library.add_columns(["author", "two words"])
    library.add_columns(["two words", "stars"])  # one of them exists
    library.add_columns([])
    assert library.columns == reader.columns == ["author", "two words", "stars"]
    assert reader.videos()["/v/a.mp4"].metadata == {"author": None, "two words": None, "stars": None}
    library.put(rows_of(library, a_file("/v/e.mp4", metadata={"two words": "x"}), unit_vectors(1)))
    (moment,) = reader.search(QUERY, filters=Filters(where=["two words=x"]))
    assert (moment.path, moment.columns) == ("/v/e.mp4", {"two words": "x"})
    assert len(reader.search(QUERY)) == 5
    assert f"{METADATA}stars" in library.rows_of([content_of("/v/a.mp4")]).schema.names


def test_a_second_writer_waits_and_calls_back(tmp_path):
    folder, order, asked = tmp_path / "new" / "library", [], threading.Event()

    def waiting() -> None:
        order.append("waiting")
        asked.set()

    def second() -> None:
        with library_lock(folder, waiting=waiting):
            order.append("second")

    thread = threading.Thread(target=second)
    with library_lock(folder, waiting=lambda: order.append("never")):
        thread.start()
        assert asked.wait(20)
        order.append("first")
    thread.join(20)
    assert order == ["waiting", "first", "second"]
    with library_lock(folder, waiting=lambda: order.append("never")):  # the lock is free
        assert "never" not in order


def test_a_failed_job_releases_the_lock(tmp_path):
    with pytest.raises(KeyError), library_lock(tmp_path):
        raise KeyError
    with library_lock(tmp_path, waiting=lambda: pytest.fail("the lock is still held")):
        pass
