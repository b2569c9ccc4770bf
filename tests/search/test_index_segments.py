"""The vector index in segments: it finds what the index that is built at once finds, and appears by one commit."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from search.libraries import a_file, make_library, rows_of, unit_vectors
from vop.cli import main
from vop.errors import VopError
from vop.search import lease, vector_index
from vop.search.sharding import vectors
from vop.search.sharding.commands import index_in_shards
from vop.search.sharding.plan import Plan
from vop.search.sharding.reembedding import reembed_in_shards
from vop.search.sharding.runners import local, open_worker
from vop.search.store import Store
from vop.search.sync import index
from vop.search.sync.lock import library_lock
from vop.search.vector_index import Indexed
from vop.storage.address import Address

pytest.importorskip("lance", reason="pylance is not installed: pip install 'vop[shards]'")
FILES, SEGMENTS = 12, 250
COLUMN = "embedding_0"
QUERIES = unit_vectors(40, seed=1)


def worked(plan, numbers):
    """A runner in this process."""
    worker = open_worker(plan, workers=1, batch_size=1, compile=False)
    for number in numbers:
        worker.work(number)
        yield number


def put(library, number: int, count: int = SEGMENTS) -> None:
    library.put(rows_of(library, a_file(f"/v/{number}.mp4"), unit_vectors(count, seed=100 + number)))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library that is large enough for an index of 30 partitions. A search visits eight of them."""
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 1000)
    monkeypatch.setattr(vector_index, "_PARTITION_ROWS", 100)
    monkeypatch.setattr(vector_index, "_VISITED", (8, 250))
    made = make_library(tmp_path / "library", [])
    for number in range(FILES):
        put(made, number)
    return made


def index_of(library):
    return library.table.index_stats(f"{COLUMN}_idx")


