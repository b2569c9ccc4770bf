"""`vop.evaluate_moments` with real videos."""

from __future__ import annotations

import json

import numpy as np
import pytest

import vop
from clips import write_clip
from tiny_clip import make_clip_folder
from vop.backbones.embedding_config import TokenMerging
from vop.benchmarks import emoji_motion
from vop.benchmarks.emoji_moments import divide, films
from vop.datasets.moments import MomentQuery, MomentSplit
from vop.datasets.types import Video
from vop.errors import DataError, UsageError
from vop.models.pretrained import create
from vop.search.manifest import SegmentationConfig
from vop.video.clip import Clip

COLOURS = {"red": (200, 20, 20), "green": (20, 160, 40), "blue": (20, 40, 200)}
SETTINGS = {"num_frames": 2, "precision": "fp32", "workers": 1}


@pytest.fixture
def moments(tmp_path):
    """Two films of three colours, two seconds each, and a file that is not a video."""
    orders = (("red", "green", "blue"), ("blue", "red", "green"))
    videos, queries = [], []
    for number, order in enumerate(orders):
        frames = [np.full((32, 32, 3), COLOURS[colour], np.uint8) for colour in order for _ in range(20)]
        videos.append(Video(f"film{number}", write_clip(tmp_path / f"film{number}.mp4", frames, rate=10)))
        for place, colour in enumerate(order):
            queries.append(MomentQuery(f"a {colour} film", number, (Clip(2.0 * place, 2.0 * place + 2),)))
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    videos.append(Video("broken", tmp_path / "broken.mp4"))
    queries.append(MomentQuery("nothing", 2, (Clip(0, 1),)))
    return MomentSplit("test", tuple(videos), tuple(queries))


def test_films_are_indexed_and_searched(moments, tiny_folder, tmp_path):
    report = vop.evaluate_moments(
        moments,
        model=str(tiny_folder),
        segmentation=SegmentationConfig(window_seconds=2, overlap_seconds=0),
        **SETTINGS,
    )
    assert (report.queries, report.videos, report.segments, report.seconds) == (6, 2, 6, pytest.approx(2, abs=0.01))
    assert report.one_video.reachable == {0.5: 100.0, 0.7: 100.0}
    assert report.one_video.recall[5] == {0.5: 100.0, 0.7: 100.0}  # each film has three segments
    assert report.all_videos.recall[1][0.5] <= report.one_video.recall[1][0.5]
    assert [failure.path for failure in report.skipped] == [str(tmp_path / "broken.mp4")]
    document = json.loads(json.dumps(report.to_dict()))
    assert document["one_video"]["recall"]["5"]["0.7"] == 100.0


def test_missing_videos_are_skipped_by_name(moments, tiny_folder, tmp_path):
    (tmp_path / "film1.mp4").unlink()
    report = vop.evaluate_moments(moments, model=str(tiny_folder), **SETTINGS)
    assert (report.queries, report.videos) == (3, 1)
    kinds = {failure.path: failure.kind for failure in report.skipped}
    assert kinds == {str(tmp_path / "film1.mp4"): "missing", str(tmp_path / "broken.mp4"): "unreadable"}
    for video in moments.videos:
        video.path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="film0"):
        vop.evaluate_moments(moments, model=str(tiny_folder), **SETTINGS)


def test_times_beyond_the_video_are_noticed(moments, tiny_folder, caplog):
    in_milliseconds = MomentQuery("a blue film", 0, (Clip(4000, 6000),))
    split = MomentSplit("test", moments.videos[:2], (*moments.queries[:2], in_milliseconds))
    vop.evaluate_moments(split, model=str(tiny_folder), **SETTINGS)
    (warning,) = [record.getMessage() for record in caplog.records if "seconds" in record.getMessage()]
    assert all(part in warning for part in ("1 of 3", "'a blue film'", "4000 s", "film0.mp4", "6.0 s"))


def test_queries_of_two_names_of_a_file_are_all_counted(moments, tiny_folder, tmp_path):
    (tmp_path / "again.mp4").symlink_to("film0.mp4")
    again = Video("again", tmp_path / "again.mp4")
    queries = (*moments.queries[:5], MomentQuery("a red film", 2, (Clip(0, 2),)))
    windows = SegmentationConfig(window_seconds=2, overlap_seconds=0)
    given = {"model": str(tiny_folder), "segmentation": windows, **SETTINGS}
    report = vop.evaluate_moments(MomentSplit("test", (*moments.videos[:2], again), queries), **given)
    assert (report.queries, report.videos, report.segments) == (6, 2, 6)
    assert report.one_video.recall[5] == {0.5: 100.0, 0.7: 100.0}


def test_coarse_segments_cannot_reach_the_moments(moments, tiny_folder):
    found = vop.evaluate_moments(moments, model=str(tiny_folder), **SETTINGS)  # windows of 10 seconds
    assert (found.segments, found.one_video.reachable[0.5], found.one_video.recall[5][0.5]) == (2, 0.0, 0.0)
    assert found.one_video.mean_iou == pytest.approx(100 / 3, abs=0.5)


