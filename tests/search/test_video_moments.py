"""All moments of a video: which segments match, and which belong together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vop
from search.libraries import SIZE, STEP, a_file, a_manifest, a_model, content_of, make_library, rows_of, unit_vectors
from vop.errors import UsageError
from vop.search.refining import FrameScores, pack, refined, refined_moment
from vop.search.schema import make_rows
from vop.search.store import Store
from vop.search.video_moments import DEPTH, FLOOR, Part, floor_of, parts_of


def windows(count: int, *, step: float = 8.0, length: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(count) * step
    return starts, starts + length


def naive_parts(starts, ends, scores) -> list[tuple[set[int], int]]:
    """Return (places, best place) of each moment, by the definition."""
    best, mean = max(scores), sum(scores) / len(scores)
    matching = [i for i, score in enumerate(scores) if score >= min(best, mean + FLOOR * (best - mean))]
    runs: list[list[int]] = []
    for place in matching:
        if runs and place == runs[-1][-1] + 1 and starts[place] <= ends[place - 1] + 0.002:
            runs[-1].append(place)
        else:
            runs.append([place])
    done = []
    while runs:
        run = runs.pop()
        depths = {
            place: min(max(scores[run[0] : place]), max(scores[place + 1 : run[-1] + 1])) - scores[place]
            for place in run[1:-1]
        }
        valley = max(depths, key=lambda place: depths[place], default=None)
        if valley is None or depths[valley] <= max(0, DEPTH * (best - mean)):
            done.append((set(run), max(run, key=lambda place: scores[place])))
        else:
            cut = valley + (scores[valley - 1] <= scores[valley + 1])
            runs += [[place for place in run if place < cut], [place for place in run if place >= cut]]
    return sorted(done, key=lambda part: (-scores[part[1]], part[1]))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    scores=st.lists(st.sampled_from(np.linspace(0, 1, 17).tolist()), min_size=1, max_size=30),
    step=st.sampled_from([8.0, 10.0, 10.5]),
)
def test_moments_equal_a_naive_division(scores, step):
    starts, ends = windows(len(scores), step=step)
    found = parts_of(starts, ends, np.array(scores))
    assert [({*range(part.first, part.last + 1)}, part.best) for part in found] == naive_parts(
        starts.tolist(), ends.tolist(), scores
    )


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([0.2], [Part(0, 0, 0)]),
        ([0.2, 0.2, 0.2], [Part(0, 2, 0)]),  # nothing stands out: the whole video
        ([0, 0, 0.8, 1, 0.9, 0, 0], [Part(2, 4, 3)]),  # windows that overlap are one moment
        ([0, 0, 0.8, 0, 1, 0, 0], [Part(4, 4, 4), Part(2, 2, 2)]),
        ([0, 0, 0, 1, 0.63, 0.9, 0, 0, 0, 0], [Part(3, 3, 3), Part(4, 5, 5)]),  # a valley
        ([0, 0, 0, 1, 0.85, 0.9, 0, 0, 0, 0], [Part(3, 5, 3)]),
    ],
)
def test_moments(scores, wanted):
    assert parts_of(*windows(len(scores)), np.array(scores, float)) == wanted


def test_shots_touch_and_separate_windows_do_not():
    scores = np.array([0, 0.9, 1, 0, 0, 0])
    assert parts_of(*windows(6, step=10.0), scores) == [Part(1, 2, 2)]
    assert len(parts_of(*windows(6, step=10.5), scores)) == 2


# -- in a library


@pytest.fixture
def library(tmp_path) -> Store:
    """Five videos of seven segments."""
    return make_library(tmp_path / "library", [a_file(f"/v/{n}.mp4", seconds=70.0) for n in range(5)], segments=7)


def naive_moments(store: Store, query: np.ndarray, per_video: int) -> list[tuple]:
    """Return (video, start, end, score) of the moments of all videos, best first."""
    found = []
    for video in {row["video"] for row in store.table.to_arrow().select(["video"]).to_pylist()}:
        rows = store.rows_of([video]).to_pylist()
        scores = [float(np.dot(row["embedding_0"], query)) for row in rows]
        starts, ends = ([row[name] for row in rows] for name in ("start_seconds", "end_seconds"))
        for places, best in naive_parts(starts, ends, scores)[:per_video]:
            found.append((video, starts[min(places)], ends[max(places)], pytest.approx(scores[best], abs=1e-6)))
    return sorted(found, key=lambda moment: -moment[3].expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("k", "per_video"), [(100, 3), (4, 2), (3, 100)])
def test_a_search_finds_several_moments_of_a_video(library, seed, k, per_video):
    query = unit_vectors(1, seed=50 + seed)[0]
    found = library.search(query, k=k, per_video=per_video)
    wanted = naive_moments(library, query, per_video)
    assert [(m.video, m.start_seconds, m.end_seconds, m.score) for m in found] == wanted[:k]
    for video in {moment.video for moment in found}:
        own = [moment for moment in found if moment.video == video]
        everything = library.moments(query, video)
        assert {moment.others for moment in own} == {len(everything.moments) - len(own)}
        assert [dataclasses.replace(moment, others=0) for moment in own] == everything.moments[: len(own)]


def test_one_moment_of_a_video_is_its_best_segment(library):
    query = unit_vectors(1, seed=50)[0]
    found = library.search(query, k=3)
    assert found == library.search(query, k=3, per_video=1)
    assert all(moment.end_seconds - moment.start_seconds == STEP for moment in found)
    assert {(moment.others, moment.copies) for moment in found} == {(0, ())}


def test_all_moments_of_one_video(library):
    query, video = unit_vectors(1, seed=50)[0], content_of("/v/2.mp4")
    found = library.moments(query, video)
    scores = unit_vectors(35).reshape(5, 7, SIZE)[2] @ query
    assert [segment.score for segment in found.segments] == pytest.approx(scores.tolist(), abs=1e-6)
    assert [segment.start_seconds for segment in found.segments] == [STEP * place for place in range(7)]
    assert found.floor == pytest.approx(floor_of(scores), abs=1e-6)
    assert found.moments[0].score == max(segment.score for segment in found.segments)
    assert found.to_dict()["moments"][0]["path"] == "/v/2.mp4"


def test_the_public_library(library, tmp_path):
    opened = vop.Library.open(library.path)
    query = unit_vectors(1, seed=51)[0]
    found = opened.search(query, k=50, per_video=9)
    assert found == library.search(query, k=50, per_video=9)
    (best, *_) = found
    wanted = library.moments(query, best.video)
    assert wanted == opened.moments(query, video=best) == opened.moments(query, video=best.video)
    assert len(opened.moments(best, video=best).segments) == 7  # similar to one of its segments
    with pytest.raises(UsageError, match="per_video is 0"):
        opened.search(query, per_video=0)
    with pytest.raises(UsageError, match="nothing.mp4"):
        opened.moments(query, video=tmp_path / "nothing.mp4")
    with pytest.raises(UsageError, match="0000"):
        opened.moments(query, video="0" * 32)


# -- refined ends


def test_a_moment_of_one_segment_is_refined_as_before():
    random = np.random.default_rng(0)
    segments = [FrameScores(8.0 * n, 8.0 * n + 10, random.normal(size=4).astype(np.float32), -1.0) for n in range(3)]
    assert refined_moment(segments[1:2], 0, segments[0], segments[2]) == refined(segments[1], segments[0], segments[2])


def test_the_ends_of_several_segments():
    """Frames match from the second half of the first segment to the first half of the third."""
    frames = [[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]
    segments = [FrameScores(8.0 * n, 8.0 * n + 8, np.array(own, np.float32), 0.1) for n, own in enumerate(frames)]
    after = FrameScores(24.0, 32.0, np.zeros(4, np.float32), 0.1)
    assert refined_moment(segments, 1, None, after) == (4.0, 20.0)
    assert refined_moment(segments[:2], 1, None, segments[2]) == (4.0, 20.0)  # half a segment beyond


def test_a_library_that_keeps_frames(tmp_path):
    about = a_manifest(dataclasses.replace(a_model(), frame_column="frames_0")).with_(refine=True)
    store = Store.create(tmp_path / "store", about)
    frames = unit_vectors(24, seed=3).reshape(6, 4, SIZE)
    query = unit_vectors(1, seed=4)[0]
    frames[2:4] = query + 0.1 * frames[2:4]  # two segments that match
    frames /= np.linalg.norm(frames, axis=-1, keepdims=True)
    means = frames.mean(axis=1)
    rows = make_rows(
        a_file("/v/a.mp4", seconds=60.0),
        [(STEP * place, STEP * (place + 1)) for place in range(6)],
        [b"strip"] * 6,
        {"embedding_0": means / np.linalg.norm(means, axis=1, keepdims=True), "frames_0": pack(frames)},
        wanted=store.table.schema,
        models=store.models,
    )
    store.put(rows)
    (whole,) = store.search(query, per_video=5, refine=False)
    (found,) = store.search(query, per_video=5)
    assert (whole.start_seconds, whole.end_seconds) == (20.0, 40.0)
    scores = [
        FrameScores(STEP * n, STEP * (n + 1), own @ query, float(frames.mean(axis=(0, 1)) @ query))
        for n, own in enumerate(frames)
    ]
    best = 0 if whole.segment.endswith("-20000-30000") else 1
    assert (found.start_seconds, found.end_seconds) == refined_moment(scores[2:4], best, scores[1], scores[4])
    assert found.score == whole.score


def test_rows_of_several_videos_are_read_in_turn(tmp_path):
    """More videos than are read at a time, of which the last ones have better second moments than some first ones."""
    store = make_library(tmp_path / "library", [])
    query = unit_vectors(1)[0]
    other = unit_vectors(1, seed=9)[0]
    other -= (other @ query) * query
    other /= np.linalg.norm(other)

    def vector(score: float) -> np.ndarray:
        return score * query + np.sqrt(1 - score**2) * other

    rows = [
        rows_of(store, a_file(f"/v/{n}.mp4"), np.stack([vector(0.9 - n / 100), vector(0.0), vector(0.85 - n / 100)]))
        for n in range(40)
    ]
    store.put(pa.concat_tables(rows))
    found = store.search(query.astype(np.float32), k=20, per_video=2)
    wanted = sorted([(0.9 - n / 100, n) for n in range(40)] + [(0.85 - n / 100, n) for n in range(40)], reverse=True)
    assert [moment.score for moment in found] == pytest.approx([score for score, _ in wanted[:20]], abs=1e-5)
