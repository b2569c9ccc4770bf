"""Stories of the videos in the built-in world, with captions for both directions.

A story has a kind, things and details. Both directions of a story belong to the same split, so that splits share no
content. The captions use words that pre-training uses for still pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from vop.benchmarks import captions
from vop.benchmarks.artwork import CONCEPTS
from vop.benchmarks.captions import thing
from vop.benchmarks.scenes import Sticker

KINDS = ("move", "resize", "fade", "turn", "leave", "then", "together")
_SHARES = (0.20, 0.13, 0.11, 0.11, 0.13, 0.16, 0.16)
_POOL = tuple(sorted(Random("video pool").sample(range(len(CONCEPTS)), 96)))  # few, so that videos are easy to confuse
_PLACES = {"": (0.5, 0.5), "left": (0.3, 0.5), "right": (0.7, 0.5)}
_LANES = {"": 0.5, "left": 0.25, "right": 0.75, "top": 0.25, "bottom": 0.75}
_SIDES = {"left": (-0.3, 0.5), "right": (1.3, 0.5), "top": (0.5, -0.3), "bottom": (0.5, 1.3)}
_AXES = {"horizontal": ("left", "right"), "vertical": ("top", "bottom")}
_STATES = {"resize": ("small", "big"), "fade": ("faint", "clear"), "turn": ("upside down", "upright")}


@dataclass(frozen=True)
class Actor:
    """A sticker that changes from `start` to `end`: gradually or, with `swap`, all at once after half the time."""

    start: Sticker
    end: Sticker
    swap: bool = False

    def reversed(self) -> Actor:
        """Return the reversed movement."""
        return replace(self, start=self.end, end=self.start)


@dataclass(frozen=True)
class Story:
    """The content of a video: `things` are concepts, `details` depend on the kind (axis and lane, place, side, …)."""

    kind: str
    things: tuple[int, ...]
    details: tuple[str, ...] = ()


def sample_story(rng: Random) -> Story:
    """Return a random story."""
    (kind,) = rng.choices(KINDS, _SHARES)
    things = tuple(rng.sample(_POOL, 2 if kind in ("then", "together") else 1))
    return Story(kind, things, _details(kind, rng))


def _details(kind: str, rng: Random) -> tuple[str, ...]:
    if kind == "move":
        axis = rng.choice(tuple(_AXES))
        other = _AXES["vertical" if axis == "horizontal" else "horizontal"]
        return axis, rng.choice(("", *other))
    if kind == "leave":
        return (rng.choice(tuple(_SIDES)),)
    if kind == "together":
        return rng.choice(("vertical", *_STATES)), rng.choice(("vertical", *_STATES)), rng.choice(("same", "opposite"))
    return (rng.choice(tuple(_PLACES)),)


def canonical(story: Story) -> Story:
    """Return one key for a story and its reversal (`then` with its things swapped)."""
    return replace(story, things=tuple(sorted(story.things))) if story.kind == "then" else story


def actors(story: Story, rng: Random) -> list[Actor]:
    """Return the actors of a story, in its forward direction."""
    side = rng.uniform(0.34, 0.46)
    if story.kind == "then":
        return _succession(story, side, rng)
    if story.kind == "together":
        first, second = story.things
        a = _change(first, story.details[0], 0.26, 0.5, rng.uniform(0.32, 0.40), rng)
        b = _change(second, story.details[1], 0.74, 0.5, rng.uniform(0.32, 0.40), rng)
        return [a, b.reversed() if story.details[2] == "opposite" else b]
    (concept,) = story.things
    if story.kind == "move":
        axis, lane = story.details
        return [_travel(concept, axis, _jitter(_LANES[lane], rng), side, rng)]
    if story.kind == "leave":
        x, y = _SIDES[story.details[0]]
        middle = Sticker(concept, _jitter(0.5, rng), _jitter(0.5, rng), side)
        return [Actor(middle, replace(middle, x=x, y=y))]
    x, y = _PLACES[story.details[0]]
    return [_change(concept, story.kind, x, _jitter(y, rng, 0.1), side, rng)]


def _jitter(value: float, rng: Random, amount: float = 0.05) -> float:
    return value + rng.uniform(-amount, amount)


def _travel(concept: int, axis: str, lane: float, side: float, rng: Random) -> Actor:
    ends = _jitter(0.2, rng, 0.03), _jitter(0.8, rng, 0.03)
    points = [(along, lane) if axis == "horizontal" else (lane, along) for along in ends]
    start, end = (Sticker(concept, x, y, side) for x, y in points)
    return Actor(start, end)


def _change(concept: int, motion: str, x: float, y: float, side: float, rng: Random) -> Actor:
    if motion == "vertical":
        return _travel(concept, motion, _jitter(x, rng, 0.02), side, rng)
    end = Sticker(concept, _jitter(x, rng, 0.02), y, side)
    if motion == "resize":
        return Actor(replace(end, size=rng.uniform(0.20, 0.25)), replace(end, size=rng.uniform(0.54, 0.64)))
    if motion == "fade":
        return Actor(replace(end, opacity=0.04), end)
    return Actor(replace(end, angle=180.0), end)


def _succession(story: Story, side: float, rng: Random) -> list[Actor]:
    x, y = _PLACES[story.details[0]]
    shown = [Sticker(c, _jitter(x, rng), _jitter(y, rng), side) for c in story.things]
    gone = [replace(s, opacity=0.0) for s in shown]
    return [Actor(shown[0], gone[0], swap=True), Actor(gone[1], shown[1], swap=True)]


def tell(story: Story, rng: Random, *, backwards: bool) -> str:
    """Return a caption of the story, or of its reversal."""
    lead = rng.choice(("", "", "a clip: ", "in this clip ", "in this video "))
    tail = rng.choice(("", "", "", " now", " slowly"))
    return lead + _TELLERS[story.kind](story, rng, backwards) + tail


def _tell_move(story: Story, rng: Random, backwards: bool) -> str:
    axis, lane = story.details
    first, last = _AXES[axis][::-1] if backwards else _AXES[axis]
    does = rng.choice((captions.move(last, rng), f"moves from the {first} to the {last}"))
    where = f" {captions.place(lane, rng)}" if lane else ""
    what = thing(story.things[0])
    return rng.choice((f"{what}{where} {does}", f"{where.strip()} {what} {does}")).strip()


def _tell_state(story: Story, rng: Random, backwards: bool) -> str:
    return _clause(story.things[0], story.kind, story.details[0], rng, backwards)


def _clause(concept: int, motion: str, place: str, rng: Random, backwards: bool) -> str:
    where = f" {captions.place(place, rng)}" if place else ""
    if motion == "vertical":
        return f"{thing(concept)}{where} {captions.move('top' if backwards else 'bottom', rng)}"
    first, last = _STATES[motion][::-1] if backwards else _STATES[motion]
    what = thing(concept, first) if rng.random() < 0.25 else thing(concept)
    return f"{what}{where} {captions.change(last, rng)}"


def _tell_leave(story: Story, rng: Random, backwards: bool) -> str:
    side, what = story.details[0], thing(story.things[0])
    if backwards:
        where = f"{'on' if side in ('left', 'right') else 'at'} the {side}"
        return f"{what} appears {where} and {rng.choice(('moves', 'goes'))} to the middle"
    return f"{what} {captions.move(side, rng)} and disappears"


def _tell_then(story: Story, rng: Random, backwards: bool) -> str:
    a, b = (thing(c) for c in (story.things[::-1] if backwards else story.things))
    place = story.details[0]
    where = f" {captions.place(place, rng)}" if place else ""
    return rng.choice((f"first {a}, then {b}", f"{a} and then {b}", f"{a} then {b}", f"first {a} and then {b}")) + where


def _tell_together(story: Story, rng: Random, backwards: bool) -> str:
    opposite = story.details[2] == "opposite"
    a = _clause(story.things[0], story.details[0], "left", rng, backwards)
    b = _clause(story.things[1], story.details[1], "right", rng, backwards != opposite)
    if rng.random() < 0.5:
        a, b = b, a
    return f"{a}{rng.choice((' while ', ' and '))}{b}"


_TELLERS: dict[str, Callable[[Story, Random, bool], str]] = {
    "move": _tell_move, "resize": _tell_state, "fade": _tell_state, "turn": _tell_state, "leave": _tell_leave,
    "then": _tell_then, "together": _tell_together,
}  # fmt: skip
