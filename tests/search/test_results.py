"""The best segment of each video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vop.errors import UsageError
from vop.search.results import SCORE, Moment, best_of_videos
from vop.search.schema import segment_id, video_of

MANY = 10**9


class Segments:
    """A query of segments with their scores, which records its limits."""

    def __init__(self, videos: list[int]) -> None:
        scores = np.random.default_rng(len(videos)).permutation(len(videos)) / max(1, len(videos))
        self.rows = [a_row(video, place, scores[place]) for place, video in enumerate(videos)]
        self.rows.sort(key=lambda row: -row[SCORE])
        self.table = pa.Table.from_pylist(self.rows, schema=pa.Table.from_pylist([a_row(1, 0, 0.0)]).schema)
        self.limits: list[int] = []

    def __call__(self, limit: int) -> pa.Table:
        self.limits.append(limit)
        return self.table.slice(0, limit)

    def grouped(self, k: int) -> list[tuple[str, float]]:
        """Return the k videos with the largest scores, naively."""
        best: dict[str, float] = {}
        for row in self.rows:
            video = video_of(row["segment"])
            best[video] = max(row[SCORE], best.get(video, -1.0))
        return sorted(best.items(), key=lambda item: -item[1])[:k]


def a_row(video: int, place: int, score: float) -> dict:
    metadata = {"about_author": "bob" if video % 2 else None, "about_title": f"title {video}"}
    segment = segment_id(f"video{video}", (place * 8.0, place * 8.0 + 10))
    names = {"segment": segment, "path": f"/v/{video}.mp4", "date": "2024-07-01"}
    return names | {"duration_seconds": 60.0, "plays_in_browsers": False, SCORE: score} | metadata


@settings(deadline=None, derandomize=True)
@given(videos=st.lists(st.integers(0, 9), max_size=150), k=st.integers(1, 12) | st.just(MANY))
def test_results_equal_a_naive_group_by(videos, k):
    segments = Segments(videos)
    found = best_of_videos(segments, k)
    assert [(moment.video, moment.score) for moment in found] == segments.grouped(k)
    assert all(moment.segment.startswith(moment.video + "-") for moment in found)


def test_a_moment_has_every_value_of_its_row():
    moment = Moment(
        segment="video3-16000-26000",
        video="video3",
        path="/v/3.mp4",
        start_seconds=16.0,
        end_seconds=26.0,
        score=0.0,
        duration_seconds=60.0,
        date="2024-07-01",
        plays_in_browsers=False,
        columns={"author": "bob", "title": "title 3"},
    )
    segments = Segments([])
    segments.table = pa.Table.from_pylist([a_row(3, 2, 0.0)])
    assert best_of_videos(segments, 1) == [moment]
    segments.table = pa.Table.from_pylist([a_row(4, 2, 0.0)])  # a video that has no author
    assert best_of_videos(segments, 1)[0].columns == {"title": "title 4"}
    assert replace(moment, score=0.5).to_dict()["score"] == 0.5


def test_a_long_video_does_not_hide_others():
    segments = Segments([0] * 3000 + [1, 2, 3])
    for row in segments.rows:
        row[SCORE] -= 1000 * int(video_of(row["segment"]).removeprefix("video"))
    segments.rows.sort(key=lambda row: -row[SCORE])
    segments.table = pa.Table.from_pylist(segments.rows)
    assert [moment.video for moment in best_of_videos(segments, 3)] == ["video0", "video1", "video2"]
    assert 3 < len(segments.limits) < 8  # the limit grows quickly


def test_few_rows_are_read():
    segments = Segments(list(range(10)) * 50)
    assert len(best_of_videos(segments, 2)) == 2
    assert len(segments.limits) == 1
    assert segments.limits[0] < 100


@pytest.mark.parametrize("k", [0, -1, -MANY])
def test_k_must_be_positive(k):
    with pytest.raises(UsageError, match=f"k is {k}; ask for 1 moment or more"):
        best_of_videos(Segments([0, 1]), k)
