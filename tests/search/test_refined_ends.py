"""Libraries that keep the embeddings of frames."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import vop
import vop.models.pretrained
from search.libraries import SIZE, a_file, a_manifest, a_model, unit_vectors
from search.owners_videos import write_folder
from vop.errors import UsageError
from vop.search import manifest
from vop.search.refining import FrameScores, pack, refined
from vop.search.schema import make_rows
from vop.search.store import Store
from vop.search.sync import index, reembed
from vop.search.sync.integrity import check

FRAMES, SEGMENTS = 4, 5


@pytest.fixture
def store(tmp_path) -> Store:
    """Three videos of five segments, which overlap by two seconds."""
    about = a_manifest(dataclasses.replace(a_model(), frame_column="frames_0")).with_(refine=True)
    library = Store.create(tmp_path / "store", about)
    for number in range(3):
        put(library, number)
    return library


def frames_of(number: int) -> np.ndarray:
    return unit_vectors(SEGMENTS * FRAMES, seed=number).reshape(SEGMENTS, FRAMES, SIZE)


def put(library: Store, number: int) -> None:
    frames = frames_of(number)
    means = frames.mean(axis=1)
    rows = make_rows(
        a_file(f"/v/{number}.mp4", seconds=42.0),
        [(8.0 * place, 8.0 * place + 10) for place in range(SEGMENTS)],
        [b"strip"] * SEGMENTS,
        {"embedding_0": means / np.linalg.norm(means, axis=1, keepdims=True), "frames_0": pack(frames)},
        wanted=library.table.schema,
        models=library.models,
    )
    library.put(rows)


def expected(number: int, place: int, query: np.ndarray) -> tuple[float, float]:
    frames = frames_of(number)
    scores = [
        FrameScores(8.0 * other, 8.0 * other + 10, own @ query, float(frames.mean(axis=(0, 1)) @ query))
        if 0 <= (other := place + step) < SEGMENTS
        else None
        for step, own in ((step, frames[(place + step) % SEGMENTS]) for step in (0, -1, 1))
    ]
    return refined(*scores)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_refines_the_ends(store, seed):
    query = unit_vectors(1, seed=100 + seed)[0]
    whole = store.search(query, refine=False)
    found = store.search(query)
    assert len(found) == 3
    for moment, segment in zip(found, whole, strict=True):
        number, place = int(moment.path[3]), round(segment.start_seconds / 8)
        assert (segment.start_seconds, segment.end_seconds) == (8.0 * place, 8.0 * place + 10)
        assert (moment.start_seconds, moment.end_seconds) == pytest.approx(expected(number, place, query), abs=0.002)
        assert dataclasses.replace(moment, start_seconds=0, end_seconds=0) == dataclasses.replace(
            segment, start_seconds=0, end_seconds=0
        )
        assert store.segment(moment.segment).start_seconds == segment.start_seconds


def test_a_repair_keeps_what_is_sound(store):
    query = unit_vectors(1, seed=100)[0]
    before = {moment.path: moment for moment in store.search(query)}
    store.table.update(where="path = '/v/1.mp4' AND place = 2", values={"frames_0": b"other"})
    report = check(store.path)
    assert [damage.path for damage in report.damaged_videos] == ["/v/1.mp4"]
    assert check(store.path, repair=True).repaired
    again = Store.open(store.path)
    assert {moment.path: moment for moment in again.search(query)} == {
        path: moment for path, moment in before.items() if path != "/v/1.mp4"
    }


def test_a_removed_video_comes_back_with_its_frames(store):
    query = unit_vectors(1, seed=100)[0]
    before = store.search(query)
    store.move_to_removed(["/v/2.mp4"])
    assert len(store.search(query)) == 2
    assert store.restore(["/v/2.mp4"]) == ["/v/2.mp4"]
    assert store.search(query) == before


def test_the_manifest(tmp_path, store):
    about = manifest.read(store.path)
    assert (about.refine, about.models[0].frame_column) == (True, "frames_0")
    document = json.loads((store.path / manifest.FILE).read_text())
    assert (document["format"], document["refine"], document["models"][0]["frame_column"]) == (3, True, "frames_0")
    (tmp_path / "plain").mkdir()
    manifest.write(a_manifest(), tmp_path / "plain")
    document = json.loads((tmp_path / "plain" / manifest.FILE).read_text())
    assert document["format"] == 2
    assert "refine" not in document
    assert "frame_column" not in document["models"][0]


# -- with a model


@pytest.fixture
def libraries(tmp_path, tiny_folder):
    """The videos a, b, c and d, indexed with and without the embeddings of frames."""
    write_folder(tmp_path / "videos")
    found = []
    for refine in (True, False):
        library = vop.Library.create(
            tmp_path / f"refine-{refine}", model=str(tiny_folder), num_frames=4, precision="fp32", refine=refine
        )
        library.index(tmp_path / "videos", workers=1)
        found.append(library)
    return found


def test_indexing_searching_and_moving_to_another_model(libraries, tmp_path, tiny_folder):
    refining, plain = libraries
    with pytest.raises(UsageError, match="refine"):
        index(plain.path, [tmp_path / "videos"], refine=True, workers=1)
    kept, without = (Store.open(library.path).table.to_arrow().sort_by("segment") for library in libraries)
    assert set(kept.schema.names) - set(without.schema.names) == {"frames_1"}
    assert kept.column("embedding_1").combine_chunks().equals(without.column("embedding_1").combine_chunks())
    found, whole = refining.search("a film", k=4), refining.search("a film", k=4, refine=False)
    assert [moment.segment for moment in found] == [moment.segment for moment in whole]
    assert whole == plain.search("a film", k=4) == plain.search("a film", k=4, refine=True)
    for moment, segment in zip(found, whole, strict=True):
        is_only = segment.duration_seconds < 10
        assert 0 <= moment.start_seconds < moment.end_seconds <= moment.duration_seconds
        assert (moment == segment) == is_only  # nothing to compare it with
        assert moment.start_seconds < segment.end_seconds
        assert moment.end_seconds > segment.start_seconds
    example = refining.search(tmp_path / "videos" / "b.mp4", k=1)[0]
    assert example.end_seconds - example.start_seconds < 20
    assert len(refining.search(found[0])) == 3

    run = tmp_path / "run"
    vop.models.pretrained.create("vop-f+p", str(tiny_folder), num_frames=4, device="cpu").save_pretrained(run)
    reembed(refining.path, str(run), keep=True, precision="fp32", workers=1)
    reembed(plain.path, str(run), keep=True, precision="fp32", workers=1)
    assert [model.frame_column for model in refining.models] == ["frames_2", "frames_1"]
    assert [model.frame_column for model in plain.models] == [None, None]
    assert refining.search("a film", k=4, model=1) == found
    fresh = vop.Library.create(tmp_path / "fresh", model=str(run), precision="fp32", refine=True)
    fresh.index(tmp_path / "videos", workers=1)
    for one, other in zip(refining.search("a film"), fresh.search("a film"), strict=True):
        assert (one.start_seconds, one.end_seconds) == (other.start_seconds, other.end_seconds)
    assert refining.check().sound


def test_a_model_that_does_not_average_frames(tmp_path, tiny_folder):
    model = vop.models.pretrained.create("zero-shot", str(tiny_folder), num_frames=4, device="cpu", head="seqTransf")
    model.save_pretrained(tmp_path / "run")
    write_folder(tmp_path / "videos", count=2)
    library = vop.Library.create(tmp_path / "library", model=str(tmp_path / "run"), precision="fp32", refine=True)
    library.index(tmp_path / "videos", workers=1)
    assert (library.manifest.refine, library.models[0].frame_column) == (True, None)
    assert library.search("a film") == library.search("a film", refine=False)
    with pytest.raises(UsageError, match="does not average"):
        model.encode_segments(np.zeros((1, 4, 3, 32, 32), np.uint8))


def test_frames_have_the_mean_of_their_segment(tiny_folder):
    model = vop.load(str(tiny_folder), num_frames=4)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4, 3, 32, 32), dtype=np.uint8)
    segments, frames = model.encode_segments(pixels)
    assert frames.shape == (3, 4, segments.shape[1])
    assert np.allclose(segments, model.encode_frames(pixels), atol=1e-6)
    means = frames.mean(dim=1)
    assert np.allclose(segments, means / means.norm(dim=1, keepdim=True), atol=1e-5)
    assert np.allclose(frames.norm(dim=-1), 1, atol=1e-5)
