"""Make hard groups of pictures that show movements and changes: with trails, and in two panels, before and after.

`mini-2` learns from them the verbs and the words of order that captions of videos use. Its captions have one to several
sentences, so that it sees words at every position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from tools.mini import groups
from vop.benchmarks import scenes
from vop.benchmarks.artwork import CONCEPTS
from vop.benchmarks.captions import thing
from vop.benchmarks.emoji_motion_2 import words
from vop.benchmarks.emoji_motion_2.words import CHANGES, DIRECTIONS, OPPOSITE, REVERSED, STEPS
from vop.benchmarks.scenes import COLOURS, Background, Example, Sticker

_COLOUR_NAMES = tuple(COLOURS)
# Facts of these groups' captions, with the number of values.
FACTS = {
    **scenes.FACTS, "count": len(words.NUMBERS), "direction": len(DIRECTIONS), "change": len(CHANGES),
    "before": len(CONCEPTS), "after": len(CONCEPTS),
}  # fmt: skip
LONG_BATCHES = 0.2  # the share of batches whose captions all have several sentences


@dataclass(frozen=True)
class Bar:
    """A filled rectangle, in fractions of the picture's side, of one grey tone in 0..1."""

    left: float
    top: float
    right: float
    bottom: float
    tone: float
    opacity: float = 1.0


@dataclass(frozen=True)
class Picture(Example):
    """An example with bars over its stickers: the gap between panels, or lines behind something fast."""

    bars: tuple[Bar, ...] = ()


def paint(canvas: np.ndarray, bars: tuple[Bar, ...]) -> None:
    """Blend bars into a float canvas (side, side, 3), in place."""
    side = canvas.shape[0]
    for bar in bars:
        left, top, right, bottom = (round(v * side) for v in (bar.left, bar.top, bar.right, bar.bottom))
        region = canvas[max(0, top) : max(top + 1, bottom), max(0, left) : max(left + 1, right)]
        region += np.float32(bar.opacity) * (np.float32(bar.tone) - region)


@dataclass(frozen=True)
class _Draft:
    stickers: tuple[Sticker, ...]
    phrase: str
    clause: bool
    facts: dict[str, int]
    bars: tuple[Bar, ...] = ()


def _finish(drafts: list[_Draft], rng: Random) -> list[Example]:
    """Add a background to a group, the same for all its pictures or not, and sometimes its colour to the captions."""
    colour = rng.choice(_COLOUR_NAMES) if rng.random() < 0.35 else None
    fresh: Callable[[], Background] = (
        (lambda: scenes.named_background(colour, rng)) if colour else (lambda: scenes.any_background(rng))
    )
    background, shared = fresh(), rng.random() < 0.6
    examples: list[Example] = []
    for draft in drafts:
        facts = draft.facts | ({"background": _COLOUR_NAMES.index(colour)} if colour else {})
        caption = words.sentence(draft.phrase, rng, clause=draft.clause, behind=colour)
        examples.append(Picture(draft.stickers, background if shared else fresh(), caption, facts, draft.bars))
    return examples


def trail(concept: int, direction: str, rng: Random) -> tuple[tuple[Sticker, ...], tuple[Bar, ...]]:
    """Draw a thing that moves: faint copies, or lines, or both, where it came from."""
    dx, dy = STEPS[direction]
    middle = scenes.single(concept, rng)
    end = replace(middle, x=0.5 + dx * 0.18 + rng.uniform(-0.08, 0.08), y=0.5 + dy * 0.18 + rng.uniform(-0.08, 0.08))
    kind = rng.choice(("copies", "copies", "lines", "both"))
    copies: list[Sticker] = []
    if kind != "lines":
        gap = rng.uniform(0.11, 0.17)
        for number, opacity in ((3, 0.16), (2, 0.28), (1, 0.45)):
            copies.append(replace(end, x=end.x - dx * gap * number, y=end.y - dy * gap * number, opacity=opacity))
    bars = []
    if kind != "copies":
        tone, reach = rng.choice((0.0, 1.0)), end.size / 2
        for offset in (-0.6, 0.0, 0.6):
            near, far = reach + 0.03, reach + rng.uniform(0.15, 0.28)
            along = sorted((near * -(dx + dy), far * -(dx + dy)))
            across = offset * reach, offset * reach + 0.025
            (x0, x1), (y0, y1) = (along, across) if dx else (across, along)
            bars.append(Bar(end.x + x0, end.y + y0, end.x + x1, end.y + y1, tone, 0.8))
    return (*copies, end), tuple(bars)


