"""An open library whose models are replaced."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest

from search.libraries import a_file, a_manifest, a_model, make_library, rows_of, unit_vectors
from vop.errors import UsageError
from vop.search import manifest
from vop.search.failures import TABLE as FAILURES
from vop.search.failures import UNREADABLE, failure
from vop.search.filters import Filters
from vop.search.store import Store

FILES = [a_file(f"/v/{number}.mp4", metadata={"author": f"author {number}"}) for number in range(6)]
OLD = unit_vectors(6, seed=0)  # make_library's
QUERY = unit_vectors(1, seed=99)[0]


@pytest.fixture
def library(tmp_path) -> Store:
    return make_library(tmp_path / "library", FILES, columns=["author"])


def staged(library: Store, number: int, *, beside: bool = False) -> Store:
    """Stage a table of the same videos with another model."""
    models = [a_model(number, fingerprint=f"{number:016x}"), *(library.models if beside else ())]
    moved = library.staging(a_manifest(*models, table=f"segments_{number}"))
    vectors = [unit_vectors(6, seed=number), OLD][: len(models)]
    moved.put(pa.concat_tables(rows_of(moved, file, *(v[n : n + 1] for v in vectors)) for n, file in enumerate(FILES)))
    return moved


def scores(library: Store, **choice) -> dict[str, float]:
    return {moment.path: moment.score for moment in library.search(QUERY, k=100, **choice)}


def expected(vectors: np.ndarray) -> dict:
    near = [pytest.approx(float(QUERY @ own), abs=1e-6) for own in vectors]
    return dict(zip((str(file.path) for file in FILES), near, strict=True))


def test_a_staged_table_is_invisible_until_published(library):
    moved = staged(library, 1)
    for reader in (library, Store.open(library.path)):
        assert scores(reader) == expected(OLD)
        assert [model.name for model in reader.models] == ["run0"]
        assert reader.status().segments == 6
    assert scores(moved) == expected(unit_vectors(6, seed=1))


def test_an_open_library_switches_to_the_new_table(library):
    library.put_failures([failure("/v/x.mp4", UNREADABLE, "it is empty")])
    assert scores(library) == expected(OLD)
    staged(library, 1).publish()
    assert scores(library) == expected(unit_vectors(6, seed=1))
    assert [(model.name, model.column) for model in library.models] == [("run1", "embedding_1")]
    assert library.columns == ["author"]
    (moment,) = library.search(QUERY, filters=Filters(where=["author=author 3"]))
    assert (moment.path, moment.columns) == ("/v/3.mp4", {"author": "author 3"})
    np.testing.assert_array_equal(library.segment(moment.segment).embeddings[0], unit_vectors(6, seed=1)[3])
    assert [failed.path for failed in library.failures()] == ["/v/x.mp4"]


@pytest.mark.parametrize("name", ["status", "segment", "video", "videos", "failures", "columns", "rows_of"])
def test_any_first_call_uses_the_new_table(library, name):
    moment = library.search(QUERY, k=1)[0]
    staged(library, 1).publish()
    given = {"segment": [moment.segment], "video": [moment.video], "rows_of": [[moment.video]]}
    found, expected = (
        member(*given.get(name, [])) if callable(member) else member
        for member in (getattr(library, name), getattr(Store.open(library.path), name))
    )
    if name == "segment":
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    else:
        assert found == expected


def test_a_model_can_be_added(library):
    staged(library, 1, beside=True).publish()
    assert scores(library) == expected(unit_vectors(6, seed=1))
    assert scores(library, model=1) == expected(OLD)
    assert [model.name for model in library.models] == ["run1", "run0"]


def test_other_tables_are_dropped(library):
    staged(library, 1)  # abandoned
    staged(library, 2).publish()
    assert sorted(library._database.list_tables().tables) == sorted([FAILURES, "segments_2"])
    assert manifest.read(library.path).table == "segments_2"


def test_staging_resumes(library):
    staged(library, 1)
    again = library.staging(a_manifest(a_model(1, fingerprint=f"{1:016x}"), table="segments_1"))
    assert set(again.videos()) == {str(file.path) for file in FILES}


def test_concurrent_searches_use_one_table(library):
    wrong, done = [], threading.Event()
    possible = [expected(unit_vectors(6, seed=number)) for number in range(13)]

    def search() -> None:
        while not done.is_set():
            try:
                found = scores(library), len(library.search(QUERY, filters=Filters(name="3")))
                if found[0] not in possible or found[1] != 1:
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 13):
        staged(Store.open(library.path), number).publish()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert scores(library) == possible[-1]


def test_a_search_while_the_old_table_is_dropped_uses_the_new_one(library, monkeypatch):
    old, moved, nearest = library.table_folder, staged(library, 1), library._nearest.to

    def drop_newest_version(*args):
        monkeypatch.undo()
        manifest.write(moved.manifest, library.path)
        min((old / "_versions").glob("*.manifest")).unlink()  # names count down
        return nearest(*args)

    monkeypatch.setattr(library._nearest, "to", drop_newest_version)
    assert scores(library) == expected(unit_vectors(6, seed=1))


def test_a_deleted_library_is_reported(library):
    (library.path / "library.json").unlink()
    for read in (library.status, library.videos, lambda: library.search(QUERY)):
        with pytest.raises(UsageError, match=f"{library.path}: no library"):
            read()
