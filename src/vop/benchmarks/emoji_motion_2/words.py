"""Wordings of the second built-in world, for the pictures of `mini-2`'s pre-training and for videos alike.

A backbone can only distinguish facts whose words it has learned. So each wording of a video caption also describes
pictures: movements with trails, and changes in two panels, before and after.
"""

from __future__ import annotations

from random import Random

from vop.benchmarks.artwork import CONCEPTS
from vop.benchmarks.captions import article, place, plural

DIRECTIONS = ("left", "right", "up", "down")
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # in pictures, y grows downwards
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SIDES = {"left": "left", "right": "right", "up": "top", "down": "bottom"}  # the side that a direction leads to
CHANGES = ("grow", "shrink", "appear", "vanish", "flip", "stand")
REVERSED = {
    "grow": "shrink", "shrink": "grow", "appear": "vanish", "vanish": "appear", "flip": "stand", "stand": "flip",
}  # fmt: skip
NUMBERS = ("one", "two", "three", "four")

_MOVES = {
    "left": ("moves left", "moves to the left", "goes to the left", "slides left", "drifts to the left", "runs left"),
    "right": (
        "moves right", "moves to the right", "goes to the right", "slides right", "drifts to the right", "runs right",
    ),
    "up": ("moves up", "goes up", "moves to the top", "rises", "climbs", "flies up"),
    "down": ("moves down", "goes down", "moves to the bottom", "falls", "sinks", "drops down"),
}  # fmt: skip
_CHANGES = {
    "grow": ("grows", "gets big", "becomes big", "gets bigger", "becomes large"),
    "shrink": ("shrinks", "gets small", "becomes small", "gets smaller", "becomes tiny"),
    "appear": ("appears", "shows up", "fades in", "comes into view"),
    "vanish": ("disappears", "vanishes", "fades away", "goes out of view"),
    "flip": ("turns over", "turns upside down", "flips over"),
    "stand": ("stands up", "turns upright", "flips back up"),
}
_ORDERS = (
    "first {a}, then {b}", "{a} and then {b}", "{a}, then {b}", "{a} followed by {b}", "{a} before {b}",
    "{b} after {a}", "{b} follows {a}", "{a} turns into {b}", "at the start {a}, at the end {b}",
    "{a}, and after that {b}",
)  # fmt: skip
_BESIDE = (
    "{a} left of {b}", "{a} to the left of {b}", "{b} right of {a}", "{b} to the right of {a}",
    "{a} on the left and {b} on the right", "{b} on the right and {a} on the left",
)  # fmt: skip
_ABOVE = (
    "{a} above {b}", "{a} over {b}", "{b} below {a}", "{b} under {a}", "{a} at the top and {b} at the bottom",
    "{b} at the bottom and {a} at the top",
)  # fmt: skip
_NOUN_LEADS = (
    "", "", "", "", "a picture of ", "a video of ", "a clip with ", "there is ", "we see ", "here is ", "this shows ",
    "in this video there is ", "a short clip of ",
)  # fmt: skip
_CLAUSE_LEADS = ("", "", "", "", "in this video ", "in this clip ", "in this picture ", "a clip: ", "here ")
_BEHIND = (" on a {} background", " on {}", " in front of {}", ", {} background", ", and the background is {}")
_ASIDES = (
    "it is a short clip", "this was made with stickers", "nothing else happens", "it is only a small picture",
    "somebody made it for fun", "look at it closely", "that is all", "the sound is off", "it is an old recording",
    "this is not a photo", "we have seen this before", "it does not take long", "everyone can see it",
)  # fmt: skip
_OPENINGS = (
    "for the record, ", "caption: ", "description of the scene: ", "as you can see, ", "this is what happens: ",
    "the next one, please: ", "a viewer writes: ", "once again ", "now ", "today ", "title: ", "answer: ",
)  # fmt: skip


def move(direction: str, rng: Random) -> str:
    """Return one of the wordings of moving in a direction, such as "moves to the left"."""
    return rng.choice(_MOVES[direction])


def change(kind: str, rng: Random) -> str:
    """Return one of the wordings of a change, one of `CHANGES`."""
    return rng.choice(_CHANGES[kind])


def many(concept: int, number: int) -> str:
    """Return `number` things of a kind, such as "three cats" or "a cat"."""
    return article(CONCEPTS[concept]) if number == 1 else f"{NUMBERS[number - 1]} {plural(CONCEPTS[concept])}"


def does(what: str, verb: str, rng: Random, *, where: str = "") -> str:
    """Return a clause in which a thing, at a named place or anywhere, does something."""
    spot = place(where, rng) if where else ""
    if not spot:
        return f"{what} {verb}"
    return rng.choice((f"{what} {spot} {verb}", f"{spot} {what} {verb}"))


def travels(what: str, direction: str, rng: Random, *, where: str = "") -> str:
    """Return a clause in which a thing moves in a direction, sometimes with the start."""
    if rng.random() < 0.25:
        start, end = SIDES[OPPOSITE[direction]], SIDES[direction]
        verb = rng.choice((f"moves from the {start} to the {end}", f"goes from {start} to {end}"))
        return does(what, verb, rng, where=where)
    return does(what, move(direction, rng), rng, where=where)


def in_order(first: str, last: str, rng: Random) -> str:
    """Return a phrase about one thing and then another."""
    return rng.choice(_ORDERS).format(a=first, b=last)


def beside(first: str, second: str, relation: str, rng: Random) -> str:
    """Return a phrase about two things; the first is left of the second, or above it (`relation` "left" or "above")."""
    return rng.choice(_BESIDE if relation == "left" else _ABOVE).format(a=first, b=second)


def listed(things: list[str], rng: Random) -> str:
    """Return a phrase about things in any order: "a cat, two dogs and a car"."""
    things = rng.sample(things, len(things))
    if len(things) == 1:
        return things[0]
    joint = rng.choice((" and ", " with ", " and ")) if len(things) == 2 else " and "
    return ", ".join(things[:-1]) + joint + things[-1]


def sentence(phrase: str, rng: Random, *, clause: bool, behind: str | None = None) -> str:
    """Return a caption of a phrase with one of the usual beginnings.

    Args:
        clause: whether the phrase has a verb ("a cat grows"), so that "there is" cannot precede it.
        behind: the colour of the background, where the caption mentions it.
    """
    lead = rng.choice(_CLAUSE_LEADS if clause else _NOUN_LEADS)
    return lead + phrase + (rng.choice(_BEHIND).format(behind) if behind else "")


def with_opening(caption: str, rng: Random) -> str:
    """Return a caption after a few words that say nothing about the picture."""
    return rng.choice(_OPENINGS) + caption


def among_asides(caption: str, rng: Random, *, count: int) -> str:
    """Return several sentences: the caption and `count` others that say nothing about the picture, in any order."""
    sentences = [caption, *rng.sample(_ASIDES, count)]
    rng.shuffle(sentences)
    return rng.choice((". ", ". ", ", ")).join(sentences)
