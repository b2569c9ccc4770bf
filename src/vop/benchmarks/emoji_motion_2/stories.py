"""Stories of the videos of `emoji-motion-2`.

Two thirds of the stories are told by what every frame shows: things, numbers, sizes, places, relations, colours. They
come with siblings that differ in one respect, so that the things alone do not identify a video. One third is told by
what happens over time, and each of these stories comes with its reversal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from vop.benchmarks import scenes
from vop.benchmarks.artwork import CONCEPTS
from vop.benchmarks.captions import POSITIONS, adjective, place, thing
from vop.benchmarks.emoji_motion_2 import words
from vop.benchmarks.emoji_motion_2.words import DIRECTIONS, OPPOSITE, REVERSED, SIDES, STEPS
from vop.benchmarks.scenes import COLOURS, Sticker
from vop.benchmarks.stories import Actor

# Kinds of stories with their shares within each part.
STILL_KINDS = {"things": 0.28, "numbers": 0.22, "relation": 0.20, "sizes": 0.12, "place": 0.18}
TIMED_KINDS = {"move": 0.28, "change": 0.32, "leave": 0.16, "order": 0.24}
_ORDERED = Random("emoji-motion-2").sample(range(len(CONCEPTS)), 160)
SEEN, UNSEEN = tuple(_ORDERED[:120]), tuple(_ORDERED[120:])  # things of all splits; things that training never shows
_COLOURED = 0.35  # the share of captions that name the background's colour
_BYSTANDERS = (0, 1, 2)  # things that no caption mentions: small, pale and behind the others
_DISTANCES = (0.75, 1.0)  # how large the scene is in the picture
_SPOTS = {"": (0.5, 0.5), "left": (0.3, 0.5), "right": (0.7, 0.5)}
_LANES = {"": 0.5, "left": 0.25, "right": 0.75, "top": 0.25, "bottom": 0.75}


@dataclass(frozen=True)
class Story:
    """The content of a video.

    Attributes:
        kind: one of `STILL_KINDS` or `TIMED_KINDS`.
        things: concepts, repeated where there are several of a kind.
        detail: what the kind needs: a relation, a position, a direction with a lane, or a change with a spot.
        colour: the background's colour where the captions name it, otherwise "".
    """

    kind: str
    things: tuple[int, ...]
    detail: tuple[str, ...] = ()
    colour: str = ""

    @property
    def timed(self) -> bool:
        """Whether the captions tell what happens over time."""
        return self.kind in TIMED_KINDS

    def reversed(self) -> Story:
        """Return the story of the same frames backwards; only for stories that are told over time."""
        if self.kind == "order":
            return replace(self, things=self.things[::-1])
        first, *others = self.detail
        if self.kind == "move":
            return replace(self, detail=(OPPOSITE[first], *others))
        if self.kind == "change":
            return replace(self, detail=(REVERSED[first], *others))
        return replace(self, detail=(first, "enter" if others == ["leave"] else "leave"))


def sample_still(rng: Random, pool: Sequence[int]) -> list[Story]:
    """Return two or three stories of one still kind that differ in one respect."""
    (kind,) = rng.choices(tuple(STILL_KINDS), tuple(STILL_KINDS.values()))
    colour = rng.choice(tuple(COLOURS)) if rng.random() < _COLOURED else ""
    stories = [replace(story, colour=colour) for story in _STILL[kind](rng, pool)]
    if colour and rng.random() < 0.5:
        stories[-1] = replace(stories[0], colour=rng.choice([c for c in COLOURS if c != colour]))
    return stories


def _things(rng: Random, pool: Sequence[int]) -> list[Story]:
    *things, other = rng.sample(pool, rng.choice((3, 3, 4)))
    return [Story("things", tuple(sorted(part))) for part in (things, [*things[:-1], other])]


def _numbers(rng: Random, pool: Sequence[int]) -> list[Story]:
    first, second = rng.sample(pool, 2)
    other = rng.choice((0, 1))
    return [
        Story("numbers", (first,) * number + (second,) * other) for number in rng.sample((1, 2, 3, 4)[: 4 - other], 2)
    ]


def _relation(rng: Random, pool: Sequence[int]) -> list[Story]:
    first, second = rng.sample(pool, 2)
    detail = (rng.choice(("left", "above")),)
    return [Story("relation", pair, detail) for pair in ((first, second), (second, first))]


def _sizes(rng: Random, pool: Sequence[int]) -> list[Story]:
    first, second = rng.sample(pool, 2)
    return [Story("sizes", pair) for pair in ((first, second), (second, first))]


def _place(rng: Random, pool: Sequence[int]) -> list[Story]:
    (concept,) = rng.sample(pool, 1)
    return [Story("place", (concept,), (position,)) for position in rng.sample(POSITIONS, rng.choice((2, 3)))]


_STILL: dict[str, Callable[[Random, Sequence[int]], list[Story]]] = {
    "things": _things, "numbers": _numbers, "relation": _relation, "sizes": _sizes, "place": _place,
}  # fmt: skip


def sample_timed(rng: Random, pool: Sequence[int]) -> Story:
    """Return a random story that is told over time."""
    (kind,) = rng.choices(tuple(TIMED_KINDS), tuple(TIMED_KINDS.values()))
    colour = rng.choice(tuple(COLOURS)) if rng.random() < _COLOURED else ""
    things = tuple(rng.sample(pool, 2 if kind == "order" else 1))
    return Story(kind, things, _detail(kind, rng), colour)


def _detail(kind: str, rng: Random) -> tuple[str, ...]:
    if kind == "move":
        direction = rng.choice(DIRECTIONS)
        lanes = ("", "top", "bottom") if direction in ("left", "right") else ("", "left", "right")
        return direction, rng.choice(lanes)
    if kind == "change":
        return rng.choice(words.CHANGES), rng.choice(tuple(_SPOTS))
    if kind == "leave":
        return rng.choice(DIRECTIONS), rng.choice(("leave", "enter"))
    return ()


def canonical(story: Story) -> Story:
    """Return one key for a story and its reversal."""
    return min(story, story.reversed(), key=repr) if story.timed else story


def actors(story: Story, rng: Random) -> list[Actor]:
    """Return the stickers of a video, from back to front, and how they change from the first to the last frame.

    Bystanders stand behind the things of the story, which is seen from nearer or farther.
    """
    told = _from_afar(_told(story, rng), rng)
    return [*(_bystander(story, rng) for _ in range(rng.choice(_BYSTANDERS))), *told]


def _bystander(story: Story, rng: Random) -> Actor:
    concept = rng.choice([thing for thing in SEEN if thing not in story.things])
    x, y = rng.uniform(0.12, 0.88), rng.uniform(0.12, 0.88)
    start = Sticker(concept, x, y, rng.uniform(0.16, 0.22), opacity=rng.uniform(0.6, 0.8))
    return Actor(start, replace(start, x=_near(x, rng, 0.15), y=_near(y, rng, 0.15)))


def _from_afar(actors: list[Actor], rng: Random) -> list[Actor]:
    """Draw the scene smaller, anywhere in the picture."""
    scale = rng.uniform(*_DISTANCES)
    room = 0.4 * (1 - scale)
    x, y = 0.5 + rng.uniform(-room, room), 0.5 + rng.uniform(-room, room)

    def move(s: Sticker) -> Sticker:
        return replace(s, x=x + scale * (s.x - 0.5), y=y + scale * (s.y - 0.5), size=scale * s.size)

    return [replace(actor, start=move(actor.start), end=move(actor.end)) for actor in actors]


def _told(story: Story, rng: Random) -> list[Actor]:
    """Return the stickers of the story itself."""
    if not story.timed:
        return [_sway(sticker, rng) for sticker in _still_stickers(story, rng)]
    side = rng.uniform(0.34, 0.46)
    if story.kind == "order":
        first, last = (Sticker(c, _near(0.5, rng), _near(0.5, rng), side) for c in story.things)
        return [
            Actor(first, replace(first, opacity=0.0), swap=True),
            Actor(replace(last, opacity=0.0), last, swap=True),
        ]
    (concept,), (what, more) = story.things, story.detail
    if story.kind == "change":
        return [_change(concept, what, more, side, rng)]
    if story.kind == "move":
        return [_travel(concept, what, more, side, rng)]
    middle = Sticker(concept, _near(0.5, rng), _near(0.5, rng), side)
    dx, dy = STEPS[what]
    leaving = Actor(middle, replace(middle, x=middle.x + dx * 0.8, y=middle.y + dy * 0.8))
    return [leaving if more == "leave" else leaving.reversed()]


def _still_stickers(story: Story, rng: Random) -> Sequence[Sticker]:
    things = list(story.things)
    if story.kind == "relation":
        return scenes.related(things[0], things[1], story.detail[0], rng)
    if story.kind == "sizes":
        return scenes.unequal(things[0], things[1], rng)
    if story.kind == "place":
        return scenes.at_position(things[0], story.detail[0], rng)
    return scenes.scattered(things, rng)


def _sway(sticker: Sticker, rng: Random) -> Actor:
    """Let a sticker drift a little, so that movement alone does not tell the two parts of the benchmark apart."""
    return Actor(sticker, replace(sticker, x=_near(sticker.x, rng), y=_near(sticker.y, rng)))


def _near(value: float, rng: Random, jitter: float = 0.05) -> float:
    return value + rng.uniform(-jitter, jitter)


def _travel(concept: int, direction: str, lane: str, side: float, rng: Random) -> Actor:
    near, far, across = _near(0.2, rng, 0.03), _near(0.8, rng, 0.03), _near(_LANES[lane], rng, 0.03)
    start, end = (far, near) if direction in ("left", "up") else (near, far)
    points = [(along, across) if direction in ("left", "right") else (across, along) for along in (start, end)]
    first, last = (Sticker(concept, x, y, side) for x, y in points)
    return Actor(first, last)


def _change(concept: int, kind: str, spot: str, side: float, rng: Random) -> Actor:
    x, y = _SPOTS[spot]
    plain = Sticker(concept, _near(x, rng, 0.02), _near(y, rng, 0.1), side)
    if kind in ("grow", "shrink"):
        pair = replace(plain, size=rng.uniform(0.20, 0.25)), replace(plain, size=rng.uniform(0.54, 0.64))
    elif kind in ("appear", "vanish"):
        pair = replace(plain, opacity=0.04), plain
    else:
        pair = plain, replace(plain, angle=180.0)
    return Actor(*(pair if kind in ("grow", "appear", "flip") else pair[::-1]))


def tell(story: Story, rng: Random) -> str:
    """Return a caption of the story, in one sentence or, sometimes, with a few words that say nothing about it."""
    phrase = _TELLERS[story.kind](story, rng)
    caption = words.sentence(phrase, rng, clause=story.kind in _CLAUSES, behind=story.colour or None)
    chance = rng.random()
    if chance < 0.10:
        return words.with_opening(caption, rng)
    return words.among_asides(caption, rng, count=1) if chance < 0.20 else caption


def _tell_things(story: Story, rng: Random) -> str:
    counted = {concept: story.things.count(concept) for concept in story.things}
    return words.listed([words.many(concept, number) for concept, number in counted.items()], rng)


def _tell_relation(story: Story, rng: Random) -> str:
    first, second = story.things
    return words.beside(thing(first), thing(second), story.detail[0], rng)


def _tell_sizes(story: Story, rng: Random) -> str:
    big, small = story.things
    return words.listed([thing(big, adjective("big", rng)), thing(small, adjective("small", rng))], rng)


def _tell_place(story: Story, rng: Random) -> str:
    what, where = thing(story.things[0]), place(story.detail[0], rng)
    return rng.choice((f"{what} {where}", f"{what} {where}", f"{where}, {what}"))


def _tell_move(story: Story, rng: Random) -> str:
    direction, lane = story.detail
    return words.travels(thing(story.things[0]), direction, rng, where=lane)


def _tell_change(story: Story, rng: Random) -> str:
    kind, spot = story.detail
    return words.does(thing(story.things[0]), words.change(kind, rng), rng, where=spot)


def _tell_leave(story: Story, rng: Random) -> str:
    direction, way = story.detail
    what = thing(story.things[0])
    if way == "enter":
        return f"{what} {words.change('appear', rng)} {place(SIDES[direction], rng)} and goes to the middle"
    return f"{what} {words.move(direction, rng)} and {words.change('vanish', rng)}"


def _tell_order(story: Story, rng: Random) -> str:
    first, last = story.things
    return words.in_order(thing(first), thing(last), rng)


_CLAUSES = {"move", "change", "leave"}
_TELLERS: dict[str, Callable[[Story, Random], str]] = {
    "things": _tell_things, "numbers": _tell_things, "relation": _tell_relation, "sizes": _tell_sizes,
    "place": _tell_place, "move": _tell_move, "change": _tell_change, "leave": _tell_leave, "order": _tell_order,
}  # fmt: skip
