"""Pictures and captions for the pre-training."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tools.mini import acceptance, groups, motion_groups
from tools.mini.settings import WORLDS
from vop.benchmarks import captions, scenes
from vop.benchmarks.artwork import CONCEPTS, load_atlas
from vop.benchmarks.emoji_motion_2 import words
from vop.benchmarks.scenes import Background, Sticker

GREY = Background((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _centre_of(canvas: np.ndarray) -> tuple[float, float]:
    changed = np.abs(canvas - 0.5).max(-1) > 0.05
    y, x = changed.nonzero()
    return x.mean() / canvas.shape[1], y.mean() / canvas.shape[0]


def test_batches_follow_from_the_seed():
    first, again, other = (groups.sample_batch(50, Random(seed)) for seed in (4, 4, 5))
    assert first == again != other
    assert len(first) == 50


@pytest.mark.parametrize("group", [*groups.GROUPS, *motion_groups.GROUPS])
def test_groups_have_distinct_captions_and_valid_facts(group):
    for seed in range(40):
        examples = group(Random(seed), False)
        assert len({e.caption for e in examples}) == len(examples) >= 2
        for example in examples:
            assert all(0 <= value < motion_groups.FACTS[fact] for fact, value in example.facts.items())


@pytest.mark.parametrize("version", WORLDS)
def test_training_never_shows_a_held_out_pair(version):
    for example in WORLDS[version].sample_batch(3000, Random(0)):
        assert not scenes.any_held_out(list({s.concept for s in example.stickers}))


@pytest.mark.parametrize("version", WORLDS)
def test_held_out_composites_have_new_pairs_and_their_own_captions(version):
    examples = acceptance.held_out_composites(200, version)
    assert len({e.caption for e in examples}) == 200
    composites = [e for e in examples if len({s.concept for s in e.stickers}) > 1]
    held_out = [scenes.any_held_out([s.concept for s in e.stickers]) for e in composites]
    assert len(composites) > 50
    assert sum(held_out) > 0.8 * len(composites)  # a list's second picture exchanges one thing, at random


@pytest.mark.parametrize("position", captions.POSITIONS)
def test_things_are_drawn_where_the_caption_says(position):
    cat = CONCEPTS.index("cat")
    canvas = scenes.render(scenes.at_position(cat, position, Random(1)), GREY, load_atlas(), 96)
    x, y = _centre_of(canvas)
    words = position.split()
    assert ("left" in words) == (x < 0.4)
    assert ("right" in words) == (x > 0.6)
    assert ("top" in words) == (y < 0.4)
    assert ("bottom" in words) == (y > 0.6)


def test_relations_hold_in_the_picture():
    for seed in range(20):
        left, right = scenes.related(1, 2, "left", Random(seed))
        above, below = scenes.related(1, 2, "above", Random(seed))
        assert left.x < right.x
        assert above.y < below.y


def test_angle_rotates_and_opacity_fades():
    plain = scenes.render((Sticker(5, 0.5, 0.5, 0.5),), GREY, load_atlas(), 48)
    turned = scenes.render((Sticker(5, 0.5, 0.5, 0.5, angle=180),), GREY, load_atlas(), 48)
    np.testing.assert_array_equal(turned, plain[::-1, ::-1])
    faint = scenes.render((Sticker(5, 0.5, 0.5, 0.5, opacity=0.25),), GREY, load_atlas(), 48)
    np.testing.assert_allclose(faint - 0.5, 0.25 * (plain - 0.5), atol=1e-5)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0.5), (1.6, 0.5), (-0.9, 2)])
def test_stickers_outside_are_clipped(x, y):
    canvas = scenes.render((Sticker(5, x, y, 0.5),), GREY, load_atlas(), 48)
    assert canvas.shape == (48, 48, 3)
    assert np.isfinite(canvas).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cats"),
        ("fox", "foxes"),
        ("wolf", "wolves"),
        ("cherry", "cherries"),
        ("sheep", "sheep"),
        ("key", "keys"),
    ],
)
def test_plurals(name, expected):
    assert captions.plural(name) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cat", "a cat"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("upright cat", "an upright cat"),
        ("hourglass", "an hourglass"), ("umbrella", "an umbrella"), ("house", "a house"),
    ],
)  # fmt: skip
def test_articles(words, expected):
    assert captions.article(words) == expected


@pytest.mark.parametrize("direction", words.DIRECTIONS)
def test_trails_lie_behind_the_thing(direction):
    for seed in range(20):
        stickers, bars = motion_groups.trail(3, direction, Random(seed))
        *copies, end = stickers
        assert copies or bars
        horizontal, forwards = direction in ("left", "right"), 1 if direction in ("right", "down") else -1
        where = (lambda s: s.x) if horizontal else (lambda s: s.y)
        assert all(forwards * (where(end) - where(copy)) > 0 for copy in copies)
        for bar in bars:
            middle = (bar.left + bar.right) / 2 if horizontal else (bar.top + bar.bottom) / 2
            assert forwards * (where(end) - middle) > end.size / 2


@pytest.mark.parametrize("stacked", [False, True])
def test_panels_show_before_then_after(stacked):
    before, after = motion_groups.changed(3, "grow", Random(0))
    (first, last), (bar,) = motion_groups.panels(before, after, Random(0), stacked=stacked)
    assert first.size < last.size
    assert first.y < 0.5 < last.y if stacked else first.x < 0.5 < last.x
    canvas = np.full((48, 48, 3), 0.5, np.float32)
    motion_groups.paint(canvas, (bar,))
    line = canvas[24, :, 0] if stacked else canvas[:, 24, 0]
    assert set(line.tolist()) == {bar.tone}
    assert canvas[5, 5, 0] == 0.5


@pytest.mark.parametrize("change", words.CHANGES)
def test_a_change_and_its_reverse_swap_the_panels(change):
    one = motion_groups.changed(3, change, Random(5))
    other = motion_groups.changed(3, words.REVERSED[change], Random(5))
    assert one == other[::-1]


def test_one_batch_in_five_has_captions_of_several_sentences():
    batches = [motion_groups.sample_batch(8, Random(seed)) for seed in range(200)]
    long = [all(any(aside in e.caption for aside in words._ASIDES) for e in batch) for batch in batches]
    assert 25 <= sum(long) <= 55