def test_refined_ends_are_those_of_a_search(moments, tiny_folder, tmp_path):
    windows = SegmentationConfig(window_seconds=3, overlap_seconds=0)  # none is one of the moments, of 2 seconds
    given = {"model": str(tiny_folder), "segmentation": windows, **SETTINGS, "num_frames": 6}
    library = tmp_path / "library"
    refined = vop.evaluate_moments(moments, refine=True, library=library, **given)
    whole = vop.evaluate_moments(moments, refine=False, library=library, **given)
    assert (refined.refined, whole.refined) == (True, False)
    assert vop.evaluate_moments(moments, library=library, **given).one_video == refined.one_video
    assert whole.one_video.reachable[0.7] == 0
    assert refined.one_video.reachable[0.7] > 0

    opened = vop.Library.open(library)
    ious = []
    for query in moments.queries[:6]:
        (clip,) = query.clips
        (found,) = opened.search(query.sentence, k=1, name=moments.videos[query.video].path.name)
        common = min(found.end_seconds, clip.end_seconds) - max(found.start_seconds, clip.start_seconds)
        union = max(found.end_seconds, clip.end_seconds) - min(found.start_seconds, clip.start_seconds)
        ious.append(100 * max(0, common) / union)
    assert refined.one_video.mean_iou == pytest.approx(np.mean(ious), abs=0.1)

    plain = {"model": str(tiny_folder), "library": tmp_path / "plain", **SETTINGS}
    assert not vop.evaluate_moments(moments, **plain).refined
    with pytest.raises(UsageError, match="keeps no embeddings of frames"):
        vop.evaluate_moments(moments, refine=True, **plain)


def test_a_kept_library_is_used_again(moments, tiny_folder, tmp_path, monkeypatch):
    given = {"model": str(tiny_folder), "library": tmp_path / "library", **SETTINGS}
    first = vop.evaluate_moments(moments, **given)
    monkeypatch.setattr("vop.video.isolated.DecodingProcesses.iterate", lambda *_, **__: pytest.fail("decoded again"))
    readable = MomentSplit("test", moments.videos[:1], moments.queries[:3])
    again = vop.evaluate_moments(readable, **given)
    assert (first.segments, again.segments, again.queries) == (2, 1, 3)
    for other, message in [
        ({"model": "mini"}, "mini"),
        ({"num_frames": 3}, "2 frames"),
        ({"segmentation": SegmentationConfig(window_seconds=5)}, "windows of 10 s"),
    ]:
        with pytest.raises(UsageError, match=message):
            vop.evaluate_moments(readable, **given | other)


def test_films_are_embedded_as_given(moments, tmp_path):
    folder = make_clip_folder(tmp_path / "clip", vision={"image_size": 64, "patch_size": 16})
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"matryoshka_dimensions": [8]}))
    given = {"model": str(folder), "library": tmp_path / "library", **SETTINGS}
    report = vop.evaluate_moments(moments, merge_tokens=0.5, dimensions=8, **given)
    assert (report.merge_tokens, report.dimensions) == (0.5, 8)
    kept = vop.Library.open(tmp_path / "library").models[0]
    assert (kept.embed_dim, kept.embedding.merge_tokens) == (8, TokenMerging(0.5))
    assert vop.evaluate_moments(moments, **given).to_dict() == report.to_dict()  # as the library
    assert vop.evaluate_moments(moments, merge_tokens=0.5, dimensions=8, **given).all_videos == report.all_videos
    for other, message in [({"merge_tokens": 0.25}, r"0\.5, not 0\.25"), ({"dimensions": 16}, "8 dimensions, not 16")]:
        with pytest.raises(UsageError, match=message):
            vop.evaluate_moments(moments, **given, **other)
    usual = vop.evaluate_moments(moments, **given | {"library": None})
    assert not {"merge_tokens", "dimensions"} & set(usual.to_dict())


def test_unreadable_videos_alone_are_refused(moments, tiny_folder):
    only = MomentSplit("test", moments.videos[2:], (MomentQuery("nothing", 0, (Clip(0, 1),)),))
    with pytest.raises(DataError, match="none of the videos"):
        vop.evaluate_moments(only, model=str(tiny_folder), **SETTINGS)


def test_the_built_in_films_join_different_clips(tmp_path):
    plan = emoji_motion.Plan(train=0, val=0, test=8)
    split = films(tmp_path, plan=plan, parts=3)
    assert [video.path.is_file() for video in split.videos] == [True, True]
    assert len(split.queries) == 6
    assert vop.probe(split.videos[0].path).duration_seconds == pytest.approx(3 * 25 / 12, abs=0.1)
    validation = films(tmp_path, plan=emoji_motion.Plan(train=0, val=4, test=0), parts=2, split="val")
    assert (validation.name, [video.path.name for video in validation.videos]) == (
        "val",
        ["val-film-000.mp4", "val-film-001.mp4"],
    )
    clips = emoji_motion.plan_clips(emoji_motion.FULL)
    for film in [*divide(clips, 12), *divide(clips, 12, split="val")]:
        names = {clip.id for clip in film}
        assert len(names) == 12
        assert not any(clip.twin in names for clip in film)


def test_models_that_cannot_refine_leave_no_library(moments, tiny, tmp_path):
    create("dgl-linear", tiny, num_frames=2).save_pretrained(tmp_path / "run")
    given = {"model": str(tmp_path / "run"), "library": tmp_path / "library", "precision": "fp32"}
    with pytest.raises(UsageError, match="leave out refine"):
        vop.evaluate_moments(moments, refine=True, **given)
    assert not (tmp_path / "library").exists()
