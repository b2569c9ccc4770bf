"""Make hard groups: pictures of the same things that differ in one respect, each with a caption that states it.

A contrastive batch of hard groups forces the model to learn `left`, `small` or `two`. In batches of unrelated pictures,
the things alone distinguish them, and position words stay at chance.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from vop.benchmarks import captions, scenes
from vop.benchmarks.captions import CLARITIES, COUNTS, POSITIONS, RELATIONS, SIZES, TURNS
from vop.benchmarks.scenes import COLOURS, Example, Sticker

_COLOUR_NAMES = tuple(COLOURS)
_Draft = tuple[tuple[Sticker, ...], str, dict[str, int]]


def _finish(drafts: list[_Draft], rng: Random) -> list[Example]:
    """Add backgrounds to a group: often the same for all pictures, and sometimes named in the captions."""
    colour = rng.choice(_COLOUR_NAMES) if rng.random() < 0.35 else None
    shared = rng.random() < 0.6
    fresh = lambda: scenes.named_background(colour, rng) if colour else scenes.any_background(rng)  # noqa: E731
    background, examples = fresh(), []
    for stickers, caption, facts in drafts:
        if colour:
            facts = facts | {"background": _COLOUR_NAMES.index(colour)}
        behind = background if shared else fresh()
        examples.append(Example(stickers, behind, caption + captions.behind(colour, rng), facts))
    return examples


def position_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing at three places."""
    (concept,) = scenes.pick_concepts(1, rng)
    drafts = []
    for position in _places(rng):
        facts = {"position": POSITIONS.index(position)}
        drafts.append(
            (scenes.at_position(concept, position, rng), captions.say_position(concept, position, rng), facts)
        )
    return _finish(drafts, rng)


def _places(rng: Random) -> list[str]:
    if rng.random() < 0.5:  # opposites, as at the start and end of a movement
        return list(rng.choice((("left", "right"), ("top", "bottom"))))
    return rng.sample(POSITIONS, 3)


def size_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing, big and small."""
    (concept,) = scenes.pick_concepts(1, rng)
    return _finish(
        [
            ((scenes.single(concept, rng, size=size),), captions.say_state(concept, size, rng), {"size": i})
            for i, size in enumerate(SIZES)
        ],
        rng,
    )


def clarity_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing, faint and clear."""
    (concept,) = scenes.pick_concepts(1, rng)
    opacities = rng.uniform(0.22, 0.38), 1.0
    return _finish(
        [
            (
                (scenes.single(concept, rng, opacity=opacities[i]),),
                captions.say_state(concept, clarity, rng),
                {"clarity": i},
            )
            for i, clarity in enumerate(CLARITIES)
        ],
        rng,
    )


def turn_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing, upside down and upright."""
    (concept,) = scenes.pick_concepts(1, rng)
    return _finish(
        [
            (
                (scenes.single(concept, rng, angle=180.0 * (i == 0)),),
                captions.say_state(concept, turn, rng),
                {"turn": i},
            )
            for i, turn in enumerate(TURNS)
        ],
        rng,
    )


def count_group(rng: Random, held_out: bool) -> list[Example]:
    """One, two and three of a kind."""
    (concept,) = scenes.pick_concepts(1, rng)
    return _finish(
        [
            (scenes.scattered([concept] * (i + 1), rng), captions.say_count(concept, count, rng), {"count": i})
            for i, count in enumerate(COUNTS)
        ],
        rng,
    )


def relation_group(rng: Random, held_out: bool) -> list[Example]:
    """Two things, swapped."""
    pair = scenes.pick_concepts(2, rng, held_out=held_out)
    relation = rng.choice(RELATIONS)
    slots = ("left", "right") if relation == "left" else ("above", "below")
    return _finish(
        [
            (
                scenes.related(a, b, relation, rng),
                captions.say_relation(a, b, relation, rng),
                dict(zip(slots, (a, b), strict=True)),
            )
            for a, b in (pair, pair[::-1])
        ],
        rng,
    )


def sizes_group(rng: Random, held_out: bool) -> list[Example]:
    """A big thing and a small one, swapped."""
    pair = scenes.pick_concepts(2, rng, held_out=held_out)
    return _finish(
        [
            (scenes.unequal(a, b, rng), captions.say_sizes(a, b, rng), {"bigger": a, "smaller": b})
            for a, b in (pair, pair[::-1])
        ],
        rng,
    )


def list_group(rng: Random, held_out: bool) -> list[Example]:
    """One to three things and the same with one of them exchanged."""
    count = rng.choice((1, 2, 2, 3, 3))
    first = scenes.pick_concepts(count, rng, held_out=held_out and count > 1)
    second = first[:-1] + scenes.pick_concepts(1, rng)
    if len(set(second)) < count or (not held_out and scenes.any_held_out(second)):
        second = scenes.pick_concepts(count, rng, held_out=held_out and count > 1)
    return _finish(
        [(scenes.scattered(things, rng), captions.say_list(things, rng), {}) for things in (first, second)], rng
    )


def background_group(rng: Random, held_out: bool) -> list[Example]:
    """The same thing, or nothing at all, in front of different colours."""
    empty = rng.random() < 0.25
    (concept,) = scenes.pick_concepts(1, rng)
    examples = []
    for colour in rng.sample(_COLOUR_NAMES, 3):
        said = captions.say_empty(rng) if empty else captions.say_list([concept], rng)
        stickers = () if empty else scenes.scattered([concept], rng)
        facts = {"background": _COLOUR_NAMES.index(colour)}
        behind = scenes.named_background(colour, rng)
        examples.append(Example(stickers, behind, said + captions.behind(colour, rng), facts))
    return examples


GROUPS: dict[Callable[[Random, bool], list[Example]], float] = {
    position_group: 0.21, size_group: 0.12, clarity_group: 0.06, turn_group: 0.06, count_group: 0.08,
    relation_group: 0.20, sizes_group: 0.06, list_group: 0.15, background_group: 0.06,
}  # fmt: skip


def sample_any(rng: Random, held_out: bool) -> list[Example]:
    """Return a random group."""
    (group,) = rng.choices(tuple(GROUPS), tuple(GROUPS.values()))
    return group(rng, held_out)


def sample_group(rng: Random, *, held_out: bool = False) -> list[Example]:
    """Return a random group. With `held_out`, its composites contain pairs of things that training never shows."""
    return sample_any(rng, held_out)


def sample_batch(size: int, rng: Random) -> list[Example]:
    """Return `size` training examples in whole groups; the last group may be cut."""
    batch: list[Example] = []
    while len(batch) < size:
        batch += sample_group(rng)
    return batch[:size]