def recall(library) -> float:
    """Return the share of the ten nearest rows that searches find."""
    rows = library.table.search().select(["segment", COLUMN]).to_arrow()
    ids = np.array(rows.column("segment").to_pylist())
    matrix = np.stack(rows.column(COLUMN).to_pylist())
    indexed = Indexed(library.path / "database", {}, table=library.manifest.table)
    shares = []
    for query in QUERIES:
        found = indexed.search(COLUMN, query, limit=10, columns=["segment"])
        assert np.allclose(found.column("_score").to_numpy(), np.sort(found.column("_score").to_numpy())[::-1])
        shares.append(np.isin(found.column("segment").to_pylist(), ids[np.argsort(-matrix @ query)[:10]]).mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("parts", [3, 10])
def test_segments_find_what_one_index_finds(library, parts):
    """Versions of LanceDB and of Lance's own package agree: one searches what the other has built."""
    vector_index.build_index(library.table, COLUMN)
    at_once = recall(library)
    library.table.drop_index(f"{COLUMN}_idx")
    version = library.table.version
    vectors.build(library, run=worked, parts=parts)
    assert library.table.version == version + 1
    built = index_of(library)
    assert (built.index_type, built.distance_type, built.num_unindexed_rows) == ("IVF_RQ", "cosine", 0)
    assert 2 <= built.num_indices <= vectors.MOST_SEGMENTS
    assert at_once - 0.03 <= recall(library) <= 1
    assert recall(library) > 0.9
    put(library, FILES, 50)
    assert index_of(library).num_unindexed_rows == 50
    assert library.search(unit_vectors(50, seed=100 + FILES)[7], k=1)[0].path == f"/v/{FILES}.mp4"
    library.keep_up()
    put(library, FILES + 1, vector_index.TAIL_ROWS)
    library.keep_up()  # merges files, and adds a part
    assert index_of(library).num_unindexed_rows == 0
    assert library.search(unit_vectors(50, seed=100 + FILES)[7], k=1)[0].score == pytest.approx(1, abs=1e-5)
    assert not (library.path / "vectors").exists()


def test_nothing_half_written_is_read(library):
    """A build that is stopped leaves the old index, also if a clean-up or a merge of files comes in between."""
    vector_index.build_index(library.table, COLUMN)
    for number in range(FILES, 2 * FILES + 1):
        put(library, number)
    before = index_of(library)

    def stopped(plan, numbers):
        yield from worked(plan, numbers[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectors.build(library, run=stopped, parts=3)
    assert index_of(library) == before
    assert not Plan.all_of(library.path, under="vectors")
    plan = vectors.prepare(library, parts=3)
    list(worked(plan, plan.numbers()))
    assert index_of(library) == before
    written = {result["segments"][COLUMN]["uuid"] for result in plan.read_results(plan.numbers()).values()}
    indices = library.table_folder / "_indices"
    assert written <= set(os.listdir(indices))
    vector_index.tidy_up(library.table)  # deletes what no version has, and merges files
    assert not written & set(os.listdir(indices))
    assert not vectors.commit(library, plan)
    plan.drop_result(0)
    with pytest.raises(VopError, match="another process has merged"):
        list(worked(plan, [0]))
    assert library.search(unit_vectors(SEGMENTS, seed=100 + FILES)[3], k=1)[0].path == f"/v/{FILES}.mp4"


def test_a_plan_counts_once_it_is_trained(library, monkeypatch):
    """A planner that is killed leaves a plan without centres, from which no worker may build empty segments."""
    train = vectors._Table.train

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(vectors._Table, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        vectors.planned_parts(library, parts=2)
    assert vectors.build_part(library, part=1, parts=2, workers=1) == 0
    monkeypatch.setattr(vectors._Table, "train", train)
    assert vectors.planned_parts(library, parts=2) == 2
    for part in (1, 2):
        assert vectors.build_part(library, part=part, parts=2, workers=1) == 1
    vectors.commit_planned(library)
    assert index_of(library).num_unindexed_rows == 0
    assert not (library.path / "vectors").exists()


def test_small_libraries_and_current_indexes_have_no_segments(library, monkeypatch):
    vector_index.build_index(library.table, COLUMN)
    put(library, FILES)
    assert vectors.prepare(library, parts=2) is None
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 10_000)
    library.table.drop_index(f"{COLUMN}_idx")
    assert vectors.prepare(library, parts=2) is None


@pytest.mark.usefixtures("real_processes")
def test_in_processes(library):
    def run(plan, numbers):
        return local.run(plan, numbers, jobs=2, workers=1, batch_size=1)

    shown = []
    vectors.build(library, run=run, parts=2, progress=lambda *step: shown.append(step))
    assert index_of(library).num_indices == 2
    assert shown[0] == ("vector index", 0, 2)
    assert shown[-1] == ("vector index", 2, 2)
    assert recall(library) > 0.9


def test_a_batch_job_builds_its_parts(folder, videos, tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 3)
    small = ["--model", tiny_folder, "--num-frames", 2, "--precision", "fp32", "--workers", 1, "--json"]
    words = list(map(str, ["index", folder, tmp_path / "videos", *small]))

    def do(*words) -> dict:
        assert main(list(words)) == 0
        return json.loads(capsys.readouterr().out)

    publish = ["library", "publish", str(folder), "--json"]
    for part in ("1/2", "2/2"):
        do(*words, "--shard", part)
    assert (do(*publish, "--index-parts", "2")["index_left"], Store.open(folder).status().videos) == (2, 4)
    assert do(*words, "--shard", "2/2")["index_built"] == 1
    assert do(*publish, "--index-parts", "2")["index_left"] == 1
    assert do(*words, "--shard", "1/2")["index_built"] == 1
    found = Store.open(folder)
    assert found.table.index_stats("embedding_1_idx") is None
    report = do(*publish)
    assert (report["index_left"], report["completed"][0]["added"]) == (0, 4)
    assert found.table.index_stats("embedding_1_idx").num_indices == 2
    assert not (folder / "vectors").exists()


def test_indexing_and_reembedding_in_shards(folder, videos, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 3)
    monkeypatch.setattr(vector_index, "build_index", None)  # it is not called
    own = {"run": worked, "parts": 2, "precision": "fp32"}
    index_in_shards(folder, [tmp_path / "videos"], model=str(tiny_folder), num_frames=2, **own)
    assert Store.open(folder).table.index_stats("embedding_1_idx").num_indices == 2
    reembed_in_shards(folder, "mini", **own)
    moved = Store.open(folder)
    assert moved.table.index_stats(f"{moved.models[0].column}_idx").num_indices == 2


def test_in_object_storage(object_server, videos, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)
    object_server.make_bucket()
    place = Address("s3", "films", "my library")
    index(place, [tmp_path / "videos"], model=str(tiny_folder), num_frames=2, precision="fp32", workers=2)
    monkeypatch.setattr(vector_index, "EXACT_ROWS", 3)
    library = Store.open(place)
    with library_lock(place):
        plan = vectors.prepare(library, parts=2)
        list(worked(plan, plan.numbers()))
        assert vectors.planned_parts(library, parts=2) == 0
        vectors.commit_planned(library)
    assert library.table.index_stats("embedding_1_idx").num_unindexed_rows == 0
    assert not Plan.all_of(place, under="vectors")
    vector = library.table.search().select(["embedding_1"]).to_arrow().column(0)[4].as_py()
    assert library.search(np.array(vector, np.float32), k=1)[0].score == pytest.approx(1, abs=1e-5)