def panels(
    before: tuple[Sticker, ...], after: tuple[Sticker, ...], rng: Random, *, stacked: bool
) -> tuple[tuple[Sticker, ...], tuple[Bar, ...]]:
    """Place two scenes as panels: before on the left and after on the right or, stacked, before above after.

    The stickers' positions are fractions of their panel, their sizes of the whole picture.
    """
    placed = []
    for number, scene in enumerate((before, after)):
        for s in scene:
            x, y = (s.x, (s.y + number) / 2) if stacked else ((s.x + number) / 2, s.y)
            placed.append(replace(s, x=x, y=y))
    tone = rng.choice((0.0, 1.0))
    bar = Bar(0.0, 0.49, 1.0, 0.51, tone) if stacked else Bar(0.49, 0.0, 0.51, 1.0, tone)
    return tuple(placed), (bar,)


def changed(concept: int, kind: str, rng: Random) -> tuple[tuple[Sticker, ...], tuple[Sticker, ...]]:
    """Return the scenes before and after a change, one of `CHANGES`, for two panels."""
    near = lambda: 0.5 + rng.uniform(-0.06, 0.06)  # noqa: E731
    plain = Sticker(concept, near(), near(), rng.uniform(0.38, 0.46))
    if kind in ("grow", "shrink"):
        scenes_of = (replace(plain, size=rng.uniform(0.17, 0.22)),), (replace(plain, size=rng.uniform(0.44, 0.5)),)
    elif kind in ("appear", "vanish"):
        faint = (replace(plain, opacity=rng.uniform(0.1, 0.3)),) if rng.random() < 0.5 else ()
        scenes_of = faint, (plain,)
    else:
        scenes_of = (plain,), (replace(plain, angle=180.0),)
    return scenes_of if kind in ("grow", "appear", "flip") else scenes_of[::-1]


def moved(concept: int, direction: str, rng: Random) -> tuple[tuple[Sticker, ...], tuple[Sticker, ...], bool]:
    """Return the scenes before and after a movement, and whether their panels are stacked."""
    dx, dy = STEPS[direction]
    plain = Sticker(concept, 0.5, 0.5, rng.uniform(0.34, 0.42))
    far = rng.uniform(0.24, 0.30)
    return (
        (replace(plain, x=0.5 - dx * far, y=0.5 - dy * far),),
        (replace(plain, x=0.5 + dx * far, y=0.5 + dy * far),),
        bool(dx),
    )


