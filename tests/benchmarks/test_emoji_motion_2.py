"""emoji-motion-2: its plan, its stories, its videos, its files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from vop.benchmarks.artwork import CONCEPTS
from vop.benchmarks.emoji_motion_2 import benchmark, stories, words
from vop.benchmarks.emoji_motion_2.benchmark import FULL, Plan, plan_clips
from vop.benchmarks.emoji_motion_2.stories import SEEN, STILL_KINDS, TIMED_KINDS, UNSEEN, Story
from vop.benchmarks.order import measure
from vop.benchmarks.rendering import CAPTIONS, load_metadata
from vop.datasets import readers
from vop.errors import DataError, UsageError

TINY = Plan(train=3, val=0, test=5, seed=9)
CAT, DOG = CONCEPTS.index("cat"), CONCEPTS.index("dog")


@pytest.fixture(scope="module")
def clips():
    return plan_clips()


def _of(clips, split):
    return [clip for clip in clips if clip.split == split]


def test_a_third_of_each_split_is_told_over_time_and_has_twins(clips):
    assert Counter(clip.split for clip in clips) == {"train": 2400, "val": 300, "test": 1000}
    for split in ("train", "val", "test"):
        part = _of(clips, split)
        timed = [clip for clip in part if clip.story.timed]
        assert len(timed) == len(part) // 6 * 2
        assert all(clip.twin for clip in timed)
        assert not any(clip.twin for clip in part if not clip.story.timed)
        assert {clip.kind for clip in part} == STILL_KINDS.keys() | TIMED_KINDS.keys()


def test_splits_share_no_story_no_caption_and_no_seed(clips):
    for key in (lambda c: stories.canonical(c.story), lambda c: c.seed):
        parts = [{key(clip) for clip in _of(clips, split)} for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))
    said = [caption for clip in clips for caption in clip.captions]
    assert len(said) == len(set(said)) == 3 * 2400 + 300 + 1000


def test_only_validation_and_test_show_unseen_things(clips):
    def things(clip):
        return set(clip.story.things)

    assert not any(things(clip) & set(UNSEEN) for clip in _of(clips, "train"))
    for split in ("val", "test"):
        part = _of(clips, split)
        assert all(things(clip) <= set(UNSEEN if clip.unseen else SEEN) for clip in part)
        assert 0.15 < np.mean([clip.unseen for clip in part]) < 0.35


def test_still_stories_have_siblings_with_the_same_things(clips):
    still = [set(clip.story.things) for clip in _of(clips, "test") if not clip.story.timed]
    shared = [any(mine & other for j, other in enumerate(still) if j != i) for i, mine in enumerate(still)]
    assert all(shared)


def test_twins_are_told_and_drawn_in_reverse(clips):
    by_id = {clip.id: clip for clip in clips}
    checked = set()
    for clip in _of(clips, "test"):
        if clip.twin and clip.kind not in checked:
            checked.add(clip.kind)
            twin = by_id[clip.twin]
            assert twin.twin == clip.id
            assert clip.backwards != twin.backwards
            np.testing.assert_array_equal(benchmark.draw(clip), benchmark.draw(twin)[::-1])
    assert checked == TIMED_KINDS.keys()


@pytest.mark.parametrize(
    ("story", "said", "said_backwards"),
    [
        (Story("move", (CAT,), ("left", "")), words._MOVES["left"], words._MOVES["right"]),
        (Story("change", (CAT,), ("grow", "")), words._CHANGES["grow"], words._CHANGES["shrink"]),
        (Story("leave", (CAT,), ("up", "leave")), words._CHANGES["vanish"], words._CHANGES["appear"]),
    ],
)
def test_a_reversed_story_is_told_with_the_opposite_words(story, said, said_backwards):
    for seed in range(30):
        forwards, backwards = stories.tell(story, Random(seed)), stories.tell(story.reversed(), Random(seed))
        assert any(verb in forwards for verb in said) or " from " in forwards
        assert any(verb in backwards for verb in said_backwards) or " from " in backwards
    assert story.reversed().reversed() == story


def test_actors_do_what_the_story_tells():
    def first(story):
        return stories._told(story, Random(0))[0]

    moved = first(Story("move", (CAT,), ("left", "top")))
    assert moved.end.x < 0.3 < 0.7 < moved.start.x
    assert moved.start.y == moved.end.y < 0.4
    grown = first(Story("change", (CAT,), ("grow", "right")))
    assert grown.start.size < grown.end.size
    assert grown.start.x > 0.6
    entered = first(Story("leave", (CAT,), ("down", "enter")))
    assert entered.start.y > 1 > entered.end.y
    cat, dog = stories._told(Story("order", (CAT, DOG)), Random(0))
    assert (cat.start.concept, cat.end.opacity, dog.start.opacity, dog.end.concept) == (CAT, 0, 0, DOG)
    swaying = first(Story("place", (CAT,), ("left",)))
    assert abs(swaying.start.x - swaying.end.x) <= 0.1


def test_bystanders_are_small_pale_and_never_of_the_story():
    story, seen = Story("place", (CAT,), ("left",)), set()
    for seed in range(30):
        *bystanders, cat = stories.actors(story, Random(seed))
        seen.add(len(bystanders))
        assert cat.start.concept == CAT
        assert 0.22 < cat.start.size <= 0.44
        for other in bystanders:
            assert other.start.concept in set(SEEN) - {CAT}
            assert other.start.size < 0.23
            assert other.start.opacity < 0.9
    assert seen == {0, 1, 2}


def test_numbers_and_colours_are_told():
    story = Story("numbers", (CAT, CAT, DOG), colour="blue")
    for seed in range(20):
        caption = stories.tell(story, Random(seed))
        assert all(word in caption for word in ("two cats", "a dog", "blue"))
    assert words.many(CAT, 4) == "four cats"


def test_a_named_background_has_its_colour():
    clip = next(c for c in plan_clips() if c.story.colour == "blue" and c.kind == "place")
    red, _, blue = np.median(benchmark.draw(clip), axis=(0, 1, 2))
    assert blue > red + 40


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("motion-2")
    return root, benchmark.dataset(root, plan=TINY)


def test_training_videos_have_three_captions_the_others_one(rendered):
    root, data = rendered
    assert data.splits["train"].targets == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert data.splits["test"].targets == (0, 1, 2, 3, 4)
    rows = [json.loads(line) for line in (root / CAPTIONS).read_text().splitlines()]
    assert [len(row["captions"]) for row in rows] == [3] * 3 + [1] * 5
    assert all((root / row["video"]).is_file() for row in rows)


def test_rendering_is_reproducible_and_other_plans_are_refused(rendered, tmp_path):
    root, _ = rendered
    benchmark.dataset(tmp_path, plan=TINY)
    for path in sorted(root.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes()
    with pytest.raises(DataError, match="'seed': 9.*'seed': 77"):
        benchmark.dataset(root, plan=replace(TINY, seed=77))


def test_measures_count_unseen_things_apart(rendered):
    root, data = rendered
    metadata = load_metadata("emoji-motion-2", root)
    unseen = [metadata[video.id].unseen for video in data.splits["test"].videos]
    found = measure(torch.eye(5), data.splits["test"])
    assert found["extras"] == {"order": 100.0}
    assert found["kinds"].get("unseen things", {"videos": 0})["videos"] == sum(unseen)
    assert sum(facts["videos"] for kind, facts in found["kinds"].items() if kind != "unseen things") == 5
    assert all(facts["t2v_r1"] == 100 for facts in found["kinds"].values())


def test_a_folder_of_videos_cannot_be_given(tmp_path):
    with pytest.raises(UsageError, match="emoji-motion-2:DIR"):
        readers.load("emoji-motion-2", videos=tmp_path)


@pytest.mark.parametrize("bad", [{"captions": 0}, {"timed": 1.5}, {"unseen": -0.1}, {"test": -1}])
def test_impossible_plans_are_refused(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(UsageError, match=rf"{name}.*{value}"):
        Plan(**bad)


def test_the_full_plan_has_its_own_fingerprint():
    assert FULL.fingerprint != replace(FULL, seed=1).fingerprint
    assert plan_clips(TINY) == plan_clips(TINY)
