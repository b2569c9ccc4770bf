"""emoji-motion: its plan, its videos, its files."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import av
import numpy as np
import pytest
import torch

from vop.benchmarks import emoji_motion, stories, videos
from vop.benchmarks.emoji_motion import DEMO, FULL, Plan, plan_clips
from vop.benchmarks.order import order_accuracy
from vop.errors import DataError, UsageError

TINY = Plan(train=4, val=2, test=4, seed=9)


@pytest.fixture(scope="module")
def full_plan():
    return plan_clips(FULL)


def test_sizes_and_twins_of_the_full_benchmark(full_plan):
    sizes = {split: [c for c in full_plan if c.split == split] for split in ("train", "val", "test")}
    assert 768 <= len(sizes["train"]) <= 1024
    assert len(sizes["val"]) == 200
    assert len(sizes["test"]) >= 500
    assert sum(c.twin is not None for c in sizes["test"]) * 3 >= len(sizes["test"])
    assert {c.kind for c in sizes["test"]} == set(stories.KINDS)


def test_splits_share_no_caption_no_seed_and_no_content(full_plan):
    def of(split, key):
        return {key(c) for c in full_plan if c.split == split}

    for key in (lambda c: c.caption, lambda c: c.seed, lambda c: stories.canonical(c.story)):
        parts = [of(split, key) for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))
    assert len({c.caption for c in full_plan}) == len(full_plan)


def test_the_plan_follows_from_the_seed():
    assert plan_clips(TINY) == plan_clips(TINY) != plan_clips(replace(TINY, seed=10))
    assert DEMO.fingerprint != FULL.fingerprint


def test_twins_refer_to_each_other_with_opposite_captions(full_plan):
    clips = {c.id: c for c in full_plan}
    pairs = [(c, clips[c.twin]) for c in full_plan if c.twin]
    assert pairs
    for clip, twin in pairs:
        assert twin.twin == clip.id
        assert (clip.story, clip.seed, clip.split) == (twin.story, twin.seed, twin.split)
        assert clip.backwards != twin.backwards
        assert clip.caption != twin.caption


@pytest.mark.parametrize("kind", stories.KINDS)
def test_twins_are_reversed_and_differ(kind, full_plan):
    clips = {c.id: c for c in full_plan}
    clip = next(c for c in full_plan if c.twin and c.kind == kind)
    frames, reversed_frames = emoji_motion.draw(clip), emoji_motion.draw(clips[clip.twin])
    np.testing.assert_array_equal(frames, reversed_frames[::-1])
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 100
    np.testing.assert_array_equal(frames, emoji_motion.draw(clip))


@pytest.mark.parametrize("num_frames", [1, 3, 4, 6, 8, 12])
def test_sampling_takes_the_same_frames_of_twins(num_frames):
    middles = (np.arange(num_frames) + 0.5) * videos.NUM_FRAMES / num_frames
    taken = np.floor(middles).astype(int)
    np.testing.assert_array_equal(taken, videos.NUM_FRAMES - 1 - taken[::-1])


def test_things_move_where_the_caption_says():
    cat = 40
    story = stories.Story("move", (cat,), ("horizontal", ""))
    (actor,) = stories.actors(story, Random(0))
    assert actor.start.x < 0.3 < 0.7 < actor.end.x
    for seed in range(20):
        assert "right" in stories.tell(story, Random(seed), backwards=False).split()[-3:] or "to the right" in (
            stories.tell(story, Random(seed), backwards=False)
        )
        assert "to the right" not in stories.tell(story, Random(seed), backwards=True)


def test_stickers_rest_at_both_ends_and_swap_half_way():
    start, end = videos.Sticker(0, 0, 0, 0.2), videos.Sticker(0, 1, 0, 0.2)
    gradual, swap = stories.Actor(start, end), stories.Actor(start, end, swap=True)
    assert [videos._at(gradual, t).x for t in (0, 0.1, 0.5, 0.9, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [videos._at(swap, t).x for t in (0, 0.5, 0.51, 1)] == [0, 0, 1, 1]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("motion")
    return root, emoji_motion.dataset(root, plan=TINY)


def test_files_are_h264_of_25_frames(rendered):
    _, data = rendered
    assert {name: len(split.videos) for name, split in data.splits.items()} == {"train": 4, "val": 2, "test": 4}
    for video in data.splits["test"].videos:
        with av.open(str(video.path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 96, 96)
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert sum(1 for _ in container.decode(stream)) == videos.NUM_FRAMES


def test_files_show_the_drawn_frames(rendered):
    root, _ = rendered
    clip = next(c for c in plan_clips(TINY) if c.split == "test")
    with av.open(str(root / clip.row["video"])) as container:
        seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    drawn = emoji_motion.draw(clip).astype(float)
    assert np.abs(seen - drawn).mean() < 12
    assert np.abs(seen - drawn).mean() < 0.5 * np.abs(seen - drawn[::-1]).mean() + 6


def test_rendering_is_reproducible(rendered, tmp_path):
    root, _ = rendered
    emoji_motion.dataset(tmp_path, plan=TINY)
    for path in sorted(root.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes()


def test_interrupted_rendering_resumes(tmp_path):
    class Stop(Exception):
        pass

    def stop_at_three(done, total):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        emoji_motion.dataset(tmp_path, plan=TINY, progress=stop_at_three)
    assert not (tmp_path / emoji_motion.MARKER).exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    assert len(made) == 3
    calls = []
    emoji_motion.dataset(tmp_path, plan=TINY, progress=lambda *call: calls.append(call))
    assert calls[-1] == (10, 10)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    emoji_motion.dataset(tmp_path, plan=TINY, progress=lambda *call: pytest.fail("drew again"))


def test_folders_of_another_plan_are_refused(rendered):
    root, _ = rendered
    with pytest.raises(DataError, match=f"{root}.*'seed': 9.*'seed': 77"):
        emoji_motion.dataset(root, plan=replace(TINY, seed=77))


def test_metadata_gives_kinds_and_twins(rendered):
    root, data = rendered
    metadata = emoji_motion.load_metadata(root)
    rows = [json.loads(line) for line in (root / emoji_motion.CAPTIONS).read_text().splitlines()]
    assert {row["caption"] for row in rows} == {c for split in data.splits.values() for c in split.captions}
    assert all((root / row["video"]).is_file() for row in rows)
    ids = [video.id for video in data.splits["test"].videos]
    twins = emoji_motion.twin_indices(ids, metadata)
    assert twins == [1, 0, None, None]
    assert {metadata[i].kind for i in ids} <= set(stories.KINDS)


def test_metadata_of_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        emoji_motion.load_metadata(tmp_path)


@pytest.mark.parametrize("bad", [{"train": -1}, {"twins": 1.5}, {"train": 0, "val": 0, "test": 0}])
def test_impossible_plans_are_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(UsageError, match=rf"{name}.*{value}"):
        Plan(**bad)


def test_order_accuracy_counts_nearer_captions_and_no_ties():
    twins = [1, 0, 3, 2, None]
    similarity = torch.zeros(5, 5)
    similarity[0, 0], similarity[0, 1] = 0.9, 0.1  # right
    similarity[1, 1], similarity[1, 0] = 0.2, 0.4  # wrong
    similarity[2, 2], similarity[2, 3] = 0.5, 0.5  # a tie
    similarity[3, 3], similarity[3, 2] = 0.6, 0.5  # right
    assert order_accuracy(similarity, twins) == 50
    assert order_accuracy(torch.eye(5), twins) == 100
    assert order_accuracy(torch.ones(5, 5), twins) == 0


def test_order_accuracy_needs_twins_and_a_square():
    with pytest.raises(ValueError, match="none of the 2"):
        order_accuracy(torch.eye(2), [None, None])
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        order_accuracy(torch.ones(2, 3), [1, 0])