def direction_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing that moves in two opposite directions, with trails or in panels."""
    (concept,) = scenes.pick_concepts(1, rng)
    in_panels = rng.random() < 0.4
    first = rng.choice(DIRECTIONS)
    drafts = []
    for direction in (first, OPPOSITE[first]):
        facts = {"direction": DIRECTIONS.index(direction)}
        phrase = words.travels(thing(concept), direction, rng)
        if in_panels:
            before, after, stacked = moved(concept, direction, rng)
            stickers, bars = panels(before, after, rng, stacked=stacked)
        else:
            stickers, bars = trail(concept, direction, rng)
        drafts.append(_Draft(stickers, phrase, True, facts, bars))
    return _finish(drafts, rng)


def change_group(rng: Random, held_out: bool) -> list[Example]:
    """One thing that changes, and the same in reverse, in panels."""
    (concept,) = scenes.pick_concepts(1, rng)
    kind, stacked = rng.choice(CHANGES), rng.random() < 0.5
    drafts = []
    for change in (kind, REVERSED[kind]):
        before, after = changed(concept, change, rng)
        stickers, bars = panels(before, after, rng, stacked=stacked)
        phrase = words.does(thing(concept), words.change(change, rng), rng)
        drafts.append(_Draft(stickers, phrase, True, {"change": CHANGES.index(change)}, bars))
    return _finish(drafts, rng)


def order_group(rng: Random, held_out: bool) -> list[Example]:
    """Two things one after the other, in both orders, in panels."""
    pair = scenes.pick_concepts(2, rng, held_out=held_out)
    stacked = rng.random() < 0.5
    drafts = []
    for first, last in (pair, pair[::-1]):
        before, after = ((Sticker(c, 0.5, 0.5, rng.uniform(0.38, 0.46)),) for c in (first, last))
        stickers, bars = panels(before, after, rng, stacked=stacked)
        phrase = words.in_order(thing(first), thing(last), rng)
        drafts.append(_Draft(stickers, phrase, False, {"before": first, "after": last}, bars))
    return _finish(drafts, rng)


def numbers_group(rng: Random, held_out: bool) -> list[Example]:
    """Some things of a kind and one of another; their numbers or the second thing differ."""
    first, second = scenes.pick_concepts(2, rng, held_out=held_out)
    drafts = []
    for number in rng.sample((1, 2, 3), 2):
        other = rng.choice((1, 1, 0)) if number < 3 else rng.choice((1, 0))
        phrase = words.listed([words.many(first, number), *[words.many(second, 1)][:other]], rng)
        stickers = scenes.scattered([first] * number + [second] * other, rng)
        drafts.append(_Draft(stickers, phrase, False, {"count": number - 1}))
    return _finish(drafts, rng)


def four_group(rng: Random, held_out: bool) -> list[Example]:
    """Three and four of a kind."""
    (concept,) = scenes.pick_concepts(1, rng)
    return _finish(
        [_Draft(scenes.scattered([concept] * n, rng), words.many(concept, n), False, {"count": n - 1}) for n in (3, 4)],
        rng,
    )


def relation_group(rng: Random, held_out: bool) -> list[Example]:
    """Two things beside or above each other, swapped."""
    pair = scenes.pick_concepts(2, rng, held_out=held_out)
    relation = rng.choice(("left", "above"))
    slots = ("left", "right") if relation == "left" else ("above", "below")
    return _finish(
        [
            _Draft(
                scenes.related(a, b, relation, rng),
                words.beside(thing(a), thing(b), relation, rng),
                False,
                dict(zip(slots, (a, b), strict=True)),
            )
            for a, b in (pair, pair[::-1])
        ],
        rng,
    )


def order_pair(rng: Random) -> tuple[Example, ...]:
    """Return two pictures of the same things in both orders, on one background, for a check."""
    return _on_one_background(order_group(rng, True), rng)


def change_pair(rng: Random) -> tuple[Example, ...]:
    """Return two pictures of a change and its reverse, on one background, for a check."""
    return _on_one_background(change_group(rng, False), rng)


def direction_pair(rng: Random) -> tuple[Example, ...]:
    """Return two pictures of opposite movements, on one background, for a check."""
    return _on_one_background(direction_group(rng, False), rng)


def _on_one_background(pair: list[Example], rng: Random) -> tuple[Example, ...]:
    return tuple(replace(example, background=pair[0].background) for example in pair)


GROUPS: dict[Callable[[Random, bool], list[Example]], float] = {
    groups.sample_any: 0.46, direction_group: 0.15, change_group: 0.15, order_group: 0.12, numbers_group: 0.05,
    four_group: 0.02, relation_group: 0.05,
}  # fmt: skip


def sample_group(rng: Random, *, held_out: bool = False) -> list[Example]:
    """Return a random group. With `held_out`, its composites contain pairs of things that training never shows."""
    (group,) = rng.choices(tuple(GROUPS), tuple(GROUPS.values()))
    return group(rng, held_out)


def sample_batch(size: int, rng: Random) -> list[Example]:
    """Return `size` training examples in whole groups; the last group may be cut.

    Long captions come together, in one of five batches, because a batch is padded to its longest caption.
    """
    batch: list[Example] = []
    while len(batch) < size:
        batch += sample_group(rng)
    long = rng.random() < LONG_BATCHES
    return [_reworded(example, rng, long=long) for example in batch[:size]]


def _reworded(example: Example, rng: Random, *, long: bool) -> Example:
    caption = example.caption
    if rng.random() < 0.25:
        caption = words.with_opening(caption, rng)
    if long:
        caption = words.among_asides(caption, rng, count=rng.choice((1, 1, 2, 2, 3)))
    return replace(example, caption=caption)
